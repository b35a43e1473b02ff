// Policies that decide for agents: which are served, who steps with them, and how fast.
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { get, post, request } from "../api.js";
import { useLoad } from "../load.js";
import { ConfirmButton } from "../parts/dialogs.js";
import { Ago, Figure, State, count, duration } from "../parts/figures.js";
import { ActionButton } from "../parts/forms.js";
import { Card, Head } from "../parts/layout.js";
import { Empty, Shown } from "../parts/notes.js";
import { Table } from "../parts/tables.js";
import { mayAs } from "../session.js";
import { CartPole } from "./inference/cartpole.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["inference.v1.ListPoliciesResponse"]["policies"][number]} Policy */
/** @typedef {Policy["versions"][number] & {policy: string, isDefault: boolean, id: string}} Version */
/** @typedef {Schemas["inference.v1.ListInferenceAgentsResponse"]} AgentPage */

const EVENTS = ["PolicyLoaded", "PolicyUnloaded", "PolicyFailed"];
const EVERY_S = 5;

/** @param {import("../main.js").PageGiven} given */
export function Page({ segments }) {
  const [name = ""] = segments;
  const policies = useLoad((signal) => get("/api/v1/policies", { signal }), [], { on: EVENTS, everyS: 2 * EVERY_S });
  const rates = useRates(name);
  return html`
    <${Head} title=${name || "Inference"} within=${name ? [["/inference", "Inference"]] : []} />
    <div class="figures">
      <${Figure} label="Steps" value=${rates ? `${count(rates.steps)}/s` : "–"} more=${`in the last ${EVERY_S} s`} />
      <${Figure} label="Steps in a run" value=${rates?.batch ? count(rates.batch) : "–"} more="computed together" />
      <${Figure} label="A run takes" value=${rates?.ran_s ? duration(rates.ran_s) : "–"} more="on average" />
      <${Figure} label="A step waits" value=${rates?.waited_s ? duration(rates.waited_s) : "–"} more="for its run" />
    </div>
    <${Shown} of=${policies}>${(/** @type {{policies: Policy[]}} */ { policies: all }) => html`<${Versions} policies=${name ? all.filter((each) => each.name === name) : all} reload=${policies.reload} />`}<//>
    <div class="cards">
      <${Agents} policy=${name} />
      ${!name || name === "cartpole" ? html`<${CartPole} />` : null}
    </div>`;
}

/** @param {{policies: Policy[], reload: () => void}} given */
function Versions({ policies, reload }) {
  const rows = policies.flatMap(({ name, is_default, versions }) => versions.map((each) => ({ ...each, policy: name, isDefault: is_default, id: `${name}@${each.version}` })));
  /** @type {import("../parts/tables.js").Column<Version>[]} */
  const columns = [
    { title: "Policy", cell: ({ policy, version, isDefault }) => html`<a href=${`/inference/${policy}`}>${policy}</a>@${version}${isDefault ? html` <span class="tag">default</span>` : null}`, value: ({ id }) => id },
    { title: "State", cell: ({ is_loaded, fault }) => html`<${State} state=${is_loaded ? "serving" : fault ? "failed" : "idle"} />${fault ? html` <span class="quiet">${fault}</span>` : null}` },
    { title: "Takes", number: true, cell: ({ obs_dim }) => `${obs_dim} numbers` },
    { title: "Gives", cell: ({ action_type, action_size }) => (action_type === "discrete" ? `1 of ${action_size}` : `${action_size} numbers`) },
    { title: "Agents", number: true, cell: ({ agent_count }) => count(agent_count), value: ({ agent_count }) => agent_count },
    { title: "Steps", number: true, cell: ({ step_count }) => count(step_count), value: ({ step_count }) => Number(step_count) },
    { title: "What it does", cell: ({ description }) => description },
  ];
  if (mayAs("admin")) {
    columns.push({
      title: "",
      cell: ({ id, is_loaded, agent_count }) => html`
        <div class="actions">${is_loaded
          ? html`<${ConfirmButton} label="Unload" title=${`Unload ${id}`} question=${html`<p>${agent_count > 0 ? `${agent_count} agents that step with it end.` : "Nobody steps with it."} It is loaded again when somebody asks for it.</p>`}
              act=${() => post("/api/v1/policies/{policy}/unload", { path: { policy: id }, body: { force: true } })} done=${reload} />`
          : html`<${ActionButton} act=${async () => (await post("/api/v1/policies/{policy}/load", { path: { policy: id } }), reload())}>Load<//>`}</div>`,
    });
  }
  return html`<${Card} title="Policies"><${Table} label="Policies" columns=${columns} rows=${rows} id="id" empty=${html`<${Empty} title="There is no such policy."><p><a href="/inference">Show all policies</a></p><//>`} /><//>`;
}

