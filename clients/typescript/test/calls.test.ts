import assert from "node:assert/strict";
import { test } from "node:test";
import { filled } from "../src/browser/calls.js";

test("what stands in a path cannot lead to another", () => {
  assert.equal(filled("/api/v1/agents/{agent_id}", { agent_id: "../a b?" }), "/api/v1/agents/..%2Fa%20b%3F");
});

test("slashes stay where the path has any number of parts", () => {
  assert.equal(filled("/api/playbooks/{path}", { path: "utility/my nap.yaml" }), "/api/playbooks/utility/my%20nap.yaml");
});
