// The files a run has made: saved, or looked at. None is ever a page of this site: a picture is drawn, anything else is text.
import { html, useEffect, useState } from "../../vendor/preact.js";
import { ApiError, beginning, request } from "../../api.js";
import { Ago, size } from "../../parts/figures.js";
import { ActionButton } from "../../parts/forms.js";
import { Empty, ErrorNote, Loading } from "../../parts/notes.js";
import { Table, save } from "../../parts/tables.js";

/** @typedef {import("../../api.js").Schemas["executions.v1.Artifact"]} Artifact */

/** What a picture may take of the window's memory. */
const MOST_PICTURE_BYTES = 16 * 1024 * 1024;
const MOST_TEXT_BYTES = 64 * 1024;

/** Pictures without scripts in them, which SVG may have. @type {Record<string, string>} */
const PICTURES = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif", webp: "image/webp" };
const TEXTS = ["txt", "log", "csv", "json", "yaml", "yml", "xml", "html", "htm", "md", "svg"];

/** @param {Artifact} file */
const endOf = ({ name }) => name.split(".").at(-1)?.toLowerCase() ?? "";

/** How a file can be looked at, if at all. @param {Artifact} file @returns {"picture" | "text" | null} */
function kindOf(file) {
  if (PICTURES[endOf(file)]) return Number(file.size_bytes) <= MOST_PICTURE_BYTES ? "picture" : null;
  return TEXTS.includes(endOf(file)) || file.content_type.startsWith("text/") ? "text" : null;
}

/** @param {string} id @param {Artifact} file @param {AbortSignal} [signal] */
const read = (id, { artifact_id }, signal) => request("GET", "/api/executions/{execution_id}/artifacts/{artifact_id}", { path: { execution_id: id, artifact_id }, signal });

/** @param {{id: string, files: Artifact[]}} given */
export function Files({ id, files }) {
  const [shownId, setShownId] = useState("");
  const shown = files.find(({ artifact_id }) => artifact_id === shownId);
  /** @type {import("../../parts/tables.js").Column<Artifact>[]} */
  const columns = [
    { title: "Name", cell: ({ name }) => html`<span class="mono">${name}</span>` },
    { title: "Made", cell: ({ created_at }) => html`<${Ago} time=${created_at} />` },
    { title: "Size", number: true, cell: ({ size_bytes }) => html`<span class="nowrap">${size(size_bytes)}</span>` },
    {
      title: "",
      cell: (file) => {
        const isShown = file.artifact_id === shownId;
        return html`<div class="actions">
          ${kindOf(file) ? html`<button type="button" class="plain" aria-expanded=${isShown} aria-label=${`Show ${file.name}`} onClick=${() => setShownId(isShown ? "" : file.artifact_id)}>${isShown ? "Hide" : "Show"}</button>` : null}
          <${ActionButton} act=${async () => save(file.name, await (await read(id, file)).blob())}>Download<//>
        </div>`;
      },
    },
  ];
  return html`
    <${Table} label="Files" columns=${columns} rows=${files} id="artifact_id" empty=${html`<${Empty} title="The run has left no files."><p>Screenshots, downloads and reports of its steps stand here.</p><//>`} />
    ${shown ? html`<${Preview} key=${shownId} id=${id} file=${shown} />` : null}`;
}

/** @param {{id: string, file: Artifact}} given */
function Preview({ id, file }) {
  const [picture, setPicture] = useState("");
  const [text, setText] = useState(/** @type {string | null} */ (null));
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  const [isBroken, setBroken] = useState(false);
  useEffect(() => {
    const aborting = new AbortController();
    let url = "";
    const load = async () => {
      const answer = await read(id, file, aborting.signal);
      if (kindOf(file) === "text") {
        const { bytes, isWhole } = await beginning(answer, MOST_TEXT_BYTES, aborting.signal);
        return setText(new TextDecoder().decode(bytes, { stream: !isWhole }));
      }
      // Its type is ours: what the file says of itself is not asked.
      url = URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type: PICTURES[endOf(file)] }));
      if (aborting.signal.aborted) URL.revokeObjectURL(url);
      else setPicture(url);
    };
    load().catch((failed) => {
      if (aborting.signal.aborted) return;
      if (!(failed instanceof ApiError)) throw failed;
      setError(failed);
    });
    return () => {
      aborting.abort();
      if (url) URL.revokeObjectURL(url);
    };
  }, []);
  if (error) return html`<${ErrorNote} error=${error} />`;
  if (isBroken) return html`<div class="note"><p>This is no picture that can be shown. Download it to look at it.</p></div>`;
  if (picture) return html`<img class="frame-of-run" src=${picture} alt=${file.name} onError=${() => setBroken(true)} />`;
  if (text === null) return html`<${Loading} />`;
  const isCut = Number(file.size_bytes) > MOST_TEXT_BYTES;
  return html`
    ${isCut ? html`<p class="quiet">Its first ${size(MOST_TEXT_BYTES)}; download it for the rest.</p>` : null}
    <pre class="preview" tabindex="0" role="region" aria-label=${file.name}>${text}</pre>`;
}
