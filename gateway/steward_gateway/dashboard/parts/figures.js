// Money, counts and times as people read them.
import { html, useEffect, useState } from "../vendor/preact.js";

/**
 * Dollars: two decimals, more where a call costs less than a cent, so that nothing that was spent looks like nothing.
 * @param {number | string | null | undefined} usd
 */
export function money(usd) {
  if (usd === null || usd === undefined) return "–";
  const amount = Number(usd);
  const digits = amount === 0 || Math.abs(amount) >= 1 ? 2 : Math.abs(amount) >= 0.01 ? 4 : 9;
  const text = amount.toLocaleString("en-US", { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: digits });
  return text;
}

/** @param {number | string | null | undefined} number */
export function count(number) {
  if (number === null || number === undefined) return "–";
  return Number(number).toLocaleString("en-US", { maximumFractionDigits: 1 });
}

/** @param {number} seconds */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} days`;
}

/** @param {number | string | null | undefined} bytes */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  let left = Number(bytes);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (left < 1024) return `${left < 10 && unit !== "B" ? left.toFixed(1) : Math.round(left)} ${unit}`;
    left /= 1024;
  }
  return `${left.toFixed(1)} TiB`;
}

/** @param {string} time  RFC 3339. */
function agoText(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  const [words, unit] = seconds < 0 ? ["in ", ""] : ["", " ago"];
  const away = Math.abs(seconds);
  if (away < 5) return "now";
  if (away < 60) return `${words}${Math.round(away)} s${unit}`;
  if (away < 3600) return `${words}${Math.round(away / 60)} min${unit}`;
  if (away < 86_400) return `${words}${Math.round(away / 3600)} h${unit}`;
  return `${words}${Math.round(away / 86_400)} d${unit}`;
}

/** A time as how long ago it is; the time itself is its title. @param {{time: string | null | undefined}} given */
export function Ago({ time }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 10_000);
    return () => clearInterval(timer);
  }, []);
  if (!time) return html`<span class="quiet">never</span>`;
  return html`<time datetime=${time} title=${new Date(time).toLocaleString()}>${agoText(time)}</time>`;
}

/** @typedef {"good" | "warn" | "bad" | "busy" | "plain"} Tone */

/** @type {Record<string, Tone>} */
const TONES = {
  running: "good", active: "good", completed: "good", ok: "good", healthy: "good", ready: "good", loaded: "good", approved: "good", serving: "good", success: "good",
  pending: "busy", creating: "busy", loading: "busy", starting: "busy", waiting: "busy", terminating: "busy", draining: "busy",
  paused: "warn", degraded: "warn", suspended: "warn", stopping: "warn", expired: "warn", skipped: "warn", idle: "plain",
  failed: "bad", error: "bad", dead: "bad", rejected: "bad", revoked: "bad", unhealthy: "bad", exhausted: "bad",
};

/** The state of a thing, as a word with a colour of its own. @param {{state: string | null | undefined, tone?: Tone}} given */
export function State({ state, tone }) {
  const word = (state || "unknown").replaceAll("_", " ");
  return html`<span class=${`state ${tone ?? TONES[(state ?? "").toLowerCase()] ?? "plain"}`}>${word}</span>`;
}

/** A figure that is looked at from afar. @param {{label: string, value: unknown, more?: unknown, tone?: Tone, href?: string}} given */
export function Figure({ label, value, more, tone, href }) {
  const inside = html`<span class="label">${label}</span><span class=${`value ${tone ?? ""}`}>${value}</span>${more ? html`<span class="more">${more}</span>` : null}`;
  return href ? html`<a class="figure" href=${href}>${inside}</a>` : html`<div class="figure">${inside}</div>`;
}

/**
 * All that was used of a budget: within what was lent, and beyond.
 * @param {{spent_usd?: number, overrun_usd?: number} | null | undefined} budget
 */
export const used = (budget) => (budget?.spent_usd ?? 0) + (budget?.overrun_usd ?? 0);

/**
 * How much of a budget is spent and lent, with marks where warnings are given.
 * @param {{spent: number, lent?: number, limit: number | null, label?: string}} given  `limit`: null if there is none; of 0 nothing is left.
 */
export function BudgetBar({ spent, lent = 0, limit, label = "Budget" }) {
  if (limit === null) return html`<span class="quiet">no limit</span>`;
  const percent = limit > 0 ? (100 * spent) / limit : 100;
  const percentLent = limit > 0 ? (100 * lent) / limit : 0;
  const tone = percent >= 95 ? "bad" : percent >= 80 ? "warn" : "good";
  // Rounded down: what has not reached a mark does not read as if it had.
  const said = limit <= 0 ? `the budget is ${money(0)}` : `${percent < 10 ? percent.toFixed(1) : Math.floor(percent)} % of ${money(limit)} spent${lent > 0 ? `, ${money(lent)} lent` : ""}`;
  return html`
    <span class="budget" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.min(100, Math.round(percent))} aria-valuetext=${said} title=${said}>
      <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
        <rect class="track" width="100" height="8" />
        <rect class="lent" x=${Math.min(100, percent)} width=${Math.max(0, Math.min(100 - percent, percentLent))} height="8" />
        <rect class=${`spent ${tone}`} width=${Math.min(100, percent)} height="8" />
        ${[50, 80, 95].map((mark) => html`<rect class="mark" x=${mark - 0.25} width="0.5" height="8" />`)}
      </svg>
      <span class="percent">${Math.floor(percent)} %</span>
    </span>`;
}
