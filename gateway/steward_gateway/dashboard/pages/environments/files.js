// The files of an environment: directories are walked through, files are looked at, brought and taken.
import { html, useRef, useState } from "../../vendor/preact.js";
import { ApiError, beginning, get, post, remove, request } from "../../api.js";
import { useAction, useLoad } from "../../load.js";
import { ConfirmButton, Dialog, DialogButton } from "../../parts/dialogs.js";
import { Ago, size } from "../../parts/figures.js";
import { ActionButton, Form } from "../../parts/forms.js";
import { Card, Facts } from "../../parts/layout.js";
import { Empty, ErrorNote, say, Shown } from "../../parts/notes.js";
import { save, Table } from "../../parts/tables.js";
import { go } from "../../router.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["environments.v1.File"]} File */
/** @typedef {{file: File, files?: File[], truncated?: boolean, text?: string | null, isWhole?: boolean}} Place  A directory has `files`, a file `text`: null if it is none. */

/** What REST takes at once; more goes in over gRPC. */
const MOST_UPLOADED_BYTES = 4 * 1024 * 1024;
const PREVIEWED_BYTES = 64 * 1024;
const HOME = "/workspace";

/** @param {string} path */
const nameOf = (path) => path.slice(path.lastIndexOf("/") + 1) || "/";
/** @param {string} path */
const folderOf = (path) => path.slice(0, path.lastIndexOf("/")) || "/";
/** @param {string} folder @param {string} name */
const within = (folder, name) => (name.startsWith("/") ? name : `${folder === "/" ? "" : folder}/${name}`);

/** @param {{id: string, at: string}} given  `at`: the path that is shown; empty: where work begins, or the root if there is no such place. */
export function Files({ id, at }) {
  const path = { environment_id: id };
  // To look at files is to use the environment, which keeps it from ending for idleness: nothing is loaded again by itself.
  const loaded = useLoad((signal) => (at ? placeOf(id, at, signal) : homeOf(id, signal)), [id, at]);
  /** @param {string} to */
  const href = (to) => `/environments/${id}/files?path=${encodeURIComponent(to)}`;
  const shown = loaded.data?.file.path ?? at;
  return html`
    <${Card}>
      ${shown ? html`<${Crumbs} path=${shown} href=${href} />` : null}
      <${Shown} of=${loaded}>${(/** @type {Place} */ place) =>
        place.files ? html`<${Folder} key=${place.file.path} path=${path} place=${place} href=${href} reload=${loaded.reload} />` : html`<${One} path=${path} place=${place} href=${href} reload=${loaded.reload} />`}<//>
    <//>`;
}

/** @param {{path: string, href: (to: string) => string}} given */
function Crumbs({ path, href }) {
  const parts = path.split("/").filter(Boolean);
  const last = parts.length - 1;
  return html`
    <nav class="path mono" aria-label="Path">
      <a href=${href("/")} aria-label="The root" aria-current=${parts.length === 0 ? "page" : undefined}>/</a>
      ${parts.map((part, i) => html`<a href=${href(`/${parts.slice(0, i + 1).join("/")}`)} aria-current=${i === last ? "page" : undefined}>${part}</a>${i < last ? html`<span aria-hidden="true">/</span>` : null}`)}
    </nav>`;
}

