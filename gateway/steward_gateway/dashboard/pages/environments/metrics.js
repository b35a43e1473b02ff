// What an environment uses, over time. The API tells what it is now: what was seen is remembered here, for a while.
import { html } from "../../vendor/preact.js";
import { Chart } from "../../parts/chart.js";
import { Card } from "../../parts/layout.js";
import { Empty } from "../../parts/notes.js";
import { count, Figure } from "../../parts/figures.js";

/** @typedef {import("../../api.js").Schemas["environments.v1.EnvironmentDetails"]} Details */
/** @typedef {{atS: number, cores: number | null, memory: number | null, storage: number | null, processes: number | null}} Sample */

/** An hour of samples five seconds apart, of the environments that were looked at last. */
const MOST_SAMPLES = 720;
const MOST_ENVIRONMENTS = 5;
/** Nothing is known of a longer while than this: the line is broken there. */
const LONGEST_GAP_S = 30;

/** @param {number} atS @returns {Sample} */
const unknown = (atS) => ({ atS, cores: null, memory: null, storage: null, processes: null });

/** @type {Map<string, Sample[]>} */
const history = new Map();

/** @param {Details} it */
export function keepSample({ id, metrics }) {
  if (!metrics) return;
  const atS = Date.now() / 1000;
  const samples = history.get(id) ?? [];
  const newest = samples.at(-1);
  if (newest && atS - newest.atS > LONGEST_GAP_S) samples.push(unknown(newest.atS + 1));
  samples.push({
    atS,
    cores: quantity(metrics.cpu_usage),
    memory: quantity(metrics.memory_usage),
    storage: quantity(metrics.storage_usage),
    processes: metrics.process_count,
  });
  history.delete(id);
  history.set(id, samples.slice(-MOST_SAMPLES));
  const oldest = history.keys().next().value;
  if (history.size > MOST_ENVIRONMENTS && oldest !== undefined) history.delete(oldest);
}

/** At first there is room for as much: a line that grows is read more easily than one that shrinks. */
const LEAST_SHOWN_S = 300;

/** @type {Record<string, number>} */
const UNITS = { "": 1, m: 1e-3, Ki: 2 ** -10, Mi: 1, Gi: 2 ** 10, Ti: 2 ** 20 };

/** A quantity of Kubernetes in cores or mebibytes. @param {string | undefined} text */
function quantity(text) {
  const found = /^([\d.]+)([A-Za-z]*)$/.exec(text ?? "");
  return found ? Number(found[1]) * (UNITS[found[2] ?? ""] ?? NaN) : null;
}

/** @param {number} mebibytes */
const memory = (mebibytes) => `${count(mebibytes)} MiB`;
/** @param {number} cores */
const cpu = (cores) => (cores < 1 ? `${Math.round(cores * 1000)}m` : cores.toFixed(2));

/** @param {{it: Details}} given */
export function Metrics({ it }) {
  const seen = history.get(it.id) ?? [];
  const firstS = (seen.at(-1)?.atS ?? 0) - LEAST_SHOWN_S;
  const samples = (seen[0]?.atS ?? 0) > firstS ? [unknown(firstS), ...seen] : seen;
  const times = samples.map(({ atS }) => atS);
  const { resources, metrics } = it;
  /** @type {[string, keyof Sample, (value: number) => string, string | undefined, string | undefined][]} */
  const measures = [
    ["CPU", "cores", cpu, metrics?.cpu_usage, resources?.cpu],
    ["Memory", "memory", memory, metrics?.memory_usage, resources?.memory],
    ["Disk", "storage", memory, metrics?.storage_usage, resources?.storage],
    ["Processes", "processes", count, metrics && String(metrics.process_count), undefined],
  ];
  const known = measures.filter(([, of]) => samples.some((each) => each[of] !== null));
  const isMeasured = it.status === "running";
  const why = it.paused ? "It is paused: its processes stand still." : it.status === "pending" ? "It is being made." : `It is ${it.status}.`;
  if (known.length === 0) {
    return html`<${Card}><${Empty} title=${isMeasured ? "It was not measured yet." : "It is measured while it runs."}><p>${isMeasured ? "The first figures come in a few seconds." : why}</p><//><//>`;
  }
  return html`
    ${isMeasured && !it.paused ? null : html`<div class="note" role="status"><p>${isMeasured ? why : `${why} What follows was measured before.`}</p></div>`}
    ${metrics ? html`<div class="figures">${known.map(([title, , , now, limit]) => html`<${Figure} label=${title} value=${now} more=${limit ? `of ${limit}` : undefined} />`)}</div>` : null}
    <div class="cards two">
      ${known.map(([title, of, format, , limit]) => html`
        <${Card} key=${of} title=${limit ? html`${title} <span class="quiet">of ${limit}</span>` : title}>
          <${Chart} label=${`${title} of ${it.name}`} times=${times} format=${format} height=${180} series=${[{ label: title, values: samples.map((each) => each[of]) }]} />
        <//>`)}
    </div>
    <p class="quiet">Measured every 5 seconds while a page of this environment is open; the last hour is shown.</p>`;
}
