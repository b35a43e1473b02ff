// The policies that are served, in their versions.
import { html } from "../../vendor/preact.js";
import { post } from "../../api.js";
import { ConfirmButton } from "../../parts/dialogs.js";
import { Ago, State, count } from "../../parts/figures.js";
import { ActionButton } from "../../parts/forms.js";
import { Card, Facts } from "../../parts/layout.js";
import { Empty, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { mayAs } from "../../session.js";

/** @typedef {import("../../api.js").Schemas["inference.v1.Policy"]} Policy */
/** @typedef {Policy["versions"][number] & {policy: string, isDefault: boolean, isNewest: boolean, id: string}} Version */

/** @param {Policy[]} policies @returns {Version[]} */
const versionsOf = (policies) =>
  policies.flatMap(({ name, is_default, latest, versions }) =>
    versions.map((each) => ({ ...each, policy: name, isDefault: is_default && each.version === latest, isNewest: each.version === latest, id: `${name}@${each.version}` })));

/** @param {Version} version */
const stateOf = ({ is_loaded, fault }) => (is_loaded ? "serving" : fault ? "failed" : "not loaded");

/** @param {Version} version */
const takes = ({ obs_dim }) => (obs_dim === 0 ? "–" : obs_dim === 1 ? "1 number" : `${obs_dim} numbers`);

/** @param {Version} version */
const gives = ({ action_type, action_size }) =>
  action_size === 0 ? "–" : action_type === "discrete" ? `1 of ${action_size} choices` : action_size === 1 ? "1 number" : `${action_size} numbers`;

/** @type {import("../../parts/tables.js").Column<Version>[]} */
const COLUMNS = [
  { title: "Policy", cell: ({ policy, version, isDefault }) => html`<span class="nowrap"><a href=${`/inference/${policy}`}>${policy}</a>@${version}${isDefault ? html` <span class="tag">default</span>` : null}</span>`, value: ({ id }) => id },
  { title: "State", cell: (version) => html`<${State} state=${stateOf(version)} />${version.fault ? html`<div class="prose quiet">${version.fault}</div>` : null}`, value: stateOf },
  { title: "Takes", cell: (version) => html`<span class="nowrap">${takes(version)}</span>` },
  { title: "Gives", cell: (version) => html`<span class="nowrap">${gives(version)}</span>` },
  { title: "Sessions", number: true, cell: ({ agent_count }) => count(agent_count), value: ({ agent_count }) => agent_count },
  { title: "Steps", number: true, cell: ({ step_count }) => count(step_count), value: ({ step_count }) => Number(step_count) },
  { title: "What it does", cell: ({ description }) => html`<div class="prose">${description}</div>` },
];

/** @param {{policies: Policy[], reload: () => void}} given */
export function Versions({ policies, reload }) {
  /** @type {import("../../parts/tables.js").Column<Version>} */
  const actions = {
    title: "",
    cell: ({ id, is_loaded, agent_count }) => html`
      <div class="actions">${is_loaded
        ? html`<${ConfirmButton} label="Unload" title=${`Unload ${id}`} act=${() => post("/api/v1/policies/{policy}/unload", { path: { policy: id }, body: { force: true } })}
            question=${html`<p>${agent_count > 0 ? `${count(agent_count)} ${agent_count === 1 ? "session ends" : "sessions end"}, and what is kept of them is lost.` : "Nobody steps with it."} It is loaded again when somebody asks for it.</p>`}
            done=${() => {
              say(`${id} is unloaded.`);
              reload();
            }} />`
        : html`<${ActionButton} act=${async () => {
            await post("/api/v1/policies/{policy}/load", { path: { policy: id } });
            say(`${id} is loaded.`);
            reload();
          }}>Load<//>`}</div>`,
  };
  const empty = html`<${Empty} title="There are no policies."><p>Put one into the server's folder of policies, as “Importing policies” in the documentation tells.</p><//>`;
  return html`<${Card} title="Policies"><${Table} label="Policies" columns=${mayAs("admin") ? [...COLUMNS, actions] : COLUMNS} rows=${versionsOf(policies)} id="id" empty=${empty} /><//>`;
}

/** @param {Version["state"][number]} tensor */
const tensor = ({ name, shape }) => html`<span class="tag">${name} ${shape.join(" × ")}</span>`;

/** What each version keeps and is made of. @param {{policies: Policy[]}} given */
export function Details({ policies }) {
  return html`${versionsOf(policies).map((each) => html`<${Card} key=${each.id} title=${`Version ${each.version}`}><${Facts} of=${factsOf(each)} /><//>`)}`;
}

/** @param {Version} version @returns {[string, unknown][]} */
function factsOf({ isNewest, loaded_at, state, memory, pressure, run_count, step_count, model_sha256 }) {
  const runs = Number(run_count);
  return [
    ["Newest", isNewest ? "yes: who names no version has it" : "no"],
    ["Loaded", loaded_at ? html`<${Ago} time=${loaded_at} />` : "no"],
    ["Keeps", [...state.map(tensor), ...(memory ? [tensor(memory)] : [])].length > 0 ? html`${state.map(tensor)}${memory ? tensor(memory) : null}` : "nothing of its agents"],
    ["Pressure", pressure || "–"],
    ["Runs", runs > 0 ? `${count(runs)}, of ${count(Number(step_count) / runs)} steps on average` : "none since it was loaded"],
    ["Model", model_sha256 ? html`<code>${model_sha256}</code>` : "–"],
  ];
}
