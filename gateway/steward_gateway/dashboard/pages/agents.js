// Agents: what each may spend, and what it does with it.
import { html } from "../vendor/preact.js";
import { get, post } from "../api.js";
import { useLoad } from "../load.js";
import { DialogButton } from "../parts/dialogs.js";
import { Ago, BudgetBar, State, money, used } from "../parts/figures.js";
import { Field, Form } from "../parts/forms.js";
import { Card, Head } from "../parts/layout.js";
import { Empty, Shown, say } from "../parts/notes.js";
import { CsvButton, Table } from "../parts/tables.js";
import { go, setQuery } from "../router.js";
import { mayAs } from "../session.js";
import { Agent } from "./agents/agent.js";
import { choicesOf, useChoices } from "./agents/choices.js";
import { Waiting } from "./decisions.js";

/** @typedef {import("../api.js").Schemas["agents.v1.Agent"]} AgentRow */

const MOST_WAITING = 20;
const STATES = ["running", "idle", "stopping", "stopped", "failed"];

/** @type {import("../parts/tables.js").Column<AgentRow>[]} */
const COLUMNS = [
  { title: "Agent", cell: ({ id, name }) => html`<a href=${`/agents/${id}`}>${name}</a>`, value: ({ name }) => name },
  { title: "State", cell: ({ status }) => html`<${State} state=${status} />`, value: ({ status }) => status },
  { title: "Budget", cell: ({ name, budget }) => html`<${BudgetBar} label=${`Budget of ${name}`} spent=${used(budget)} lent=${budget?.reserved_usd ?? 0} limit=${budget?.limit_usd ?? null} />` },
  { title: "Spent", number: true, cell: ({ budget }) => money(used(budget)), value: ({ budget }) => used(budget) },
  { title: "Limit", number: true, cell: ({ budget }) => money(budget?.limit_usd), value: ({ budget }) => budget?.limit_usd },
  { title: "Provider", cell: ({ provider }) => provider || "any", value: ({ provider }) => provider },
  { title: "Last seen", cell: ({ last_seen_at }) => html`<${Ago} time=${last_seen_at} />`, value: ({ last_seen_at }) => last_seen_at },
];

/** @param {import("../main.js").PageGiven} given */
export function Page({ segments, query }) {
  const [id] = segments;
  return id ? html`<${Agent} key=${id} id=${id} />` : html`<${Agents} query=${query} />`;
}

/** @param {{query: URLSearchParams}} given */
function Agents({ query }) {
  const project = query.get("project") ?? "";
  const search = query.get("search") ?? "";
  const state = query.get("state") ?? "";
  const agents = useLoad((signal) => get("/api/v1/agents", { query: { page_size: 1000, project_id: project }, signal }), [project], {
    on: ["AgentStarted", "AgentStopped", "CostUpdate", "BudgetChanged"],
    everyS: 60,
  });
  /** @param {AgentRow} agent */
  const isWanted = ({ name, status }) => name.toLowerCase().includes(search.toLowerCase()) && (!state || status === state);
  const shown = (agents.data?.agents ?? []).filter(isWanted);
  const isFiltered = project || search || state;
  const empty = isFiltered
    ? html`<${Empty} title="No agent is like that."><p><a href="/agents">Show all agents</a></p><//>`
    : html`<${Empty} title="No agents yet."><p>${mayAs("admin") ? "Create one: it gets a budget, and a token that its runtime shows." : "An administrator can create one for you."}</p><//>`;
  return html`
    <${Head} title="Agents">
      <${CsvButton} name="agents.csv" columns=${COLUMNS} rows=${shown} />
      ${mayAs("admin") ? html`<${Create} />` : null}
    <//>
    <form class="filters" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()} onInput=${(/** @type {Event} */ event) => {
      const { name, value } = /** @type {HTMLInputElement} */ (event.target);
      setQuery({ [name]: value });
    }}>
      <${Field} name="search" label="Name" type="search" attributes=${{ value: search }} />
      <${Field} name="state" label="State" type="select" options=${[["", "any"], ...STATES]} value=${state} />
      ${project ? html`<a href="/agents">of one project: show all</a>` : null}
    </form>
    <${Waiting} most=${MOST_WAITING} decided=${agents.reload} />
    <${Card}><${Shown} of=${agents}>${() => html`<${Table} label="Agents" columns=${COLUMNS} rows=${shown} id="id" empty=${empty} />`}<//><//>`;
}

function Create() {
  return html`<${DialogButton} label="New agent" title="New agent">${(/** @type {() => void} */ close) => html`<${CreateForm} close=${close} />`}<//>`;
}

/** @param {{close: () => void}} given */
function CreateForm({ close }) {
  const choices = useChoices();
  /** @param {Record<string, string>} values */
  const create = async ({ name = "", budget_usd, budget_period, provider, project_id }) => {
    const body = { name, budget_usd: Number(budget_usd), budget_period: /** @type {any} */ (budget_period), provider, project_id };
    const { id } = await post("/api/v1/agents", { body });
    say(`${name} is there. Its runtime needs a token.`);
    go(`/agents/${id}`);
  };
  return html`
    <${Form} submit="Create it" send=${create} done=${close} cancel=${close} fields=${[
      { name: "name", label: "Name", required: true },
      { name: "budget_usd", label: "Budget, in dollars", type: "number", required: true, attributes: { min: 0 } },
      ...choicesOf(choices),
    ]} />`;
}
