// The token a runtime shows to borrow an agent's money. An agent has one at a time, and each is shown once.
import { html, useState } from "../../vendor/preact.js";
import { get, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, CopyOnce, DialogButton } from "../../parts/dialogs.js";
import { Ago, State } from "../../parts/figures.js";
import { Form } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Empty, Shown } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";

/** @typedef {import("../../api.js").Schemas["tokens.v1.IcToken"]} Token */

const SCOPES = ["budget", "events", "environments", "inference", "executions"];

/** @param {{agent: {id: string, name: string}}} given */
export function Tokens({ agent }) {
  const tokens = useLoad((signal) => get("/api/tokens", { query: { agent_id: agent.id, limit: 100, status: "active" }, signal }), [agent.id], { everyS: 60 });
  const [made, setMade] = useState("");
  /** @param {Token} token */
  const show = ({ token = "" }) => (setMade(token), tokens.reload());
  /** @type {import("../../parts/tables.js").Column<Token>[]} */
  const columns = [
    { title: "Token", cell: ({ name, prefix }) => html`${name} <code>${prefix}…</code>` },
    { title: "Good for", cell: ({ scopes }) => scopes.map((each) => html`<span class="tag">${each}</span>`) },
    { title: "State", cell: ({ status }) => html`<${State} state=${status} />` },
    { title: "Last used", cell: ({ last_used_at }) => html`<${Ago} time=${last_used_at} />` },
    {
      title: "",
      cell: ({ id, name, prefix }) => html`
        <div class="actions">
          <${ConfirmButton} label="Rotate" title=${`Another text for ${name || prefix}`} class="plain" question=${html`<p>The old one is refused from now on. The new one is shown once.</p>`}
            act=${async () => show(await post("/api/tokens/{token_id}/rotate", { path: { token_id: id }, body: {} }))} />
          <${ConfirmButton} label="Revoke" title=${`Revoke ${name || prefix}`} question=${html`<p>Whatever runs with it loses its leases at once.</p>`}
            act=${() => remove("/api/tokens/{token_id}", { path: { token_id: id } })} done=${tokens.reload} />
        </div>`,
    },
  ];
  /** @param {Record<string, string>} values */
  const create = async ({ name = "", expires_in_days, ...chosen }) => {
    const body = { agent_id: agent.id, name, expires_in_days: expires_in_days ? Number(expires_in_days) : undefined, scopes: SCOPES.filter((each) => chosen[each] === "true") };
    show(await post("/api/tokens", { body }));
  };
  const tools = html`
    <${DialogButton} label="New token" title=${`A token for ${agent.name}`}>${(/** @type {() => void} */ close) => html`
      <${Form} submit="Make it" send=${create} done=${close} cancel=${close} fields=${[
        { name: "name", label: "What is it for?" },
        { name: "expires_in_days", label: "Ends after, in days", type: "number", hint: "Empty: it lasts until it is revoked.", attributes: { min: 1, step: 1 } },
        ...SCOPES.map((name) => ({ name, label: `Good for ${name}`, type: "checkbox", value: true })),
      ]} />`}<//>`;
  return html`
    <${Card} title="Tokens" tools=${tokens.data?.tokens.length === 0 ? tools : null}>
      <${Shown} of=${tokens}>${(/** @type {{tokens: Token[]}} */ { tokens: all }) => html`
        <${Table} label="Tokens" columns=${columns} rows=${all} id="id" empty=${html`<${Empty} title="No token yet."><p>A runtime shows one to borrow this agent's money.</p><//>`} />`}<//>
    <//>
    ${made ? html`<${CopyOnce} title="The token" secret=${made} what="Give it to the agent's runtime, in STEWARD_IC_TOKEN." close=${() => setMade("")} />` : null}`;
}
