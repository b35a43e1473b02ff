import { html } from "../../vendor/preact.js";
import { get } from "../../api.js";
import { useLoad } from "../../load.js";
import { Ago, State, count, duration, money } from "../../parts/figures.js";
import { Card, Facts } from "../../parts/layout.js";
import { Shown } from "../../parts/notes.js";

/** @typedef {import("../../api.js").Schemas} Schemas */

export function Health() {
  const health = useLoad((signal) => get("/health", { signal }), [], { everyS: 10 });
  const machines = useLoad((signal) => get("/api/v1/health", { signal }), [], { everyS: 60 });
  return html`
    <div class="cards">
      <${Card} title="The server">
        <${Shown} of=${health}>${(/** @type {Schemas["system.v1.GetHealthResponse"]} */ { status, version, uptime_seconds, notices }) => html`
          <${Facts} of=${[["State", html`<${State} state=${status} />`], ["Version", version], ["Up for", duration(Number(uptime_seconds))]]} />
          ${notices.map((each) => html`<div class="note warn"><p>${each}</p></div>`)}`}<//>
      <//>
      <${Card} title="The books">
        <${Shown} of=${health}>${(/** @type {Schemas["system.v1.GetHealthResponse"]} */ { ledger }) => html`
          <${Facts} of=${[
            ["Balanced", html`<${State} state=${ledger?.balanced ? "yes" : "no"} tone=${ledger?.balanced ? "good" : "bad"} />`],
            ["Checked", html`<${Ago} time=${ledger?.checked_at} />`],
            ["Commits", count(ledger?.commit_number)],
            ["Accounts", count(ledger?.account_count)],
            ["Open leases", count(ledger?.open_lease_count)],
            ["Overrun", money(ledger?.overrun_usd)],
          ]} />`}<//>
      <//>
      <${Card} title="Environments">
        <${Shown} of=${machines}>${(/** @type {Schemas["environments.v1.GetHealthResponse"]} */ { environments, capacity }) => html`
          <${Facts} of=${[
            ["Usable", html`<${State} state=${environments?.usable ? "yes" : "no"} tone=${environments?.usable ? "good" : "bad"} />`],
            ["Driver", [environments?.driver, environments?.backend].filter(Boolean).join(", ")],
            ["Free CPU", capacity?.available_cpu],
            ["Free memory", capacity?.available_memory],
          ]} />
          ${environments?.promise ? html`<p class="quiet">${environments.promise}</p>` : null}`}<//>
      <//>
    </div>
    <p class="quiet">Figures for Prometheus are at <a href="/metrics" data-outside>/metrics</a>; the API is described at <a href="/docs" data-outside>/docs</a>.</p>`;
}
