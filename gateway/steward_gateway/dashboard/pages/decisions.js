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
  const columns = mayAs("admin", "user") ? [...WAITING, { title: "Decide", number: true, cell: (request) => html`<div class="actions"><${Decide} request=${request} decided=${again} /></div>` }] : WAITING;
  return html`<${Card} title="Waiting for a decision"><${Table} label="Budget requests" columns=${columns} rows=${data.budget_requests} id="id" /><//>`;
}

/** How much, and for how long if that is not for good. @param {{request: BudgetRequest}} given */
export function Asked({ request: { requested_budget_usd, expires_in_s } }) {
  return html`${money(requested_budget_usd)}${expires_in_s ? html` <span class="quiet">for ${duration(Number(expires_in_s))}</span>` : null}`;
}

/** What may be done with a request that waits: administrators decide, and whoever made it may take it back. @param {{request: BudgetRequest, decided: () => void}} given */
export function Decide({ request, decided }) {
  if (mayAs("admin")) return html`<${Review} request=${request} decided=${decided} />`;
  if (request.requester_id !== person.get()?.id) return null;
  const takeBack = async () => {
    await remove("/api/v1/budget/requests/{budget_request_id}", { path: { budget_request_id: request.id } });
    say("It is taken back.");
    decided();
  };
  return html`<${ActionButton} act=${takeBack}>Take it back<//>`;
}

/** @param {{request: BudgetRequest, decided: () => void}} given */
function Review({ request, decided }) {
  const path = { budget_request_id: request.id };
  const name = request.agent_name;
  return html`
    <${DialogButton} label="Approve" title=${`Raise the budget of ${name}`} class="plain">
      ${(/** @type {() => void} */ close) => html`
        <p>Its budget is ${money(request.agent_budget?.limit_usd ?? request.current_budget_usd)}, and <${Asked} request=${request} /> is asked for.</p>
        <p class="quiet">${request.justification}</p>
        <${Form}
          submit="Raise it"
          cancel=${close}
          fields=${[
            { name: "approved_budget_usd", label: "New budget, in dollars", type: "number", value: request.requested_budget_usd, required: true, hint: "May be less than what is asked for.", attributes: { min: 0 } },
            { name: "review_notes", label: "A word about it", type: "textarea", rows: 2 },
          ]}
          send=${(/** @type {Record<string, string>} */ { approved_budget_usd, review_notes }) =>
            patch("/api/v1/budget/requests/{budget_request_id}/approve", { path, body: { approved_budget_usd: Number(approved_budget_usd), review_notes: review_notes ?? "" } })}
          done=${() => {
            close();
            say(`The budget of ${name} is raised.`);
            decided();
          }} />`}
    <//>
    <${DialogButton} label="Reject" title=${`Leave the budget of ${name} as it is`} class="plain">
      ${(/** @type {() => void} */ close) => html`
        <p>It asks for <${Asked} request=${request} />, and keeps ${money(request.agent_budget?.limit_usd ?? request.current_budget_usd)}.</p>
        <p class="quiet">${request.justification}</p>
        <${Form}
          submit="Reject it"
          cancel=${close}
          fields=${[{ name: "rejection_reason", label: "Why?", type: "textarea", rows: 3, required: true, hint: "At least 20 characters. Whoever asked reads it." }]}
          send=${(/** @type {Record<string, string>} */ { rejection_reason }) =>
            patch("/api/v1/budget/requests/{budget_request_id}/reject", { path, body: { rejection_reason: rejection_reason ?? "" } })}
          done=${() => {
            close();
            decided();
          }} />`}
    <//>`;
}
