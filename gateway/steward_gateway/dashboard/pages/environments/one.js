// One environment: what it is and what is done with it, a tab for each.
import { html } from "../../vendor/preact.js";
import { get, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton } from "../../parts/dialogs.js";
import { Ago, Figure, State } from "../../parts/figures.js";
import { ActionButton } from "../../parts/forms.js";
import { Card, Facts, Head, Tabs } from "../../parts/layout.js";
import { Empty, Shown } from "../../parts/notes.js";
import { go } from "../../router.js";
import { person } from "../../session.js";
import { Change, ChangeNetwork, Longer } from "./change.js";
import { Commands } from "./commands.js";
import { Files } from "./files.js";
import { Logs } from "./logs.js";
import { keepSample, Metrics } from "./metrics.js";
import { CHANGES, timeText, wordsOf } from "./shared.js";
import { Sharing } from "./sharing.js";
import { Shell } from "./shell.js";
import { Snapshots } from "./snapshots.js";

/** @typedef {import("../../api.js").Schemas["environments.v1.EnvironmentDetails"]} Details */

const WITHIN = [["/environments", "Environments"]];
/** As often as a sample of its use is taken. */
const EVERY_S = 5;

/** @param {{id: string, tab: string, query: URLSearchParams}} given */
export function One({ id, tab, query }) {
  const loaded = useLoad(
    async (signal) => {
      const it = await get("/api/v1/environments/{environment_id}", { path: { environment_id: id }, signal });
      keepSample(it);
      return it;
    },
    [id],
    { on: CHANGES, everyS: EVERY_S },
  );
  if (loaded.error?.status === 404) {
    return html`<${Head} title="No such environment" within=${WITHIN} /><${Empty} title="It is gone, or is not for you to see."><p><a href="/environments">All environments</a></p><//>`;
  }
  if (!loaded.data) return html`<${Head} title="Environment" within=${WITHIN} /><${Shown} of=${loaded}>${() => null}<//>`;
  const it = loaded.data;
  const path = { environment_id: id };
  const isRunning = it.status === "running";
  const isAtWork = isRunning && !it.paused;
  const isOver = it.status === "terminated" || it.status === "failed";
  const mayWrite = it.permission === "write" || it.permission === "admin";
  const mayAdmin = it.permission === "admin";
  /** @param {"pause" | "resume"} verb */
  const turn = (verb) => post(`/api/v1/environments/{environment_id}/${verb}`, { path }).then(loaded.reload);
  /** @type {[string, string, boolean, () => unknown][]}  Name in the URL, title, whether it is for the caller, content. */
  const tabs = [
    ["", "Overview", true, () => html`<${Overview} it=${it} />`],
    ["metrics", "Metrics", true, () => html`<${Metrics} it=${it} />`],
    ["logs", "Logs", true, () => html`<${Logs} id=${id} />`],
    ["terminal", "Terminal", mayWrite, () => html`<${WhileAtWork} it=${it} what="There is a terminal while it runs."><${Shell} id=${id} /><//>`],
    ["commands", mayWrite ? "Commands" : "Processes", true, () => html`<${WhileAtWork} it=${it} what="Commands run while it does."><${Commands} id=${id} mayWrite=${mayWrite} /><//>`],
    ["files", "Files", mayWrite, () => html`<${WhileAtWork} it=${it} what="Its files can be reached while it runs."><${Files} id=${id} at=${query.get("path") ?? ""} /><//>`],
    ["snapshots", "Snapshots", mayWrite, () => html`<${Snapshots} of=${{ id, name: it.name, isRunning, isPaused: it.paused === true, mayWrite, mayRestore: mayAdmin, changed: loaded.reload }} />`],
    ["sharing", "Sharing", mayWrite, () => html`<${Sharing} it=${it} />`],
  ];
  const allowed = tabs.filter(([, , isAllowed]) => isAllowed);
  const shown = allowed.find(([name]) => name === tab);
  return html`
    <${Head} title=${it.name} within=${WITHIN} beside=${html`<${State} state=${it.paused ? "paused" : it.status} />`}>
      ${isRunning && mayWrite ? html`<${ActionButton} act=${() => turn(it.paused ? "resume" : "pause")}>${it.paused ? "Resume" : "Pause"}<//>` : null}
      ${mayAdmin && !isOver && it.status !== "terminating" ? html`
        <${Longer} it=${it} changed=${loaded.reload} />
        <${Change} it=${it} changed=${loaded.reload} />
        ${isAtWork ? html`<${ChangeNetwork} it=${it} changed=${loaded.reload} />` : null}` : null}
      ${mayAdmin ? html`<${ConfirmButton} label="Delete" title=${`Delete ${it.name}`} question=${html`<p>All that runs in it ends, and its files are gone.</p>`}
        act=${() => remove("/api/v1/environments/{environment_id}", { path })} done=${() => go("/environments")} />` : null}
    <//>
    <${Shown} of=${loaded}>${() => null}<//>
    <${Tabs} label="Environment" tabs=${allowed.map(([name, title]) => [`/environments/${id}${name ? `/${name}` : ""}`, title])} />
    ${shown ? shown[3]() : html`<${Empty} title="No page has this address."><p><a href=${`/environments/${id}`}>To the overview of ${it.name}</a></p><//>`}`;
}

/** @param {{it: Details, what: string, children: unknown}} given  `what`: said in place of the children where nothing runs. */
function WhileAtWork({ it, what, children }) {
  if (it.status === "running" && !it.paused) return children;
  return html`<${Card}><${Empty} title=${what}><p>${it.paused ? "It is paused: resume it." : it.status === "pending" ? "It is being made." : `It is ${it.status}.`}</p><//><//>`;
}

