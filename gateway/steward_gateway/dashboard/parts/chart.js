// Lines over time. The library is loaded with the first chart, and what it shows can be read as a table too.
import { html, useEffect, useRef } from "../vendor/preact.js";

/**
 * @typedef {object} Series
 * @property {string} label
 * @property {(number | null)[]} values  One for each time.
 */

const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];

/** @type {Promise<typeof import("../vendor/uplot.js")> | null} */
let library = null;

function loaded() {
  if (!library) {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = "/dashboard/vendor/uplot.css";
    document.head.append(style);
    library = import("../vendor/uplot.js");
  }
  return library;
}

/**
 * @param {{label: string, times: number[], series: Series[], format?: (value: number) => string, height?: number, bars?: boolean}} given
 *   `times` in seconds since 1970, growing.
 */
export function Chart({ label, times, series, format = String, height = 200, bars = false }) {
  const holder = useRef(/** @type {HTMLDivElement | null} */ (null));
  const chart = useRef(/** @type {import("uplot") | null} */ (null));
  const names = series.map((each) => each.label).join("\n");
  /** @type {any} */
  const data = [times, ...series.map((each) => each.values)];
  const newest = useRef(data);
  newest.current = data;

  useEffect(() => {
    let isGone = false;
    /** @type {ResizeObserver | undefined} */
    let sizes;
    const schemes = matchMedia("(prefers-color-scheme: dark)");
    const draw = async () => {
      const { default: UPlot } = await loaded();
      const element = holder.current;
      if (isGone || !element) return;
      chart.current?.destroy();
      const style = getComputedStyle(element);
      /** @param {string} name */
      const colour = (name) => style.getPropertyValue(name).trim();
      const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
      chart.current = new UPlot(
        {
          width: element.clientWidth,
          height,
          legend: { show: series.length > 1, live: true },
          cursor: { drag: { x: false, y: false } },
          scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.1 : 1] } },
          axes: [axis, { ...axis, size: 72, values: (_, ticks) => ticks.map(format) }],
          series: [
            {},
            ...series.map((each, i) => ({
              label: each.label,
              stroke: colour(`${COLOURS[i % COLOURS.length]}`),
              fill: series.length === 1 || bars ? `${colour(`${COLOURS[i % COLOURS.length]}`)}33` : undefined,
              width: 2,
              points: { show: times.length < 2 },
              paths: bars ? UPlot.paths.bars?.({ size: [0.7, 60] }) : undefined,
              value: (/** @type {unknown} */ _, /** @type {number | null} */ value) => (value === null ? "–" : format(value)),
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
    if (holder.current) {
      sizes = new ResizeObserver(([entry]) => entry && chart.current?.setSize({ width: Math.floor(entry.contentRect.width), height }));
      sizes.observe(holder.current);
    }
    return () => {
      isGone = true;
      schemes.removeEventListener("change", draw);
      sizes?.disconnect();
      chart.current?.destroy();
      chart.current = null;
    };
  }, [names, height, bars]);

  useEffect(() => chart.current?.setData(data), [data]);

  const last = times.length - 1;
  const said = series.map((each) => `${each.label} ${each.values[last] == null ? "–" : format(Number(each.values[last]))}`).join(", ");
  return html`<figure class="chart"><div ref=${holder} style=${{ minHeight: `${height}px` }}></div><figcaption class="unseen">${label}${last >= 0 ? `; last: ${said}` : "; nothing yet"}</figcaption></figure>`;
}
