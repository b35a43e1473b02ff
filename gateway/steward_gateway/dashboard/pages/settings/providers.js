import { html } from "../../vendor/preact.js";
import { get, patch, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, DialogButton } from "../../parts/dialogs.js";
import { Ago, State } from "../../parts/figures.js";
import { ActionButton, Form } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Empty, Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";

/** @typedef {import("../../api.js").Schemas["providers.v1.Provider"]} Provider */

export function Providers() {
  const providers = useLoad((signal) => get("/api/v1/providers", { query: { page_size: 1000 }, signal }));
  /** @type {import("../../parts/tables.js").Column<Provider>[]} */
  const columns = [
    { title: "Name", cell: ({ name }) => name, value: ({ name }) => name },
    { title: "Kind", cell: ({ kind }) => kind, value: ({ kind }) => kind },
    { title: "Address", cell: ({ base_url }) => html`<code>${base_url}</code>` },
    { title: "Key", cell: ({ masked_key, usable }) => html`<code>${masked_key}</code> ${usable ? null : html`<${State} state="cannot be decrypted" tone="bad" />`}` },
    { title: "Last used", cell: ({ last_used_at }) => html`<${Ago} time=${last_used_at} />`, value: ({ last_used_at }) => last_used_at },
    {
      title: "Key in clear",
      cell: ({ id, allow_plaintext_key, version }) => html`${allow_plaintext_key ? "allowed" : "never"} <${ActionButton}
        act=${async () => (await patch("/api/v1/providers/{provider_id}", { path: { provider_id: id }, body: { allow_plaintext_key: !allow_plaintext_key, expected_version: version } }), providers.reload())}>
        ${allow_plaintext_key ? "Forbid" : "Allow"}<//>`,
    },
    {
      title: "",
      cell: ({ id, name }) => html`<div class="actions"><${ConfirmButton} label="Delete" title=${`Delete ${name}`}
        question=${html`<p>It can be deleted once no agent is assigned to it: assign them to another before. The key is deleted with it.</p>`}
        act=${() => remove("/api/v1/providers/{provider_id}", { path: { provider_id: id } })} done=${providers.reload} /></div>`,
    },
  ];
  /** @param {Record<string, string>} values */
  const create = async ({ name = "", kind, base_url, api_key = "" }) => {
    await post("/api/v1/providers", { body: { name, kind: /** @type {any} */ (kind), base_url, api_key } });
    say(`${name} is there for agents now.`);
    providers.reload();
  };
  const tools = html`
    <${DialogButton} label="Add a provider" title="Add a provider">${(/** @type {() => void} */ close) => html`
      <p class="quiet">Its key is encrypted here. Runtimes get it sealed to themselves, agents never.</p>
      <${Form} submit="Add it" send=${create} done=${close} cancel=${close} fields=${[
        { name: "name", label: "Name", required: true, placeholder: "openai" },
        { name: "kind", label: "It speaks as", type: "select", options: [["", "its name says"], "openai", "anthropic"] },
        { name: "base_url", label: "Address", type: "url", placeholder: "https://api.openai.com/v1", hint: "Empty: the provider's public one." },
        { name: "api_key", label: "API key", type: "password", required: true },
      ]} />`}<//>`;
  return html`
    <${Card} title="Providers" tools=${tools}>
      <${Shown} of=${providers}>${(/** @type {{providers: Provider[]}} */ { providers: all }) => html`
        <${Table} label="Providers" columns=${columns} rows=${all} id="id" empty=${html`<${Empty} title="No provider yet."><p>Add the one whose models your agents call.</p><//>`} />`}<//>
    <//>`;
}
