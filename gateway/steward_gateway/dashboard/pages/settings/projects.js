import { html } from "../../vendor/preact.js";
import { get, patch, post, remove } from "../../api.js";
import { useLoad } from "../../load.js";
import { ConfirmButton, DialogButton } from "../../parts/dialogs.js";
import { BudgetBar, money } from "../../parts/figures.js";
import { Form } from "../../parts/forms.js";
import { Card, Facts } from "../../parts/layout.js";
import { Empty, Shown, say } from "../../parts/notes.js";
import { Table } from "../../parts/tables.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {Schemas["projects.v1.Project"]} Project */
/** @typedef {Schemas["budget.v1.ScopeBudget"]} ScopeBudget */

/** @type {[string, string][]} */
const MODES = [
  ["restrictive", "restrictive: nothing is lent beyond it"],
  ["informative", "informative: it warns, and lends on"],
];
/** @type {[string, string][]} */
const PERIODS = [["none", "for good"], ["day", "each day"], ["week", "each week"], ["month", "each month"]];

/** @param {{name: string, budget: ScopeBudget | null}} given */
const Bar = ({ name, budget }) => html`<${BudgetBar} label=${`Budget of ${name}`} spent=${budget?.spent_usd ?? 0} lent=${budget?.reserved_usd ?? 0} limit=${budget?.limit_usd ?? null} />`;

/** @param {{name?: string, budget?: ScopeBudget | null}} of */
const fieldsOf = ({ name = "", budget } = {}) => [
  { name: "name", label: "Name", required: true, value: name },
  { name: "budget_usd", label: "Budget, in dollars", type: "number", value: budget?.limit_usd ?? "", hint: "Empty: no limit.", attributes: { min: 0 } },
  { name: "mode", label: "What it does", type: "select", options: MODES, value: budget?.mode ?? "restrictive" },
  { name: "period", label: "It is given", type: "select", options: PERIODS, value: budget?.period ?? "none" },
];

/**
 * Money goes as the text that was typed, which is exact where a number of JavaScript is not; a browser takes ".5" too.
 * @param {Record<string, string>} values
 */
const bodyOf = ({ name = "", budget_usd, mode, period }) => ({
  name,
  budget_usd: /** @type {any} */ (budget_usd?.replace(/^\./, "0.")),
  mode: /** @type {any} */ (mode),
  period: /** @type {any} */ (period),
});

export function Projects() {
  const projects = useLoad((signal) => get("/api/v1/projects", { query: { page_size: 1000 }, signal }), [], { everyS: 60 });
  const organisation = useLoad((signal) => get("/api/v1/organisation", { signal }), [], { everyS: 60 });
  /** @type {import("../../parts/tables.js").Column<Project>[]} */
  const columns = [
    { title: "Name", cell: ({ id, name }) => html`<a href=${`/agents?project=${id}`}>${name}</a>`, value: ({ name }) => name },
    { title: "Budget", cell: ({ name, budget }) => html`<${Bar} name=${name} budget=${budget} />` },
    { title: "Spent", number: true, cell: ({ budget }) => money(budget?.spent_usd), value: ({ budget }) => budget?.spent_usd },
    { title: "Given", cell: ({ budget }) => PERIODS.find(([each]) => each === budget?.period)?.[1] },
    {
      title: "",
      cell: ({ id, name, budget, version }) => html`
        <div class="actions">
          <${Change} title=${`Change ${name}`} of=${{ name, budget, version }} reload=${projects.reload}
            send=${(/** @type {any} */ body) => patch("/api/v1/projects/{project_id}", { path: { project_id: id }, body })} />
          <${ConfirmButton} label="Delete" title=${`Delete ${name}`} question=${html`<p>It can be deleted once no agent belongs to it: move its agents elsewhere, or delete them, before. What was spent stays in the books.</p>`}
            act=${() => remove("/api/v1/projects/{project_id}", { path: { project_id: id }, query: { expected_version: version } })} done=${projects.reload} />
        </div>`,
    },
  ];
  const tools = html`
    <${DialogButton} label="New project" title="New project">${(/** @type {() => void} */ close) => html`
      <p class="quiet">A budget that its agents share, beside their own.</p>
      <${Form} submit="Make it" cancel=${close} done=${() => (close(), projects.reload(), say("The project is there."))} fields=${fieldsOf()}
        send=${(/** @type {Record<string, string>} */ values) => post("/api/v1/projects", { body: bodyOf(values) })} />`}<//>`;
  return html`
    <${Card} title="Organisation">
      <${Shown} of=${organisation}>${(/** @type {Schemas["projects.v1.Organisation"]} */ { name, budget, version }) => html`
        <${Facts} of=${[["Name", name], ["Budget", html`<${Bar} name=${name} budget=${budget} />`], ["Spent", money(budget?.spent_usd)]]} />
        <div class="actions"><${Change} title=${`Change ${name}`} of=${{ name, budget, version }} reload=${organisation.reload}
          send=${(/** @type {any} */ body) => patch("/api/v1/organisation", { body })} /></div>`}<//>
    <//>
    <${Card} title="Projects" tools=${tools}>
      <${Shown} of=${projects}>${(/** @type {{projects: Project[]}} */ { projects: all }) => html`
        <${Table} label="Projects" columns=${columns} rows=${all} id="id" empty=${html`<${Empty} title="No projects."><p>Agents can do without. A project gives several of them one budget.</p><//>`} />`}<//>
    <//>`;
}

/** @typedef {{name: string, budget: ScopeBudget | null, version: number}} Changed */

/** @param {{title: string, of: Changed, send: (body: object) => Promise<unknown>, reload: () => void}} given */
function Change({ title, of, send, reload }) {
  return html`
    <${DialogButton} label="Change" title=${title} class="plain">${(/** @type {() => void} */ close) => html`
      <${ChangeForm} of=${of} send=${send} close=${close} reload=${reload} />`}<//>`;
}

/** @param {{of: Changed, send: (body: object) => Promise<unknown>, close: () => void, reload: () => void}} given */
function ChangeForm({ of, send, close, reload }) {
  /** @param {Record<string, string>} values */
  const change = (values) =>
    // Loaded again if it is refused too: who opens this anew is to see what was changed meanwhile.
    send({ ...bodyOf(values), unlimited: !values["budget_usd"], expected_version: of.version }).finally(() => void reload());
  return html`<${Form} submit="Change it" send=${change} cancel=${close} done=${close} fields=${fieldsOf(of)} />`;
}
