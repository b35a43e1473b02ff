// The text of a playbook: checked while it is written, with what is wrong at its lines.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { ApiError, post, put } from "../../api.js";
import { useAction } from "../../load.js";
import { State } from "../../parts/figures.js";
import { Card } from "../../parts/layout.js";
import { ErrorNote, say } from "../../parts/notes.js";
import { person } from "../../session.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["playbooks.v1.GetPlaybookSourceResponse"]} Source */
/** @typedef {import("../../api.js").TextError} Wrong */

/** A pause in typing after which the text is checked. */
const CHECK_MS = 600;

const FEWEST_ROWS = 8;
const MOST_ROWS = 32;

/**
 * Texts that were not saved yet and what they were made of, of each person and path: who looks at another page finds
 * them again, and overwrites nothing that somebody else saved meanwhile.
 * @type {Map<string, {text: string, base: Source}>}
 */
const drafts = new Map();

/** @param {{path: string, source: Source, saved: () => void, line: {line: number} | null}} given  `line`: one to be shown. */
export function Editor({ path, source, saved, line }) {
  const key = `${person.get()?.id} ${path}`;
  const draft = drafts.get(key);
  const [text, setText] = useState(draft?.text ?? source.text);
  const [wrong, setWrong] = useState(/** @type {Wrong[] | null} */ (null));
  const [base, setBase] = useState(draft?.base ?? source);
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const gutter = useRef(/** @type {HTMLElement | null} */ (null));
  const newest = useRef(0);
  const isChanged = text !== base.text;
  const isOwn = base.origin === "user";
  const isPassed = source.digest !== base.digest;
  const check = useAction(async (/** @type {string} */ typed) => {
    const own = ++newest.current;
    const { errors } = await post("/api/playbooks/check", { body: { path, text: typed } });
    if (own === newest.current) setWrong(errors);
  });
  const save = useAction(async () => {
    try {
      const { digest } = await put("/api/playbooks/{path}", { path: { path }, body: { text, expected_digest: base.digest } });
      setBase({ ...base, text, digest, origin: "user" });
      setWrong([]);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.reason === "VERSION_PASSED") saved(); // what somebody else saved is to be shown
      if (error.errors.length === 0) throw error;
      setWrong(error.errors);
      throw new ApiError(error.status, "It is not saved: a playbook that is saved has no faults. They are listed below.");
    }
  });

  useEffect(() => {
    if (isChanged) drafts.set(key, { text, base });
    else drafts.delete(key);
  }, [text, base, isChanged]);
  useEffect(() => {
    const timer = setTimeout(() => check.run(text), wrong === null ? 0 : CHECK_MS);
    return () => clearTimeout(timer);
  }, [text]);
  useEffect(() => {
    if (!isChanged) return undefined;
    const ask = (/** @type {BeforeUnloadEvent} */ event) => event.preventDefault();
    addEventListener("beforeunload", ask);
    return () => removeEventListener("beforeunload", ask);
  }, [isChanged]);
  useEffect(() => {
    if (!isPassed || isChanged) return;
    setBase(source);
    write(source.text);
  }, [source.digest]);
  useEffect(() => {
    if (line) show(line.line);
  }, [line]);

  /** @param {string} instead */
  const write = (instead) => {
    if (area.current) area.current.value = instead;
    setText(instead);
    save.clear();
  };
  /** @param {number} to */
  const show = (to) => {
    const element = area.current;
    if (!element) return;
    const lines = text.split("\n");
    const from = lines.slice(0, to - 1).reduce((sum, each) => sum + each.length + 1, 0);
    element.focus();
    element.setSelectionRange(from, from + (lines[to - 1]?.length ?? 0));
    element.scrollTop = Math.max(0, (to - 4) * (element.scrollHeight / lines.length));
    element.scrollIntoView({ block: "nearest" });
  };
  const onSave = async () => {
    if (!(await save.run())) return;
    say(`${path} is saved.`);
    saved();
  };
  const scroll = () => {
    if (gutter.current && area.current) gutter.current.scrollTop = area.current.scrollTop;
  };
  const count = text.split("\n").length;
  const faulty = new Set(wrong?.map((each) => each.line));
  const tools = html`
    <span role="status">${wrong === null ? null : wrong.length === 0 ? html`<${State} state="no faults" tone="good" />` : html`<${State} state=${`${wrong.length} ${wrong.length === 1 ? "fault" : "faults"}`} tone="bad" />`}</span>
    ${isChanged ? html`<button type="button" class="plain" onClick=${() => (setBase(source), write(source.text))}>Discard changes</button>` : null}
    <button type="button" disabled=${save.busy || !isChanged} onClick=${onSave}>${isOwn ? "Save" : "Save as your own"}</button>`;
  return html`
    <${Card} title="Text" tools=${tools}>
      ${isPassed && isChanged ? html`<div class="note warn"><p>Somebody else has saved it meanwhile. “Discard changes” shows what is there now; copy what you want to keep before.</p></div>` : null}
      <${ErrorNote} error=${save.error ?? check.error} />
      <div class="editor">
        <pre ref=${gutter} aria-hidden="true">${Array.from({ length: count }, (_, i) => html`<span class=${faulty.has(i + 1) ? "faulty" : ""}>${`${i + 1}\n`}</span>`)}</pre>
        <textarea ref=${area} aria-label="Text of the playbook" aria-describedby="faults" aria-invalid=${faulty.size > 0 ? "true" : undefined} spellcheck="false" wrap="off" rows=${Math.min(Math.max(count, FEWEST_ROWS), MOST_ROWS)} onScroll=${scroll}
          defaultValue=${text} onInput=${(/** @type {Event} */ event) => setText(/** @type {HTMLTextAreaElement} */ (event.target).value)}></textarea>
      </div>
      <ul id="faults" class="faults" aria-label="Faults">${(wrong ?? []).map((each) => html`<li><button type="button" class="link" onClick=${() => show(each.line)}>line ${each.line}, column ${each.column}</button> ${each.message}</li>`)}</ul>
    <//>`;
}
