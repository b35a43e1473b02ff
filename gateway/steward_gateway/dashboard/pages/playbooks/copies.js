// New playbooks: from nothing, and as a copy of another.
import { html } from "../../vendor/preact.js";
import { ApiError, post, put } from "../../api.js";
import { DialogButton } from "../../parts/dialogs.js";
import { Form } from "../../parts/forms.js";
import { say } from "../../parts/notes.js";
import { go } from "../../router.js";

/** The page of a playbook. @param {string} path */
export const hrefOf = (path) => `/playbooks/${path.split("/").map(encodeURIComponent).join("/")}`;

const BLANK = `name: A new playbook
version: "1"
description: What it is for

parameters:
  - {name: greeting, type: string, required: false, default: hello, description: What to say}

steps:
  - id: tell
    name: Tell
    type: utility.log
    parameters: {message: "{{ parameter.greeting }}"}
`;

export function Create() {
  /** @param {Record<string, string>} values */
  const create = async ({ path = "" }) => {
    const named = /\.ya?ml$/.test(path) ? path : `${path}.yaml`;
    try {
      // Nothing may be there yet: it would be overwritten.
      await put("/api/playbooks/{path}", { path: { path: named }, body: { text: BLANK, expected_digest: "" } });
    } catch (error) {
      if (!(error instanceof ApiError) || error.reason !== "VERSION_PASSED") throw error;
      throw new ApiError(error.status, error.message, { fields: { path: `${named} is there already; choose another path.` } });
    }
    say(`${named} is there.`);
    go(hrefOf(named));
  };
  return html`
    <${DialogButton} label="New playbook" title="New playbook">${(/** @type {() => void} */ close) => html`
      <p>It begins with one step, for you to go on from.</p>
      <${Form} submit="Begin it" send=${create} done=${close} cancel=${close} fields=${[
        { name: "path", label: "Path", required: true, placeholder: "checks/my_check.yaml", hint: "Where it is kept in the library; .yaml is added." },
      ]} />`}<//>`;
}

/** @param {{path: string}} given */
export function Duplicate({ path }) {
  /** @param {Record<string, string>} values */
  const copy = async ({ new_name = "" }) => {
    const { new_path } = await post("/api/playbooks/duplicate", { body: { source_path: path, new_name } });
    say(`${new_path} is there.`);
    go(hrefOf(new_path));
  };
  return html`
    <${DialogButton} label="Duplicate" title=${`Duplicate ${path}`} class="plain">${(/** @type {() => void} */ close) => html`
      <${Form} submit="Duplicate it" send=${copy} done=${close} cancel=${close} fields=${[
        { name: "new_name", label: "Name of the copy", required: true, placeholder: "My Own Check", hint: "It is kept in the same folder." },
      ]} />`}<//>`;
}
