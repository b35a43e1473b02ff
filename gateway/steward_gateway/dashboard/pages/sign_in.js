import { html, useEffect } from "../vendor/preact.js";
import { ApiError } from "../api.js";
import { connection } from "../connection.js";
import { Form } from "../parts/forms.js";
import { farewell, signIn } from "../session.js";
import { useStore } from "../store.js";

export function SignIn() {
  const why = useStore(farewell);
  const state = useStore(connection);
  useEffect(() => {
    document.title = "Sign in – Steward";
    /** @type {HTMLElement | null} */ (document.querySelector("[name=username]"))?.focus();
  }, []);
  /** @param {Record<string, string>} values */
  const send = async ({ username = "", password = "" }) => {
    try {
      await signIn(username, password);
    } catch (error) {
      throw new ApiError(400, /** @type {Error} */ (error).message);
    }
  };
  return html`
    ${state === "unreachable" ? html`<p class="banner" role="alert">The server cannot be reached; trying again…</p>` : null}
    <main class="sign-in" id="main">
      <h1 class="brand"><img src="/dashboard/icon.svg" alt="" />Steward</h1>
      ${why ? html`<div class="note" role="status"><p>${why}</p></div>` : null}
      <div class="card">
        <${Form} submit="Sign in" send=${send} fields=${[
          { name: "username", label: "User", required: true, autocomplete: "username" },
          { name: "password", label: "Password", type: "password", required: true, autocomplete: "current-password" },
        ]} />
      </div>
      <p class="quiet">Programs sign in with API keys: the API is described at <a href="/docs" data-outside>/docs</a>.</p>
    </main>`;
}
