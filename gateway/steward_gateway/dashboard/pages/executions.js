// Runs of playbooks: all of them, and each of them while it goes on.
import { html } from "../vendor/preact.js";
import { get } from "../api.js";
import { useLoad } from "../load.js";
import { Ago, State, duration } from "../parts/figures.js";
import { Field } from "../parts/forms.js";
import { Card, Head } from "../parts/layout.js";
import { Empty, Shown } from "../parts/notes.js";
import { Table } from "../parts/tables.js";
import { setQuery } from "../router.js";
import { useCalmly, useRuns } from "../runs_live.js";
import { person } from "../session.js";
import { Run } from "./executions/run.js";

/** @typedef {import("../api.js").Schemas["executions.v1.Execution"]} Execution */

/** @param {import("../main.js").PageGiven} given */
export function Page({ segments, query }) {
  const [id] = segments;
  return id ? html`<${Run} key=${id} id=${id} />` : html`<${Runs} query=${query} />`;
}

const SHOWN = 50;
const CALM_MS = 3000;
const STATES = ["pending", "running", "paused", "completed", "failed", "cancelled"];

/** @param {Execution} run */
function took({ started_at, completed_at }) {
  if (!started_at) return "–";
  const endedAtMs = completed_at ? Date.parse(completed_at) : Date.now();
  return duration((endedAtMs - Date.parse(started_at)) / 1000);
}

/** @param {Execution} run */
function starter({ owner_id, agent_id }) {
  if (agent_id) return html`<a href=${`/agents/${agent_id}`}>agent ${agent_id.slice(0, 14)}…</a>`;
  return owner_id === person.get()?.id ? "you" : html`<code>${owner_id}</code>`;
}

/** @type {import("../parts/tables.js").Column<Execution>[]} */
const COLUMNS = [
  { title: "Playbook", cell: ({ execution_id, playbook_name }) => html`<a href=${`/executions/${execution_id}`}>${playbook_name}</a>` },
  { title: "State", cell: ({ question, status }) => html`<${State} state=${question ? "waiting" : status} />` },
  { title: "Step", number: true, cell: ({ current_step_index, total_steps }) => `${Math.min(current_step_index + 1, total_steps)} of ${total_steps}` },
  { title: "Started by", cell: starter },
  { title: "Begun", cell: ({ started_at, created_at }) => html`<${Ago} time=${started_at ?? created_at} />` },
  { title: "Took", number: true, cell: took },
];

/** @param {{query: URLSearchParams}} given */
function Runs({ query }) {
  const status = query.get("status") ?? "";
  const playbook = query.get("playbook") ?? "";
  const before = query.get("before") ?? "";
  const asked = /** @type {any} */ ({ limit: SHOWN, status, playbook_path: playbook, before_execution_id: before });
  const runs = useLoad((signal) => get("/api/executions", { query: asked, signal }), [status, playbook, before]);
  const reload = useCalmly(runs.reload, CALM_MS);
  useRuns({}, { updates: reload, frame: () => {}, lost: reload });
  /** @param {string} name */
  const choose = (name) => ({
    onChange: (/** @type {Event} */ { currentTarget }) =>
      setQuery({ [name]: /** @type {HTMLInputElement} */ (currentTarget).value, before: "" }),
  });
  const isChosen = status || playbook || before;
  const empty = isChosen
    ? html`<${Empty} title="No run is like that."><p><a href="/executions">Show all runs</a></p><//>`
    : html`<${Empty} title="No playbook has run yet."><p>Choose one among the <a href="/playbooks">playbooks</a>, or start it with <code>steward playbook run</code>.</p><//>`;
  /** @param {Execution[]} all */
  const olderThan = (all) => {
    const next = new URLSearchParams(query);
    next.set("before", all.at(-1)?.execution_id ?? "");
    return `/executions?${next}`;
  };
  return html`
    <${Head} title="Runs" />
    <div class="filters" role="search" aria-label="Runs">
      <${Field} key=${`s${status}`} name="status" label="State" type="select" value=${status} options=${[["", "any"], ...STATES.map((each) => [each, each])]} attributes=${choose("status")} />
      <${Field} key=${`p${playbook}`} name="playbook" label="Playbook" placeholder="folder/name.yaml" value=${playbook} attributes=${choose("playbook")} />
    </div>
    <${Card}>
      <${Shown} of=${runs}>${(/** @type {Execution[]} */ all) => html`
        <${Table} label="Runs" columns=${COLUMNS} rows=${all} id="execution_id" empty=${empty} />
        <div class="actions">
          ${before ? html`<button type="button" class="plain" onClick=${() => setQuery({ before: "" })}>Newest runs</button>` : null}
          ${all.length === SHOWN ? html`<a class="button plain" href=${olderThan(all)}>Older runs</a>` : null}
        </div>`}<//>
    <//>`;
}