/** @type {import("../parts/tables.js").Column<AgentPage["agents"][number] & {key: string}>[]} */
const AGENTS = [
  { title: "Agent", cell: ({ agent_id }) => (agent_id ? html`<code>${agent_id}</code>` : html`<span class="quiet">of a stream</span>`) },
  { title: "Policy", cell: ({ policy }) => policy },
  { title: "Pressure", number: true, cell: ({ pressure }) => (pressure === null ? "–" : html`<meter min="0" max="1" value=${pressure} aria-label="Pressure of its memory">${pressure.toFixed(3)}</meter> ${pressure.toFixed(3)}`), value: ({ pressure }) => pressure },
  { title: "Steps", number: true, cell: ({ step_count }) => count(step_count), value: ({ step_count }) => Number(step_count) },
  { title: "Last step", cell: ({ last_step_at }) => html`<${Ago} time=${last_step_at} />` },
];

/** @param {{policy: string}} given */
function Agents({ policy }) {
  const agents = useLoad((signal) => get("/api/v1/inference/agents", { query: { policy, limit: 50, order_by: "pressure" }, signal }), [policy], { everyS: EVERY_S });
  const empty = html`<${Empty} title="No agent steps now."><p>An agent begins with <code>POST /reset</code>, or on a stream.</p><//>`;
  return html`
    <${Card} title="Agents">
      <${Shown} of=${agents}>${(/** @type {AgentPage} */ { agents: first, total }) => html`
        ${total > first.length ? html`<p class="quiet">The first ${first.length} of ${count(total)}.</p>` : null}
        <${Table} label="Agents" columns=${AGENTS} rows=${first.map((each, i) => ({ ...each, key: `${i}` }))} id="key" empty=${empty} />`}<//>
    <//>`;
}

/** @typedef {{steps: number, batch: number, ran_s: number, waited_s: number}} Rates */

/**
 * How fast a policy, or all, step; from what the server counts, twice.
 * @param {string} policy
 * @returns {Rates | null}
 */
function useRates(policy) {
  const before = useRef(/** @type {{atMs: number, sums: Record<string, number>} | null} */ (null));
  const [rates, setRates] = useState(/** @type {Rates | null} */ (null));
  const counted = useLoad(async (signal) => sumsOf(await (await request("GET", "/metrics", { signal })).text(), policy), [policy], { everyS: EVERY_S });
  useEffect(() => {
    const sums = counted.data;
    if (!sums) return;
    const atMs = Date.now();
    const last = before.current;
    before.current = { atMs, sums };
    if (!last || atMs - last.atMs < 500) return;
    /** @param {string} name */
    const grown = (name) => Math.max(0, (sums[name] ?? 0) - (last.sums[name] ?? 0));
    const runs = grown("policy_run_seconds_count");
    setRates({
      steps: grown("policy_steps_total") / ((atMs - last.atMs) / 1000),
      batch: runs ? grown("policy_run_steps_sum") / runs : 0,
      ran_s: runs ? grown("policy_run_seconds_sum") / runs : 0,
      waited_s: grown("policy_queue_seconds_count") ? grown("policy_queue_seconds_sum") / grown("policy_queue_seconds_count") : 0,
    });
  }, [counted.data]);
  return rates;
}

/** @param {string} text @param {string} policy */
function sumsOf(text, policy) {
  /** @type {Record<string, number>} */
  const sums = {};
  for (const [, name = "", labels = "", value] of text.matchAll(/^(policy_\w+)\{([^}]*)\} (\S+)/gm)) {
    if (!policy || labels.includes(`policy="${policy}"`)) sums[name] = (sums[name] ?? 0) + Number(value);
  }
  return sums;
}
