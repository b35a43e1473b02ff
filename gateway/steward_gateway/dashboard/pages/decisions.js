// Budget requests, and deciding over them, wherever they are shown.
import { html } from "../vendor/preact.js";
import { get, patch, remove } from "../api.js";
import { useLoad } from "../load.js";
import { DialogButton } from "../parts/dialogs.js";
import { duration, money } from "../parts/figures.js";
import { ActionButton, Form } from "../parts/forms.js";
import { Card } from "../parts/layout.js";
import { say } from "../parts/notes.js";
import { Table } from "../parts/tables.js";
import { mayAs, person } from "../session.js";

/** @typedef {import("../api.js").Schemas["requests.v1.BudgetRequest.Output"]} BudgetRequest */

/** @type {import("../parts/tables.js").Column<BudgetRequest>[]} */
const WAITING = [
  { title: "Agent", cell: ({ agent_id, agent_name }) => html`<a href=${`/agents/${agent_id}`}>${agent_name}</a>` },
  { title: "Asks for", number: true, cell: (request) => html`<${Asked} request=${request} />` },
  { title: "Why", cell: ({ justification }) => justification },
];

/** The requests that nobody has decided over yet, if there are any. @param {{most: number, decided?: () => void}} given */
export function Waiting({ most, decided }) {
  const { data, reload } = useLoad((signal) => get("/api/v1/budget/requests", { query: { status: "pending", page_size: most }, signal }), [], {
    on: ["BudgetRequested", "BudgetReviewed"],
  });
  if (!data?.budget_requests.length) return null;
  const again = () => {
    reload();
    decided?.();
  };
  /** @type {import("../parts/tables.js").Column<BudgetRequest>[]} */
  const columns = mayAs("admin", "user") ? [...WAITING, { title: "Decide", number: true, cell: (request) => html`<${Decide} request=${request} decided=${again} />` }] : WAITING;
  return html`<${Card} title="Waiting for a decision"><${Table} label="Budget requests" columns=${columns} rows=${data.budget_requests} id="id" empty=${null} /><//>`;
}

/** How much, and for how long if that is not for good. @param {{request: BudgetRequest}} given */
export function Asked({ request: { requested_budget_usd, expires_in_s } }) {
  return html`${money(requested_budget_usd)}${expires_in_s ? html` <span class="quiet">for ${duration(Number(expires_in_s))}</span>` : null}`;
}

/**
 * What may be done with a request that waits. Administrators decide, and may take back any; whoever made it may take it
 * back, also if an agent of theirs did.
 * @param {{request: BudgetRequest, decided: () => void}} given
 */
export function Decide({ request, decided }) {
  // Who is no administrator is shown the requests of their own agents alone.
  const mayTakeBack = mayAs("admin") || request.requester_kind === "agent" || request.requester_id === person.get()?.id;
  const takeBack = async () => {
    await remove("/api/v1/budget/requests/{budget_request_id}", { path: { budget_request_id: request.id } });
    say("It is taken back.");
    decided();
  };
  // Over what they asked for themselves only a sole administrator decides; who is one, the server knows.
  return html`
    <div class="actions">
      ${mayAs("admin") ? html`<${Approve} request=${request} decided=${decided} /><${Reject} request=${request} decided=${decided} />` : null}
      ${mayTakeBack ? html`<${ActionButton} act=${takeBack}>Take it back<//>` : null}
    </div>`;
}

/** @param {BudgetRequest} request */
const budgetOf = ({ agent_budget, current_budget_usd }) => money(agent_budget?.limit_usd ?? current_budget_usd);

/** @param {{request: BudgetRequest, decided: () => void}} given */
function Approve({ request, decided }) {
  const { id, agent_name, justification, requested_budget_usd } = request;
  /** @param {Record<string, string>} values */
  const approve = ({ approved_budget_usd, review_notes = "" }) => {
    const body = { approved_budget_usd: Number(approved_budget_usd), review_notes };
    return patch("/api/v1/budget/requests/{budget_request_id}/approve", { path: { budget_request_id: id }, body });
  };
  return html`
    <${DialogButton} label="Approve" title=${`Raise the budget of ${agent_name}`} class="plain">${(/** @type {() => void} */ close) => html`
      <p>Its budget is ${budgetOf(request)}, and <${Asked} request=${request} /> is asked for.</p>
      <p class="quiet">${justification}</p>
      <${Form} submit="Raise it" send=${approve} cancel=${close} done=${() => (close(), say(`The budget of ${agent_name} is raised.`), decided())} fields=${[
        { name: "approved_budget_usd", label: "New budget, in dollars", type: "number", value: requested_budget_usd, required: true, hint: "May be less than what is asked for.", attributes: { min: 0 } },
        { name: "review_notes", label: "A word about it", type: "textarea", rows: 2 },
      ]} />`}<//>`;
}

/** @param {{request: BudgetRequest, decided: () => void}} given */
function Reject({ request, decided }) {
  const { id, agent_name, justification } = request;
  /** @param {Record<string, string>} values */
  const reject = ({ rejection_reason = "" }) =>
    patch("/api/v1/budget/requests/{budget_request_id}/reject", { path: { budget_request_id: id }, body: { rejection_reason } });
  return html`
    <${DialogButton} label="Reject" title=${`Leave the budget of ${agent_name} as it is`} class="plain">${(/** @type {() => void} */ close) => html`
      <p>It asks for <${Asked} request=${request} />, and keeps ${budgetOf(request)}.</p>
      <p class="quiet">${justification}</p>
      <${Form} submit="Reject it" send=${reject} cancel=${close} done=${() => (close(), decided())} fields=${[
        { name: "rejection_reason", label: "Why?", type: "textarea", rows: 3, required: true, hint: "At least 20 characters. Whoever asked reads it." },
      ]} />`}<//>`;
}
