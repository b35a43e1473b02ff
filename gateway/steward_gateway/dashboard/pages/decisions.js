// Deciding over a budget request, wherever it is shown.
import { html } from "../vendor/preact.js";
import { patch } from "../api.js";
import { DialogButton } from "../parts/dialogs.js";
import { money } from "../parts/figures.js";
import { Form } from "../parts/forms.js";

/** @typedef {import("../api.js").Schemas["requests.v1.BudgetRequest.Output"]} BudgetRequest */

/** Buttons that approve or reject a request. @param {{request: BudgetRequest, decided: () => void}} given */
export function Decide({ request, decided }) {
  const path = { budget_request_id: request.id };
  const name = request.agent_name;
  return html`
    <${DialogButton} label="Approve" title=${`Raise the budget of ${name}`} class="plain">
      ${(/** @type {() => void} */ close) => html`
        <p>Its budget is ${money(request.current_budget_usd)}, and ${money(request.requested_budget_usd)} is asked for.</p>
        <${Form}
          submit="Raise it"
          cancel=${close}
          fields=${[
            { name: "approved_budget_usd", label: "New budget, in dollars", type: "number", value: request.requested_budget_usd, required: true, hint: "May be less than what is asked for." },
            { name: "review_notes", label: "A word about it", type: "textarea", rows: 2 },
          ]}
          send=${(/** @type {Record<string, string>} */ { approved_budget_usd, review_notes }) =>
            patch("/api/v1/budget/requests/{budget_request_id}/approve", { path, body: { approved_budget_usd: Number(approved_budget_usd), review_notes: review_notes ?? "" } })}
          done=${() => {
            close();
            decided();
          }} />`}
    <//>
    <${DialogButton} label="Reject" title=${`Leave the budget of ${name} as it is`} class="plain">
      ${(/** @type {() => void} */ close) => html`
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
