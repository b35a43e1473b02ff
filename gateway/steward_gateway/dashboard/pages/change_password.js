import { html } from "../vendor/preact.js";
import { ApiError, post } from "../api.js";
import { Form } from "../parts/forms.js";
import { say } from "../parts/notes.js";
import { person, recognise, signOut } from "../session.js";

/** Of who signed in with a password that was given to them: nothing else can be done before. */
export function MustChangePassword() {
  return html`
    <main class="sign-in" id="main">
      <h1 class="brand">A password of your own</h1>
      <p>${person.get()?.username}, the password you signed in with was given to you. Choose another one to go on.</p>
      <div class="card"><${PasswordForm} done=${recognise} /></div>
      <button class="plain" type="button" onClick=${signOut}>Sign out</button>
    </main>`;
}

/** @param {{done?: () => void}} given */
export function PasswordForm({ done }) {
  /** @param {Record<string, string>} values */
  const send = async ({ current_password = "", new_password = "", again = "" }) => {
    if (new_password !== again) throw new ApiError(400, "The two differ.", { fields: { again: "is not the same as the new password" } });
    await post("/api/v1/auth/password", { body: { current_password, new_password } });
    say("Your password is changed; your other sign-ins have ended.");
  };
  return html`<${Form} submit="Change password" send=${send} done=${done} fields=${[
    { name: "current_password", label: "Present password", type: "password", required: true, autocomplete: "current-password" },
    { name: "new_password", label: "New password", type: "password", required: true, autocomplete: "new-password", hint: "At least 8 characters." },
    { name: "again", label: "New password, again", type: "password", required: true, autocomplete: "new-password" },
  ]} />`;
}
