// Types for a page that is not built: plain JavaScript, checked by `tsc --checkJs --strict`.

import assert from "node:assert/strict";
import { test } from "node:test";

/** @typedef {import("../src/gen/rest.js").components["schemas"]} Schemas */
/** @typedef {import("../src/gen/rest.js").paths} Paths */
/** @typedef {Paths["/api/v1/agents"]["get"]["responses"][200]["content"]["application/json"]} AgentList */

/**
 * @param {AgentList} list
 * @returns {number}
 */
function spentUsd({ agents }) {
  return agents.reduce((sum, { budget }) => sum + (budget?.spent_usd ?? 0), 0);
}

/**
 * @param {Schemas["Event_Exchange.Received"]} frame
 * @returns {string}
 */
function told(frame) {
  // The name of a frame says what it holds.
  return frame.type === "CostUpdate" ? `${frame.data.model}: ${frame.data.cost_usd}` : frame.type;
}

/** @type {(agent: Schemas["agents.v1.Agent"]) => string} */
// @ts-expect-error: there is no such field, and whoever writes it is told.
const wrong = (agent) => agent.colour;

test("the types of REST can be had from plain JavaScript", () => {
  assert.equal(spentUsd(/** @type {AgentList} */ ({ agents: [], next_page_token: "" })), 0);
  const update = { type: "CostUpdate", data: { model: "gpt-4o-mini", cost_usd: 0.25 } };
  assert.equal(told(/** @type {any} */ (update)), "gpt-4o-mini: 0.25");
  assert.equal(wrong(/** @type {any} */ ({ colour: "red" })), "red");
});
