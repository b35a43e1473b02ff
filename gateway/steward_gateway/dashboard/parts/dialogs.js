// Dialogs over the page: the browser's own, which keep the focus and close with Escape.
import { html, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { usePlace } from "../router.js";
import { storeOf, useStore } from "../store.js";
import { Form } from "./forms.js";

/** @param {{title: string, close: () => void, children: unknown, sticky?: boolean}} given  `sticky`: Escape does not close it. */
export function Dialog({ title, close, children, sticky = false }) {
  const element = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useLayoutEffect(() => {
    const dialog = element.current;
    const before = document.activeElement;
    dialog?.showModal();
    return () => {
      dialog?.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  /** @param {Event} event */
  const onCancel = (event) => {
    event.preventDefault();
    if (!sticky) close();
  };
  // A browser lets nobody hold it open against a second Escape.
  const onClose = () => (sticky ? element.current?.showModal() : close());
  return html`
    <dialog ref=${element} aria-label=${title} onCancel=${onCancel} onClose=${onClose}>
      <h2>${title}</h2>
      ${children}
    </dialog>`;
}

/** @typedef {{title: string, children: (close: () => void) => unknown}} Opened */

const opened = storeOf(/** @type {Opened | null} */ (null));
const close = () => opened.set(null);

/**
 * The dialog that a button has opened, until it is closed or the page is left. It is beside the page: within it, it would
 * go with its button, as soon as somebody else is faster, and what was typed into it too.
 */
export function OpenedDialog() {
  const { path } = usePlace();
  const shown = useStore(opened);
  useLayoutEffect(() => close, [path]);
  return shown ? html`<${Dialog} title=${shown.title} close=${close}>${shown.children(close)}<//>` : null;
}

/**
 * A button that opens a dialog, which is given what closes it. The dialog is of what there was when it was opened:
 * who was faster is not overwritten.
 * @param {{label: unknown, title: string, class?: string, disabled?: boolean, children: (close: () => void) => unknown}} given
 */
export function DialogButton({ label, title, class: kind = "", disabled = false, children }) {
  return html`<button type="button" class=${kind} disabled=${disabled} onClick=${() => opened.set({ title, children })}>${label}</button>`;
}

/**
 * A button for what cannot be taken back: it asks first, and says what will be lost.
 * @param {{label: string, title: string, question: unknown, act: (values: Record<string, string>) => Promise<unknown>, done?: () => void, fields?: any[], class?: string}} given
 */
export function ConfirmButton({ label, title, question, act, done, fields = [], class: kind = "plain danger" }) {
  return html`
    <${DialogButton} label=${label} title=${title} class=${kind}>
      ${(/** @type {() => void} */ close) => html`
        <div>${question}</div>
        <${Form} fields=${fields} submit=${label} danger send=${act} cancel=${close} done=${() => {
          close();
          done?.();
        }} />`}
    <//>`;
}

/**
 * A secret that is shown this once.
 * @param {{title: string, secret: string, what: string, close: () => void}} given
 */
export function CopyOnce({ title, secret, what, close }) {
  const [copied, setCopied] = useState(/** @type {boolean | null} */ (null));
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const copy = async () => {
    field.current?.select();
    // The clipboard is there on https and localhost only.
    const isTaken = await navigator.clipboard?.writeText(secret).then(() => true, () => false);
    const isCopied = isTaken || document.execCommand("copy");
    if (!isCopied) field.current?.focus();
    setCopied(isCopied);
  };
  return html`
    <${Dialog} title=${title} close=${close} sticky>
      <p>${what} It is shown this once: nobody, not even the server, can show it again.</p>
      <div class="secret">
        <input ref=${field} readonly value=${secret} aria-label="The secret" onFocus=${() => field.current?.select()} />
        <button type="button" onClick=${copy}>${copied ? "Copied" : "Copy"}</button>
      </div>
      ${copied === false ? html`<p role="alert">The browser does not let this page copy. The secret is selected: copy it by hand.</p>` : null}
      <div class="actions"><button type="button" class="plain" onClick=${close}>I have kept it</button></div>
    <//>`;
}
