import { html } from "../../vendor/preact.js";
import { get, put, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, DialogButton } from "../../parts/dialogs.js";
import { Ago, count, money } from "../../parts/figures.js";
import { Form } from "../../parts/forms.js";
import { Card } from "../../parts/layout.js";
import { Empty, Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";
import { mayAs } from "../../session.js";

/** @typedef {import("../../api.js").Schemas["limits.v1.Limit"]} Limit */

/** @param {Partial<Limit>} of */
const fieldsOf = ({ max_requests_per_minute, max_tokens_per_day, max_cost_per_month_usd }) => [
  { name: "max_requests_per_minute", label: "Calls in any 60 seconds", type: "number", value: max_requests_per_minute ?? "", attributes: { min: 1, step: 1 } },
  { name: "max_tokens_per_day", label: "Tokens a day", type: "number", value: max_tokens_per_day ?? "", attributes: { min: 1, step: 1 } },
  { name: "max_cost_per_month_usd", label: "Dollars a month", type: "number", value: max_cost_per_month_usd ?? "", attributes: { min: 0 }, hint: "Empty ones do not limit." },
];

/** @param {Record<string, string>} values */
const bodyOf = ({ max_requests_per_minute, max_tokens_per_day, max_cost_per_month_usd }) => ({
  max_requests_per_minute: max_requests_per_minute ? Number(max_requests_per_minute) : undefined,
  max_tokens_per_day: max_tokens_per_day ? Number(max_tokens_per_day) : undefined,
  max_cost_per_month_usd: max_cost_per_month_usd ? Number(max_cost_per_month_usd) : undefined,
});

/**
 * @param {number | string} used
 * @param {number | string | null} limit
 * @param {(value: any) => string} text
 */
const share = (used, limit, text) => (limit === null ? html`<span class="quiet">no limit</span>` : `${text(used)} of ${text(limit)}`);

export function Limits() {
  const limits = useLoad((signal) => get("/api/limits", { query: { page_size: 1000 }, signal }), [], { everyS: 10 });
  const isAdmin = mayAs("admin");
  /** @type {import("../../parts/tables.js").Column<Limit>[]} */
  const columns = [
    { title: "Of", cell: ({ scope }) => html`<code>${scope}</code>`, value: ({ scope }) => scope },
    { title: "Calls, last minute", number: true, cell: (each) => share(each.requests_last_minute, each.max_requests_per_minute, count) },
    { title: "Tokens today", number: true, cell: (each) => share(each.tokens_today, each.max_tokens_per_day, count) },
    { title: "Spent this month", number: true, cell: (each) => share(each.cost_this_month_usd, each.max_cost_per_month_usd, money) },
    { title: "Changed", cell: ({ updated_at }) => html`<${Ago} time=${updated_at} />` },
  ];
  if (isAdmin) columns.push({ title: "", cell: (limit) => html`<${Actions} limit=${limit} reload=${limits.reload} />` });
  const tools = isAdmin
    ? html`<${DialogButton} label="Set a limit" title="Set a limit">${(/** @type {() => void} */ close) => html`
        <p class="quiet">Where several hold an agent, the tightest decides.</p>
        <${Form} submit="Set it" cancel=${close} done=${() => (close(), limits.reload(), say("The limit holds from now on."))}
          send=${(/** @type {Record<string, string>} */ { scope = "", ...values }) => put("/api/v1/limits/{scope}", { path: { scope }, body: bodyOf(values) })}
          fields=${[{ name: "scope", label: "Of whom", required: true, value: "everyone", hint: "everyone, user:<id>, project:<id> or agent:<id>" }, ...fieldsOf({})]} />`}<//>`
    : null;
  return html`
    <${Card} title="Limits" tools=${tools}>
      <${Shown} of=${limits}>${(/** @type {{limits: Limit[]}} */ { limits: all }) => html`
        <${Table} label="Limits" columns=${columns} rows=${all} id="scope" empty=${html`<${Empty} title="No limits."><p>Budgets bound what is spent; a limit bounds how fast.</p><//>`} />`}<//>
    <//>`;
}

/** @param {{limit: Limit, reload: () => void}} given */
function Actions({ limit, reload }) {
  const { scope, version } = limit;
  return html`
    <div class="actions">
      <${DialogButton} label="Change" title=${`Limits of ${scope}`} class="plain">${(/** @type {() => void} */ close) => html`
        <${ChangeForm} limit=${limit} close=${close} reload=${reload} />`}<//>
      <${ConfirmButton} label="Lift" title=${`Lift the limits of ${scope}`} question=${html`<p>From now on only budgets bound it.</p>`}
        act=${() => remove("/api/v1/limits/{scope}", { path: { scope }, query: { expected_version: version } })} done=${reload} />
    </div>`;
}

/** @param {{limit: Limit, close: () => void, reload: () => void}} given */
function ChangeForm({ limit, close, reload }) {
  const { scope, version } = limit;
  /** @param {Record<string, string>} values */
  const change = (values) =>
    // Loaded again if it is refused too: who opens this anew is to see what was changed meanwhile.
    put("/api/v1/limits/{scope}", { path: { scope }, body: { ...bodyOf(values), expected_version: version } }).finally(() => void reload());
  return html`<${Form} submit="Change it" send=${change} cancel=${close} done=${close} fields=${fieldsOf(limit)} />`;
}