/** @param {{path: {environment_id: string}, place: Place, href: (to: string) => string, reload: () => Promise<void>}} given */
function Folder({ path, place: { file, files = [], truncated }, href, reload }) {
  const folder = file.path;
  /** @param {string} name */
  const make = (name) => post("/api/v1/environments/{environment_id}/files/directories", { path, body: /** @type {any} */ ({ path: within(folder, name) }) });
  /** @type {import("../../parts/tables.js").Column<File>[]} */
  const columns = [
    {
      title: "Name",
      value: (each) => nameOf(each.path),
      cell: (each) => {
        const name = `${nameOf(each.path)}${each.kind === "directory" ? "/" : ""}`;
        return html`<span class="mono">${each.kind === "other" ? name : html`<a href=${href(each.path)}>${name}</a>`}${each.target ? html` <span class="quiet">→ ${each.target}</span>` : null}</span>`;
      },
    },
    { title: "Size", number: true, cell: ({ kind, size_bytes }) => (kind === "file" ? size(size_bytes) : null), value: ({ size_bytes }) => Number(size_bytes) },
    { title: "Mode", cell: ({ mode }) => html`<code>${mode}</code>` },
    { title: "Changed", cell: ({ modified_at }) => html`<${Ago} time=${modified_at} />`, value: ({ modified_at }) => modified_at },
    {
      title: "Actions",
      number: true,
      cell: (each) => html`
        <div class="actions small">
          ${each.kind === "file" ? html`<${Download} path=${path} file=${each} />` : null}
          <${Move} path=${path} file=${each} done=${reload} />
          <${Delete} path=${path} file=${each} done=${reload} />
        </div>`,
    },
  ];
  return html`
    <div class="actions above">
      <${Upload} path=${path} folder=${folder} files=${files} done=${reload} />
      <${DialogButton} class="plain" label="New directory" title=${`A new directory in ${folder}`}>${(/** @type {() => void} */ close) => html`
        <${Form} submit="Make it" send=${(/** @type {Record<string, string>} */ { name = "" }) => make(name)} cancel=${close} fields=${[{ name: "name", label: "Name", required: true }]}
          done=${() => {
            close();
            reload();
          }} />`}<//>
      <${ActionButton} act=${reload}>Reload<//>
    </div>
    <${Table} label="Files" columns=${columns} rows=${[...files].sort(directoriesFirst)} id="path" empty=${html`<${Empty} title="Nothing is in it."><p>Upload something, or make a directory.</p><//>`} />
    ${truncated ? html`<p class="quiet">There are more than 10,000; the others are not shown.</p>` : null}`;
}

/** @param {File} a @param {File} b */
const directoriesFirst = (a, b) => Number(b.kind === "directory") - Number(a.kind === "directory") || a.path.localeCompare(b.path, "en", { numeric: true });

/** @param {{path: {environment_id: string}, place: Place, href: (to: string) => string, reload: () => Promise<void>}} given */
function One({ path, place: { file, text, isWhole }, href, reload }) {
  const up = () => go(href(folderOf(file.path)));
  return html`
    <div class="actions above">
      ${file.kind === "file" ? html`<${Download} path=${path} file=${file} />` : null}
      <${Move} path=${path} file=${file} done=${up} />
      <${Delete} path=${path} file=${file} done=${up} />
      <${ActionButton} act=${reload}>Reload<//>
    </div>
    <${Facts} of=${[
      ["Size", size(file.size_bytes)],
      ["Mode", html`<code>${file.mode}</code>, of user ${file.user}, group ${file.group}`],
      ["Changed", html`<${Ago} time=${file.modified_at} />`],
    ]} />
    ${file.kind !== "file"
      ? html`<${Empty} title="It has no content to show." />`
      : text == null
        ? html`<${Empty} title="This is no text."><p>Download it to look at it.</p><//>`
        : text === ""
          ? html`<${Empty} title="It is empty." />`
          : html`
            ${isWhole ? null : html`<p class="quiet">The first ${size(PREVIEWED_BYTES)} are shown. Download it to see all of it.</p>`}
            <pre class="preview" tabindex="0" role="region" aria-label=${`Content of ${nameOf(file.path)}`}>${text}</pre>`}`;
}

/** @param {{path: {environment_id: string}, file: File}} given */
function Download({ path, file }) {
  const act = async () => {
    const response = await request("GET", "/api/v1/environments/{environment_id}/files/content", { path, query: { path: file.path } });
    save(nameOf(file.path), await response.blob());
  };
  return html`<${ActionButton} title=${`Download ${nameOf(file.path)}`} act=${act}>Download<//>`;
}

/** @param {{path: {environment_id: string}, file: File, done: () => void}} given */
function Move({ path, file, done }) {
  /** @param {Record<string, string>} values */
  const send = ({ to = "" }) => post("/api/v1/environments/{environment_id}/files/move", { path, body: /** @type {any} */ ({ path: file.path, to: within(folderOf(file.path), to) }) });
  return html`
    <${DialogButton} class="plain" label="Rename" title=${`Rename ${nameOf(file.path)}`}>${(/** @type {() => void} */ close) => html`
      <${Form} submit="Rename" send=${send} cancel=${close} fields=${[{ name: "to", label: "New name", required: true, value: nameOf(file.path), hint: "With a path, it is moved there." }]} done=${() => {
        close();
        done();
      }} />`}<//>`;
}

