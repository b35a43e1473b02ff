// What was spent: over time, and by agent, provider and model.
import { html } from "../vendor/preact.js";
import { get } from "../api.js";
import { useLoad } from "../load.js";
import { Chart } from "../parts/chart.js";
import { Figure, count, money } from "../parts/figures.js";
import { Field } from "../parts/forms.js";
import { Card, Head } from "../parts/layout.js";
import { Empty, Shown } from "../parts/notes.js";
import { CsvButton, Table } from "../parts/tables.js";
import { setQuery } from "../router.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["analytics.v1.ListSpendingOverTimeResponse"]} OverTime */

/** The steps in which a period is drawn: enough to see a course, few enough to see each. @type {Record<string, {text: string, step: "minute" | "hour" | "day" | "week"}>} */
const PERIODS = {
  "last-hour": { text: "the last hour", step: "minute" },
  today: { text: "today", step: "hour" },
  "last-7-days": { text: "the last 7 days", step: "hour" },
  "last-30-days": { text: "the last 30 days", step: "day" },
};
const GROUPS = ["agent", "provider", "model"];

/** @param {import("../main.js").PageGiven} given */
export function Page({ query }) {
  const named = query.get("period") ?? "";
  const period = named in PERIODS ? named : "last-7-days";
  const group = GROUPS.find((each) => each === query.get("by")) ?? "agent";
  const filters = /** @type {any} */ ({ period, provider: query.get("provider") ?? "", model: query.get("model") ?? "" });
  const known = [period, group, filters.provider, filters.model];
  const when = { on: ["CostUpdate"], everyS: 60 };
  const overTime = useLoad(
    (signal) => get("/api/v1/analytics/spending/over-time", { query: { ...filters, step: PERIODS[period]?.step, group_by: /** @type {any} */ (group) }, signal }),
    known,
    when,
  );
  const byAgent = useLoad((signal) => get("/api/v1/analytics/spending/by-agent", { query: { ...filters, per_page: 100 }, signal }), known, when);
  const byProvider = useLoad((signal) => get("/api/v1/analytics/spending/by-provider", { query: { ...filters, per_page: 100 }, signal }), known, when);
  const byModel = useLoad((signal) => get("/api/v1/analytics/usage/models", { query: { ...filters, per_page: 100 }, signal }), known, when);
  return html`
    <${Head} title="Spending" />
    <form class="filters" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()} onChange=${(/** @type {Event} */ event) => {
      const { name, value } = /** @type {HTMLInputElement} */ (event.target);
      setQuery({ [name]: value.trim() });
    }}>
      <${Field} name="period" label="Period" type="select" value=${period} options=${Object.entries(PERIODS).map(([name, { text }]) => [name, text])} />
      <${Field} name="by" label="Drawn by" type="select" value=${group} options=${GROUPS} />
      <${Field} name="provider" label="Provider" value=${filters.provider} placeholder="openai" />
      <${Field} name="model" label="Model" value=${filters.model} placeholder="gpt-4o-mini" />
    </form>
    <${Shown} of=${overTime}>${(/** @type {OverTime} */ answer) => html`<${Course} of=${answer} text=${PERIODS[period]?.text ?? ""} />`}<//>
    <div class="cards">
      <${Part} title="By agent" loaded=${byAgent} columns=${AGENTS} id="agent_id" />
      <${Part} title="By provider" loaded=${byProvider} columns=${PROVIDERS} id="provider" />
      <${Part} title="By model" loaded=${byModel} columns=${MODELS} id="model" />
    </div>`;
}

/** @param {{of: OverTime, text: string}} given */
function Course({ of: { data, groups, total_spend, total_requests, total_tokens }, text }) {
  const times = data.map(({ begins_at }) => Date.parse(begins_at ?? "") / 1000);
  const series = groups.map((each) => ({ label: each.is_other ? "others" : each.name || each.key || "unknown", values: each.data.map(({ spending }) => spending) }));
  const calls = Number(total_requests);
  return html`
    <div class="figures">
      <${Figure} label="Spent" value=${money(total_spend)} more=${`in ${text}`} />
      <${Figure} label="Calls" value=${count(total_requests)} />
      <${Figure} label="A call" value=${calls > 0 ? money(total_spend / calls) : "–"} more="on average" />
      <${Figure} label="Tokens" value=${count(total_tokens)} />
    </div>
    <${Card} title="Over time">
      ${series.length === 0 ? html`<${Empty} title="Nothing was spent in this time."><p>Choose a longer period, or fewer filters.</p><//>` : html`<${Chart} label=${`Spending over ${text}`} times=${times} series=${series} format=${money} height=${260} />`}
    <//>`;
}

/** @param {{title: string, loaded: import("../load.js").Loaded<{data: any[]}>, columns: any[], id: string}} given */
function Part({ title, loaded, columns, id }) {
  const rows = loaded.data?.data ?? [];
  return html`
    <${Card} title=${title} tools=${html`<${CsvButton} name=${`${title.toLowerCase().replaceAll(" ", "-")}.csv`} columns=${columns} rows=${rows} />`}>
      <${Shown} of=${loaded}>${() => html`<${Table} label=${title} columns=${columns} rows=${rows} id=${id} empty=${html`<${Empty} title="Nothing was spent." />`} />`}<//>
    <//>`;
}

/** @type {import("../parts/tables.js").Column<Schemas["analytics.v1.ListSpendingByAgentResponse"]["data"][number]>[]} */
const AGENTS = [
  { title: "Agent", cell: ({ agent_id, agent_name }) => html`<a href=${`/agents/${agent_id}`}>${agent_name || agent_id}</a>`, value: ({ agent_name, agent_id }) => agent_name || agent_id },
  { title: "Calls", number: true, cell: ({ request_count }) => count(request_count), value: ({ request_count }) => Number(request_count) },
  { title: "Spent", number: true, cell: ({ spending }) => money(spending), value: ({ spending }) => spending },
  { title: "Of its budget", number: true, cell: ({ percent_used }) => `${count(percent_used)} %`, value: ({ percent_used }) => percent_used },
];

/** @type {import("../parts/tables.js").Column<Schemas["analytics.v1.ListSpendingByProviderResponse"]["data"][number]>[]} */
const PROVIDERS = [
  { title: "Provider", cell: ({ provider }) => provider, value: ({ provider }) => provider },
  { title: "Agents", number: true, cell: ({ agent_count }) => count(agent_count), value: ({ agent_count }) => Number(agent_count) },
  { title: "Calls", number: true, cell: ({ request_count }) => count(request_count), value: ({ request_count }) => Number(request_count) },
  { title: "Spent", number: true, cell: ({ spending }) => money(spending), value: ({ spending }) => spending },
];

/** @type {import("../parts/tables.js").Column<Schemas["analytics.v1.ListModelUsageResponse"]["data"][number]>[]} */
const MODELS = [
  { title: "Model", cell: ({ model, provider }) => html`${model} <span class="quiet">${provider}</span>`, value: ({ model }) => model },
  { title: "Calls", number: true, cell: ({ request_count }) => count(request_count), value: ({ request_count }) => Number(request_count) },
  { title: "Tokens", number: true, cell: ({ total_tokens }) => count(total_tokens), value: ({ total_tokens }) => Number(total_tokens) },
  { title: "A call", number: true, cell: ({ avg_cost_per_request }) => money(avg_cost_per_request), value: ({ avg_cost_per_request }) => avg_cost_per_request },
  { title: "Spent", number: true, cell: ({ spending }) => money(spending), value: ({ spending }) => spending },
];
