// The library of playbooks: what there is to run, and what is wrong with it.
import { html } from "../vendor/preact.js";
import { get, post, put } from "../api.js";
import { useLoad } from "../load.js";
import { DialogButton } from "../parts/dialogs.js";
import { Ago, State } from "../parts/figures.js";
import { Field, Form } from "../parts/forms.js";
import { Card, Head } from "../parts/layout.js";
import { Empty, Shown, say } from "../parts/notes.js";
import { Table } from "../parts/tables.js";
import { go, setQuery } from "../router.js";
import { mayAs } from "../session.js";
import { Playbook } from "./playbooks/playbook.js";

/** @typedef {import("../api.js").Schemas["playbooks.v1.ListPlaybooksResponse"]} Library */
/** @typedef {Library["playbooks"][number]} Entry */

/** @type {import("../parts/tables.js").Column<Entry>[]} */
const COLUMNS = [
  { title: "Playbook", cell: ({ path, name }) => html`<a href=${`/playbooks/${path}`}>${name || path}</a><br /><code class="quiet">${path}</code>`, value: ({ name, path }) => name || path },
  { title: "What it does", cell: ({ description }) => description, value: ({ description }) => description },
  { title: "Steps", number: true, cell: ({ step_count }) => step_count, value: ({ step_count }) => step_count },
  { title: "Comes from", cell: ({ origin }) => (origin === "user" ? "you" : "Steward"), value: ({ origin }) => origin },
  { title: "State", cell: ({ error_count }) => (error_count > 0 ? html`<${State} state=${`${error_count} wrong`} tone="bad" />` : html`<${State} state="ready" />`), value: ({ error_count }) => error_count },
  { title: "Changed", cell: ({ last_modified }) => html`<${Ago} time=${last_modified} />`, value: ({ last_modified }) => last_modified },
];

/** @param {import("../main.js").PageGiven} given */
export function Page({ segments, query }) {
  const path = segments.join("/");
  return path ? html`<${Playbook} key=${path} path=${path} />` : html`<${All} query=${query} />`;
}

/** @param {{query: URLSearchParams}} given */
function All({ query }) {
  const search = (query.get("search") ?? "").toLowerCase();
  const library = useLoad((signal) => get("/api/playbooks", { signal }), [], { everyS: 30 });
  const entries = (library.data?.playbooks ?? []).filter((each) => `${each.name} ${each.path} ${each.description}`.toLowerCase().includes(search));
  return html`
    <${Head} title="Playbooks">${mayAs("admin", "user") ? html`<${Create} />` : null}<//>
    <form class="filters" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()} onInput=${(/** @type {Event} */ event) => setQuery({ search: /** @type {HTMLInputElement} */ (event.target).value })}>
      <${Field} name="search" label="Search" type="search" value=${query.get("search") ?? ""} />
    </form>
    <${Card}>
      <${Shown} of=${library}>${() => html`<${Table} label="Playbooks" columns=${COLUMNS} rows=${entries} id="path" empty=${html`<${Empty} title="No playbook is like that."><p><a href="/playbooks">Show all playbooks</a></p><//>`} />`}<//>
    <//>`;
}

const BLANK = `name: A new playbook
version: "1"
steps:
  - {id: tell, name: Tell, type: utility.log, parameters: {message: "hello"}}
`;

function Create() {
  /** @param {Record<string, string>} values */
  const create = async ({ path = "" }) => {
    const named = /\.ya?ml$/.test(path) ? path : `${path}.yaml`;
    await put("/api/playbooks/{path}", { path: { path: named }, body: { text: BLANK } });
    say(`${named} is there.`);
    go(`/playbooks/${named}`);
  };
  return html`
    <${DialogButton} label="New playbook" title="New playbook">${(/** @type {() => void} */ close) => html`
      <${Form} submit="Begin it" send=${create} done=${close} cancel=${close} fields=${[
        { name: "path", label: "Where it lies", required: true, placeholder: "checks/my_check.yaml", hint: "A path in your library; .yaml is added." },
      ]} />`}<//>`;
}

/** A copy of a playbook, for one's own. @param {{path: string}} given */
export function Duplicate({ path }) {
  /** @param {Record<string, string>} values */
  const copy = async ({ new_name = "" }) => {
    const { new_path } = await post("/api/playbooks/duplicate", { body: { source_path: path, new_name } });
    go(`/playbooks/${new_path}`);
  };
  return html`
    <${DialogButton} label="Duplicate" title=${`Duplicate ${path}`} class="plain">${(/** @type {() => void} */ close) => html`
      <${Form} submit="Duplicate it" send=${copy} done=${close} cancel=${close} fields=${[{ name: "new_name", label: "Name of the copy", required: true }]} />`}<//>`;
}
