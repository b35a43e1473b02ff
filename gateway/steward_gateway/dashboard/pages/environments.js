// Environments: all of them, and what the host makes of their limits; or the one the URL names.
import { html } from "../vendor/preact.js";
import { get, post } from "../api.js";
import { useLoad } from "../load.js";
import { DialogButton } from "../parts/dialogs.js";
import { Ago, count, State } from "../parts/figures.js";
import { Form } from "../parts/forms.js";
import { Card, Facts, Head } from "../parts/layout.js";
import { Empty, Shown } from "../parts/notes.js";
import { Table } from "../parts/tables.js";
import { go, setQuery } from "../router.js";
import { mayAs } from "../session.js";
import { One } from "./environments/one.js";
import { CHANGES, pairsOf, tellingFields } from "./environments/shared.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["environments.v1.ListEnvironmentsResponse"]} Listed */
/** @typedef {Schemas["environments.v1.GetHealthResponse"]} Health */

/** @param {import("../main.js").PageGiven} given */
export function Page({ segments, query }) {
  const [id, tab = ""] = segments;
  return id ? html`<${One} key=${id} id=${id} tab=${tab} />` : html`<${All} query=${query} />`;
}

const PER_PAGE = 20;
const STATES = ["pending", "running", "terminating", "terminated", "failed"];

/** @type {import("../parts/tables.js").Column<Listed["environments"][number]>[]} */
const COLUMNS = [
  { title: "Name", cell: ({ id, name }) => html`<a href=${`/environments/${id}`}>${name}</a>`, value: ({ name }) => name },
  { title: "State", cell: ({ status, paused }) => html`<${State} state=${paused ? "paused" : status} />`, value: ({ status }) => status },
  { title: "Image", cell: ({ image }) => html`<code>${image}</code>`, value: ({ image }) => image },
  { title: "CPU", number: true, cell: ({ resources }) => resources?.cpu },
  { title: "Memory", number: true, cell: ({ resources }) => resources?.memory },
  { title: "Created", cell: ({ created_at }) => html`<${Ago} time=${created_at} />`, value: ({ created_at }) => created_at },
];

/** @param {{query: URLSearchParams}} given */
function All({ query }) {
  const status = query.get("status") ?? "";
  const label = query.get("label") ?? "";
  const offset = Math.max(0, Number(query.get("offset")) || 0);
  const health = useLoad((signal) => get("/api/v1/health", { signal }), [], { everyS: 60 });
  const listed = useLoad(
    (signal) => get("/api/v1/environments", { query: /** @type {any} */ ({ status, label, limit: PER_PAGE, offset }), signal }),
    [status, label, offset],
    { on: CHANGES, everyS: 30 },
  );
  const isUsable = health.data?.environments?.usable === true;
  const empty = status || label
    ? html`<${Empty} title="No environment is like this."><p><a href="/environments">Show all</a></p><//>`
    : html`<${Empty} title="No environments yet."><p>An environment is an isolated machine for an agent${mayAs("admin", "user") ? ": create one above." : "."}</p><//>`;
  return html`
    <${Head} title="Environments">${mayAs("admin", "user") && isUsable ? html`<${Create} />` : null}<//>
    <${Card}>
      <form class="filters" onSubmit=${(/** @type {SubmitEvent} */ event) => event.preventDefault()}>
        <div class="field"><label for="of-state">State</label>
          <select id="of-state" onChange=${(/** @type {any} */ { target }) => setQuery({ status: target.value, offset: "" })}>
            <option value="" selected=${status === ""}>any</option>
            ${STATES.map((each) => html`<option value=${each} selected=${each === status}>${each}</option>`)}
          </select></div>
        <div class="field"><label for="of-label">Label</label>
          <input id="of-label" placeholder="project=x" value=${label} onChange=${(/** @type {any} */ { target }) => setQuery({ label: target.value.trim(), offset: "" })} /></div>
        ${label ? html`<button type="button" class="plain" onClick=${() => setQuery({ label: "", offset: "" })}>Any label</button>` : null}
      </form>
      <${Shown} of=${listed}>${(/** @type {Listed} */ { environments, total }) => html`
        <${Table} label="Environments" columns=${COLUMNS} rows=${environments} id="id" empty=${empty} />
        ${total > PER_PAGE ? html`
          <div class="actions">
            <button type="button" class="plain" disabled=${offset === 0} onClick=${() => setQuery({ offset: offset > PER_PAGE ? String(offset - PER_PAGE) : "" })}>Newer</button>
            <button type="button" class="plain" disabled=${offset + PER_PAGE >= total} onClick=${() => setQuery({ offset: String(offset + PER_PAGE) })}>Older</button>
            <span class="quiet">${count(offset + 1)} to ${count(Math.min(offset + PER_PAGE, total))} of ${count(total)}</span>
          </div>` : null}`}<//>
    <//>
    <${Shown} of=${health}>${(/** @type {Health} */ { environments }) => environments ? html`<${Host} host=${environments} />` : null}<//>`;
}

