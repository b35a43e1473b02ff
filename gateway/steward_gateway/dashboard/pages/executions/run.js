// One run: its steps, what its browser shows, what it asks, and what can be done with it.
import { html, useEffect, useState } from "../../vendor/preact.js";
import { get, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, DialogButton } from "../../parts/dialogs.js";
import { Ago, State, duration } from "../../parts/figures.js";
import { ActionButton, Form } from "../../parts/forms.js";
import { Card, Facts, Head } from "../../parts/layout.js";
import { Empty, Shown } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { go } from "../../router.js";
import { useCalmly, useRuns } from "../../runs_live.js";
import { mayAs, person } from "../../session.js";
import { hrefOf } from "../playbooks/copies.js";
import { Files } from "./files.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["executions.v1.Execution"]} Execution */
/** @typedef {Schemas["executions.v1.StepResult"]} StepResult */
/** @typedef {Schemas["executions.v1.Artifact"]} Artifact */
/** @typedef {import("../../runs_live.js").RunUpdate} RunUpdate */

const CALM_MS = 1500;
const CHILD_MS = 2000;
const KEPT_LINES = 500;

/** @param {Execution} run */
const isOver = ({ status }) => ["completed", "failed", "cancelled"].includes(status ?? "");

/** Whether somebody can see this page. */
function useVisible() {
  const [isVisible, setVisible] = useState(!document.hidden);
  useEffect(() => {
    const look = () => setVisible(!document.hidden);
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  return isVisible;
}

/** @typedef {{step_id: string, execution_id: string}} Nested */

/**
 * The run that the step in hand has started; the step itself names it when it is over.
 * @param {string} id @param {Execution | undefined} run @returns {Nested | null}
 */
function useNested(id, run) {
  const step_id = run?.step_results?.find(({ status, step_type }) => status === "running" && step_type === "playbook.run")?.step_id ?? "";
  const children = useLoad(
    async (signal) => /** @type {Execution[]} */ (step_id ? await get("/api/executions", { query: { parent_execution_id: id, limit: 1 }, signal }) : []),
    [step_id],
  );
  const child = children.data?.find((each) => !isOver(each));
  useEffect(() => {
    if (!step_id || child) return undefined;
    const timer = setTimeout(children.reload, CHILD_MS); // no event says that it is there
    return () => clearTimeout(timer);
  }, [children.data]);
  return step_id && child ? { step_id, execution_id: child.execution_id } : null;
}

/** @param {{id: string}} given */
export function Run({ id }) {
  const path = { execution_id: id };
  const run = useLoad((signal) => get("/api/executions/{execution_id}", { path, signal }), [id]);
  const artifacts = useLoad((signal) => get("/api/executions/{execution_id}/artifacts", { path, signal }), [id]);
  const [lines, setLines] = useState(/** @type {RunUpdate[]} */ ([]));
  const [frame, setFrame] = useState("");
  const isVisible = useVisible();
  const reload = useCalmly(() => {
    run.reload();
    artifacts.reload();
  }, CALM_MS);
  useRuns(
    { executionId: id, frames: isVisible },
    {
      updates: (updates) => {
        const logged = updates.filter(({ event }) => event === "logged");
        if (logged.length > 0) setLines((before) => [...before, ...logged].slice(-KEPT_LINES));
        if (logged.length < updates.length) reload();
      },
      frame: setFrame,
      lost: reload,
    },
  );
  const nested = useNested(id, run.data);
  const title = run.data?.playbook_name ?? "Run";
  return html`
    <${Head} title=${title} within=${[["/executions", "Runs"]]} beside=${run.data ? html`<${State} state=${run.data.question ? "waiting" : run.data.status} />` : null}>
      ${run.data ? html`<${Actions} run=${run.data} reload=${run.reload} />` : null}
    <//>
    <${Shown} of=${run}>${(/** @type {Execution} */ data) => html`
      <${Situation} run=${data} reload=${run.reload} />
      <${Card} title="Steps"><${Steps} run=${data} nested=${nested} /><//>
      ${frame ? html`<${Card} title="Browser"><img class="frame-of-run" src=${frame} alt="What the browser of the run shows" /><//>` : null}
      <div class="cards">
        <${Card} title="Log"><${Log} lines=${lines} /><//>
        <${Card} title="About">
          <${Facts} of=${facts(data)} />
          ${Object.keys(data.parameters ?? {}).length > 0 ? html`<h3>Parameters</h3><${Json} label="Parameters" of=${data.parameters} />` : null}
        <//>
      </div>
      <${Card} title="Files">
        <${Shown} of=${artifacts}>${(/** @type {{artifacts: Artifact[]}} */ { artifacts: all }) => html`<${Files} id=${id} files=${all} />`}<//>
      <//>`}<//>`;
}

/** @param {Execution} run @returns {[string, unknown][]} */
function facts(run) {
  /** @type {[string, unknown][]} */
  const all = [
    ["Id", html`<code>${run.execution_id}</code>`],
    ["Playbook", html`<a href=${hrefOf(run.playbook_path)}><code>${run.playbook_path}</code></a>`],
    ["Begun", html`<${Ago} time=${run.started_at ?? run.created_at} />`],
    ["Debug mode", run.debug_mode ? "on" : "off"],
  ];
  if (run.completed_at) all.push(["Ended", html`<${Ago} time=${run.completed_at} />`]);
  if (run.agent_id) all.push(["Agent", html`<a href=${`/agents/${run.agent_id}`}>${run.agent_id}</a>`]);
  if (run.gateway_url) all.push(["Gateway", run.gateway_url]);
  if (run.credential_name) all.push(["Credential", run.credential_name]);
  if (run.parent_execution_id) all.push(["Part of", html`<a href=${`/executions/${run.parent_execution_id}`}>another run</a>`]);
  if (run.rerun_of) all.push(["Made again from", html`<a href=${`/executions/${run.rerun_of}`}>an earlier run</a>`]);
  return all;
}

/** @param {{of: unknown, label: string}} given */
function Json({ of, label }) {
  return html`<pre tabindex="0" role="region" aria-label=${label}>${JSON.stringify(of, null, 2)}</pre>`;
}

/** Steps that pause before they are over, and where. @type {Record<string, string>} */
const SAFE_POINTS = {
  "utility.sleep": "within its wait",
  "gateway.wait_for_ready": "within its wait",
  "gateway.wait_for_module_installation": "within its wait",
  "environment.create": "within its wait",
  "approval.wait": "at once",
  "perspective.execute_test_manifest": "before its next test",
  "playbook.run": "together with the run it started",
};

/** Where a run that is to pause will. @param {Execution} run */
function pauses({ step_results = [] }) {
  const inHand = step_results.find(({ status }) => status === "running");
  if (!inHand) return "It is to pause, and does so before the next step.";
  const where = SAFE_POINTS[inHand.step_type ?? ""];
  return `It is to pause. The step in hand, ${inHand.step_name}, ${where ? `pauses ${where}` : "is ended first: the run pauses when that is over"}.`;
}

/** @param {{run: Execution}} given */
function Held({ run: { paused_at = "", debug_mode, step_results = [] } }) {
  const failed = debug_mode ? step_results.find(({ error }) => error && error === paused_at) : undefined;
  if (failed) return html`<div class="note bad"><p>${failed.step_name} failed: ${paused_at}</p>${mayAs("admin", "user") ? html`<p>“Resume” makes the step again, “Skip step” goes on without it.</p>` : null}</div>`;
  return html`<div class="note warn"><p>Paused ${paused_at || "before the next step"}.</p></div>`;
}

/** What holds the run up, and what it asks. @param {{run: Execution, reload: () => Promise<void>}} given */
function Situation({ run, reload }) {
  return html`
    ${run.error ? html`<div class="note bad"><p>${run.error}</p></div>` : null}
    ${run.cancelling ? html`<div class="note warn"><p>It is being cancelled; the step in hand is ending.</p></div>` : null}
    ${run.pausing ? html`<div class="note warn"><p>${pauses(run)}</p></div>` : null}
    ${run.status === "paused" ? html`<${Held} run=${run} />` : null}
    ${run.question ? html`<${Answer} run=${run} question=${run.question} reload=${reload} />` : null}`;
}

/** @param {{run: Execution, question: NonNullable<Execution["question"]>, reload: () => Promise<void>}} given */
function Answer({ run, question, reload }) {
  const path = { execution_id: run.execution_id };
  const fields = [{ name: "comment", label: "Comment", type: "textarea", rows: 2 }];
  const isStarter = !run.agent_id && run.owner_id === person.get()?.id;
  /** @param {"approve" | "reject"} verb */
  const answered = (verb) => async (/** @type {Record<string, string>} */ values) => {
    await post(`/api/executions/{execution_id}/${verb}`, { path, body: { ...values, step_id: question.step_id } });
    await reload();
  };
  return html`
    <${Card} title="It asks">
      <p>${question.message}</p>
      ${question.not_by_starter ? html`<p class="quiet">Whoever started the run may not approve it.</p>` : null}
      ${question.expires_at ? html`<p class="quiet">The time to answer ends <${Ago} time=${question.expires_at} />.</p>` : null}
      ${mayAs("admin", "user") ? html`<div class="actions">
        ${question.not_by_starter && isStarter ? null : html`<${DialogButton} label="Approve" title="Approve this step">${(/** @type {() => void} */ close) => html`<${Form} fields=${fields} submit="Approve" send=${answered("approve")} done=${close} cancel=${close} />`}<//>`}
        <${ConfirmButton} label="Reject" title="Reject this step" question="The run fails if it is rejected." fields=${fields} act=${answered("reject")} />
      </div>` : null}
    <//>`;
}

/** @param {{run: Execution, reload: () => Promise<void>}} given */
function Actions({ run, reload }) {
  if (!mayAs("admin", "user")) return null;
  const path = { execution_id: run.execution_id };
  /** @param {"pause" | "resume" | "skip"} verb */
  const act = (verb) => async () => {
    await post(`/api/executions/{execution_id}/${verb}`, { path });
    await reload();
  };
  /** @param {boolean} fromStart */
  const rerun = (fromStart) => async () => {
    const { execution_id } = await post("/api/executions/{execution_id}/rerun", { path, body: { from_start: fromStart } });
    go(`/executions/${execution_id}`);
  };
  /** @param {Record<string, string>} values */
  const cancel = async (values) => {
    await post("/api/executions/{execution_id}/cancel", { path, body: values });
    await reload();
  };
  if (isOver(run)) {
    return html`
      ${run.status !== "completed" ? html`<${ActionButton} act=${rerun(false)}>Run again from where it stopped<//>` : null}
      <${ActionButton} act=${rerun(true)}>Run again from the start<//>
      <${ConfirmButton} label="Delete" title="Delete this run" question="Its steps, its log and its files are lost." act=${() => remove("/api/executions/{execution_id}", { path })} done=${() => go("/executions")} />`;
  }
  return html`
    ${run.status === "paused" ? html`<${ActionButton} act=${act("resume")}>Resume<//>` : html`<${ActionButton} act=${act("pause")} disabled=${run.pausing}>Pause<//>`}
    <${ActionButton} act=${act("skip")}>Skip step<//>
    <${ConfirmButton} label="Cancel run" title="Cancel this run" question="What it has done stays done." fields=${[{ name: "reason", label: "Why?" }]} act=${cancel} />`;
}

/** @param {StepResult} step */
function stepTook({ started_at, completed_at }) {
  return started_at && completed_at ? duration((Date.parse(completed_at) - Date.parse(started_at)) / 1000) : "–";
}

/** @type {import("../../parts/tables.js").Column<StepResult>[]} */
const STEPS = [
  { title: "Step", cell: ({ step_name, step_type }) => html`<span>${step_name} <span class="quiet">${step_type}</span></span>` },
  { title: "State", cell: ({ status }) => html`<${State} state=${status} />` },
  { title: "Attempts", number: true, cell: ({ attempts }) => attempts ?? "–" },
  { title: "Took", number: true, cell: stepTook },
  { title: "Result", cell: (step) => (step.error || step.output || step.output_omitted || step.child_execution_id ? html`<div><${Result} step=${step} /></div>` : null) },
];

/** @param {{step: StepResult}} given */
function Result({ step: { step_name, error, output, output_omitted, child_execution_id } }) {
  return html`
    ${error ? html`<span class="bad">${error}</span>` : null}
    ${child_execution_id ? html`<a href=${`/executions/${child_execution_id}`}>the run it started</a> ` : null}
    ${output ? html`<details><summary>Output</summary><${Json} label=${`Output of ${step_name}`} of=${output} /></details>` : null}
    ${output_omitted ? html`<span class="quiet">The output is too large to be shown.</span>` : null}`;
}

/** @param {{run: Execution, nested: Nested | null}} given */
function Steps({ run, nested }) {
  const results = (run.step_results ?? []).map((each) => (each.step_id === nested?.step_id ? { ...each, child_execution_id: nested.execution_id } : each));
  const done = results.filter(({ status }) => status === "completed" || status === "skipped").length;
  return html`
    <p class="quiet">${done} of ${run.total_steps} done</p>
    <progress aria-label="Steps done" max=${run.total_steps} value=${done}></progress>
    <${Table} label="Steps" columns=${STEPS} rows=${results} id="step_id" empty=${html`<${Empty} title="No step has begun yet." />`} />`;
}

/** @param {{lines: RunUpdate[]}} given */
function Log({ lines }) {
  if (lines.length === 0) return html`<${Empty} title="Nothing was logged."><p>Lines of <code>utility.log</code> and of scripts stand here.</p><//>`;
  return html`<ul class="happened">${lines.map(({ sequence, timestamp, level, message }) => html`<li key=${sequence}><${Ago} time=${timestamp} /><span class=${level === "error" ? "bad" : level === "warning" ? "warn" : ""}>${message}</span></li>`)}</ul>`;
}
