// The log of an environment as it is written, gone on with where a connection broke off.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { ApiError, request } from "../../api.js";
import { connection } from "../../connection.js";
import { ErrorNote } from "../../parts/notes.js";

/** @typedef {{sequence: number, stream: string, timestamp: string, message: string}} Line */

/** Older lines are let go of: a page with all of a long log stands still. */
const KEPT = 2000;
const FIRST = 500;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
/** Of refusals, those that pass: no answer, too many calls, a server or a proxy before it that is not ready. */
const PASSING = [0, 429, 502, 503, 504];

/** @param {{id: string}} given */
export function Logs({ id }) {
  const [lines, setLines] = useState(/** @type {Line[]} */ ([]));
  const [state, setState] = useState("Opening…");
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  const [sought, setSought] = useState("");
  const [isTimed, setTimed] = useState(false);
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const isAtEnd = useRef(true);

  useEffect(() => {
    const aborting = new AbortController();
    follow(id, aborting.signal, (read) => setLines((before) => [...before, ...read].slice(-KEPT)), setState).catch((failed) => {
      if (aborting.signal.aborted) return;
      if (!(failed instanceof ApiError)) throw failed;
      setState("");
      setError(failed);
    });
    return () => aborting.abort();
  }, [id]);

  useEffect(() => {
    if (isAtEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, sought, isTimed]);

  const onScroll = () => {
    const element = box.current;
    if (element) isAtEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < 30;
  };
  const wanted = sought.toLowerCase();
  const shown = wanted ? lines.filter(({ message }) => message.toLowerCase().includes(wanted)) : lines;
  return html`
    <section class="card" aria-label="Log">
      <div class="filters">
        <div class="field"><label for="sought">Search</label><input id="sought" type="search" value=${sought} onInput=${(/** @type {any} */ { target }) => setSought(target.value)} /></div>
        <div class="field checkbox"><label for="timed">Times</label><input id="timed" type="checkbox" checked=${isTimed} onChange=${(/** @type {any} */ { target }) => setTimed(target.checked)} /></div>
        <span class="quiet" role="status">${state}</span>
      </div>
      <${ErrorNote} error=${error} />
      <div class="log mono" ref=${box} onScroll=${onScroll} tabindex="0" role="region" aria-label="Lines of the log">
        ${shown.length === 0 ? html`<p class="quiet">${wanted ? "No line has this." : "Nothing was written yet."}</p>` : null}
        ${shown.map(({ sequence, stream, timestamp, message }) => html`<div key=${sequence} class=${stream}>${isTimed ? html`<time>${timestamp}</time> ` : null}${stream === "stderr" ? html`<span class="unseen">stderr: </span>` : null}${message}</div>`)}
      </div>
    </section>`;
}

/**
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(lines: Line[]) => void} heard
 * @param {(state: string) => void} say
 */
async function follow(id, signal, heard, say) {
  let last = 0;
  for (let attempts = 0; !signal.aborted; attempts++) {
    let waitMs = Math.min(FIRST_WAIT_MS * 2 ** attempts, LONGEST_WAIT_MS);
    const broken = new AbortController(); // a stream may take minutes to notice that the network went away
    const unfollow = connection.follow((now) => now === "unreachable" && broken.abort());
    try {
      const query = last > 0 ? { follow: true, after: last } : { follow: true, tail: FIRST };
      const response = await request("GET", "/api/v1/environments/{environment_id}/logs", { path: { environment_id: id }, query, signal: AbortSignal.any([signal, broken.signal]) });
      say("Following.");
      for await (const events of eventsOf(response)) {
        const lines = events.filter(({ type }) => type === "message").map(({ id: sequence, data }) => ({ sequence, ...JSON.parse(data) }));
        if (lines.length > 0) {
          attempts = 0;
          waitMs = FIRST_WAIT_MS;
          last = Math.max(last, lines.at(-1)?.sequence ?? 0);
          heard(lines);
        }
        if (events.some(({ type }) => type === "end")) return say("The log has ended.");
        if (events.some(({ type }) => type === "error")) break; // if it is for good, who asks again is refused
      }
    } catch (failed) {
      if (signal.aborted || (failed instanceof ApiError && !PASSING.includes(failed.status))) throw failed;
      if (failed instanceof ApiError) waitMs = Math.max(waitMs, failed.retryAfterS * 1000 || 0); // a proxy may name a date
    } finally {
      unfollow();
    }
    say("Cut off; connecting again…");
    await new Promise((done) => setTimeout(done, waitMs));
  }
}

/** Server-sent events, all of a piece that arrived at a time. @param {Response} response */
async function* eventsOf(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const blocks = text.replaceAll("\r\n", "\n").split("\n\n");
    text = blocks.pop() ?? "";
    yield blocks.map(eventOf).filter(({ data }) => data !== "");
  }
}

/** @param {string} block */
function eventOf(block) {
  const event = { id: 0, type: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("id:")) event.id = Number(line.slice(3));
    else if (line.startsWith("event:")) event.type = line.slice(6).trim();
    else if (line.startsWith("data:")) event.data += line.slice(5).trimStart();
  }
  return event;
}
