// The form that starts a run, made from what the playbook asks for.
import { html } from "../../vendor/preact.js";
import { get, post } from "../../api.js";
import { useLoad } from "../../load.js";
import { DialogButton } from "../../parts/dialogs.js";
import { Form } from "../../parts/forms.js";
import { go } from "../../router.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["playbooks.v1.GetPlaybookResponse"]} Details */
/** @typedef {Schemas["playbooks.v1.Parameter"]} Parameter */

/** Parameters of these names are filled in from the credential, where they are left empty. */
const FILLED = ["gateway_url", "url", "username", "user", "gateway_username", "password", "pass", "gateway_password"];

/** Of those, the ones that nobody may read over a shoulder. */
const SECRET = ["password", "pass", "gateway_password"];

/** @param {{path: string, of: Details}} given */
export function Start({ path, of }) {
  return html`<${DialogButton} label="Run" title=${`Run ${of.name}`}>${(/** @type {() => void} */ close) => html`<${StartForm} path=${path} of=${of} close=${close} />`}<//>`;
}

/** @param {{path: string, of: Details, close: () => void}} given */
function StartForm({ path, of: { parameters, needs }, close }) {
  const credentials = useLoad((signal) => get("/api/credentials", { query: { page_size: 1000 }, signal }));
  const names = (credentials.data?.credentials ?? []).map((each) => each.name);
  const takesCredential = needs.includes("gateway") || (names.length > 0 && parameters.some(isFilled));
  /** @param {Record<string, string>} values */
  const start = async ({ gateway_url, credential_name, debug_mode, ...values }) => {
    /** @type {Record<string, unknown>} */
    const given = {};
    for (const each of parameters) {
      const text = values[nameOf(each)];
      if (text !== undefined) given[each.name] = valueOf(each, text);
      // Left out it would be the default, which was emptied; what the gateway or the credential fills in is left to them.
      else if (each.type === "string" && hasDefault(each) && !(isFilled(each) && (gateway_url || credential_name))) given[each.name] = "";
    }
    const { execution_id } = await post("/api/executions", {
      body: { playbook_path: path, parameters: /** @type {any} */ (given), gateway_url, credential_name, debug_mode: debug_mode === "true" },
    });
    go(`/executions/${execution_id}`);
  };
  const fields = [
    ...parameters.map((each) => fieldOf(each, names)),
    ...(needs.includes("gateway") && !parameters.some(({ name }) => name === "gateway_url")
      ? [{ name: "gateway_url", label: "Gateway", type: "url", placeholder: "http://localhost:8088", hint: "Left empty: that of the credential." }]
      : []),
    ...(takesCredential
      ? [{ name: "credential_name", label: "Credential", type: "select", options: optionsOf(names, "none"), hint: "Fills in what is left empty: the gateway, the user, the password." }]
      : []),
    { name: "debug_mode", label: "Debug mode", type: "checkbox", hint: "Pauses where a step fails, so that it can be tried again or skipped." },
  ];
  return html`
    ${parameters.length === 0 ? html`<p class="quiet">It asks for nothing.</p>` : null}
    <${Form} submit="Start it" send=${start} done=${close} cancel=${close} fields=${fields} />`;
}

/** @param {Parameter} parameter  As the API names it where it is refused. */
const nameOf = ({ name }) => `parameters.${name}`;

/** @param {Parameter} parameter */
const isFilled = ({ name, type }) => type === "credential" || (type === "string" && FILLED.includes(name));

/** @param {Parameter} parameter */
const hasDefault = ({ default: usual }) => usual !== null && usual !== undefined;

/** @param {string[]} names @param {string} none @returns {[string, string][]} */
const optionsOf = (names, none) => [["", none], ...names.map((each) => /** @type {[string, string]} */ ([each, each]))];

/** @type {Record<string, string>} */
const WORDS = { list: "A list, as JSON.", dict: "A map, as JSON.", integer: "A whole number.", file: "In the server's folder of files." };

/** @param {Parameter} parameter @param {string[]} credentials @returns {Omit<import("../../parts/forms.js").FieldGiven, "errors">} */
function fieldOf(parameter, credentials) {
  const { name, type, required, description, default: usual } = parameter;
  const hint = [description, WORDS[type]].filter(Boolean).join(" · ");
  // A credential may fill it in: only the server knows whether something is missing.
  const field = { name: nameOf(parameter), label: name, hint, required: required && !(credentials.length > 0 && isFilled(parameter)) };
  const text = hasDefault(parameter) ? String(usual) : "";
  if (type === "boolean") {
    if (hasDefault(parameter)) return { ...field, type: "checkbox", required: false, value: usual === true };
    return { ...field, type: "select", options: [["", required ? "choose" : "leave it out"], ["true", "yes"], ["false", "no"]] };
  }
  if (type === "credential") return { ...field, type: "select", options: optionsOf(credentials, "none"), value: text };
  if (type === "list" || type === "dict") return { ...field, type: "textarea", rows: 3, value: hasDefault(parameter) ? JSON.stringify(usual) : "", placeholder: type === "list" ? '["one", "two"]' : '{"name": "value"}' };
  if (type === "string" && SECRET.includes(name)) return { ...field, type: "password", autocomplete: "new-password", value: text };
  return { ...field, type: type === "integer" || type === "float" ? "number" : "text", value: text };
}

/** @param {Parameter} parameter @param {string} text @returns {unknown} */
function valueOf({ type }, text) {
  if (type === "boolean") return text === "true";
  if (type === "integer" || type === "float") return Number(text);
  if (type !== "list" && type !== "dict") return text;
  try {
    return JSON.parse(text);
  } catch {
    return text; // the server says what is wrong with it
  }
}
