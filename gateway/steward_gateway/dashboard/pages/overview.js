// Everything that is lent, at a glance: money, agents, machines, runs, minds.
import { html, useRef, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { useEvents } from "../live.js";
import { useLoad } from "../load.js";
import { Chart } from "../parts/chart.js";
import { Ago, BudgetBar, Figure, State, count, duration, money, used } from "../parts/figures.js";
import { Card, Head } from "../parts/layout.js";
import { Empty, Shown } from "../parts/notes.js";
import { Table } from "../parts/tables.js";
import { useCalmly, useRuns } from "../runs_live.js";
import { mayAs } from "../session.js";
import { Waiting } from "./decisions.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["agents.v1.Agent"]} Agent */
/** @typedef {Schemas["analytics.v1.GetUsageResponse"]} Usage */
/** @typedef {Schemas["executions.v1.Execution"]} Execution */
/**
 * @template Row
 * @typedef {import("../parts/tables.js").Column<Row>} Column
 */

export function Page() {
  const usage = useLoad((signal) => get("/api/usage", { query: { per_page: 100 }, signal }), [], {
    on: ["CostUpdate", "AgentStarted", "AgentStopped", "BudgetChanged"],
    everyS: 60,
  });
  return html`
    <${Head} title="Overview" />
    <${Shown} of=${usage}>${(/** @type {Usage} */ { totals }) => html`<${Money} totals=${totals} />`}<//>
    <${Waiting} most=${SHOWN} />
    <div class="cards">
      <${Agents} usage=${usage.data} />
      <${Runs} />
      <${Environments} />
      <${Policies} />
      <${Happened} />
    </div>`;
}

/** @typedef {Schemas["analytics.v1.ListSpendingOverTimeResponse"]} OverTime */

/**
 * What was spent in the last hour, minute by minute: what was booked before, and what is heard of since.
 * @returns {{times: number[], values: number[], spent: number} | null} null until it is known.
 */
function useLastHour() {
  const loaded = useLoad((signal) => get("/api/v1/analytics/spending/over-time", { query: { period: "last-hour", step: "minute" }, signal }), [], { everyS: 60 });
  /** Dollars by the moment they were booked at, in milliseconds: events of thousands of calls are few moments. */
  const heard = useRef(/** @type {Map<number, number>} */ (new Map()));
  const [, redraw] = useState(0);
  useEvents(["CostUpdate"], (events) => {
    for (const { type, timestamp, data } of events) {
      const at = Date.parse(timestamp);
      if (type === "CostUpdate") heard.current.set(at, (heard.current.get(at) ?? 0) + Number(data["cost_usd"] ?? 0));
    }
    const hourAgoMs = Date.now() - 3_600_000;
    for (const at of heard.current.keys()) if (at < hourAgoMs) heard.current.delete(at);
    redraw((n) => n + 1);
  });
  if (!loaded.data) return null;
  const { data, calculated_at } = /** @type {OverTime} */ (loaded.data);
  const knownMs = Date.parse(String(calculated_at));
  const times = data.map(({ begins_at }) => Date.parse(String(begins_at)) / 1000);
  const values = data.map(({ spending }) => Number(spending));
  for (const [at, usd] of heard.current) {
    if (at <= knownMs) {
      heard.current.delete(at);
      continue;
    }
    const minute = Math.floor(at / 60_000) * 60;
    while (Number(times.at(-1)) < minute) {
      times.push(Number(times.at(-1)) + 60);
      values.push(0);
    }
    const place = times.indexOf(minute);
    if (place >= 0) values[place] = Number(values[place]) + usd;
  }
  return { times, values, spent: values.reduce((sum, usd) => sum + usd, 0) };
}

/** @param {{totals: NonNullable<Usage["totals"]>}} given */
function Money({ totals }) {
  const hour = useLastHour();
  const burn = hour?.spent ?? null;
  const left = totals.allocated - totals.spent; // what is lent is not gone yet
  const leftS = burn && left > 0 ? (left / burn) * 3600 : null;
  return html`
    <div class="figures">
      <${Figure} label="Allocated" value=${money(totals.allocated)} more=${`to ${count(totals.agents)} agent${totals.agents === 1 ? "" : "s"}`} href="/agents" />
      <${Figure} label="Spent" value=${money(totals.spent)} more=${`${count(totals.percent_used)} %, in ${count(totals.requests)} calls`} href="/spending" />
      <${Figure} label="Lent just now" value=${money(totals.reserved)} more="held by runtimes" />
      <${Figure} label="Overrun" value=${money(totals.overrun)} tone=${totals.overrun > 0 ? "bad" : "plain"} more=${totals.overrun > 0 ? "used above what was lent" : "none"} />
      <${Figure} label="Burn rate" value=${burn === null ? "–" : `${money(burn)}/h`} more=${hour === null ? "not known yet" : leftS === null ? (burn ? "nothing is left" : "nothing in the last hour") : `all gone in ${duration(leftS)} at this rate`} />
    </div>
    ${hour && hour.spent > 0 ? html`<${Card} title="The last hour"><${Chart} label="Spending of the last hour by minute" times=${hour.times} series=${[{ label: "Spent", values: hour.values }]} format=${money} height=${120} bars /><//>` : null}`;
}

/** @param {{usage: Usage | undefined}} given */
function Agents({ usage }) {
  const agents = useLoad((signal) => get("/api/v1/agents", { query: { page_size: 1000 }, signal }), [], {
    on: ["AgentStarted", "AgentStopped"],
    everyS: 60,
  });
  const lent = new Map((usage?.agents ?? []).map((each) => [each.agent_id, each]));
  /** @type {Column<Agent>[]} */
  const columns = [
    { title: "Agent", cell: ({ id, name }) => html`<a href=${`/agents/${id}`}>${name}</a>` },
    { title: "State", cell: ({ status }) => html`<${State} state=${status} />` },
    {
      title: "Budget",
      cell: ({ id, name, budget }) => {
        const { spent, reserved } = lent.get(id) ?? { spent: used(budget), reserved: budget?.reserved_usd };
        return html`<${BudgetBar} label=${`Budget of ${name}`} spent=${spent ?? 0} lent=${reserved ?? 0} limit=${budget?.limit_usd ?? null} />`;
      },
    },
  ];
  const empty = html`
    <${Empty} title="No agents yet.">
      ${mayAs("admin") ? html`<p>An agent has a budget, and a token its runtime shows. <a href="/agents">Create one</a></p>` : html`<p>An administrator can create one.</p>`}
    <//>`;
  return html`
    <${Card} title="Agents" tools=${html`<a href="/agents">All agents</a>`}>
      <${Shown} of=${agents}>${(/** @type {{agents: Agent[]}} */ { agents: all }) => html`
        ${all.length > 0 ? html`<p class="quiet">${all.filter(({ status }) => status === "running").length} of ${all.length} running</p>` : null}
        <${Table} label="Agents" columns=${columns} rows=${mostPressing(all)} id="id" empty=${empty} />`}<//>
    <//>`;
}

const SHOWN = 6;

/** Those that run, and of them those that have used most. @param {Agent[]} agents */
function mostPressing(agents) {
  /** @param {Agent} agent */
  const rank = ({ status, budget }) => (status === "running" ? 1000 : 0) + (budget?.percent_used ?? 0);
  return [...agents].sort((a, b) => rank(b) - rank(a)).slice(0, SHOWN);
}

/** @type {Column<Execution>[]} */
const RUNS = [
  { title: "Playbook", cell: ({ execution_id, playbook_name }) => html`<a href=${`/executions/${execution_id}`}>${playbook_name}</a>` },
  { title: "State", cell: ({ question, status }) => html`<${State} state=${question ? "waiting" : status} />` },
  { title: "Step", number: true, cell: ({ current_step_index, total_steps }) => `${Math.min(current_step_index + 1, total_steps)} of ${total_steps}` },
  { title: "Begun", cell: ({ started_at, created_at }) => html`<${Ago} time=${started_at ?? created_at} />` },
];

/** However much happens to runs, they are loaded no more often than this. */
const CALM_MS = 3000;

function Runs() {
  const runs = useLoad((signal) => get("/api/executions", { query: { limit: SHOWN }, signal }), []);
  const reload = useCalmly(runs.reload, CALM_MS);
  useRuns({}, { updates: reload, frame: () => {}, lost: reload });
  const empty = html`<${Empty} title="No playbook has run yet."><p><a href="/playbooks">Choose one to start</a></p><//>`;
  return html`
    <${Card} title="Runs" tools=${html`<a href="/executions">All runs</a>`}>
      <${Shown} of=${runs}>${(/** @type {Execution[]} */ all) => html`<${Table} label="Runs" columns=${RUNS} rows=${all} id="execution_id" empty=${empty} />`}<//>
    <//>`;
}

/** @typedef {Schemas["environments.v1.ListEnvironmentsResponse"]} EnvironmentPage */

/** @type {Column<EnvironmentPage["environments"][number]>[]} */
const ENVIRONMENTS = [
  { title: "Name", cell: ({ id, name }) => html`<a href=${`/environments/${id}`}>${name}</a>` },
  { title: "Image", cell: ({ image }) => html`<code>${image}</code>` },
  { title: "State", cell: ({ status, paused }) => html`<${State} state=${paused ? "paused" : status} />` },
];

function Environments() {
  const environments = useLoad((signal) => get("/api/v1/environments", { query: { limit: SHOWN, status: "running" }, signal }), [], {
    on: ["EnvironmentStarted", "EnvironmentStopped", "EnvironmentFailed", "EnvironmentExpired"],
    everyS: 60,
  });
  const empty = html`<${Empty} title="No environment is running."><p>An environment is an isolated machine. <a href="/environments">Create one</a></p><//>`;
  return html`
    <${Card} title="Environments" tools=${html`<a href="/environments">All environments</a>`}>
      <${Shown} of=${environments}>${(/** @type {EnvironmentPage} */ { environments: first, total }) => html`
        ${total > 0 ? html`<p class="quiet">${count(total)} running</p>` : null}
        <${Table} label="Environments" columns=${ENVIRONMENTS} rows=${first} id="id" empty=${empty} />`}<//>
    <//>`;
}

/** @typedef {Schemas["inference.v1.ListPoliciesResponse"]} PolicyPage */

/** @type {Column<PolicyPage["policies"][number]>[]} */
const POLICIES = [
  { title: "Policy", cell: ({ name, is_default }) => html`<a href=${`/inference/${name}`}>${name}</a>${is_default ? html` <span class="tag">default</span>` : null}` },
  { title: "Agents", number: true, cell: ({ versions }) => count(versions.reduce((sum, { agent_count }) => sum + agent_count, 0)) },
  { title: "Steps", number: true, cell: ({ versions }) => count(versions.reduce((sum, { step_count }) => sum + Number(step_count), 0)) },
  { title: "State", cell: ({ versions }) => html`<${State} state=${versions.some((each) => each.is_loaded) ? "serving" : versions.some(({ fault }) => fault) ? "failed" : "idle"} />` },
];

function Policies() {
  const policies = useLoad((signal) => get("/api/v1/policies", { signal }), [], { on: ["PolicyLoaded", "PolicyUnloaded", "PolicyFailed"], everyS: 10 });
  const empty = html`<${Empty} title="No policies are served."><p>A folder of policies is named by <code>STEWARD_INFERENCE_MODELS</code>.</p><//>`;
  return html`
    <${Card} title="Inference" tools=${html`<a href="/inference">All policies</a>`}>
      <${Shown} of=${policies}>${(/** @type {PolicyPage} */ { policies: all }) => html`<${Table} label="Policies" columns=${POLICIES} rows=${all.slice(0, SHOWN)} id="name" empty=${empty} />`}<//>
    <//>`;
}

/** An agent's events name the agent themselves. @param {string} [scope]  "agent:…", "project:…", "organisation" */
const budgetOf = (scope = "") => (!scope || scope.startsWith("agent:") ? "its budget" : `the budget of ${scope}`);

/** @type {Record<string, (data: Record<string, any>) => string>} */
const WORDS = {
  AgentStarted: ({ script }) => `began to run${script ? ` ${script}` : ""}`,
  AgentStopped: ({ reason }) => `ended: ${reason}`,
  PiiAlert: ({ direction, findings = [] }) => `personal data in an ${direction}: ${findings.map((/** @type {any} */ each) => `${each.count} ${each.kind}`).join(", ")}`,
  BudgetWarning: ({ threshold_percent, scope }) => `${threshold_percent} % of ${budgetOf(scope)} is spent`,
  BudgetRequested: ({ requested_budget_usd }) => `asks for a budget of ${money(requested_budget_usd)}`,
  BudgetReviewed: ({ status }) => `its request was ${status}`,
  BudgetChanged: ({ new_budget_usd, scope }) => (new_budget_usd == null ? `${budgetOf(scope)} has no limit now` : `${budgetOf(scope)} is ${money(new_budget_usd)} now`),
  CircuitOpened: ({ provider }) => `provider ${provider} keeps failing`,
  EnvironmentStarted: ({ name }) => `environment ${name} runs`,
  EnvironmentStopped: ({ name, reason }) => `environment ${name} is over: ${reason}`,
  EnvironmentFailed: ({ name, reason }) => `environment ${name} failed: ${reason}`,
  EnvironmentExpired: ({ name }) => `environment ${name}: its time is over`,
  PolicyLoaded: ({ policy }) => `policy ${policy} is served`,
  PolicyUnloaded: ({ policy }) => `policy ${policy} is served no more`,
  PolicyFailed: ({ policy, reason }) => `policy ${policy} cannot be served: ${reason}`,
  Gap: () => "some events were not sent: this page was too slow for them",
};

const KEPT = 12;

function Happened() {
  const [events, setEvents] = useState(/** @type {import("../live.js").LiveEvent[]} */ ([]));
  useEvents(Object.keys(WORDS), (heard) => setEvents((before) => [...heard.slice(-KEPT).reverse(), ...before].slice(0, KEPT)));
  if (events.length === 0) {
    return html`<${Card} title="What happens"><${Empty} title="Quiet so far."><p>What happens while this page is open stands here.</p><//><//>`;
  }
  return html`
    <${Card} title="What happens">
      <ul class="happened">${events.map(({ sequence, timestamp, agent_id, type, data }) => html`
        <li key=${sequence}><${Ago} time=${timestamp} /><span>${agent_id ? html`<a href=${`/agents/${agent_id}`}>${agent_id.slice(0, 14)}…</a> ` : null}${WORDS[type]?.(data ?? {})}</span></li>`)}</ul>
    <//>`;
}
