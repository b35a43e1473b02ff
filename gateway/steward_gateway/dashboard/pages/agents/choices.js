// What an agent is given beside its money: how often it is given that, a provider, a project.
import { get } from "../../api.js";
import { useLoad } from "../../load.js";

/** @type {[string, string][]} */
const PERIODS = [["none", "for good"], ["day", "each day"], ["week", "each week"], ["month", "each month"]];

/** @typedef {[value: string, text: string]} Choice */

/** The providers and projects there are. @returns {{providers: Choice[], projects: Choice[]}} */
export function useChoices() {
  const providers = useLoad((signal) => get("/api/v1/providers", { query: { page_size: 1000 }, signal }));
  const projects = useLoad((signal) => get("/api/v1/projects", { query: { page_size: 1000 }, signal }));
  return {
    providers: (providers.data?.providers ?? []).map(({ name }) => [name, name]),
    projects: (projects.data?.projects ?? []).map(({ id, name }) => [id, name]),
  };
}

/**
 * Their fields in a form.
 * @param {{providers: Choice[], projects: Choice[]}} choices
 * @param {{budget_period?: string | null, provider?: string | null, project_id?: string | null}} [now]  What the agent has.
 */
export function choicesOf({ providers, projects }, { budget_period, provider, project_id } = {}) {
  return [
    { name: "budget_period", label: "The budget is given", type: "select", options: PERIODS, value: budget_period ?? "none" },
    { name: "provider", label: "Provider", type: "select", options: withNow([["", "any"], ...providers], provider), value: provider ?? "" },
    { name: "project_id", label: "Project", type: "select", options: withNow([["", "none"], ...projects], project_id), value: project_id ?? "" },
  ];
}

/** What an agent has can be kept before it is known what else there is. @param {Choice[]} choices @param {string | null | undefined} now */
function withNow(choices, now) {
  return !now || choices.some(([value]) => value === now) ? choices : [...choices, [now, now]];
}
