import { html } from "../../vendor/preact.js";
import { get, post, put, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, DialogButton } from "../../parts/dialogs.js";
import { Ago, State } from "../../parts/figures.js";
import { ActionButton, Form } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { person } from "../../session.js";

/** @typedef {import("../../api.js").Schemas["users.v1.User"]} User */

/** @type {[string, string][]} */
const ROLES = [
  ["viewer", "viewer: looks only"],
  ["user", "user: works with what is theirs"],
  ["admin", "admin: decides everything"],
];

export function People() {
  const people = useLoad((signal) => get("/api/v1/users", { query: { page_size: 1000 }, signal }));
  /** @type {import("../../parts/tables.js").Column<User>[]} */
  const columns = [
    { title: "Name", cell: ({ username, email }) => html`${username}${email ? html` <span class="quiet">${email}</span>` : null}`, value: ({ username }) => username },
    { title: "Role", cell: ({ role }) => role, value: ({ role }) => role },
    { title: "State", cell: ({ state, suspend_reason }) => html`<${State} state=${state} />${suspend_reason ? html` <span class="quiet">${suspend_reason}</span>` : null}`, value: ({ state }) => state },
    { title: "Signed in", cell: ({ last_login_at }) => html`<${Ago} time=${last_login_at} />`, value: ({ last_login_at }) => last_login_at },
    { title: "", cell: (user) => html`<${Actions} user=${user} reload=${people.reload} />` },
  ];
  /** @param {Record<string, string>} values */
  const create = async ({ username = "", password = "", email, role, must_change_password }) => {
    await post("/api/v1/users", { body: { username, password, email, role: /** @type {any} */ (role), must_change_password: must_change_password === "true" } });
    say(`${username} may sign in now.`);
    people.reload();
  };
  const tools = html`
    <${DialogButton} label="Let somebody in" title="Let somebody in">${(/** @type {() => void} */ close) => html`
      <${Form} submit="Let them in" send=${create} done=${close} cancel=${close} fields=${[
        { name: "username", label: "Name", required: true },
        { name: "email", label: "E-mail", type: "email" },
        { name: "role", label: "Role", type: "select", options: ROLES, value: "user" },
        { name: "password", label: "First password", type: "password", required: true, autocomplete: "new-password", hint: "At least 8 characters. Tell it to them by a way of your own." },
        { name: "must_change_password", label: "They choose another when they first sign in", type: "checkbox", value: true },
      ]} />`}<//>`;
  return html`
    <${Card} title="People" tools=${tools}>
      <${Shown} of=${people}>${(/** @type {{users: User[]}} */ { users }) => html`<${Table} label="People" columns=${columns} rows=${users} id="id" />`}<//>
    <//>`;
}

/** @param {{user: User, reload: () => void}} given */
function Actions({ user: { id, username, role, state, version }, reload }) {
  if (id === person.get()?.id) return html`<span class="quiet">you</span>`;
  const path = { user_id: id };
  const expected_version = version;
  return html`
    <div class="actions">
      <${DialogButton} label="Role" title=${`The role of ${username}`} class="plain">${(/** @type {() => void} */ close) => html`
        <p class="quiet">Their sign-ins end, and they sign in again with the new role.</p>
        <${Form} submit="Set it" cancel=${close} done=${() => (close(), reload())}
          send=${(/** @type {Record<string, string>} */ values) => put("/api/v1/users/{user_id}/role", { path, body: { role: /** @type {any} */ (values["role"]), expected_version } })}
          fields=${[{ name: "role", label: "Role", type: "select", options: ROLES, value: role ?? "user" }]} />`}<//>
      <${DialogButton} label="Password" title=${`Another password for ${username}`} class="plain">${(/** @type {() => void} */ close) => html`
        <p class="quiet">Their sign-ins end.</p>
        <${Form} submit="Set it" cancel=${close} done=${() => (close(), reload(), say(`The password of ${username} is changed.`))}
          send=${(/** @type {Record<string, string>} */ { new_password = "", force_change }) => post("/api/v1/users/{user_id}/reset-password", { path, body: { new_password, force_change: force_change === "true", expected_version } })}
          fields=${[
            { name: "new_password", label: "New password", type: "password", required: true, autocomplete: "new-password", hint: "At least 8 characters." },
            { name: "force_change", label: "They choose another when they next sign in", type: "checkbox", value: true },
          ]} />`}<//>
      ${state === "suspended"
        ? html`<${ActionButton} act=${async () => (await put("/api/v1/users/{user_id}/activate", { path, body: { expected_version } }), reload())}>Let in again<//>`
        : html`<${ConfirmButton} label="Suspend" title=${`Keep ${username} out`} question=${html`<p>Their sign-ins and API keys end at once. They can be let in again.</p>`}
            fields=${[{ name: "reason", label: "Why?", hint: "It stands in the audit log." }]}
            act=${(/** @type {Record<string, string>} */ { reason }) => put("/api/v1/users/{user_id}/suspend", { path, body: { reason, expected_version } })} done=${reload} />`}
      <${ConfirmButton} label="Delete" title=${`Delete ${username}`} question=${html`<p>This is for good. Their agents become yours; their API keys, credentials and requests end. Nobody can have their name again.</p>`}
        act=${() => remove("/api/v1/users/{user_id}", { path, query: { expected_version } })} done=${reload} />
    </div>`;
}
