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
  yesterday: { text: "yesterday", step: "hour" },
  "last-7-days": { text: "the last 7 days", step: "hour" },
  "last-30-days": { text: "the last 30 days", step: "day" },
  "this-month": { text: "this month", step: "day" },
  "last-month": { text: "last month", step: "day" },
  "all-time": { text: "all time", step: "week" },
};
const USUAL_PERIOD = "last-7-days";
const GROUPS = ["agent", "provider", "model"];

/** @typedef {{agent_id: string, provider: string, model: string}} Filters */

/** @param {import("../main.js").PageGiven} given */
export function Page({ query }) {
  const named = query.get("period") ?? "";
  const period = named in PERIODS ? named : USUAL_PERIOD;
  const group = GROUPS.find((each) => each === query.get("by")) ?? "agent";
  const filters = { agent_id: query.get("agent_id") ?? "", provider: query.get("provider") ?? "", model: query.get("model") ?? "" };
  const chosen = /** @type {any} */ ({ period, ...filters });
  const known = [period, ...Object.values(filters)];
  const when = { on: ["CostUpdate"], everyS: 60 };
  const overTime = useLoad(
    (signal) => get("/api/v1/analytics/spending/over-time", { query: { ...chosen, step: PERIODS[period]?.step, group_by: /** @type {any} */ (group) }, signal }),
    [...known, group],
    when,
  );
  const byAgent = useLoad((signal) => get("/api/v1/analytics/spending/by-agent", { query: { ...chosen, per_page: 100 }, signal }), known, when);
  const byProvider = useLoad((signal) => get("/api/v1/analytics/spending/by-provider", { query: { ...chosen, per_page: 100 }, signal }), known, when);
  const byModel = useLoad((signal) => get("/api/v1/analytics/usage/models", { query: { ...chosen, per_page: 100 }, signal }), known, when);
  const isFiltered = Object.values(filters).some(Boolean);
  return html`
    <${Head} title="Spending" />
    <form class="filters" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()} onChange=${(/** @type {Event} */ event) => {
      const { name, value } = /** @type {HTMLSelectElement} */ (event.target);
      setQuery({ [name]: value });
    }}>
      <${Field} name="period" label="Period" type="select" value=${period} options=${Object.entries(PERIODS).map(([name, { text }]) => [name, text])} />
      <${Field} name="by" label="Drawn by" type="select" value=${group} options=${GROUPS} />
      <${Choices} period=${period} filters=${filters} />
      ${isFiltered ? html`<button type="button" class="plain" onClick=${() => setQuery({ agent_id: "", provider: "", model: "" })}>Show everything</button>` : null}
    </form>
    <${Shown} of=${overTime}>${(/** @type {OverTime} */ answer) => html`<${Course} of=${answer} period=${period} isFiltered=${isFiltered} />`}<//>
    <div class="cards">
      <${Part} title="By agent" loaded=${byAgent} columns=${AGENTS} id="agent_id" />
      <div class="stack">
        <${Part} title="By provider" loaded=${byProvider} columns=${PROVIDERS} id="provider" />
        <${Part} title="By model" loaded=${byModel} columns=${MODELS} id="key" />
      </div>
    </div>`;
}

/** What there is to choose from: whatever was used in the period. @param {{period: string, filters: Filters}} given */
function Choices({ period, filters }) {
  const query = /** @type {any} */ ({ period, per_page: 100 });
  const agents = useLoad((signal) => get("/api/v1/analytics/spending/by-agent", { query, signal }), [period]);
  const providers = useLoad((signal) => get("/api/v1/analytics/spending/by-provider", { query, signal }), [period]);
  const models = useLoad((signal) => get("/api/v1/analytics/usage/models", { query, signal }), [period]);
  return html`
    <${Choice} name="agent_id" label="Agent" value=${filters.agent_id} of=${(agents.data?.data ?? []).map(({ agent_id, agent_name }) => [agent_id, agent_name || agent_id])} />
    <${Choice} name="provider" label="Provider" value=${filters.provider} of=${(providers.data?.data ?? []).map(({ provider }) => [provider, provider])} />
    <${Choice} name="model" label="Model" value=${filters.model} of=${(models.data?.data ?? []).map(({ model }) => [model, model])} />`;
}

/** @param {{name: string, label: string, value: string, of: [string, string][]}} given  What is chosen stays so, even if nothing of it was used. */
function Choice({ name, label, value, of }) {
  const options = new Map([["", "all"], ...of]);
  if (!options.has(value)) options.set(value, value);
  return html`<${Field} name=${name} label=${label} type="select" value=${value} options=${[...options]} />`;
}

