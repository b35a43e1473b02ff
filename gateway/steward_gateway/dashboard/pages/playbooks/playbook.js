// One playbook: what it asks for and does, its text, what is wrong with it; and the start of a run.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { get, post, put, remove, request } from "../../api.js";
import { useAction, useLoad } from "../../load.js";
import { ConfirmButton, DialogButton } from "../../parts/dialogs.js";
import { State } from "../../parts/figures.js";
import { Form } from "../../parts/forms.js";
import { Card, Facts, Head } from "../../parts/layout.js";
import { Empty, ErrorNote, Loading, Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { go } from "../../router.js";
import { mayAs } from "../../session.js";
import { Duplicate } from "../playbooks.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {{name: string, description: string, origin: string | null, version: string, parameters: Parameter[], steps: Step[]}} Details */
/** @typedef {{name: string, type: string, required: boolean, description: string, default: unknown}} Parameter */
/** @typedef {{id: string, name: string, type: string, on_failure: string, when: string, line: number}} Step */
/** @typedef {{line: number, column: number, message: string}} Wrong */

/** A pause in typing after which the text is checked. */
const CHECK_MS = 400;

/** @type {import("../../parts/tables.js").Column<Step>[]} */
const STEPS = [
  { title: "Step", cell: ({ id, name }) => html`${name} <code class="quiet">${id}</code>` },
  { title: "Type", cell: ({ type }) => html`<code>${type}</code>` },
  { title: "Only when", cell: ({ when }) => (when ? html`<code>${when}</code>` : "always") },
  { title: "If it fails", cell: ({ on_failure }) => on_failure || "abort" },
];

/** @param {{path: string}} given */
export function Playbook({ path }) {
  const details = useLoad(async (signal) => /** @type {Details} */ (/** @type {unknown} */ (await get("/api/playbooks/{path}", { path: { path }, signal }))), [path]);
  const text = useLoad(async (signal) => {
    const response = await request("GET", "/api/playbooks/{path}", { path: { path }, query: { source: true }, signal });
    return response.text();
  }, [path]);
  const reload = () => (details.reload(), text.reload());
  const isOwn = details.data?.origin === "user";
  return html`
    <${Head} title=${details.data?.name || path} within=${[["/playbooks", "Playbooks"]]} beside=${details.data && !isOwn ? html`<span class="tag">comes with Steward</span>` : null}>
      ${mayAs("admin", "user") ? html`
        ${details.data ? html`<${Start} path=${path} of=${details.data} />` : null}
        <${Duplicate} path=${path} />
        ${isOwn ? html`<${ConfirmButton} label="Delete" title=${`Delete ${path}`} question=${html`<p>Runs of it stay as they are.</p>`}
          act=${() => remove("/api/playbooks/{path}", { path: { path } })} done=${() => (say(`${path} is deleted.`), go("/playbooks"))} />` : null}` : null}
    <//>
    ${details.error && !details.data ? html`<${ErrorNote} error=${details.error} />` : null}
    ${details.data ? html`<${About} of=${details.data} />` : null}
    <${Shown} of=${text}>${(/** @type {string} */ source) => html`<${Editor} key=${source} path=${path} source=${source} saved=${reload} isOwn=${isOwn} />`}<//>`;
}

/** @param {{of: Details}} given */
function About({ of: { description, version, parameters, steps } }) {
  return html`
    <${Card}>
      ${description ? html`<p>${description}</p>` : null}
      <${Facts} of=${[["Version", version], ["Asks for", parameters.length > 0 ? parameters.map(({ name, type, required }) => html`<span class="tag">${name}: ${type}${required ? "" : ", if you like"}</span>`) : "nothing"]]} />
    <//>
    <${Card} title="Steps"><${Table} label="Steps" columns=${STEPS} rows=${steps} id="id" empty=${html`<${Empty} title="It has no steps." />`} /><//>`;
}

/** @param {{path: string, source: string, saved: () => void, isOwn: boolean}} given */
function Editor({ path, source, saved, isOwn }) {
  const [text, setText] = useState(source);
  const [wrong, setWrong] = useState(/** @type {Wrong[] | null} */ (null));
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const mayChange = mayAs("admin", "user");
  const check = useAction(async (/** @type {string} */ typed) => setWrong((await post("/api/playbooks/check", { body: { path, text: typed } })).errors));
  const save = useAction(() => put("/api/playbooks/{path}", { path: { path }, body: { text } }));
  useEffect(() => {
    const timer = setTimeout(() => check.run(text), wrong === null ? 0 : CHECK_MS);
    return () => clearTimeout(timer);
  }, [text]);
  /** @param {number} line */
  const show = (line) => {
    const lines = text.split("\n");
    const from = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    area.current?.focus();
    area.current?.setSelectionRange(from, from + (lines[line - 1]?.length ?? 0));
    const height = area.current ? area.current.scrollHeight / lines.length : 0;
    if (area.current) area.current.scrollTop = Math.max(0, (line - 4) * height);
  };
  const onSave = async () => {
    if (!(await save.run())) return;
    say(`${path} is saved.`);
    saved();
  };
  const tools = html`
    ${wrong === null ? null : wrong.length === 0 ? html`<${State} state="nothing is wrong" tone="good" />` : html`<${State} state=${`${wrong.length} wrong`} tone="bad" />`}
    ${mayChange ? html`<button type="button" disabled=${save.busy || text === source} onClick=${onSave}>${isOwn ? "Save" : "Save as your own"}</button>` : null}`;
  return html`
    <${Card} title="Its text" tools=${tools}>
      <textarea ref=${area} class="source" aria-label="The text of the playbook" spellcheck="false" readonly=${!mayChange}
        defaultValue=${source} onInput=${(/** @type {Event} */ event) => setText(/** @type {HTMLTextAreaElement} */ (event.target).value)}></textarea>
      <${ErrorNote} error=${check.error ?? save.error} />
      ${wrong?.length ? html`<ul class="wrongs">${wrong.map((each) => html`<li><button type="button" class="link" onClick=${() => show(each.line)}>line ${each.line}, column ${each.column}</button> ${each.message}</li>`)}</ul>` : null}
    <//>`;
}

/** @param {{path: string, of: Details}} given */
function Start({ path, of: { name, parameters } }) {
  const credentials = useLoad((signal) => get("/api/credentials", { query: { page_size: 1000 }, signal }));
  /** @param {Record<string, string>} values */
  const start = async (values) => {
    /** @type {Record<string, unknown>} */
    const given = {};
    for (const each of parameters) {
      const value = values[`parameter.${each.name}`];
      if (value !== undefined) given[each.name] = valueOf(each, value);
    }
    const { execution_id } = await post("/api/executions", {
      body: /** @type {any} */ ({ playbook_path: path, parameters: given, gateway_url: values["gateway_url"], credential_name: values["credential_name"], debug_mode: values["debug_mode"] === "true" }),
    });
    go(`/executions/${execution_id}`);
  };
  return html`
    <${DialogButton} label="Run" title=${`Run ${name}`}>${(/** @type {() => void} */ close) => html`
      <${Form} submit="Start it" send=${start} done=${close} cancel=${close} fields=${[
        ...parameters.map(fieldOf),
        { name: "gateway_url", label: "Gateway", type: "url", placeholder: "http://localhost:8088", hint: "For steps that speak with one." },
        { name: "credential_name", label: "Credential", type: "select", options: [["", "none"], ...(credentials.data?.credentials ?? []).map((each) => [each.name, each.name])] },
        { name: "debug_mode", label: "Wait where a step fails, so that it can be looked at", type: "checkbox" },
      ]} />`}<//>`;
}

/** @param {Parameter} parameter */
function fieldOf({ name, type, required, description, default: usual }) {
  const kind = type === "boolean" ? "checkbox" : type === "integer" || type === "float" ? "number" : type === "list" || type === "dict" ? "textarea" : "text";
  const value = kind === "checkbox" ? usual === true : typeof usual === "object" && usual !== null ? JSON.stringify(usual) : (usual ?? "");
  return { name: `parameter.${name}`, label: name, type: kind, required: required && kind !== "checkbox", hint: description || (kind === "textarea" ? "As JSON." : undefined), value };
}

/** @param {Parameter} parameter @param {string} text @returns {unknown} */
function valueOf({ type }, text) {
  if (type === "boolean") return text === "true";
  if (type === "integer" || type === "float") return Number(text);
  if (type !== "list" && type !== "dict") return text;
  try {
    return JSON.parse(text);
  } catch {
    return text; // the server says what is wrong with it
  }
}
