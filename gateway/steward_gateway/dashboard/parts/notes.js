// What is said where there is nothing, not yet something, or something is wrong.
import { html } from "../vendor/preact.js";
import { storeOf, useStore } from "../store.js";

/** @typedef {import("../api.js").ApiError} ApiError */

/** @param {{error: ApiError | null, retry?: () => void}} given */
export function ErrorNote({ error, retry }) {
  if (!error) return null;
  const fields = Object.entries(error.fields);
  return html`
    <div class="note bad" role="alert">
      <p>${error.message}</p>
      ${fields.length > 1 ? html`<ul>${fields.map(([name, why]) => html`<li><code>${name}</code> ${why}</li>`)}</ul>` : null}
      ${error.errors.length > 0 ? html`<ul>${error.errors.map((each) => html`<li><b>line ${each.line}, column ${each.column}</b> ${each.message}</li>`)}</ul>` : null}
      ${error.retryAfterS > 0 ? html`<p class="quiet">It can be tried again in ${Math.ceil(error.retryAfterS)} s.</p>` : null}
      ${retry ? html`<button class="plain" onClick=${retry}>Try again</button>` : null}
    </div>`;
}

/** @param {{title: string, children?: unknown}} given  What to do about it, as children. */
export function Empty({ title, children }) {
  return html`<div class="empty"><p class="title">${title}</p>${children}</div>`;
}

export function Loading() {
  return html`<p class="loading" role="status">Loading…</p>`;
}

/**
 * What was loaded, or what stands in its way.
 * @template T
 * @param {{of: import("../load.js").Loaded<T>, children: (data: T) => unknown}} given
 */
export function Shown({ of, children }) {
  if (of.data !== undefined) {
    return html`${of.error && of.error.status !== 0 ? html`<${ErrorNote} error=${of.error} retry=${of.reload} />` : null}${children(of.data)}`;
  }
  if (of.error) return html`<${ErrorNote} error=${of.error} retry=${of.reload} />`;
  return html`<${Loading} />`;
}

/** @typedef {{id: number, text: string, tone: "good" | "bad"}} Word */

/** @type {import("../store.js").Store<Word[]>} */
const words = storeOf(/** @type {Word[]} */ ([]));
let lastId = 0;
const SAID_FOR_MS = 6000;

/** Say something in passing. @param {string} text @param {"good" | "bad"} [tone] */
export function say(text, tone = "good") {
  const id = ++lastId;
  words.set([...words.get(), { id, text, tone }]);
  setTimeout(() => words.set(words.get().filter((each) => each.id !== id)), SAID_FOR_MS);
}

export function Words() {
  const said = useStore(words);
  return html`<div class="words" role="status" aria-live="polite">${said.map(({ id, text, tone }) => html`<p key=${id} class=${tone}>${text}</p>`)}</div>`;
}
