import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { ApiError, get } from "../../api.js";
import { useAction } from "../../load.js";
import { Ago, State } from "../../parts/figures.js";
import { ActionButton, Field } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Empty, ErrorNote, Loading } from "../../parts/notes.js";
import { CsvButton, Table } from "../../parts/tables.js";
import { setQuery } from "../../router.js";

/** @typedef {import("../../api.js").Schemas["audit.v1.AuditEntry"]} Entry */

const PAGE = 100;

/** @type {import("../../parts/tables.js").Column<Entry>[]} */
const COLUMNS = [
  { title: "Number", number: true, cell: ({ number }) => number, value: ({ number }) => Number(number) },
  { title: "When", cell: ({ at }) => html`<${Ago} time=${at} />`, value: ({ at }) => at },
  { title: "What", cell: ({ action }) => action, value: ({ action }) => action },
  { title: "Of", cell: ({ resource_type, resource_id }) => html`<div class="prose">${resource_type} <code>${resource_id}</code></div>`, value: ({ resource_id }) => resource_id },
  { title: "By", cell: ({ actor_kind, actor_id }) => html`<div class="prose">${actor_kind} <code>${actor_id}</code></div>`, value: ({ actor_id }) => actor_id },
  { title: "From", cell: ({ address }) => address, value: ({ address }) => address },
  { title: "Change", cell: (entry) => html`<${Change} entry=${entry} />` },
];

/** @param {{entry: Entry}} given */
function Change({ entry: { before, after, reason, request_id, hash } }) {
  return html`
    <details><summary>Show</summary>
      <pre>${JSON.stringify({ before, after, reason: reason || undefined, request_id: request_id || undefined, hash }, null, 2)}</pre>
    </details>`;
}

/** @param {{query: URLSearchParams}} given */
export function Audit({ query }) {
  const filters = { action: query.get("action") ?? "", resource_type: query.get("resource_type") ?? "", actor_id: query.get("actor_id") ?? "" };
  const [entries, setEntries] = useState(/** @type {Entry[] | null} */ (null));
  const [next, setNext] = useState("");
  const [verified, setVerified] = useState(/** @type {string | null} */ (null));
  const newest = useRef(0);
  const more = useAction(async (/** @type {string} */ page_token) => {
    const own = ++newest.current;
    if (!page_token) setNext(""); // what is older by another filter is none of this
    let answer;
    try {
      answer = await get("/api/v1/audit", { query: { ...filters, page_size: PAGE, page_token } });
    } catch (error) {
      if (own === newest.current) throw error;
    }
    if (!answer || own !== newest.current) return; // asked for by an older filter
    setEntries((before) => (page_token ? [...(before ?? []), ...answer.entries] : answer.entries));
    setNext(answer.next_page_token);
  });
  useEffect(() => {
    more.run("");
  }, [filters.action, filters.resource_type, filters.actor_id]);
  const verify = async () => {
    const { verified: isWhole, entries: all, broken_at, what } = await get("/api/v1/audit/verify");
    if (!isWhole) throw new ApiError(409, `Entry ${broken_at} is not as it was written: ${what}`);
    setVerified(`All ${all} entries are as they were written.`);
  };
  return html`
    <${Card} title="Audit log" tools=${html`
      ${verified ? html`<${State} state=${verified} tone="good" />` : null}
      <${ActionButton} act=${verify}>Verify<//>
      <${CsvButton} name="audit.csv" columns=${COLUMNS} rows=${entries ?? []} />`}>
      <form class="filters" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()} onChange=${(/** @type {Event} */ event) => {
        const { name, value } = /** @type {HTMLInputElement} */ (event.target);
        setQuery({ [name]: value.trim() });
      }}>
        <${Field} key=${`a${filters.action}`} name="action" label="What" value=${filters.action} placeholder="agent.created" />
        <${Field} key=${`t${filters.resource_type}`} name="resource_type" label="Kind of thing" value=${filters.resource_type} placeholder="agent" />
        <${Field} key=${`w${filters.actor_id}`} name="actor_id" label="Who" value=${filters.actor_id} placeholder="user_…" />
      </form>
      <${ErrorNote} error=${more.error} retry=${() => more.run("")} />
      ${entries === null ? (more.error ? null : html`<${Loading} />`) : html`<${Table} label="Audit log" columns=${COLUMNS} rows=${entries} id="number" empty=${html`<${Empty} title="Nothing like that happened."><p>Empty a filter to see more.</p><//>`} />`}
      ${next ? html`<div class="actions"><button type="button" class="plain" disabled=${more.busy} onClick=${() => more.run(next)}>Show older</button></div>` : null}
    <//>`;
}
