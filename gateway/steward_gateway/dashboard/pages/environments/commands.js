// What runs in an environment, and a command to run beside that.
import { html, useState } from "../../vendor/preact.js";
import { get, post } from "../../api.js";
import { useLoad } from "../../load.js";
import { Ago, duration, size } from "../../parts/figures.js";
import { ActionButton, Form } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Empty, Shown } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["environments.v1.Process"]} Process */
/** @typedef {Schemas["environments.v1.ExecResponse"]} Ended */

/** @param {{id: string, mayWrite: boolean}} given */
export function Commands({ id, mayWrite }) {
  const path = { environment_id: id };
  const loaded = useLoad((signal) => get("/api/v1/environments/{environment_id}/processes", { path, signal }), [id], { everyS: 10 });
  const [ended, setEnded] = useState(/** @type {Ended | null} */ (null));
  /** @param {Process} process @param {string} signal */
  const send = ({ pid }, signal) =>
    post("/api/v1/environments/{environment_id}/processes/{pid}/signal", { path: { ...path, pid: String(pid) }, body: /** @type {any} */ ({ signal }) }).then(loaded.reload);
  /** @type {import("../../parts/tables.js").Column<Process>[]} */
  const columns = [
    { title: "PID", number: true, cell: ({ pid }) => pid, value: ({ pid }) => pid },
    { title: "Command", cell: ({ command }) => html`<code>${command}</code>`, value: ({ command }) => command },
    { title: "Memory", number: true, cell: ({ memory_bytes }) => size(memory_bytes), value: ({ memory_bytes }) => Number(memory_bytes) },
    { title: "Begun", cell: ({ started_at }) => html`<${Ago} time=${started_at} />` },
  ];
  if (mayWrite) {
    columns.push({ title: "Signal", number: true, cell: (process) => html`<div class="actions small">${["TERM", "KILL"].map((name) => html`<${ActionButton} title=${`Send ${name} to ${process.pid}`} act=${() => send(process, name)}>${name}<//>`)}</div>` });
  }
  /** @param {Record<string, string>} values */
  const run = async ({ command = "" }) =>
    setEnded((await post("/api/v1/environments/{environment_id}/exec", { path, body: /** @type {any} */ ({ command: ["sh", "-c", command] }) })) ?? null);
  return html`
    ${mayWrite ? html`
      <${Card} title="Run a command">
        <${Form} submit="Run" send=${run} done=${loaded.reload} fields=${[{ name: "command", label: "Command", required: true, hint: "Run by sh, for at most 30 seconds." }]} />
        ${ended ? html`
          <p role="status">${ended.timed_out ? "Ended after 30 seconds" : `Exit code ${ended.exit_code}`}, after ${duration(Number(ended.duration_ms) / 1000)}${ended.truncated ? "; more was written than is shown" : ""}</p>
          ${ended.stdout ? html`<h3>Output</h3><pre>${ended.stdout}</pre>` : null}
          ${ended.stderr ? html`<h3>Errors</h3><pre>${ended.stderr}</pre>` : null}` : null}
      <//>` : null}
    <${Card} title="Processes">
      <${Shown} of=${loaded}>${(/** @type {{processes: Process[]}} */ { processes }) => html`
        <${Table} label="Processes" columns=${columns} rows=${processes} id="pid" empty=${html`<${Empty} title="Nothing runs in it just now." />`} />`}<//>
    <//>`;
}
