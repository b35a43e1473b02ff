// Steward through the clients that browsers use, as they are published: Connect and gRPC-Web.
// STEWARD_URL, STEWARD_USERNAME and STEWARD_PASSWORD name a server and who signs in.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { AgentService } from "./gen/steward/agents/v1/agents_pb.js";
import { AuthService } from "./gen/steward/auth/v1/auth_pb.js";
import { BudgetService } from "./gen/steward/budget/v1/budget_pb.js";
import { EventService } from "./gen/steward/events/v1/events_pb.js";
import { ProviderService } from "./gen/steward/providers/v1/providers_pb.js";
import { SystemService } from "./gen/steward/system/v1/system_pb.js";
import { TokenService } from "./gen/steward/tokens/v1/tokens_pb.js";

const baseUrl = process.env.STEWARD_URL;
const credentials = {
  username: process.env.STEWARD_USERNAME,
  password: process.env.STEWARD_PASSWORD,
};

const seen = [];
const watching = (input, init) => {
  seen.push({ url: String(input), method: init.method });
  return fetch(input, init);
};

const transports = {
  "Connect, JSON": createConnectTransport({ baseUrl, fetch: watching }),
  "Connect, binary": createConnectTransport({
    baseUrl,
    useBinaryFormat: true,
    useHttpGet: true,
    fetch: watching,
  }),
  "gRPC-Web, binary": createGrpcWebTransport({ baseUrl, fetch: watching }),
  "gRPC-Web, JSON": createGrpcWebTransport({ baseUrl, useBinaryFormat: false, fetch: watching }),
};

const bearer = (token) => ({ headers: { authorization: `Bearer ${token}` } });
const icKey = (token) => ({ headers: { "x-ic-key": token } });

const first = Object.values(transports)[0];
const admin = bearer((await createClient(AuthService, first).login(credentials)).accessToken);

await createClient(ProviderService, first).createProvider(
  { name: "openai", baseUrl: "http://127.0.0.1:9", apiKey: "sk-nothing-0123456789" },
  admin,
);

async function refusalOf(promise) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return error;
  }
  assert.fail("the call was answered");
}

async function agentWithToken(transport, name) {
  const agents = createClient(AgentService, transport);
  const { agent } = await agents.createAgent({ name, budgetNanousd: 5_000_000_000n }, admin);
  const tokens = createClient(TokenService, transport);
  const { icToken } = await tokens.createToken({ agentId: agent.id }, admin);
  return { agent, token: icToken.token };
}

