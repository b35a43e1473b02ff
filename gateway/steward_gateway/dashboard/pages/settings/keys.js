import { html, useState } from "../../vendor/preact.js";
import { get, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, CopyOnce, DialogButton } from "../../parts/dialogs.js";
import { Ago } from "../../parts/figures.js";
import { Form } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Empty, Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { mayAs, person } from "../../session.js";

/** @typedef {import("../../api.js").Schemas["api_keys.v1.ApiKey"]} ApiKey */

/** @type {[string, string][]} */
const ROLES = [
  ["readonly", "readonly: may look"],
  ["executor", "executor: may also start and run commands"],
  ["user", "user: what users may do"],
  ["admin", "admin: everything"],
];

export function Keys() {
  const keys = useLoad((signal) => get("/api/v1/api-keys", { query: { user_id: person.get()?.id, page_size: 1000 }, signal }));
  const [made, setMade] = useState("");
  /** @type {import("../../parts/tables.js").Column<ApiKey>[]} */
  const columns = [
    { title: "What for", cell: ({ description, id }) => description || html`<code>${id}</code>`, value: ({ description }) => description },
    { title: "Begins with", cell: ({ prefix }) => html`<code>${prefix}…</code>` },
    { title: "Role", cell: ({ role }) => role, value: ({ role }) => role },
    { title: "Limited to", cell: ({ permissions }) => (permissions.length > 0 ? permissions.map((each) => html`<span class="tag">${each.environment_id}: ${each.permission}</span>`) : "nothing") },
    { title: "Last used", cell: ({ last_used_at }) => html`<${Ago} time=${last_used_at} />`, value: ({ last_used_at }) => last_used_at },
    { title: "Ends", cell: ({ expires_at }) => (expires_at ? html`<${Ago} time=${expires_at} />` : "when revoked"), value: ({ expires_at }) => expires_at },
    {
      title: "",
      cell: ({ id, description }) => html`<div class="actions"><${ConfirmButton} label="Revoke" title=${`Revoke ${description || id}`}
        question=${html`<p>Whatever uses it is refused from now on, on open streams too.</p>`}
        act=${() => remove("/api/v1/api-keys/{key_id}", { path: { key_id: id } })} done=${keys.reload} /></div>`,
    },
  ];
  /** @param {Record<string, string>} values */
  const create = async ({ description, role, expires_in }) => {
    const body = { description, role: /** @type {any} */ (role), expires_in: expires_in ? Number(expires_in) : undefined };
    const { key } = await post("/api/v1/api-keys", { body });
    setMade(key ?? "");
    say("The key is made.");
    keys.reload();
  };
  const least = mayAs("admin") ? ROLES : mayAs("user") ? ROLES.slice(0, 3) : ROLES.slice(0, 1);
  const tools = html`
    <${DialogButton} label="New key" title="New API key">${(/** @type {() => void} */ close) => html`
      <p class="quiet">It stands for you, in a program of yours: it may do what its role says, and never more than you.</p>
      <${Form} submit="Make it" send=${create} done=${close} cancel=${close} fields=${[
        { name: "description", label: "What is it for?", placeholder: "CI", required: true },
        { name: "role", label: "Role", type: "select", options: least, value: mayAs("user") ? "executor" : "readonly" },
        { name: "expires_in", label: "Ends after, in days", type: "number", hint: "Empty: it lasts until it is revoked.", attributes: { min: 1, max: 3650, step: 1 } },
      ]} />`}<//>`;
  return html`
    <${Card} title="API keys" tools=${tools}>
      <${Shown} of=${keys}>${(/** @type {{api_keys: ApiKey[]}} */ { api_keys }) => html`
        <${Table} label="API keys" columns=${columns} rows=${api_keys} id="id" empty=${html`<${Empty} title="You have no API keys."><p>A program shows one in place of your password.</p><//>`} />`}<//>
    <//>
    ${made ? html`<${CopyOnce} title="Your new key" secret=${made} what="Put it where your program finds it, such as the variable STEWARD_API_KEY." close=${() => setMade("")} />` : null}`;
}
