// Lines and bars over time. The library is loaded with the first chart; what is drawn stands below it as text too.
import { html, useEffect, useRef } from "../vendor/preact.js";
import { doubt, revived } from "../connection.js";
import { storeOf, useStore } from "../store.js";

/**
 * @typedef {object} Series
 * @property {string} label
 * @property {(number | null)[]} values  One for each time.
 * @property {boolean} [rest]  It is what is left over: drawn in grey.
 */

const COLOURS = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `--series-${number}`);
const REST = "--quiet";
const DAY_S = 86_400;
const PIXELS_A_LETTER = 7;
/** What is shown around the only point of a line. */
const LONE_S = 30;

/** @param {Series} series @param {number} i */
const colourOf = ({ rest }, i) => (rest ? REST : String(COLOURS[i % COLOURS.length]));

/** Steps of days are days in UTC, whatever the day is here. @param {number} stepS */
function clockOf(stepS) {
  const timeZone = stepS >= DAY_S ? "UTC" : undefined;
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", timeZone });
  const hour = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
  const second = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit" });
  const both = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
  return {
    timeZone,
    /** @param {number} timeS */
    told: (timeS) => (stepS >= DAY_S ? day : both).format(timeS * 1000),
    /** @param {number[]} ticks @param {number} apartS */
    ticks: (ticks, apartS) =>
      ticks.map((timeS) => {
        const at = new Date(timeS * 1000);
        if (apartS >= DAY_S || (at.getHours() === 0 && at.getMinutes() === 0)) return day.format(at);
        return (apartS < 60 ? second : hour).format(at);
      }),
  };
}

/** @type {Promise<typeof import("../vendor/uplot.js")> | null} */
let library = null;

function loaded() {
  if (!library) {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = "/dashboard/vendor/uplot.css";
    document.head.append(style);
    library = import("../vendor/uplot.js");
    library.catch(() => {
      library = null; // the server is away; it is loaded once it is back
      style.remove();
      doubt();
    });
  }
  return library;
}

/**
 * Each series with those before it below it. What adds nothing has no bar.
 * @param {Series[]} series
 * @param {number} length
 */
function stackedOf(series, length) {
  const heights = new Array(length).fill(0);
  return series.map(({ values }) => values.map((value, i) => (value ? (heights[i] += value) : null)));
}

/**
 * What the axis of time shows: the library itself would show years around a lone point.
 * @param {ArrayLike<number>} times
 * @param {number} lastS  How long the last of them lasts.
 * @returns {[number | null, number | null]}
 */
function spanOf(times, lastS) {
  if (times.length === 0) return [null, null];
  const first = Number(times[0]);
  const end = Number(times[times.length - 1]) + lastS;
  return first === end ? [first - LONE_S, end + LONE_S] : [first, end];
}

/**
 * @param {{label: string, times: number[], series: Series[], format?: (value: number) => string, height?: number, bars?: boolean}} given
 *   `times` in seconds since 1970, growing. Bars of several series stand on each other, and begin at their times.
 */