/** @param {{path: {environment_id: string}, file: File, done: () => void}} given */
function Delete({ path, file, done }) {
  const isFolder = file.kind === "directory";
  return html`
    <${ConfirmButton} label="Delete" title=${`Delete ${nameOf(file.path)}`} question=${html`<p>${isFolder ? "The directory and everything in it are" : "It is"} gone for good.</p>`}
      act=${() => remove("/api/v1/environments/{environment_id}/files", { path, query: { path: file.path, recursive: isFolder } })} done=${done} />`;
}

/** @param {{path: {environment_id: string}, folder: string, files: File[], done: () => Promise<void>}} given */
function Upload({ path, folder, files, done }) {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [asked, setAsked] = useState(/** @type {globalThis.File[]} */ ([]));
  const there = new Set(files.map((each) => nameOf(each.path)));
  const { run, busy, error, clear } = useAction(async (/** @type {globalThis.File[]} */ chosen) => {
    try {
      for (const each of chosen) {
        if (each.size > MOST_UPLOADED_BYTES) {
          throw new ApiError(0, `${each.name} has ${size(each.size)}; a browser can bring at most ${size(MOST_UPLOADED_BYTES)}. Use: steward env cp ${each.name} ${path.environment_id}:${folder}`);
        }
        await request("PUT", "/api/v1/environments/{environment_id}/files/content", { path, query: { path: within(folder, each.name) }, body: each });
      }
      say(chosen.length === 1 ? `${chosen[0]?.name} is there.` : `${chosen.length} files are there.`);
    } finally {
      await done();
    }
  });
  const onChange = () => {
    const chosen = [...(input.current?.files ?? [])];
    if (input.current) input.current.value = ""; // so that the same can be chosen again
    if (chosen.some(({ name }) => there.has(name))) setAsked(chosen);
    else if (chosen.length > 0) run(chosen);
  };
  const replaced = asked.filter(({ name }) => there.has(name)).map(({ name }) => name);
  const close = () => setAsked([]);
  return html`
    <input ref=${input} type="file" multiple hidden aria-label="Files to upload" onChange=${onChange} />
    <button type="button" disabled=${busy} onClick=${() => input.current?.click()}>${busy ? "Uploading…" : "Upload"}</button>
    ${asked.length > 0 ? html`
      <${Dialog} title="Replace what is there?" close=${close}>
        <p>${replaced.join(", ")} ${replaced.length === 1 ? "is" : "are"} in ${folder} already.</p>
        <div class="actions">
          <button type="button" class="danger" onClick=${() => {
            close();
            run(asked);
          }}>Replace</button>
          <button type="button" class="plain" onClick=${close}>Cancel</button>
        </div>
      <//>` : null}
    ${error ? html`<div class="whole"><${ErrorNote} error=${error} /><button type="button" class="link" onClick=${clear}>dismiss</button></div>` : null}`;
}

/** @param {string} id @param {AbortSignal} signal @returns {Promise<Place>} */
async function homeOf(id, signal) {
  const root = await placeOf(id, "/", signal);
  return root.files?.some(({ path }) => path === HOME) ? placeOf(id, HOME, signal) : root;
}

/** @param {string} id @param {string} at @param {AbortSignal} signal @returns {Promise<Place>} */
async function placeOf(id, at, signal) {
  const given = { path: { environment_id: id }, query: { path: at }, signal };
  const file = await get("/api/v1/environments/{environment_id}/files/stat", given);
  if (file.kind === "directory") {
    return { file, ...(await get("/api/v1/environments/{environment_id}/files", given)) };
  }
  if (file.kind !== "file") return { file };
  const response = await request("GET", "/api/v1/environments/{environment_id}/files/content", given);
  const { bytes, isWhole } = await beginning(response, PREVIEWED_BYTES, signal);
  return { file, text: textOf(bytes, isWhole), isWhole };
}

/** Null if it is no text. @param {Uint8Array} bytes @param {boolean} isWhole */
function textOf(bytes, isWhole) {
  if (bytes.includes(0)) return null;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: !isWhole });
  } catch {
    return null;
  }
}
