// The library of playbooks: what there is to run, and what is wrong with it.
import { html } from "../vendor/preact.js";
import { get } from "../api.js";
import { useLoad } from "../load.js";
import { Ago, State } from "../parts/figures.js";
import { Field } from "../parts/forms.js";
import { Card, Head } from "../parts/layout.js";
import { Empty, Shown } from "../parts/notes.js";
import { Table } from "../parts/tables.js";
import { setQuery } from "../router.js";
import { mayAs } from "../session.js";
import { Create, hrefOf } from "./playbooks/copies.js";
import { Playbook } from "./playbooks/playbook.js";

/** @typedef {import("../api.js").Schemas["playbooks.v1.ListPlaybooksResponse"]} Library */
/** @typedef {Library["playbooks"][number]} Entry */

/** @param {Entry} entry */
function Condition({ pending, error_count, error }) {
  if (pending) return html`<${State} state="being read" tone="busy" />`;
  if (error_count === 0) return html`<${State} state="ready" />`;
  return html`<${State} state=${`${error_count} ${error_count === 1 ? "fault" : "faults"}`} tone="bad" /><br /><span class="quiet">${error}</span>`;
}

/** @type {import("../parts/tables.js").Column<Entry>[]} */
const COLUMNS = [
  { title: "Playbook", cell: ({ path, name }) => html`<span><a href=${hrefOf(path)}>${name || path}</a><br /><code class="quiet nowrap">${path}</code></span>`, value: ({ name, path }) => name || path },
  { title: "What it does", cell: ({ description }) => description, value: ({ description }) => description },
  { title: "Domain", cell: ({ domain }) => domain, value: ({ domain }) => domain },
  { title: "Steps", number: true, cell: ({ step_count }) => step_count, value: ({ step_count }) => step_count },
  { title: "Comes from", cell: ({ origin }) => html`<span class="nowrap">${origin === "user" ? "people here" : "Steward"}</span>`, value: ({ origin }) => origin },
  { title: "State", cell: (entry) => html`<span><${Condition} ...${entry} /></span>`, value: ({ error_count }) => error_count },
  { title: "Changed", cell: ({ last_modified }) => html`<${Ago} time=${last_modified} />`, value: ({ last_modified }) => last_modified },
];

/** @param {import("../main.js").PageGiven} given */
export function Page({ segments, query }) {
  const path = segments.join("/");
  return path ? html`<${Playbook} key=${path} path=${path} />` : html`<${All} query=${query} />`;
}

/** @param {{query: URLSearchParams}} given */
function All({ query }) {
  const search = query.get("search") ?? "";
  const domain = query.get("domain") ?? "";
  const library = useLoad((signal) => get("/api/playbooks", { signal }), [], { everyS: 30 });
  const domains = [...new Set((library.data?.playbooks ?? []).map((each) => each.domain).filter(Boolean))].sort();
  /** @param {string} name */
  const choose = (name) => ({
    onInput: (/** @type {Event} */ { currentTarget }) => setQuery({ [name]: /** @type {HTMLInputElement} */ (currentTarget).value }),
  });
  /** @param {Entry} entry */
  const isWanted = (entry) =>
    (!domain || entry.domain === domain) && `${entry.name} ${entry.path} ${entry.description}`.toLowerCase().includes(search.trim().toLowerCase());
  const empty =
    search || domain
      ? html`<${Empty} title="No playbook is like that."><p><a href="/playbooks">Show all playbooks</a></p><//>`
      : html`<${Empty} title="The library is empty."><p>Begin one with “New playbook”, or put files into the server's folder of playbooks.</p><//>`;
  return html`
    <${Head} title="Playbooks">${mayAs("admin", "user") ? html`<${Create} />` : null}<//>
    <div class="filters" role="search" aria-label="Playbooks">
      <${Field} name="search" label="Search" type="search" placeholder="a name or a word" attributes=${{ value: search, ...choose("search") }} />
      <${Field} key=${`d${domains.join()}${domain}`} name="domain" label="Domain" type="select" value=${domain} options=${[["", "all"], ...domains.map((each) => [each, each])]} attributes=${choose("domain")} />
    </div>
    <${Card}>
      <${Shown} of=${library}>${(/** @type {Library} */ { playbooks, truncated }) => html`
        ${truncated ? html`<div class="note warn"><p>The folder has more playbooks than are listed.</p></div>` : null}
        <${Table} label="Playbooks" columns=${COLUMNS} rows=${playbooks.filter(isWanted)} id="path" empty=${empty} />`}<//>
    <//>`;
}
