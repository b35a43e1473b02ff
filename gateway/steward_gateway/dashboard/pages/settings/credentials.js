import { html } from "../../vendor/preact.js";
import { get, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, DialogButton } from "../../parts/dialogs.js";
import { Form } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Empty, Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { mayAs } from "../../session.js";

/** @typedef {import("../../api.js").Schemas["credentials.v1.Credential"]} Credential */

export function Credentials() {
  const credentials = useLoad((signal) => get("/api/credentials", { query: { page_size: 1000 }, signal }));
  const mayChange = mayAs("admin", "user");
  /** @type {import("../../parts/tables.js").Column<Credential>[]} */
  const columns = [
    { title: "Name", cell: ({ name }) => name, value: ({ name }) => name },
    { title: "Signs in as", cell: ({ username }) => username, value: ({ username }) => username },
    { title: "At", cell: ({ gateway_url }) => (gateway_url ? html`<code>${gateway_url}</code>` : html`<span class="quiet">any gateway</span>`) },
    { title: "What for", cell: ({ description }) => description },
  ];
  if (mayChange) {
    columns.push({
      title: "",
      cell: ({ name }) => html`<div class="actions"><${ConfirmButton} label="Delete" title=${`Delete ${name}`} question=${html`<p>Playbooks that name it can sign in no more.</p>`}
        act=${() => remove("/api/credentials/{name}", { path: { name } })} done=${credentials.reload} /></div>`,
    });
  }
  /** @param {Record<string, string>} values */
  const create = async ({ name = "", username = "", password = "", gateway_url, description }) => {
    await post("/api/credentials", { body: { name, username, password, gateway_url, description } });
    say(`${name} is saved.`);
    credentials.reload();
  };
  const tools = mayChange
    ? html`<${DialogButton} label="Save a credential" title="Save a credential">${(/** @type {() => void} */ close) => html`
        <p class="quiet">For playbooks that sign in somewhere. The password is encrypted and never shown again. One of the same name is replaced.</p>
        <${Form} submit="Save it" send=${create} done=${close} cancel=${close} fields=${[
          { name: "name", label: "Name", required: true, placeholder: "my-gateway" },
          { name: "username", label: "User", required: true },
          { name: "password", label: "Password", type: "password", required: true, autocomplete: "new-password" },
          { name: "gateway_url", label: "Good for", type: "url", placeholder: "http://localhost:8088", hint: "Empty: it may be shown to any gateway." },
          { name: "description", label: "What is it for?" },
        ]} />`}<//>`
    : null;
  return html`
    <${Card} title="Credentials" tools=${tools}>
      <${Shown} of=${credentials}>${(/** @type {{credentials: Credential[]}} */ { credentials: all }) => html`
        <${Table} label="Credentials" columns=${columns} rows=${all} id="name" empty=${html`<${Empty} title="No credentials."><p>Playbooks that sign in at a gateway name one.</p><//>`} />`}<//>
    <//>`;
}