export function Chart({ label, times, series, format = String, height = 200, bars = false }) {
  const holder = useRef(/** @type {HTMLDivElement | null} */ (null));
  const chart = useRef(/** @type {import("uplot") | null} */ (null));
  const { current: pointed } = useRef(storeOf(/** @type {number | null} */ (null)));
  const stepS = Number(times[1] ?? times[0]) - Number(times[0]) || (bars ? DAY_S : 1);
  const names = series.map((each) => each.label).join("\n");
  // The tallest bars are drawn first, so that the lower ones of their stack stand before them.
  const shown = series.map((each, i) => ({ each, name: colourOf(each, i) }));
  const values = bars ? stackedOf(series, times.length).reverse() : series.map((each) => each.values);
  const drawn = bars ? shown.reverse() : shown;
  /** @type {any} */
  const data = [times, ...values];
  const newest = useRef(data);
  newest.current = data;

  useEffect(() => {
    let isGone = false;
    /** @type {ResizeObserver | undefined} */
    let sizes;
    const schemes = matchMedia("(prefers-color-scheme: dark)");
    const draw = async () => {
      const found = await loaded().catch(() => null);
      const element = holder.current;
      if (isGone || !found || !element) return;
      const { default: UPlot } = found;
      chart.current?.destroy();
      const style = getComputedStyle(element);
      /** @param {string} name */
      const colour = (name) => style.getPropertyValue(name).trim();
      const clock = clockOf(stepS);
      const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
      chart.current = new UPlot(
        {
          width: element.clientWidth,
          height,
          tzDate: (timeS) => (clock.timeZone ? UPlot.tzDate(new Date(timeS * 1000), clock.timeZone) : new Date(timeS * 1000)),
          legend: { show: false },
          cursor: { drag: { x: false, y: false }, points: bars ? { show: false } : {} },
          hooks: { setCursor: [({ cursor }) => pointed.set(cursor.idx ?? null)] },
          scales: {
            x: { range: ({ data }) => spanOf(data[0], bars ? stepS : 0) },
            y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.1 : 1] },
          },
          axes: [
            { ...axis, size: 34, space: 90, values: (_, ticks, __, ___, apartS) => clock.ticks(ticks, apartS) },
            {
              ...axis,
              size: (_, texts) => PIXELS_A_LETTER * Math.max(4, ...(texts ?? []).map((text) => text.length)) + 18,
              values: (_, ticks) => ticks.map(format),
            },
          ],
          series: [
            {},
            ...drawn.map(({ each, name }, i) => ({
              label: each.label,
              stroke: bars ? undefined : colour(name),
              fill: bars ? colour(name) : series.length === 1 ? `color-mix(in srgb, ${colour(name)} 20%, transparent)` : undefined,
              width: bars ? 0 : 2,
              dash: i < COLOURS.length ? undefined : [6, 4],
              points: { show: !bars && times.length < 2 },
              paths: bars ? UPlot.paths.bars?.({ size: [0.8, 60], align: 1 }) : undefined,
            })),
          ],
        },
        newest.current,
        element,
      );
      chart.current.root.setAttribute("aria-hidden", "true");
    };
    draw();
    schemes.addEventListener("change", draw);
    const unfollow = revived.follow(() => void (chart.current || draw()));
    if (holder.current) {
      sizes = new ResizeObserver(([entry]) => entry && chart.current?.setSize({ width: Math.floor(entry.contentRect.width), height }));
      sizes.observe(holder.current);
    }
    return () => {
      isGone = true;
      schemes.removeEventListener("change", draw);
      unfollow();
      sizes?.disconnect();
      chart.current?.destroy();
      chart.current = null;
    };
  }, [names, height, bars, stepS]);

  useEffect(() => chart.current?.setData(data), [data]);

  const last = times.length - 1;
  const said = series.map((each) => `${each.label} ${each.values[last] == null ? "–" : format(Number(each.values[last]))}`).join(", ");
  return html`
    <figure class="chart">
      <div ref=${holder} style=${{ minHeight: `${height}px` }}></div>
      ${series.length > 1 ? html`<${Legend} times=${times} stepS=${stepS} series=${series} format=${format} isSum=${bars} pointed=${pointed} />` : null}
      <figcaption class="unseen">${label}${last >= 0 ? `; last: ${said}` : "; nothing yet"}</figcaption>
    </figure>`;
}

/**
 * What each colour is, and how much: where one points, else of bars in all, of lines at the end.
 * @param {{times: number[], stepS: number, series: Series[], format: (value: number) => string, isSum: boolean, pointed: import("../store.js").Store<number | null>}} given
 */
function Legend({ times, stepS, series, format, isSum, pointed }) {
  const at = useStore(pointed);
  /** @param {Series} given */
  const value = ({ values }) => (at === null && isSum ? values.reduce((/** @type {number} */ sum, each) => sum + (each ?? 0), 0) : values[at ?? values.length - 1]);
  const where = at !== null && at < times.length ? clockOf(stepS).told(Number(times[at])) : isSum ? "In all" : "At the end";
  return html`
    <div class="legend">
      <span class="quiet">${where}</span>
      <ul>${series.map((each, i) => {
        const amount = value(each);
        return html`<li><span class="swatch" style=${{ background: `var(${colourOf(each, i)})` }}></span><span class="label" title=${each.label}>${each.label}</span> <span class="value">${amount == null ? "–" : format(amount)}</span></li>`;
      })}</ul>
    </div>`;
}
