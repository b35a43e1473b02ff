import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { AgentService, CreateAgentRequestSchema } from "../src/gen/steward/agents/v1/agents_pb.js";
import { AuthService } from "../src/gen/steward/auth/v1/auth_pb.js";
import { BudgetService, ReturnRequestSchema } from "../src/gen/steward/budget/v1/budget_pb.js";
import { identified, isPublic, isRepeatable } from "../src/node/methods.js";

test("a request gets an identity where its method knows repeats by one", () => {
  const first = identified(AgentService.method.createAgent, { name: "scout" });
  const second = identified(AgentService.method.createAgent, { name: "scout" });
  assert.match(first.requestId, /^[0-9a-f-]{36}$/);
  assert.notEqual(first.requestId, second.requestId);
  assert.ok(isRepeatable(AgentService.method.createAgent, first));
});

test("the caller's own identity stays, and the caller's message is not touched", () => {
  const given = create(CreateAgentRequestSchema, { name: "scout" });
  assert.notEqual(identified(AgentService.method.createAgent, given).requestId, "");
  assert.equal(given.requestId, "");
  const named = identified(AgentService.method.createAgent, { name: "scout", requestId: "mine" });
  assert.equal(named.requestId, "mine");
});

test("what only reads may be repeated, and what changes something may not", () => {
  const { getAgent, updateAgent } = AgentService.method;
  assert.ok(isRepeatable(getAgent, create(getAgent.input, { agentId: "a" })));
  assert.ok(!isRepeatable(updateAgent, create(updateAgent.input, { agentId: "a" })));
  assert.ok(!isRepeatable(BudgetService.method.return, create(ReturnRequestSchema, { leaseId: "l" })));
});

test("a sign-in shows no credential", () => {
  assert.ok(isPublic(AuthService.method.login) && isPublic(AuthService.method.refresh));
  assert.ok(!isPublic(AuthService.method.getMe));
});