/** @param {{it: Details}} given */
function Overview({ it }) {
  const { metrics, resources } = it;
  const network = it.isolation?.network_policy;
  const reaches = [...(network?.allow_internet ? ["the internet"] : []), ...(network?.allowed_egress_cidrs ?? []), ...(network?.allow_cluster_internal ? ["its cluster"] : [])];
  const labels = wordsOf(it.labels);
  return html`
    ${it.reason ? html`<div class=${`note ${it.status === "failed" ? "bad" : ""}`}><p>${it.reason}</p></div>` : null}
    ${metrics ? html`
      <div class="figures">
        <${Figure} label="CPU" value=${metrics.cpu_usage} more=${`of ${resources?.cpu}`} href=${`/environments/${it.id}/metrics`} />
        <${Figure} label="Memory" value=${metrics.memory_usage} more=${`of ${resources?.memory}`} href=${`/environments/${it.id}/metrics`} />
        ${metrics.storage_usage ? html`<${Figure} label="Disk" value=${metrics.storage_usage} more=${`of ${resources?.storage}`} href=${`/environments/${it.id}/metrics`} />` : null}
        <${Figure} label="Processes" value=${metrics.process_count} href=${`/environments/${it.id}/commands`} />
      </div>` : null}
    <div class="cards">
      <${Card} title="What it is">
        <${Facts} of=${[
          ["Id", html`<code>${it.id}</code>`],
          ["Image", html`<code>${it.image}</code>`],
          ["Command", it.command.length > 0 ? html`<code>${it.command.join(" ")}</code>` : "none; it lives until it is ended"],
          ...(it.exit_code == null ? [] : [["Exit code", it.exit_code]]),
          ["Labels", labels.length === 0 ? "none" : html`<span class="tags">${labels.map((each) => html`<a class="tag" href=${`/environments?label=${encodeURIComponent(each)}`}>${each}</a>`)}</span>`],
          ["Variables", Object.keys(it.env).length === 0 ? "none" : html`<span class="tags">${Object.keys(it.env).sort().map((name) => html`<code class="tag">${name}</code>`)}</span>`],
          ["Limits", `${resources?.cpu} CPU, ${resources?.memory} memory, ${resources?.storage} disk`],
        ]} />
      <//>
      <${Card} title="Its life and reach">
        <${Facts} of=${[
          ["Created", html`<${Ago} time=${it.created_at} />`],
          ["By", it.agent_id ? html`agent <a href=${`/agents/${it.agent_id}`}><code>${it.agent_id}</code></a>` : it.owner_id === person.get()?.id ? "you" : html`<code>${it.owner_id}</code>`],
          it.ended_at ? ["Ended", html`<${Ago} time=${it.ended_at} />`] : ["Ends", html`<${Ago} time=${it.expires_at} />`],
          ["Lives for", `${timeText(it.timeout)} from its creation`],
          ["When unused", it.idle_timeout ? `ends after ${timeText(it.idle_timeout)}` : "goes on"],
          ["May reach", reaches.join(", ") || "nothing"],
          ["Open ports", network?.allowed_ingress_ports.join(", ") || "none"],
          ["Isolation", it.isolation?.runtime_class || "as the host does it"],
        ]} />
      <//>
    </div>`;
}
