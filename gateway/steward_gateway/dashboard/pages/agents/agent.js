// One agent: its money, its calls, its tokens, and what may be done with it.
import { html } from "../../vendor/preact.js";
import { get, patch, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, DialogButton } from "../../parts/dialogs.js";
import { Ago, BudgetBar, Figure, State, count, money, used } from "../../parts/figures.js";
import { ActionButton, Form } from "../../parts/forms.js";
import { Card, Facts, Head } from "../../parts/layout.js";
import { Empty, ErrorNote, Loading, Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { go } from "../../router.js";
import { mayAs } from "../../session.js";
import { Asked, Decide } from "../decisions.js";
import { choicesOf, useChoices } from "./choices.js";
import { Tokens } from "./tokens.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["agents.v1.Agent"]} AgentRow */
/** @typedef {Schemas["requests.v1.BudgetRequest.Output"]} BudgetRequest */
/** @typedef {Schemas["requests.v1.BudgetChange"]} BudgetChange */
/** @typedef {Schemas["analytics.v1.Trace"]} Trace */

const MONEY = ["CostUpdate", "AgentStarted", "AgentStopped", "BudgetChanged", "BudgetReviewed"];

/** @param {{id: string}} given */
export function Agent({ id }) {
  const path = { agent_id: id };
  const agent = useLoad((signal) => get("/api/v1/agents/{agent_id}", { path, signal }), [id], { on: MONEY, of: id, everyS: 60 });
  if (!agent.data) return agent.error ? html`<${Head} title="Agent" within=${[["/agents", "Agents"]]} /><${ErrorNote} error=${agent.error} retry=${agent.reload} />` : html`<${Loading} />`;
  const { name, status, desired_state, budget, provider, created_at, last_seen_at } = agent.data;
  const isStopped = desired_state === "stopped";
  return html`
    <${Head} title=${name} within=${[["/agents", "Agents"]]} beside=${html`<${State} state=${status} />`}>
      ${mayAs("admin", "user") ? html`
        ${isStopped
          ? html`<${ActionButton} act=${async () => (await post("/api/agents/{agent_id}/start", { path, body: {} }), agent.reload())}>Let it run again<//>`
          : html`<${ConfirmButton} label="Stop" title=${`Stop ${name}`} question=${html`<p>It is told to end, its leases are taken back, and it may borrow no more until it is let run again.</p>`}
              fields=${[{ name: "reason", label: "Why?", hint: "It stands in the audit log." }]}
              act=${(/** @type {Record<string, string>} */ { reason }) => post("/api/agents/{agent_id}/stop", { path, body: { reason: reason ?? "" } })} done=${agent.reload} />`}
        <${Ask} agent=${agent.data} />` : null}
      ${mayAs("admin") ? html`<${Change} agent=${agent.data} reload=${agent.reload} /><${Delete} agent=${agent.data} />` : null}
    <//>
    <div class="figures">
      <${Figure} label="Budget" value=${money(budget?.limit_usd)} more=${budget?.period === "none" ? "for good" : `each ${budget?.period}`} />
      <${Figure} label="Spent" value=${money(used(budget))} more=${html`${count(budget?.percent_used)} %${budget?.overrun_usd ? `, ${money(budget.overrun_usd)} of it above what was lent` : ""} · <a href=${`/spending?agent_id=${id}`}>on what</a>`} />
      <${Figure} label="Lent just now" value=${money(budget?.reserved_usd)} more="held by its runtime" />
      <${Figure} label="Left" value=${money(budget?.available_usd)} tone=${budget?.state === "exhausted" ? "bad" : "plain"} more=${budget?.state === "exhausted" ? "nothing can be lent" : "could be lent"} />
    </div>
    <${Requests} id=${id} decided=${agent.reload} />
    <div class="cards">
      <${Budgets} id=${id} />
      <${Card} title="What it is"><${Facts} of=${[
        ["Id", html`<code>${id}</code>`],
        ["Provider", provider || "any"],
        ["Created", html`<${Ago} time=${created_at} />`],
        ["Last seen", html`<${Ago} time=${last_seen_at} />`],
      ]} /><//>
    </div>
    <${History} id=${id} />
    ${mayAs("admin") ? html`<${Tokens} agent=${agent.data} />` : null}
    <${Calls} agent=${agent.data} />`;
}

/** @param {{agent: AgentRow, reload: () => void}} given */
function Change({ agent, reload }) {
  return html`
    <${DialogButton} label="Change" title=${`Change ${agent.name}`} class="plain">${(/** @type {() => void} */ close) => html`
      <${ChangeForm} agent=${agent} close=${close} done=${() => (close(), reload(), say("It is changed."))} />`}<//>`;
}

/** @param {{agent: AgentRow, close: () => void, done: () => void}} given */
function ChangeForm({ agent, close, done }) {
  const { id, name, provider, project_id, budget, version } = agent;
  const choices = useChoices();
  /** @param {Record<string, string>} values */
  const change = (values) => {
    const isOther = Number(values["budget_usd"]) !== budget?.limit_usd;
    const body = {
      name: values["name"],
      // A budget that is set is for good, and ends a raise for a while: only what was changed is set.
      ...(isOther ? { budget_usd: Number(values["budget_usd"]), budget_reason: values["budget_reason"] ?? "" } : {}),
      ...(values["budget_period"] === budget?.period ? {} : { budget_period: /** @type {any} */ (values["budget_period"]) }),
      provider: values["provider"] ?? "",
      project_id: values["project_id"] ?? "",
      expected_version: version,
    };
    return patch("/api/v1/agents/{agent_id}", { path: { agent_id: id }, body });
  };
  return html`
    <${Form} submit="Change it" send=${change} cancel=${close} done=${done} fields=${[
      { name: "name", label: "Name", required: true, value: name },
      { name: "budget_usd", label: "Budget, in dollars", type: "number", required: true, value: budget?.limit_usd ?? 0, attributes: { min: 0 } },
      { name: "budget_reason", label: "Why?", hint: "It stands in the history of its budget." },
      ...choicesOf(choices, { budget_period: budget?.period, provider, project_id }),
    ]} />`;
}

/** @param {{agent: AgentRow}} given */
function Delete({ agent: { id, name, version } }) {
  return html`<${ConfirmButton} label="Delete" title=${`Delete ${name}`} question=${html`<p>Its tokens are refused from now on. What it spent stays in the books.</p>`}
    act=${() => remove("/api/v1/agents/{agent_id}", { path: { agent_id: id }, query: { expected_version: version } })} done=${() => (say(`${name} is deleted.`), go("/agents"))} />`;
}

/** @param {{agent: AgentRow}} given */
function Ask({ agent: { id, name, budget } }) {
  /** @param {Record<string, string>} values */
  const ask = ({ requested_budget_usd, justification = "", hours }) => {
    const body = { agent_id: id, requested_budget_usd: Number(requested_budget_usd), justification, expires_in_s: hours ? Math.round(Number(hours) * 3600) : undefined };
    return post("/api/v1/budget/requests", { body });
  };
  return html`
    <${DialogButton} label="Ask for more" title=${`A larger budget for ${name}`} class="plain">${(/** @type {() => void} */ close) => html`
      <p class="quiet">It has ${money(budget?.limit_usd)}. An administrator decides.</p>
      <${Form} submit="Ask" send=${ask} cancel=${close} done=${() => (close(), say("It is asked for."))} fields=${[
        { name: "requested_budget_usd", label: "New budget, in dollars", type: "number", required: true, attributes: { min: 0 } },
        { name: "justification", label: "Why?", type: "textarea", rows: 3, required: true, hint: "At least 20 characters." },
        { name: "hours", label: "For how many hours", type: "number", hint: "Empty: for good.", attributes: { min: 0 } },
      ]} />`}<//>`;
}

/** @param {{id: string, decided: () => void}} given */
function Requests({ id, decided }) {
  const requests = useLoad((signal) => get("/api/v1/budget/requests", { query: { agent_id: id, page_size: 10 }, signal }), [id], { on: ["BudgetRequested", "BudgetReviewed"], of: id });
  const again = () => (requests.reload(), decided());
  /** @type {import("../../parts/tables.js").Column<BudgetRequest>[]} */
  const columns = [
    { title: "Asks for", cell: (request) => html`<${Asked} request=${request} />` },
    { title: "Why", cell: ({ justification, rejection_reason, review_notes }) => html`${justification}${[rejection_reason, review_notes].filter(Boolean).map((word) => html`<br /><span class="quiet">${word}</span>`)}` },
    { title: "By", cell: ({ requester_name, requester_kind }) => requester_name || requester_kind },
    { title: "When", cell: ({ created_at }) => html`<${Ago} time=${created_at} />` },
    { title: "State", cell: ({ status, approved_budget_usd }) => html`<${State} state=${status} />${approved_budget_usd == null ? null : html` <span class="quiet">${money(approved_budget_usd)}</span>`}` },
    { title: "Decide", number: true, cell: (request) => (request.status === "pending" && mayAs("admin", "user") ? html`<${Decide} request=${request} decided=${again} />` : null) },
  ];
  if (!requests.data?.budget_requests.length) return null;
  return html`<${Card} title="Requests for a larger budget"><${Table} label="Requests" columns=${columns} rows=${requests.data.budget_requests} id="id" /><//>`;
}

/** @typedef {Schemas["projects.v1.GetAgentBudgetResponse"]} BudgetPath */

/** @type {import("../../parts/tables.js").Column<BudgetPath["path"][number]>[]} */
const BUDGETS = [
  { title: "Of", cell: ({ scope, name }) => html`${scope.split(":")[0]} <span class="quiet">${name}</span>` },
  { title: "Used", cell: ({ name, spent_usd, overrun_usd, reserved_usd, limit_usd }) => html`<${BudgetBar} label=${`Budget of ${name}`} spent=${used({ spent_usd, overrun_usd })} lent=${reserved_usd} limit=${limit_usd} />` },
  { title: "Left", number: true, cell: ({ available_usd }) => (available_usd === null ? "no limit" : money(available_usd)) },
];

/** @param {{id: string}} given */
function Budgets({ id }) {
  const budgets = useLoad((signal) => get("/api/v1/agents/{agent_id}/budget", { path: { agent_id: id }, signal }), [id], { on: ["CostUpdate", "BudgetChanged"] });
  return html`
    <${Card} title="What bounds it">
      <${Shown} of=${budgets}>${(/** @type {BudgetPath} */ { path }) => html`<${Table} label="Budgets" columns=${BUDGETS} rows=${path} id="scope" />`}<//>
      <p class="quiet">A budget warns where its bar has marks: at 50 %, 80 % and 95 %. Grey is lent.</p>
    <//>`;
}

/** @type {import("../../parts/tables.js").Column<BudgetChange>[]} */
const CHANGES = [
  { title: "When", cell: ({ changed_at }) => html`<${Ago} time=${changed_at} />` },
  { title: "From", number: true, cell: ({ old_budget_usd }) => money(old_budget_usd) },
  { title: "To", number: true, cell: ({ new_budget_usd }) => money(new_budget_usd) },
  { title: "Why", cell: ({ cause, reason }) => html`${(cause ?? "").replaceAll("_", " ")}${reason ? html` <span class="quiet">${reason}</span>` : null}` },
];

/** @param {{id: string}} given */
function History({ id }) {
  const history = useLoad((signal) => get("/api/v1/agents/{agent_id}/budget/history", { path: { agent_id: id }, query: { page_size: 20 }, signal }), [id], { on: ["BudgetChanged"] });
  if (!history.data?.changes.length) return null;
  return html`<${Card} title="Its budget so far"><${Table} label="Changes of the budget" columns=${CHANGES} rows=${history.data.changes} id="sequence" /><//>`;
}

/** @type {import("../../parts/tables.js").Column<Trace>[]} */
const CALLS = [
  { title: "When", cell: ({ recorded_at }) => html`<${Ago} time=${recorded_at} />` },
  { title: "Model", cell: ({ provider, model }) => html`${model} <span class="quiet">${provider}</span>` },
  { title: "State", cell: ({ status, error_code }) => html`<${State} state=${status} />${error_code ? html` <span class="quiet">${error_code}</span>` : null}` },
  { title: "Tokens", number: true, cell: ({ total_tokens }) => count(total_tokens) },
  { title: "Took", number: true, cell: ({ duration_ms }) => (duration_ms === null ? "–" : `${count(duration_ms)} ms`) },
  { title: "Cost", number: true, cell: ({ cost_usd }) => money(cost_usd) },
];

/** @param {{agent: AgentRow}} given */
function Calls({ agent: { id, name } }) {
  const calls = useLoad((signal) => get("/api/v1/traces", { query: { agent_id: id, page_size: 20 }, signal }), [id], { on: ["CostUpdate"], of: id });
  const empty = html`<${Empty} title="It has made no calls yet."><p>Run a script as this agent: <code>steward run --agent ${name} agent.py</code></p><//>`;
  return html`
    <${Card} title="Its newest calls">
      <${Shown} of=${calls}>${(/** @type {{traces: Trace[]}} */ { traces }) => html`<${Table} label="Calls" columns=${CALLS} rows=${traces} id="id" empty=${empty} />`}<//>
    <//>`;
}
