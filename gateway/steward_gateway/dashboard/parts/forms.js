// Forms: what was wrong with a value is said at its field, in the server's words.
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { useAction } from "../load.js";
import { ApiError } from "../api.js";
import { ErrorNote, say } from "./notes.js";

/**
 * @typedef {object} FieldGiven
 * @property {string} name  As the API has it, so that its words find their place.
 * @property {string} label
 * @property {string} [hint]
 * @property {string} [type]  Of an input; also "textarea", "select", "checkbox".
 * @property {string | number | boolean} [value]  What it begins with.
 * @property {boolean} [required]
 * @property {(string | [string, string])[]} [options]  Of a select: values, or values and their texts.
 * @property {string} [placeholder]
 * @property {string} [autocomplete]
 * @property {number} [rows]
 * @property {Record<string, string>} [errors]
 * @property {Record<string, unknown>} [attributes]  Others of the control itself, such as `min`.
 */

let lastId = 0;

/** @param {FieldGiven} given */
export function Field({ name, label, hint, type = "text", value, required = false, options, placeholder, autocomplete = "off", rows = 4, errors = {}, attributes = {} }) {
  const [id] = useState(() => `field-${++lastId}`);
  const error = errors[name];
  const described = [hint ? `${id}-hint` : "", error ? `${id}-error` : ""].filter(Boolean).join(" ") || undefined;
  const common = { id, name, required, placeholder, "aria-describedby": described, "aria-invalid": error ? "true" : undefined, ...attributes };
  const control =
    type === "textarea"
      ? html`<textarea ...${common} rows=${rows} spellcheck="false" defaultValue=${value ?? ""}></textarea>`
      : type === "select"
        ? html`<select ...${common}>${(options ?? []).map((each) => {
            const [of, text] = Array.isArray(each) ? each : [each, each];
            return html`<option value=${of} selected=${of === String(value ?? "")}>${text}</option>`;
          })}</select>`
        : type === "checkbox"
          ? html`<input ...${common} type="checkbox" defaultChecked=${value === true} />`
          : html`<input ...${common} type=${type} defaultValue=${value ?? ""} autocomplete=${autocomplete} step=${type === "number" ? "any" : undefined} />`;
  return html`
    <div class=${`field ${type}`}>
      <label for=${id}>${label}${required ? html`<span class="required" aria-hidden="true"> *</span>` : null}</label>
      ${control}
      ${hint ? html`<p class="hint" id=${`${id}-hint`}>${hint}</p>` : null}
      ${error ? html`<p class="wrong" id=${`${id}-error`}>${error}</p>` : null}
    </div>`;
}

/**
 * A form that sends what its fields hold. What it holds stays if that is refused.
 * @param {{
 *   fields: Omit<FieldGiven, "errors">[],
 *   submit: string,
 *   send: (values: Record<string, string>) => Promise<unknown>,
 *   done?: () => void,
 *   cancel?: () => void,
 *   danger?: boolean,
 *   children?: unknown,
 * }} given  An empty field is left out of the values; a checkbox is "true" or "false".
 */
export function Form({ fields, submit, send, done, cancel, danger = false, children }) {
  const isGone = useRef(false);
  useEffect(() => () => void (isGone.current = true), []);
  const { run, busy, error } = useAction(async (/** @type {Record<string, string>} */ values) => {
    try {
      await send(values);
    } catch (failed) {
      // Its dialog was closed meanwhile: there is no other place to tell it.
      if (isGone.current && failed instanceof ApiError) say(failed.message, "bad");
      throw failed;
    }
  });
  const form = useRef(/** @type {HTMLFormElement | null} */ (null));
  useEffect(() => {
    /** @type {HTMLElement | null | undefined} */ (form.current?.querySelector("[aria-invalid]"))?.focus();
  }, [error]);
  /** @param {SubmitEvent} event */
  const onSubmit = async (event) => {
    event.preventDefault();
    if (busy || !form.current) return;
    /** @type {Record<string, string>} */
    const values = {};
    for (const { name, type } of fields) {
      const control = form.current.elements.namedItem(name);
      if (control instanceof HTMLInputElement && type === "checkbox") values[name] = String(control.checked);
      else if (control instanceof HTMLInputElement || control instanceof HTMLTextAreaElement || control instanceof HTMLSelectElement) {
        if (control.value !== "") values[name] = control.value;
      }
    }
    if ((await run(values)) && !isGone.current) done?.();
  };
  const named = new Set(fields.map(({ name }) => name));
  const elsewhere = Object.entries(error?.fields ?? {}).filter(([name]) => !named.has(name));
  const isTold = error && Object.keys(error.fields).length > elsewhere.length;
  return html`
    <form ref=${form} onSubmit=${onSubmit} novalidate=${false}>
      ${fields.map((field) => html`<${Field} key=${field.name} ...${field} errors=${error?.fields ?? {}} />`)}
      ${children}
      ${error && !isTold ? html`<${ErrorNote} error=${error} />` : null}
      ${isTold && elsewhere.length > 0 ? html`<div class="note bad" role="alert"><ul>${elsewhere.map(([name, why]) => html`<li><code>${name}</code> ${why}</li>`)}</ul></div>` : null}
      <div class="actions">
        <button class=${danger ? "danger" : ""} disabled=${busy}>${busy ? "One moment…" : submit}</button>
        ${cancel ? html`<button type="button" class="plain" onClick=${cancel}>Cancel</button>` : null}
      </div>
    </form>`;
}

/**
 * A button for one action: it says when it is under way, and shows why it was refused.
 * @param {{act: () => Promise<unknown>, children: unknown, class?: string, title?: string, disabled?: boolean}} given
 */
export function ActionButton({ act, children, class: kind = "plain", title, disabled = false }) {
  const { run, busy, error, clear } = useAction(act);
  return html`
    <button type="button" class=${kind} title=${title} disabled=${busy || disabled} onClick=${() => run()}>${children}</button>
    ${error ? html`<span class="refused" role="alert">${error.message} <button type="button" class="link" onClick=${clear}>dismiss</button></span>` : null}`;
}
