// One playbook: what it asks for and does, its text, and what can be done with it.
import { html, useState } from "../../vendor/preact.js";
import { get, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton } from "../../parts/dialogs.js";
import { Ago, State, duration } from "../../parts/figures.js";
import { Card, Facts, Head } from "../../parts/layout.js";
import { Empty, ErrorNote, Loading, Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { go } from "../../router.js";
import { mayAs } from "../../session.js";
import { Duplicate } from "./copies.js";
import { Editor } from "./editor.js";
import { Start } from "./start.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["playbooks.v1.GetPlaybookResponse"]} Details */
/** @typedef {Schemas["playbooks.v1.GetPlaybookSourceResponse"]} Source */
/** @typedef {Schemas["playbooks.v1.Parameter"]} Parameter */
/** @typedef {Schemas["playbooks.v1.Step"]} Step */

/** @param {{path: string}} given */
export function Playbook({ path }) {
  const mayChange = mayAs("admin", "user");
  const [line, setLine] = useState(/** @type {{line: number} | null} */ (null));
  const details = useLoad((signal) => /** @type {Promise<Details>} */ (get("/api/playbooks/{path}", { path: { path }, signal })), [path]);
  // Its text is for those who may change it; whoever else asks is refused.
  const source = useLoad(async (signal) => (mayChange ? /** @type {Source} */ (await get("/api/playbooks/{path}", { path: { path }, query: { source: true }, signal })) : null), [path]);
  const isGone = details.error?.status === 404;
  const isFaulty = (details.error?.errors.length ?? 0) > 0;
  const of = isFaulty || isGone ? undefined : details.data;
  const isOwn = (of ?? source.data)?.origin === "user";
  const reload = () => {
    details.reload();
    source.reload();
  };
  const beside = html`
    ${of && !isOwn ? html`<span class="tag">comes with Steward</span>` : null}
    ${of?.verified ? html`<span class="tag">verified</span>` : null}
    ${isFaulty ? html`<${State} state="cannot be run" tone="bad" />` : null}`;
  return html`
    <${Head} title=${of?.name || path} within=${[["/playbooks", "Playbooks"]]} beside=${beside}>
      ${of && mayChange ? html`<${Start} path=${path} of=${of} />` : null}
      ${isGone ? null : html`<a class="button plain" href=${`/executions?playbook=${encodeURIComponent(path)}`}>Its runs</a>`}
      ${mayChange && !isGone ? html`<${Duplicate} path=${path} />` : null}
      ${mayChange && isOwn ? html`<${ConfirmButton} label="Delete" title=${`Delete ${path}`} question=${html`<p>Its runs stay as they are. If one comes with Steward at this path, that is used again.</p>`}
        act=${() => remove("/api/playbooks/{path}", { path: { path } })} done=${() => {
          say(`${path} is deleted.`);
          go("/playbooks");
        }} />` : null}
    <//>
    ${details.error && !(isFaulty && source.data) ? html`<${ErrorNote} error=${details.error} retry=${isGone || isFaulty ? undefined : details.reload} />` : null}
    ${of ? html`<${About} of=${of} show=${mayChange ? (/** @type {number} */ to) => setLine({ line: to }) : null} />` : null}
    ${!of && !details.error ? html`<${Loading} />` : null}
    ${mayChange && !isGone ? html`<${Shown} of=${source}>${(/** @type {Source} */ data) => html`<${Editor} path=${path} source=${data} saved=${reload} line=${line} />`}<//>` : null}`;
}

/** @param {{of: Details, show: ((line: number) => void) | null}} given */
function About({ of, show }) {
  const { description, version, domain, group, timeout_s, needs, path, last_modified, parameters } = of;
  /** @type {[string, unknown][]} */
  const facts = [
    ["Path", html`<code>${path}</code>`],
    ["Version", version],
    ["Filed under", [domain, group].filter(Boolean).join(", ") || "–"],
    ["Ends after", duration(timeout_s)],
    ["Needs", needs.length > 0 ? needs.map((each) => html`<span class="tag">${each}</span>`) : "nothing"],
    ["Changed", html`<${Ago} time=${last_modified} />`],
  ];
  return html`
    <div class="cards">
      <${Card} title="About">${description ? html`<p>${description}</p>` : null}<${Facts} of=${facts} /><//>
      <${Card} title="What it asks for">
        <${Table} label="Parameters" columns=${PARAMETERS} rows=${parameters} id="name" empty=${html`<${Empty} title="It asks for nothing." />`} />
      <//>
    </div>
    <${Card} title="Steps"><${Table} label="Steps" columns=${columnsOf(show)} rows=${rowsOf(of)} id="id" empty=${html`<${Empty} title="It has no steps." />`} /><//>`;
}

/** @type {import("../../parts/tables.js").Column<Parameter>[]} */
const PARAMETERS = [
  { title: "Parameter", cell: ({ name, required }) => html`<span class="nowrap"><code>${name}</code>${required ? html` <span class="tag">required</span>` : null}</span>` },
  { title: "Type", cell: ({ type }) => type },
  { title: "Default", cell: ({ default: usual }) => (usual === null || usual === undefined ? "–" : html`<code>${JSON.stringify(usual)}</code>`) },
  { title: "What for", cell: ({ description }) => description },
];

/** @typedef {Step & {part: string}} Row  `part`: why it is there beside the others. */

/** @param {Details} given @returns {Row[]} */
function rowsOf({ steps, finally_steps }) {
  const usual = steps.flatMap((step) => [{ ...step, part: "" }, ...step.undo.map((each) => ({ ...each, part: `undoes ${step.id}` }))]);
  return [...usual, ...finally_steps.map((step) => ({ ...step, part: "at the end, however that comes" }))];
}

/** @param {((line: number) => void) | null} show @returns {import("../../parts/tables.js").Column<Row>[]} */
function columnsOf(show) {
  return [
    { title: "Step", cell: ({ id, name, part }) => html`<span>${name} <code class="quiet">${id}</code>${part ? html`<br /><span class="quiet">${part}</span>` : null}</span>` },
    { title: "Type", cell: ({ type }) => html`<code>${type}</code>` },
    { title: "Only when", cell: ({ when }) => (when ? html`<code>${when}</code>` : "always") },
    { title: "Attempts", number: true, cell: ({ attempts }) => attempts },
    { title: "Ends after", number: true, cell: ({ timeout_s }) => html`<span class="nowrap">${timeout_s === null || timeout_s === undefined ? "as needed" : duration(timeout_s)}</span>` },
    { title: "If it fails", cell: ({ on_failure }) => on_failure },
    { title: "Line", number: true, cell: ({ line }) => (show ? html`<button type="button" class="link" aria-label=${`Show line ${line}`} onClick=${() => show(line)}>${line}</button>` : line) },
  ];
}
