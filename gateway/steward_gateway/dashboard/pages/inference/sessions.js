// Agents that step now, and how full their memory is.
import { html, useState } from "../../vendor/preact.js";
import { get, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton } from "../../parts/dialogs.js";
import { Ago, count } from "../../parts/figures.js";
import { Card } from "../../parts/layout.js";
import { Empty, Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { mayAs, person } from "../../session.js";

/** @typedef {import("../../api.js").Schemas["inference.v1.ListInferenceAgentsResponse"]} Agents */
/** @typedef {Agents["agents"][number] & {key: string}} Agent */

const EVERY_S = 5;
const SHOWN = 25;

/** @param {string} owner  "person:user_…", "agent:agent_…" or a client of inference. */
const isMe = (owner) => owner === `person:${person.get()?.id}`;

/** @param {string} owner */
function named(owner) {
  if (isMe(owner)) return "you";
  if (owner.startsWith("agent:")) return html`<a href=${`/agents/${owner.slice("agent:".length)}`}>an agent</a>`;
  return html`<code>${owner.replace(/^person:/, "")}</code>`;
}

/** How much of the memory is in use. @param {{pressure: number | null | undefined}} given */
function Pressure({ pressure }) {
  if (pressure === null || pressure === undefined) return html`<span class="quiet">no memory</span>`;
  return html`<span class="pressure"><meter min="0" max="1" value=${pressure} aria-label="Pressure of its memory"></meter> ${pressure.toFixed(3)}</span>`;
}

/** @type {import("../../parts/tables.js").Column<Agent>[]} */
const COLUMNS = [
  { title: "Session", cell: ({ agent_id }) => (agent_id ? html`<code>${agent_id}</code>` : html`<span class="quiet">of a stream</span>`), value: ({ agent_id }) => agent_id },
  { title: "Of", cell: ({ owner }) => named(owner), value: ({ owner }) => owner },
  { title: "Policy", cell: ({ policy }) => html`<a class="nowrap" href=${`/inference/${policy.replace(/@.*/, "")}`}>${policy}</a>`, value: ({ policy }) => policy },
  { title: "Pressure", cell: ({ pressure }) => html`<${Pressure} pressure=${pressure} />`, value: ({ pressure }) => pressure },
  { title: "Steps", number: true, cell: ({ step_count }) => count(step_count), value: ({ step_count }) => Number(step_count) },
  { title: "Last step", cell: ({ last_step_at }) => html`<${Ago} time=${last_step_at} />`, value: ({ last_step_at }) => last_step_at },
];

/** @param {{policy: string}} given  "": of all. */
export function Sessions({ policy }) {
  const [order, setOrder] = useState(/** @type {"pressure" | "last_step"} */ ("pressure"));
  const agents = useLoad((signal) => get("/api/v1/inference/agents", { query: { policy, limit: SHOWN, order_by: order }, signal }), [policy, order], { everyS: EVERY_S });
  /** @type {import("../../parts/tables.js").Column<Agent>} */
  const actions = {
    title: "",
    cell: ({ agent_id, owner }) =>
      agent_id && isMe(owner)
        ? html`<div class="actions"><${ConfirmButton} label="End" title=${`End the session of ${agent_id}`} question=${html`<p>What the policy keeps of it is lost.</p>`}
            act=${() => remove("/api/v1/inference/agents/{agent_id}", { path: { agent_id } })} done=${() => (say(`The session of ${agent_id} is over.`), agents.reload())} /></div>`
        : null,
  };
  const choose = html`
    <select aria-label="Which first" value=${order} onChange=${(/** @type {Event} */ { currentTarget }) => setOrder(/** @type {any} */ (currentTarget).value)}>
      <option value="pressure">Most pressure first</option>
      <option value="last_step">Newest step first</option>
    </select>`;
  const empty = html`<${Empty} title="No agent steps now."><p>A session begins with <code>POST /reset</code>, on a stream, or with “Let it run” above.</p><//>`;
  return html`
    <${Card} title="Sessions" tools=${choose}>
      <${Shown} of=${agents}>${(/** @type {Agents} */ { agents: first, total }) => html`
        ${total > first.length ? html`<p class="quiet">The first ${first.length} of ${count(total)}.</p>` : null}
        <${Table} label="Sessions" columns=${mayAs("admin", "user") ? [...COLUMNS, actions] : COLUMNS} rows=${first.map((each, i) => ({ ...each, key: each.agent_id ? `${each.owner} ${each.agent_id}` : `${i}` }))} id="key" empty=${empty} />`}<//>
    <//>`;
}
