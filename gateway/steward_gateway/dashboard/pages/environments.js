// Environments: all of them, and what the host makes of their limits; what was kept of them; or the one the URL names.
import { html } from "../vendor/preact.js";
import { get } from "../api.js";
import { useLoad } from "../load.js";
import { DialogButton } from "../parts/dialogs.js";
import { Ago, count, State } from "../parts/figures.js";
import { Card, Facts, Head, Tabs } from "../parts/layout.js";
import { Empty, Shown } from "../parts/notes.js";
import { Table } from "../parts/tables.js";
import { setQuery } from "../router.js";
import { mayAs } from "../session.js";
import { Create } from "./environments/create.js";
import { One } from "./environments/one.js";
import { alsoWanting, CHANGES, requirementsOf, wordsOf } from "./environments/shared.js";
import { Snapshots } from "./environments/snapshots.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["environments.v1.ListEnvironmentsResponse"]} Listed */
/** @typedef {Schemas["environments.v1.GetHealthResponse"]} Health */

/** @param {import("../main.js").PageGiven} given */
export function Page({ segments, query }) {
  const [id, tab = ""] = segments;
  if (id === "snapshots") return html`<${Kept} />`;
  return id ? html`<${One} key=${id} id=${id} tab=${tab} query=${query} />` : html`<${All} query=${query} />`;
}

const TABS = [
  ["/environments", "Machines"],
  ["/environments/snapshots", "Snapshots"],
];
const PER_PAGE = 20;
const STATES = ["pending", "running", "terminating", "terminated", "failed"];

/** @param {string} selector @returns {import("../parts/tables.js").Column<Listed["environments"][number]>[]} */
const columnsOf = (selector) => [
  { title: "Name", cell: ({ id, name }) => html`<a href=${`/environments/${id}`}>${name}</a>`, value: ({ name }) => name },
  { title: "State", cell: ({ status, paused }) => html`<${State} state=${paused ? "paused" : status} />`, value: ({ status }) => status },
  { title: "Labels", cell: ({ labels }) => html`<${Labels} of=${labels ?? {}} selector=${selector} />` },
  { title: "Image", cell: ({ image }) => html`<code>${image}</code>`, value: ({ image }) => image },
  { title: "CPU", number: true, cell: ({ resources }) => resources?.cpu },
  { title: "Memory", number: true, cell: ({ resources }) => resources?.memory },
  { title: "Created", cell: ({ created_at }) => html`<${Ago} time=${created_at} />`, value: ({ created_at }) => created_at },
];

/** Each label is a button that lists only what has it. @param {{of: Record<string, string>, selector: string}} given */
function Labels({ of, selector }) {
  const each = wordsOf(of);
  if (each.length === 0) return html`<span class="quiet">none</span>`;
  /** @param {string} wanted */
  const narrow = (wanted) => setQuery({ label: alsoWanting(selector, wanted), offset: "" });
  return html`<span class="tags">${each.map((wanted) => html`<button type="button" class="tag" title=${`List only what has ${wanted}`} onClick=${() => narrow(wanted)}>${wanted}</button>`)}</span>`;
}

