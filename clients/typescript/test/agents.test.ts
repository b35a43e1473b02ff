import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { InvalidRequest, RateLimited, ServerFault } from "../src/errors.js";
import {
  PackedResultsSchema,
  StreamResponseSchema,
  type StreamRequest,
} from "../src/gen/steward/inference/v1/inference_pb.js";
import { AgentStream, stepsOf } from "../src/node/agents.js";

const numbers = (...values: number[]) => new Uint8Array(new Float32Array(values).buffer);

type Answer = NonNullable<MessageInitShape<typeof StreamResponseSchema>["message"]>;

const closed: Answer = { case: "closed", value: {} };
const refusal: Answer = { case: "refusal", value: { code: 8, message: "too many agents" } };
const opened = (first: number): Answer => ({
  case: "opened",
  value: { first, policies: ["pole@1"], begun: [true] },
});

/** A stream on which the messages are answered with these, and what was said on it. */
function streamOf(...answers: Answer[]): [AgentStream, StreamRequest["message"][]] {
  const heard: StreamRequest["message"][] = [];
  async function* call(requests: AsyncIterable<StreamRequest>) {
    for await (const { sequence, message } of requests) {
      const answer = answers[heard.push(message) - 1];
      yield create(StreamResponseSchema, answer ? { sequence, message: answer } : { sequence });
    }
  }
  return [new AgentStream(call, async () => true), heard];
}

/** The agents that each message was to take out, in their order. */
function ended(heard: StreamRequest["message"][]): number[][] {
  return heard.flatMap((message) => (message.case === "close" ? [message.value.agents] : []));
}

test("a reset whose second half is refused can be asked for again", async () => {
  const answers = [closed, refusal, refusal, opened(1), closed, opened(2)];
  const [stream, heard] = streamOf(...answers);
  await assert.rejects(stream.reset([0], [{}]), RateLimited);
  await assert.rejects(stream.reset([0], [{}]), RateLimited);
  assert.equal((await stream.reset([0], [{}])).first, 1);
  assert.equal((await stream.reset([1], [{}])).first, 2);
  assert.deepEqual(ended(heard), [[0], [1]]);
});

test("an agent that a refused reset took out can be ended once", async () => {
  const [stream, heard] = streamOf(closed, refusal, closed, refusal);
  await assert.rejects(stream.reset([0], [{}]), RateLimited);
  await stream.end([0, 1]);
  await assert.rejects(stream.end([0]), RateLimited);
  assert.deepEqual(ended(heard), [[0], [1], [0]]);
});

test("a reset that cannot end its agents brings none", async () => {
  const [stream, heard] = streamOf(refusal, closed, opened(1));
  await assert.rejects(stream.reset([0], [{}]), RateLimited);
  assert.equal((await stream.reset([0], [{}])).first, 1);
  assert.deepEqual(ended(heard), [[0], [0]]);
});

test("a reset that does not say how each is to begin takes none out", async () => {
  const [stream, heard] = streamOf();
  await assert.rejects(stream.reset([], []), { name: "InvalidRequest" });
  await assert.rejects(stream.reset([0, 1], [{}]), {
    name: "InvalidRequest",
    message: "1 agents are to take the places of 2; give one for each",
  });
  await assert.rejects(stream.reset([1, 1], [{}, {}]), {
    name: "InvalidRequest",
    message: "agents are 1, 1; name each of them once",
  });
  assert.deepEqual(heard, []);
});

test("steps that do not fit their agents are refused by the client", async () => {
  const [stream, heard] = streamOf();
  for (const [count, agents] of [[0, []], [2, []], [0, [0, 1]], [3, [0, 1]], [1, [0, 1]]] as const) {
    await assert.rejects(stream.steps(new Float32Array(count), { agents: [...agents] }), {
      name: "InvalidRequest",
      message: new RegExp(`^${count} numbers are given for ${agents.length} agents;`),
    });
  }
  await assert.rejects(stream.steps(new Float32Array(0)), InvalidRequest);
  assert.deepEqual(heard, []);
});

test("an answer without a row for each is a fault of the server's", async () => {
  const [one, two] = [numbers(1), numbers(1, 2)];
  const whole = { actions: two, values: two, logProbs: two, pressures: two };
  const packed = [
    {},
    { ...whole, actions: new Uint8Array() },
    { ...whole, actions: one },
    { ...whole, values: one },
    { ...whole, logProbs: one },
    { ...whole, pressures: one },
    { ...whole, actions: new Uint8Array(6), values: new Uint8Array(6) },
  ];
  for (const agents of [[0, 1], undefined]) {
    const [stream] = streamOf(
      ...packed.map((value): Answer => ({ case: "packed", value })),
      { case: "packed", value: whole },
    );
    const options = agents ? { agents } : {};
    for (const _ of packed) {
      await assert.rejects(stream.steps(new Float32Array(2), options), ServerFault);
    }
    assert.equal((await stream.steps(new Float32Array(2), options)).values.length, 2);
  }
});

test("agents of which the server tells too little are not brought", async () => {
  const [stream] = streamOf(opened(0));
  await assert.rejects(stream.open([{}, {}]), ServerFault);
});

test("packed results are read as choices or as numbers", () => {
  const packed = create(PackedResultsSchema, {
    actions: new Uint8Array(new Int32Array([1, 0]).buffer),
    values: numbers(0.5, 2),
    logProbs: numbers(-1, -2),
    pressures: numbers(0, 0),
    failed: [1],
  });
  const steps = stepsOf(packed, true);
  assert.deepEqual([...steps.actions], [1, 0]);
  assert.deepEqual([...steps.values], [0.5, 2]);
  assert.deepEqual(steps.failed, [1]);
  packed.actions = numbers(0.25, -0.25);
  assert.deepEqual([...stepsOf(packed, false).actions], [0.25, -0.25]);
});

test("results may lie anywhere in what came off the wire", () => {
  const wire = new Uint8Array(9);
  wire.set(numbers(1.5, -1.5), 1);
  const values = wire.subarray(1);
  const packed = create(PackedResultsSchema, {
    actions: values,
    values,
    logProbs: values,
    pressures: values,
  });
  assert.deepEqual([...stepsOf(packed, true).values], [1.5, -1.5]);
});