/** @param {{host: Schemas["environments.v1.EnvironmentDriver"]}} given */
function Host({ host: { driver, backend, usable, reason, limits, promise, warnings } }) {
  if (!usable) {
    return html`
      <${Card} title="No environments can be made here">
        <p>${reason}</p>
        ${driver === "off" ? html`<p>To turn them on, start the server with <code>STEWARD_ENVIRONMENTS_DRIVER=auto</code>.</p>` : null}
      <//>`;
  }
  return html`
    <${Card} title="What this host holds to">
      <${Facts} of=${[["Driver", backend ? `${driver}, ${backend}` : driver], ...Object.entries(limits).sort().map(([name, how]) => [name, how])]} />
      ${promise ? html`<h3>What its isolation promises</h3><p>${promise}</p>` : null}
      ${(warnings ?? []).map((each) => html`<div class="note warn"><p>${each}</p></div>`)}
    <//>`;
}

/** What a creation may be given, as the API names it. @param {string[]} images */
function fieldsOf(images) {
  return [
    { name: "name", label: "Name", required: true, hint: "Lower-case letters, digits and -." },
    { name: "image", label: "Image", type: "select", options: images },
    { name: "resources.cpu", label: "CPU", value: "500m", required: true, hint: "Cores, such as 2, or thousandths of one, such as 500m." },
    { name: "resources.memory", label: "Memory", value: "512Mi", required: true },
    { name: "resources.storage", label: "Disk", value: "1Gi", required: true },
    { name: "timeout", label: "Ends after, in seconds", type: "number", value: 3600 },
    { name: "idle_timeout", label: "Ends when unused for, in seconds", type: "number", hint: "Empty: it is not ended for that." },
    { name: "command", label: "Command", type: "textarea", rows: 2, hint: "One argument a line. Empty: it lives until it is ended." },
    { name: "env", label: "Variables", type: "textarea", rows: 2, hint: "NAME=value, one a line." },
    { name: "labels", label: "Labels", type: "textarea", rows: 2, hint: "name=value, one a line." },
    { name: "internet", label: "May reach the internet", type: "checkbox" },
  ];
}

function Create() {
  const images = useLoad((signal) => get("/api/v1/images", { signal }));
  const names = (images.data?.images ?? []).map(({ name }) => name);
  /** @param {Record<string, string>} values */
  const send = async (values) => {
    const given = {
      body: {
        name: values["name"],
        image: values["image"],
        resources: { cpu: values["resources.cpu"], memory: values["resources.memory"], storage: values["resources.storage"] },
        timeout: values["timeout"] ? Number(values["timeout"]) : undefined,
        idle_timeout: values["idle_timeout"] ? Number(values["idle_timeout"]) : undefined,
        command: values["command"] ? values["command"].split("\n") : undefined,
        env: pairsOf(values["env"], "env"),
        labels: pairsOf(values["labels"], "labels"),
        isolation: values["internet"] === "true" ? { network_policy: { allow_internet: true } } : undefined,
      },
    };
    const made = await tellingFields(fieldsOf(names).map(({ name }) => name), () => post("/api/v1/environments", given));
    go(`/environments/${made.id}`);
  };
  return html`
    <${DialogButton} label="Create an environment" title="Create an environment">${(/** @type {() => void} */ close) =>
      names.length === 0 ? html`<${Shown} of=${images}>${() => html`<${Empty} title="There is no image."><p>Import one with <code>steward image import</code>.</p><//>`}<//>` : html`
      <${Form} submit="Create" send=${send} cancel=${close} fields=${fieldsOf(names)} />`}<//>`;
}
