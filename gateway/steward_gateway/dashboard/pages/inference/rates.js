// How fast policies step, from what the server counts at /metrics.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { request } from "../../api.js";
import { useLoad } from "../../load.js";
import { Chart } from "../../parts/chart.js";
import { Card } from "../../parts/layout.js";

/**
 * @typedef {object} Rate
 * @property {number} at_s  Since 1970.
 * @property {number} lasted_s  Over how long.
 * @property {number} steps  A second.
 * @property {number | null} latency_s  Of a step, with its wait; null where there was none.
 * @property {number} waited_s
 * @property {number} ran_s
 * @property {number | null} batch  Steps in a run.
 * @property {number} agents
 * @property {number} waiting
 */

const EVERY_S = 5;
/** A first figure is there soon. */
const FIRST_MS = 1500;
/** Twenty minutes. */
const KEPT = 240;

/**
 * How fast a policy, or all, step, since the page is open; the newest last.
 * @param {string} policy
 * @returns {Rate[]}
 */
export function useRates(policy) {
  const before = useRef(/** @type {{atMs: number, sums: Record<string, number>} | null} */ (null));
  const [rates, setRates] = useState(/** @type {Rate[]} */ ([]));
  const counted = useLoad(async (signal) => sumsOf(await (await request("GET", "/metrics", { signal })).text(), policy), [policy], { everyS: EVERY_S });
  useEffect(() => {
    const timer = setTimeout(counted.reload, FIRST_MS);
    return () => clearTimeout(timer);
  }, []);
  useEffect(() => {
    const sums = counted.data;
    if (!sums) return;
    const now = { atMs: Date.now(), sums };
    const last = before.current;
    before.current = now;
    if (last) setRates((all) => [...all, rateOf(last.sums, sums, now.atMs / 1000, (now.atMs - last.atMs) / 1000)].slice(-KEPT));
  }, [counted.data]);
  return rates;
}

/** @param {Record<string, number>} before @param {Record<string, number>} now @param {number} at_s @param {number} lasted_s @returns {Rate} */
function rateOf(before, now, at_s, lasted_s) {
  // A server that was started anew counts from nothing.
  const isAnew = (now["policy_steps_total"] ?? 0) < (before["policy_steps_total"] ?? 0);
  /** @param {string} name */
  const grown = (name) => (now[name] ?? 0) - (isAnew ? 0 : (before[name] ?? 0));
  const runs = grown("policy_run_seconds_count");
  const waits = grown("policy_queue_seconds_count");
  const ran_s = runs > 0 ? grown("policy_run_seconds_sum") / runs : 0;
  const waited_s = waits > 0 ? grown("policy_queue_seconds_sum") / waits : 0;
  return {
    at_s,
    lasted_s,
    steps: grown("policy_steps_total") / lasted_s,
    latency_s: runs > 0 ? waited_s + ran_s : null,
    waited_s,
    ran_s,
    batch: runs > 0 ? grown("policy_run_steps_sum") / runs : null,
    agents: now["policy_agents"] ?? 0,
    waiting: now["policy_waiting_steps"] ?? 0,
  };
}

/** @param {string} text @param {string} policy */
function sumsOf(text, policy) {
  /** @type {Record<string, number>} */
  const sums = {};
  for (const [, name = "", labels = "", value] of text.matchAll(/^(policy_\w+)\{([^}]*)\} (\S+)/gm)) {
    if (!policy || labels.includes(`policy="${policy}"`)) sums[name] = (sums[name] ?? 0) + Number(value);
  }
  return sums;
}

/** @param {number} seconds */
export function milliseconds(seconds) {
  const ms = seconds * 1000;
  return `${ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`;
}

/** @type {Record<string, {text: string, value: (rate: Rate) => number | null, format: (value: number) => string}>} */
const SHOWN = {
  steps: { text: "Steps a second", value: ({ steps }) => steps, format: (value) => value.toLocaleString("en-US", { maximumFractionDigits: 1 }) },
  latency: { text: "Latency of a step", value: ({ latency_s }) => latency_s, format: milliseconds },
  batch: { text: "Batch size", value: ({ batch }) => batch, format: (value) => value.toFixed(1) },
  agents: { text: "Sessions", value: ({ agents }) => agents, format: (value) => value.toFixed(0) },
};

/** One of the figures over time. @param {{rates: Rate[]}} given */
export function Rates({ rates }) {
  const [name, setName] = useState("steps");
  const shown = SHOWN[name];
  if (!shown) return null;
  const choose = html`
    <select aria-label="Figure" value=${name} onChange=${(/** @type {Event} */ { currentTarget }) => setName(/** @type {HTMLSelectElement} */ (currentTarget).value)}>
      ${Object.entries(SHOWN).map(([each, { text }]) => html`<option value=${each}>${text}</option>`)}
    </select>`;
  return html`
    <${Card} title="Over time" tools=${choose}>
      <${Chart} key=${name} label=${shown.text} times=${rates.map(({ at_s }) => at_s)} series=${[{ label: shown.text, values: rates.map(shown.value) }]} format=${shown.format} height=${220} />
      <p class="quiet">Since this page is open.</p>
    <//>`;
}
