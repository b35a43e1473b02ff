// Budget requests, and deciding over them, wherever they are shown.
import { html, useState } from "../vendor/preact.js";
import { get, patch, remove } from "../api.js";
import { useLoad } from "../load.js";
import { Dialog } from "../parts/dialogs.js";
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

/** A request that is being decided over, as it was when that began. @typedef {{verb: "approve" | "reject", request: BudgetRequest}} Deciding */

/** The requests that nobody has decided over yet, if there are any. @param {{most: number, decided?: () => void}} given */
export function Waiting({ most, decided }) {
  const { data, reload } = useLoad((signal) => get("/api/v1/budget/requests", { query: { status: "pending", page_size: most }, signal }), [], {
    on: ["BudgetRequested", "BudgetReviewed"],
  });
  const [deciding, setDeciding] = useState(/** @type {Deciding | null} */ (null));
  if (!data?.budget_requests.length && !deciding) return null;
  const again = () => {
    reload();
    decided?.();
  };
  /** @type {import("../parts/tables.js").Column<BudgetRequest>[]} */
  const columns = mayAs("admin", "user") ? [...WAITING, { title: "Decide", number: true, cell: (request) => html`<div class="actions"><${Choices} request=${request} decided=${again} decide=${setDeciding} /></div>` }] : WAITING;
  // Above the table: a row goes when newer ones push it out, and would take a dialog of its own along.
  return html`
    ${deciding ? html`<${Decision} of=${deciding} close=${() => setDeciding(null)} decided=${again} />` : null}
    <${Card} title="Waiting for a decision"><${Table} label="Budget requests" columns=${columns} rows=${data?.budget_requests ?? []} id="id" empty=${null} /><//>`;
}

/** How much, and for how long if that is not for good. @param {{request: BudgetRequest}} given */
export function Asked({ request: { requested_budget_usd, expires_in_s } }) {
  return html`${money(requested_budget_usd)}${expires_in_s ? html` <span class="quiet">for ${duration(Number(expires_in_s))}</span>` : null}`;
}

/** What may be done with a request that waits, with its dialog. @param {{request: BudgetRequest, decided: () => void}} given */
export function Decide({ request, decided }) {
  const [deciding, setDeciding] = useState(/** @type {Deciding | null} */ (null));
  return html`
    <${Choices} request=${request} decided=${decided} decide=${setDeciding} />
    ${deciding ? html`<${Decision} of=${deciding} close=${() => setDeciding(null)} decided=${decided} />` : null}`;
}

/**
 * Administrators decide, and may take back any; whoever made it may take it back, also if an agent of theirs did.
 * @param {{request: BudgetRequest, decided: () => void, decide: (deciding: Deciding) => void}} given
 */
function Choices({ request, decided, decide }) {
  // Who is no administrator is shown the requests of their own agents alone.
  const mayTakeBack = mayAs("admin") || request.requester_kind === "agent" || request.requester_id === person.get()?.id;
  const takeBack = async () => {
    await remove("/api/v1/budget/requests/{budget_request_id}", { path: { budget_request_id: request.id } });
    say("It is taken back.");
    decided();
  };
  // Over what they asked for themselves only a sole administrator decides; who is one, the server knows.
  return html`
    ${mayAs("admin") ? html`
      <button type="button" class="plain" onClick=${() => decide({ verb: "approve", request })}>Approve</button>
      <button type="button" class="plain" onClick=${() => decide({ verb: "reject", request })}>Reject</button>` : null}
    ${mayTakeBack ? html`<${ActionButton} act=${takeBack}>Take it back<//>` : null}`;
}

/** @param {{of: Deciding, close: () => void, decided: () => void}} given */
function Decision({ of: { verb, request }, close, decided }) {
  const path = { budget_request_id: request.id };
  const name = request.agent_name;
  const budget = money(request.agent_budget?.limit_usd ?? request.current_budget_usd);
  if (verb === "reject") {
    return html`
      <${Dialog} title=${`Leave the budget of ${name} as it is`} close=${close}>
        <p>It asks for <${Asked} request=${request} />, and keeps ${budget}.</p>
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
          }} />
      <//>`;
  }
  return html`
    <${Dialog} title=${`Raise the budget of ${name}`} close=${close}>
      <p>Its budget is ${budget}, and <${Asked} request=${request} /> is asked for.</p>
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
        }} />
    <//>`;
}
