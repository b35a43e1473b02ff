// Policies that decide for agents: which are served, who steps with them, and how fast.
import { html } from "../vendor/preact.js";
import { get } from "../api.js";
import { useLoad } from "../load.js";
import { Figure, count } from "../parts/figures.js";
import { Head } from "../parts/layout.js";
import { Empty, Shown } from "../parts/notes.js";
import { CartPole } from "./inference/cartpole.js";
import { Versions, Details } from "./inference/policies.js";
import { Rates, milliseconds, useRates } from "./inference/rates.js";
import { Sessions } from "./inference/sessions.js";

/** @typedef {import("../api.js").Schemas["inference.v1.Policy"]} Policy */

const EVENTS = ["PolicyLoaded", "PolicyUnloaded", "PolicyFailed"];
const EVERY_S = 10;

/** @param {import("../main.js").PageGiven} given */
export function Page({ segments }) {
  const [name = ""] = segments;
  return html`<${Inference} key=${name} name=${name} />`;
}

/** All policies, or one of them. @param {{name: string}} given */
function Inference({ name }) {
  const policies = useLoad((signal) => get("/api/v1/policies", { signal }), [], { on: EVENTS, everyS: EVERY_S });
  const rates = useRates(name);
  const now = rates.at(-1);
  const all = /** @type {Policy[]} */ (policies.data?.policies ?? []);
  const shown = name ? all.filter((each) => each.name === name) : all;
  const lasted = now ? `in the last ${Math.round(now.lasted_s)} s` : "counting…";
  const head = html`<${Head} title=${name || "Inference"} within=${name ? [["/inference", "Inference"]] : []} />`;
  if (name && shown.length === 0) {
    return html`${head}<${Shown} of=${policies}>${() => html`<${Empty} title=${`No policy is called ${name}.`}><p><a href="/inference">Show all policies</a></p><//>`}<//>`;
  }
  return html`
    ${head}
    <div class="figures">
      <${Figure} label="Steps a second" value=${now ? count(now.steps) : "–"} more=${lasted} />
      <${Figure} label="Latency of a step" value=${now?.latency_s == null ? "–" : milliseconds(now.latency_s)} more=${now?.latency_s == null ? "nobody stepped" : `waits ${milliseconds(now.waited_s)}, runs ${milliseconds(now.ran_s)}`} />
      <${Figure} label="Batch size" value=${now?.batch == null ? "–" : count(now.batch)} more="steps computed together" />
      <${Figure} label="Sessions" value=${now ? count(now.agents) : "–"} more=${now ? `${count(now.waiting)} steps wait` : ""} />
    </div>
    <div class="cards">
      <${Rates} rates=${rates} />
      <${CartPole} policies=${shown} />
    </div>
    <${Shown} of=${policies}>${() => html`
      <${Versions} policies=${shown} reload=${policies.reload} />
      ${name ? html`<${Details} policies=${shown} />` : null}`}<//>
    <${Sessions} policy=${name} />`;
}