for (const [name, transport] of Object.entries(transports)) {
  const agents = createClient(AgentService, transport);
  const events = createClient(EventService, transport);
  const unique = (text) => `${text} ${name}`.toLowerCase().replaceAll(/[^a-z]+/g, "-");

  test(`${name}: a call answers with typed values`, async () => {
    const system = createClient(SystemService, transport);
    let header;
    const health = await system.getHealth({}, { onHeader: (headers) => (header = headers) });
    assert.equal(health.status, "healthy");
    assert.equal(typeof health.ledger.commitNumber, "bigint");
    assert.ok(health.timestamp.seconds > 1_700_000_000n);
    assert.ok(header.get("x-request-id"));
  });

  test(`${name}: money and 64-bit integers arrive whole`, async () => {
    const budgetNanousd = 987_654_321_098_765n;
    const created = await agents.createAgent({ name: unique("whole"), budgetNanousd }, admin);
    const got = await agents.getAgent({ agentId: created.agent.id }, admin);
    assert.equal(got.agent.budget.limitNanousd, budgetNanousd);
  });

  test(`${name}: every wrong field is told in the details`, async () => {
    const error = await refusalOf(agents.createAgent({ name: "", budgetNanousd: -1n }, admin));
    assert.equal(error.code, Code.InvalidArgument);
    const [info] = error.findDetails(ErrorInfoSchema);
    assert.equal(info.domain, "steward");
    const [bad] = error.findDetails(BadRequestSchema);
    assert.ok(bad.fieldViolations.length >= 2, JSON.stringify(bad));
  });

  test(`${name}: what is not there is NotFound with its reason`, async () => {
    const error = await refusalOf(agents.getAgent({ agentId: "agent_none" }, admin));
    assert.equal(error.code, Code.NotFound);
    assert.equal(error.findDetails(ErrorInfoSchema)[0].reason, "AGENT_NOT_FOUND");
    assert.match(error.rawMessage, /agent_none/);
  });

  test(`${name}: without a credential, or with a wrong one, nothing is told`, async () => {
    for (const options of [{}, bearer("nonsense"), icKey("ic_nonsense")]) {
      const error = await refusalOf(agents.listAgents({}, options));
      assert.equal(error.code, Code.Unauthenticated);
    }
  });

  test(`${name}: a runtime borrows by its IC token`, async () => {
    const { token } = await agentWithToken(transport, unique("borrower"));
    const budget = createClient(BudgetService, transport);
    const error = await refusalOf(budget.return({ leaseId: "lease_none" }, icKey(token)));
    assert.equal(error.findDetails(ErrorInfoSchema)[0].reason, "LEASE_NOT_FOUND");
  });

  test(`${name}: a stream brings an event as it happens, and ends when it is cut`, async () => {
    const { agent, token } = await agentWithToken(transport, unique("spender"));
    const budget = createClient(BudgetService, transport);
    const lease = await budget.handshake({ requestedBudgetNanousd: 1_000_000n }, icKey(token));
    const usage = { leaseId: lease.leaseId, requestId: "call-1", model: "m", inputTokens: 7n };

    const cut = new AbortController();
    const options = { ...admin, signal: cut.signal, onHeader: () => report() };
    const report = () => budget.report({ ...usage, costNanousd: 1_000n }, icKey(token));
    let event;
    const error = await refusalOf(
      (async () => {
        for await (const answer of events.subscribe({ agentId: agent.id }, options)) {
          event = answer.event;
          cut.abort();
        }
      })(),
    );
    assert.equal(error.code, Code.Canceled);
    assert.equal(event.agentId, agent.id);
    assert.equal(event.data.case, "costUpdate");
    assert.equal(event.data.value.costNanousd, 1_000n);
    assert.equal(event.data.value.inputTokens, 7n);
  });

  test(`${name}: a stream ends at its deadline`, async () => {
    const begun = Date.now();
    const error = await refusalOf(
      (async () => {
        for await (const _ of events.subscribe({}, { ...admin, timeoutMs: 300 }));
      })(),
    );
    assert.equal(error.code, Code.DeadlineExceeded);
    assert.ok(Date.now() - begun < 10_000);
  });

  test(`${name}: a stream without a credential is refused`, async () => {
    const error = await refusalOf(
      (async () => {
        for await (const _ of events.subscribe({}));
      })(),
    );
    assert.equal(error.code, Code.Unauthenticated);
  });

  test(`${name}: a call that is cut is canceled`, async () => {
    const cut = new AbortController();
    const call = agents.listAgents({}, { ...admin, signal: cut.signal });
    cut.abort();
    assert.equal((await refusalOf(call)).code, Code.Canceled);
  });

  test(`${name}: a repeat with the same request id gives the same answer`, async () => {
    const request = { name: unique("once"), budgetNanousd: 1n, requestId: unique("request") };
    const [one, two] = [
      await agents.createAgent(request, admin),
      await agents.createAgent(request, admin),
    ];
    assert.equal(one.agent.id, two.agent.id);
  });
}

test("reading methods are asked by GET where the client may", async () => {
  seen.length = 0;
  const client = createClient(AgentService, transports["Connect, binary"]);
  await client.listAgents({ pageSize: 3 }, admin);
  assert.equal(seen[0].method, "GET");
  assert.match(seen[0].url, /ListAgents\?connect=v1&base64=1&encoding=proto/);
});