/** @param {{of: OverTime, period: string, isFiltered: boolean}} given */
function Course({ of: { data, groups, total_spend, total_requests, total_tokens }, period, isFiltered }) {
  const { text = "" } = PERIODS[period] ?? {};
  const times = data.map(({ begins_at }) => Date.parse(begins_at ?? "") / 1000);
  const series = groups.map((each) => ({ label: each.is_other ? "others" : each.name || each.key || "unknown", values: each.data.map(({ spending }) => spending), rest: each.is_other }));
  const calls = Number(total_requests);
  const empty = isFiltered
    ? html`<${Empty} title="Nothing of that was spent in this time."><p>Choose a longer period, or show everything.</p><//>`
    : html`<${Empty} title="Nothing was spent in this time."><p>${period === "all-time" ? html`Run a script as an agent and watch its calls here: <code>steward run --agent <i>name</i> agent.py</code>` : "Choose a longer period, or let an agent make a call."}</p><//>`;
  return html`
    <div class="figures">
      <${Figure} label="Spent" value=${money(total_spend)} more=${text} />
      <${Figure} label="Calls" value=${count(total_requests)} />
      <${Figure} label="A call" value=${calls > 0 ? money(total_spend / calls) : "–"} more="on average, those that cost nothing too" />
      <${Figure} label="Tokens" value=${count(total_tokens)} />
    </div>
    <${Card} title="Over time" tools=${html`<${CsvButton} name=${`spending-${period}.csv`} columns=${courseColumns(series)} rows=${series.length > 0 ? data.map(({ begins_at }, at) => ({ begins_at, at })) : []} />`}>
      ${series.length > 0 && times.length > 0 ? html`<${Chart} label=${`Spending, ${text}`} times=${times} series=${series} format=${money} height=${260} bars />` : empty}
    <//>`;
}

/**
 * @param {import("../parts/chart.js").Series[]} series
 * @returns {import("../parts/tables.js").Column<{begins_at: string | null, at: number}>[]}
 */
function courseColumns(series) {
  return [
    { title: "From", cell: ({ begins_at }) => begins_at, value: ({ begins_at }) => begins_at },
    ...series.map(({ label, values }) => ({
      title: label,
      cell: (/** @type {{at: number}} */ { at }) => money(values[at]),
      value: (/** @type {{at: number}} */ { at }) => values[at],
    })),
  ];
}

/** @param {{title: string, loaded: import("../load.js").Loaded<{data: any[], pagination: Schemas["analytics.v1.Pagination"] | null}>, columns: any[], id: string}} given */
function Part({ title, loaded, columns, id }) {
  const total = loaded.data?.pagination?.total ?? 0;
  const rows = (loaded.data?.data ?? []).map((row) => ({ ...row, key: `${row.provider}/${row.model}` })).sort((a, b) => spentOf(b) - spentOf(a));
  return html`
    <${Card} title=${title} tools=${html`<${CsvButton} name=${`spending-${title.toLowerCase().replaceAll(" ", "-")}.csv`} columns=${columns} rows=${rows} />`}>
      <${Shown} of=${loaded}>${() => html`<${Table} label=${title} columns=${columns} rows=${rows} id=${id} empty=${html`<${Empty} title="Nothing was spent." />`} />
        ${total > rows.length ? html`<p class="quiet">These are ${count(rows.length)} of ${count(total)}; <code>steward analytics</code> shows all.</p>` : null}`}<//>
    <//>`;
}

/** @param {{spending: number | string | null}} row */
const spentOf = ({ spending }) => Number(spending ?? 0);

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
  { title: "Model", cell: ({ model, provider }) => model, value: ({ model }) => model },
  { title: "Provider", cell: ({ provider }) => provider, value: ({ provider }) => provider },
  { title: "Calls", number: true, cell: ({ request_count }) => count(request_count), value: ({ request_count }) => Number(request_count) },
  { title: "Tokens", number: true, cell: ({ total_tokens }) => count(total_tokens), value: ({ total_tokens }) => Number(total_tokens) },
  { title: "A call", number: true, cell: ({ avg_cost_per_request }) => money(avg_cost_per_request), value: ({ avg_cost_per_request }) => avg_cost_per_request },
  { title: "Spent", number: true, cell: ({ spending }) => money(spending), value: ({ spending }) => spending },
];
