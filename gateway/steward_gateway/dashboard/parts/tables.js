// Tables: sorted by a click, read on a narrow screen too, saved as CSV.
import { html, useState } from "../vendor/preact.js";

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} title
 * @property {(row: Row) => unknown} cell
 * @property {(row: Row) => string | number | null | undefined} [value]  What it is sorted by and saved as; without it, neither.
 * @property {boolean} [number]  Set to the right.
 */

/**
 * @template Row
 * @param {{label: string, columns: Column<Row>[], rows: Row[], id: keyof Row & string, empty: unknown, total?: unknown[]}} given
 *   `id`: the name of what tells rows apart; `total`: the cells of a last row.
 */
export function Table({ label, columns, rows, id, empty, total }) {
  const [order, setOrder] = useState(/** @type {{by: number, down: boolean} | null} */ (null));
  if (rows.length === 0) return empty;
  const value = order ? columns[order.by]?.value : undefined;
  const sorted = value ? [...rows].sort((a, b) => compare(value(a), value(b)) * (order?.down ? -1 : 1)) : rows;
  /** @param {number} by */
  const sort = (by) => setOrder(order?.by === by ? (order.down ? { by, down: false } : null) : { by, down: true });
  return html`
    <div class="table" role="region" aria-label=${label} tabindex="0">
      <table aria-label=${label}>
        <thead><tr>${columns.map((column, i) => {
          const sorting = order?.by === i ? (order.down ? "descending" : "ascending") : undefined;
          return html`<th scope="col" class=${column.number ? "number" : ""} aria-sort=${sorting}>
            ${column.value ? html`<button type="button" class="sort" onClick=${() => sort(i)}>${column.title}</button>` : column.title}</th>`;
        })}</tr></thead>
        <tbody>${sorted.map((row) => html`<tr key=${row[id]}>${columns.map((column) => html`<td data-title=${column.title} class=${column.number ? "number" : ""}>${column.cell(row)}</td>`)}</tr>`)}</tbody>
        ${total ? html`<tfoot><tr>${total.map((cell, i) => html`<td data-title=${columns[i]?.title} class=${columns[i]?.number ? "number" : ""}>${cell}</td>`)}</tr></tfoot>` : null}
      </table>
    </div>`;
}

/** @param {string | number | null | undefined} a @param {string | number | null | undefined} b */
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a ?? "").localeCompare(String(b ?? ""), "en", { numeric: true });
}

/**
 * @template Row
 * @param {Column<Row>[]} columns
 * @param {Row[]} rows
 */
export function csvOf(columns, rows) {
  const kept = columns.filter((column) => column.value);
  const lines = [kept.map(({ title }) => title), ...rows.map((row) => kept.map(({ value }) => value?.(row) ?? ""))];
  return lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** @param {string | number} value */
function cell(value) {
  const text = String(value);
  // A spreadsheet takes what begins so for a formula, and runs it.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** @param {string} name @param {Blob | string} content @param {string} [type] */
export function save(name, content, type = "text/csv;charset=utf-8") {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * @template Row
 * @param {{name: string, columns: Column<Row>[], rows: Row[]}} given
 */
export function CsvButton({ name, columns, rows }) {
  return html`<button type="button" class="plain" disabled=${rows.length === 0} onClick=${() => save(name, csvOf(columns, rows))}>Save as CSV</button>`;
}
