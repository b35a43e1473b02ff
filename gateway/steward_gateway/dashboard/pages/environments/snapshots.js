// What environments have written, kept: of one of them, or all of the caller's.
import { html } from "../../vendor/preact.js";
import { get, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, DialogButton } from "../../parts/dialogs.js";
import { Ago, count, size } from "../../parts/figures.js";
import { Form } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Empty, say, Shown } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { mayAs } from "../../session.js";
import { Create } from "./create.js";
import { tellingFields } from "./shared.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["environments.v1.Snapshot"]} Snapshot */
/** @typedef {Schemas["environments.v1.ListSnapshotsResponse"]} Listed */
/** @typedef {{id: string, name: string, isRunning: boolean, isPaused: boolean, mayWrite: boolean, mayRestore: boolean, changed: () => void}} Of */

const MOST = 1000;

/** @param {{of?: Of}} given  `of`: the environment whose are shown; without, all. */
export function Snapshots({ of }) {
  const listed = useLoad((signal) => get("/api/v1/snapshots", { query: { environment_id: of?.id, limit: MOST }, signal }), [of?.id]);
  const living = useLoad(async (signal) => (of ? [] : (await get("/api/v1/environments", { query: { limit: MOST }, signal })).environments));
  const names = new Map((living.data ?? []).map(({ id, name }) => [id, name]));
  const mayChange = mayAs("admin", "user");
  /** @type {import("../../parts/tables.js").Column<Snapshot>[]} */
  const columns = [
    { title: "Name", cell: ({ name }) => name, value: ({ name }) => name },
    ...(of ? [] : /** @type {import("../../parts/tables.js").Column<Snapshot>[]} */ ([
      {
        title: "Of",
        value: ({ environment_id }) => names.get(environment_id) ?? environment_id,
        cell: ({ environment_id }) => (names.has(environment_id) ? html`<a href=${`/environments/${environment_id}`}>${names.get(environment_id)}</a>` : html`<code class="quiet" title="It is gone, or one of many.">${environment_id}</code>`),
      },
    ])),
    { title: "Made of", cell: ({ base_image }) => html`<code>${base_image}</code>`, value: ({ base_image }) => base_image },
    { title: "Size", number: true, cell: ({ size_bytes }) => size(size_bytes), value: ({ size_bytes }) => Number(size_bytes) },
    { title: "Taken", cell: ({ created_at }) => html`<${Ago} time=${created_at} />`, value: ({ created_at }) => created_at },
  ];
  if (mayChange) columns.push({ title: "Actions", number: true, cell: (snapshot) => html`<${Actions} snapshot=${snapshot} of=${of} reload=${listed.reload} />` });
  /** @param {Record<string, string>} values */
  const take = async (values) => {
    await tellingFields(["name"], () => post("/api/v1/environments/{environment_id}/snapshots", { path: { environment_id: of?.id }, body: /** @type {any} */ (values) }));
    say("The snapshot is kept.");
  };
  const mayTake = of?.mayWrite && of.isRunning && !of.isPaused;
  const empty = html`
    <${Empty} title=${of ? "Nothing of it was kept yet." : "No snapshots yet."}>
      <p>A snapshot keeps what an environment has written: to put it back to, or to create others of.</p>
      ${of?.mayWrite ? html`<p>${mayTake ? "Take one above." : "One can be taken while it runs."}</p>` : of ? null : html`<p>Take one on the page of an <a href="/environments">environment</a>.</p>`}
    <//>`;
  return html`
    <${Card} title=${of ? "Snapshots" : undefined} tools=${mayTake ? html`
      <${DialogButton} label="Take a snapshot" title=${`Take a snapshot of ${of.name}`}>${(/** @type {() => void} */ close) => html`
        <p>It stands still while its files are copied. Processes and memory are not kept.</p>
        <${Form} submit="Take it" send=${take} cancel=${close} fields=${[{ name: "name", label: "Name", required: true, placeholder: "after-install", hint: "Lower-case letters, digits and -." }]}
          done=${() => {
            close();
            listed.reload();
          }} />`}<//>` : null}>
      <${Shown} of=${listed}>${(/** @type {Listed} */ { snapshots, total }) => html`
        <${Table} label="Snapshots" columns=${columns} rows=${snapshots} id="id" empty=${empty} />
        ${total > MOST ? html`<p class="quiet">The newest ${count(MOST)} of ${count(total)} are shown.</p>` : null}`}<//>
    <//>`;
}

/** @param {{snapshot: Snapshot, of: Of | undefined, reload: () => void}} given */
function Actions({ snapshot: { id, name, image }, of, reload }) {
  return html`
    <div class="actions small">
      ${of?.mayRestore && of.isRunning ? html`
        <${ConfirmButton} class="plain" label="Restore" title=${`Put ${of.name} back to ${name}`}
          question=${html`<p>All that runs in it ends, and what it wrote since is gone. Its main command begins anew.</p>`}
          act=${() => post("/api/v1/environments/{environment_id}/restore", { path: { environment_id: of.id }, body: /** @type {any} */ ({ snapshot: id }) })}
          done=${of.changed} />` : null}
      <${DialogButton} class="plain" label="Create from it" title=${`Create an environment from ${name}`}>${(/** @type {() => void} */ close) => html`<${Create} image=${image} close=${close} />`}<//>
      <${ConfirmButton} label="Delete" title=${`Delete ${name}`} question=${html`<p>It cannot be put back to, nor created from, any more.</p>`}
        act=${() => remove("/api/v1/snapshots/{snapshot_id}", { path: { snapshot_id: id } })} done=${reload} />
    </div>`;
}
