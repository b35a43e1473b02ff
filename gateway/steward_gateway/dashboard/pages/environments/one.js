// One environment: what it is, what runs in it, its log and a terminal.
import { html } from "../../vendor/preact.js";
import { get, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton } from "../../parts/dialogs.js";
import { Ago, Figure, State } from "../../parts/figures.js";
import { ActionButton } from "../../parts/forms.js";
import { Card, Facts, Head, Tabs } from "../../parts/layout.js";
import { Empty, Shown } from "../../parts/notes.js";
import { go } from "../../router.js";
import { Commands } from "./commands.js";
import { Logs } from "./logs.js";
import { CHANGES } from "./shared.js";
import { Shell } from "./shell.js";

/** @typedef {import("../../api.js").Schemas["environments.v1.EnvironmentDetails"]} Details */

const WITHIN = [["/environments", "Environments"]];

/** @param {{id: string, tab: string}} given */
export function One({ id, tab }) {
  const loaded = useLoad((signal) => get("/api/v1/environments/{environment_id}", { path: { environment_id: id }, signal }), [id], { on: CHANGES, everyS: 10 });
  if (loaded.error?.status === 404) {
    return html`<${Head} title="No such environment" within=${WITHIN} /><${Empty} title="It is gone, or is not for you to see."><p><a href="/environments">All environments</a></p><//>`;
  }
  if (!loaded.data) return html`<${Head} title="Environment" within=${WITHIN} /><${Shown} of=${loaded}>${() => null}<//>`;
  const it = loaded.data;
  const path = { environment_id: id };
  const isRunning = it.status === "running";
  const mayWrite = it.permission === "write" || it.permission === "admin";
  const turn = it.paused
    ? html`<${ActionButton} act=${() => post("/api/v1/environments/{environment_id}/resume", { path }).then(loaded.reload)}>Resume<//>`
    : html`<${ActionButton} act=${() => post("/api/v1/environments/{environment_id}/pause", { path }).then(loaded.reload)}>Pause<//>`;
  const tabs = [[`/environments/${id}`, "Overview"], [`/environments/${id}/logs`, "Logs"], ...(mayWrite ? [[`/environments/${id}/terminal`, "Terminal"]] : [])];
  return html`
    <${Head} title=${it.name} within=${WITHIN} beside=${html`<${State} state=${it.paused ? "paused" : it.status} />`}>
      ${isRunning && mayWrite ? turn : null}
      ${it.permission === "admin" ? html`<${ConfirmButton} label="Delete" title=${`Delete ${it.name}`} question=${html`<p>All that runs in it ends, and its files are gone.</p>`}
        act=${() => remove("/api/v1/environments/{environment_id}", { path })} done=${() => go("/environments")} />` : null}
    <//>
    <${Shown} of=${loaded}>${() => null}<//>
    <${Tabs} label="Environment" tabs=${tabs} />
    ${tab === "terminal" && mayWrite
      ? isRunning && !it.paused ? html`<${Shell} id=${id} />` : html`<${Empty} title="There is a terminal while it runs."><p>${it.paused ? "Resume it to open one." : null}</p><//>`
      : tab === "logs"
        ? html`<${Logs} id=${id} />`
        : html`<${Overview} it=${it} />${isRunning && !it.paused ? html`<${Commands} id=${id} mayWrite=${mayWrite} />` : null}`}`;
}

/** @param {{it: Details}} given */
function Overview({ it }) {
  const { metrics, resources } = it;
  const network = it.isolation?.network_policy;
  return html`
    ${it.reason ? html`<div class=${`note ${it.status === "failed" ? "bad" : ""}`}><p>${it.reason}</p></div>` : null}
    ${metrics ? html`
      <div class="figures">
        <${Figure} label="CPU" value=${metrics.cpu_usage} more=${`of ${resources?.cpu}`} />
        <${Figure} label="Memory" value=${metrics.memory_usage} more=${`of ${resources?.memory}`} />
        ${metrics.storage_usage ? html`<${Figure} label="Disk" value=${metrics.storage_usage} more=${`of ${resources?.storage}`} />` : null}
        <${Figure} label="Processes" value=${metrics.process_count} />
      </div>` : null}
    <${Card} title="Facts">
      <${Facts} of=${[
        ["Id", html`<code>${it.id}</code>`],
        ["Image", html`<code>${it.image}</code>`],
        ["Command", it.command.length > 0 ? html`<code>${it.command.join(" ")}</code>` : "none"],
        ["Labels", Object.keys(it.labels).length === 0 ? "none" : Object.entries(it.labels).map(([name, value]) => html`<a class="tag" href=${`/environments?label=${encodeURIComponent(`${name}=${value}`)}`}>${name}=${value}</a>`)],
        ["Variables", Object.keys(it.env).length === 0 ? "none" : Object.keys(it.env).map((name) => html`<code class="tag">${name}</code>`)],
        ["Created", html`<${Ago} time=${it.created_at} />`],
        ...(it.ended_at ? [["Ended", html`<${Ago} time=${it.ended_at} />`]] : [["Ends", html`<${Ago} time=${it.expires_at} />`]]),
        ["Internet", network?.allow_internet ? "allowed" : "closed"],
        ["Open ports", network?.allowed_ingress_ports.join(", ") || "none"],
      ]} />
    <//>`;
}