/** @param {{query: URLSearchParams}} given */
function All({ query }) {
  const status = query.get("status") ?? "";
  const label = query.get("label") ?? "";
  const offset = Math.max(0, Number(query.get("offset")) || 0);
  const health = useLoad((signal) => get("/api/v1/health", { signal }), [], { everyS: 60 });
  const listed = useLoad(
    (signal) => get("/api/v1/environments", { query: /** @type {any} */ ({ view: "full", status, label, limit: PER_PAGE, offset }), signal }),
    [status, label, offset],
    { on: CHANGES, everyS: 30 },
  );
  const isUsable = health.data?.environments?.usable === true;
  const mayCreate = mayAs("admin", "user") && isUsable;
  const empty = status || label
    ? html`<${Empty} title="No environment is like this."><p><a href="/environments">Show all</a></p><//>`
    : html`<${Empty} title="No environments yet."><p>An environment is an isolated machine for an agent${mayCreate ? ": create one above." : mayAs("viewer") ? ". Those that are shared with you are listed here." : "."}</p><//>`;
  const known = [...new Set((listed.data?.environments ?? []).flatMap(({ labels }) => wordsOf(labels ?? {})))].sort();
  const wanted = requirementsOf(label);
  /** @param {string} gone */
  const without = (gone) => setQuery({ label: wanted.filter((each) => each !== gone).join(","), offset: "" });
  return html`
    <${Head} title="Environments">${mayCreate ? html`<${DialogButton} label="Create an environment" title="Create an environment">${(/** @type {() => void} */ close) => html`<${Create} close=${close} />`}<//>` : null}<//>
    <${Tabs} label="Environments" tabs=${TABS} />
    <${Card}>
      <form class="filters" onSubmit=${(/** @type {SubmitEvent} */ event) => event.preventDefault()}>
        <div class="field"><label for="of-state">State</label>
          <select id="of-state" onChange=${(/** @type {any} */ { target }) => setQuery({ status: target.value, offset: "" })}>
            <option value="" selected=${status === ""}>any</option>
            ${STATES.map((each) => html`<option value=${each} selected=${each === status}>${each}</option>`)}
          </select></div>
        <div class="field"><label for="of-label">Label</label>
          <input key=${`l${label}`} id="of-label" list="known-labels" placeholder="project=x, tier!=web" defaultValue=${label} onChange=${(/** @type {any} */ { target }) => setQuery({ label: target.value.trim(), offset: "" })} />
          <datalist id="known-labels">${known.map((each) => html`<option value=${each} />`)}</datalist></div>
        ${wanted.length > 0 ? html`
          <div class="tags" role="group" aria-label="Labels that are asked for">${wanted.map((each) => html`<button type="button" class="tag" aria-label=${`No longer ${each}`} onClick=${() => without(each)}>${each} <span aria-hidden="true">✕</span></button>`)}</div>
          <button type="button" class="plain" onClick=${() => setQuery({ label: "", offset: "" })}>Any label</button>` : null}
      </form>
      <${Shown} of=${listed}>${(/** @type {Listed} */ { environments, total }) => html`
        <${Table} label="Environments" columns=${columnsOf(label)} rows=${environments} id="id" empty=${empty} />
        ${total > PER_PAGE ? html`
          <div class="actions">
            <button type="button" class="plain" disabled=${offset === 0} onClick=${() => setQuery({ offset: offset > PER_PAGE ? String(offset - PER_PAGE) : "" })}>Newer</button>
            <button type="button" class="plain" disabled=${offset + PER_PAGE >= total} onClick=${() => setQuery({ offset: String(offset + PER_PAGE) })}>Older</button>
            <span class="quiet">${count(offset + 1)} to ${count(Math.min(offset + PER_PAGE, total))} of ${count(total)}</span>
          </div>` : null}`}<//>
    <//>
    <${Shown} of=${health}>${(/** @type {Health} */ { environments, capacity }) => environments ? html`<${Host} host=${environments} capacity=${capacity} />` : null}<//>`;
}

/** @param {{host: Schemas["environments.v1.EnvironmentDriver"], capacity: Schemas["environments.v1.Capacity"] | undefined}} given */
function Host({ host: { driver, backend, usable, reason, limits, promise, warnings }, capacity }) {
  if (!usable) {
    return html`
      <${Card} title="No environments can be made here">
        <p>${reason}</p>
        ${driver === "off" ? html`<p>To turn them on, start the server with <code>STEWARD_ENVIRONMENTS_DRIVER=auto</code>.</p>` : null}
      <//>`;
  }
  const held = /** @type {[string, unknown][]} */ (Object.entries(limits).sort().map(([name, how]) => [name, html`<${State} state=${how} tone=${how === "enforced" ? "good" : how === "advisory" ? "warn" : "bad"} />`]));
  return html`
    <div class="cards">
      <${Card} title="What this host holds to">
        <${Facts} of=${[
          ["Driver", backend ? `${driver}, ${backend}` : driver],
          ["Room left", capacity ? `${capacity.available_cpu} CPU, ${capacity.available_memory} memory` : undefined],
          ...held,
        ]} />
      <//>
      <${Card} title="What its isolation promises">
        ${promise ? html`<p>${promise}</p>` : null}
        ${(warnings ?? []).map((each) => html`<div class="note warn"><p>${each}</p></div>`)}
      <//>
    </div>`;
}

function Kept() {
  return html`
    <${Head} title="Snapshots" />
    <${Tabs} label="Environments" tabs=${TABS} />
    <${Snapshots} />`;
}
