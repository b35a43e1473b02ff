import { html } from "../../vendor/preact.js";
import { get } from "../../api.js";
import { useLoad } from "../../load.js";
import { Ago } from "../../parts/figures.js";
import { Card, Facts } from "../../parts/layout.js";
import { Shown } from "../../parts/notes.js";
import { PasswordForm } from "../change_password.js";

/** @typedef {import("../../api.js").Schemas["auth.v1.GetMeResponse"]} Me */

export function Account() {
  const me = useLoad((signal) => get("/api/v1/auth/me", { signal }));
  return html`
    <div class="cards">
      <${Card} title="Who you are">
        <${Shown} of=${me}>${(/** @type {Me} */ { id, username, email, role, created_at, last_login_at }) => html`
          <${Facts} of=${[
            ["Name", username],
            ["Role", role],
            ["E-mail", email || "none"],
            ["Id", html`<code>${id}</code>`],
            ["Since", html`<${Ago} time=${created_at} />`],
            ["Signed in", html`<${Ago} time=${last_login_at} />`],
          ]} />`}<//>
      <//>
      <${Card} title="Change your password"><${PasswordForm} /><//>
    </div>`;
}
