// Who else may use an environment, and links to what it serves.
import { html, useState } from "../../vendor/preact.js";
import { get, post, put, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, CopyOnce } from "../../parts/dialogs.js";
import { Ago } from "../../parts/figures.js";
import { Form } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Empty, Shown } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { secondsOf, tellingFields } from "./shared.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["environments.v1.EnvironmentDetails"]} Details */
/** @typedef {Schemas["environments.v1.Share"]} Share */

/** @param {{it: Details}} given */
export function Sharing({ it }) {
  return html`<div class="cards">${it.permission === "admin" ? html`<${People} it=${it} />` : null}<${Links} it=${it} /></div>`;
}

/** @type {[string, string][]} */
const LEVELS = [
  ["read", "read: see it and its log"],
  ["write", "write: run commands, use its files"],
  ["admin", "admin: delete, change and share it"],
];

/** @param {{it: Details}} given */
function People({ it }) {
  const path = { environment_id: it.id };
  const loaded = useLoad((signal) => get("/api/v1/environments/{environment_id}/shares", { path, signal }), [it.id]);
  /** @type {import("../../parts/tables.js").Column<Share>[]} */
  const columns = [
    { title: "Who", cell: ({ username }) => username, value: ({ username }) => username },
    { title: "May", cell: ({ permission }) => permission, value: ({ permission }) => permission },
    { title: "Since", cell: ({ created_at }) => html`<${Ago} time=${created_at} />` },
    {
      title: "Actions",
      number: true,
      cell: ({ user_id, username }) => html`<div class="actions small"><${ConfirmButton} label="Remove" title=${`Share it with ${username} no longer`} question=${html`<p>What ${username} has open in it ends at once.</p>`}
        act=${() => remove("/api/v1/environments/{environment_id}/shares/{user}", { path: { ...path, user: user_id } })} done=${loaded.reload} /></div>`,
    },
  ];
  /** @param {Record<string, string>} values */
  const share = ({ user, permission }) =>
    tellingFields(["user", "permission"], () => put("/api/v1/environments/{environment_id}/shares/{user}", { path: { ...path, user }, body: /** @type {any} */ ({ permission }) }));
  return html`
    <${Card} title="Who else may use it">
      <${Shown} of=${loaded}>${(/** @type {{shares: Share[]}} */ { shares }) => html`
        <${Table} label="Shared with" columns=${columns} rows=${shares} id="user_id" empty=${html`<${Empty} title="It is shared with nobody."><p>Only its owner and administrators can see it.</p><//>`} />
        <h3>Share it</h3>
        <div class="paired"><${Form} key=${shares.length} submit="Share" send=${share} done=${loaded.reload} fields=${[
          { name: "user", label: "Name of a person", required: true, hint: "Shared again, they have the new right." },
          { name: "permission", label: "What they may do", type: "select", options: LEVELS },
        ]} /></div>`}<//>
    <//>`;
}

/** @param {{it: Details}} given */
function Links({ it }) {
  const [link, setLink] = useState(/** @type {{url: string, endsAt: string} | null} */ (null));
  const ports = it.isolation?.network_policy?.allowed_ingress_ports ?? [];
  /** @param {Record<string, string>} values */
  const make = async ({ port, ttl_seconds }) => {
    const body = { port: Number(port), ttl_seconds: secondsOf(ttl_seconds, "ttl_seconds") };
    const made = await tellingFields(["port", "ttl_seconds"], () => post("/api/v1/environments/{environment_id}/previews", { path: { environment_id: it.id }, body: /** @type {any} */ (body) }));
    setLink({ url: location.origin + made.path, endsAt: new Date(made.expires_at ?? 0).toLocaleTimeString() });
  };
  const isAtWork = it.status === "running" && !it.paused;
  const form = html`
    <p>Whoever has a link sees what it serves on a port, without signing in. It ends when its time is over, when this environment ends, and when you sign out.</p>
    <div class="paired"><${Form} submit="Make a link" send=${make} fields=${[
      { name: "port", label: "Port", type: "select", options: ports.map(String) },
      { name: "ttl_seconds", label: "Good for", value: "15m", required: true, hint: "At most 1h." },
    ]} /></div>`;
  return html`
    <${Card} title="Links to what it serves">
      ${!isAtWork
        ? html`<${Empty} title="There are links while it runs." />`
        : ports.length === 0
          ? html`<${Empty} title="No port of it is open."><p>${it.permission === "admin" ? "Open one with the button Network above." : "Its owner can open one."}</p><//>`
          : form}
      ${link ? html`<${CopyOnce} title="A link to what it serves" secret=${link.url} what=${`It is good until ${link.endsAt}.`} close=${() => setLink(null)} />` : null}
    <//>`;
}
