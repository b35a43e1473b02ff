import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { PackedResultsSchema } from "../src/gen/steward/inference/v1/inference_pb.js";
import { stepsOf } from "../src/node/agents.js";

const numbers = (...values: number[]) => new Uint8Array(new Float32Array(values).buffer);

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
  const packed = create(PackedResultsSchema, { values: wire.subarray(1) });
  assert.deepEqual([...stepsOf(packed, true).values], [1.5, -1.5]);
});
