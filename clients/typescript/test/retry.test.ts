import assert from "node:assert/strict";
import { test } from "node:test";
import { errorOf, type Code } from "../src/errors.js";
import { backoffS, delayS, LONGEST_DELAY_S, sleep, type Refused } from "../src/retry.js";

const longest = () => 1; // what is drawn at most

function refused(code: Code, retryAfterS?: number, change: Partial<Refused> = {}): Refused {
  const error = errorOf({ code, message: "no", retryAfterS });
  return { error, attempt: 1, attempts: 4, repeatable: true, leftS: Infinity, ...change };
}

test("a refusal that says when to come back is made again then, whatever the call does", () => {
  assert.equal(delayS(refused("RESOURCE_EXHAUSTED", 3, { repeatable: false })), 3);
  assert.equal(delayS(refused("UNAVAILABLE", 0, { repeatable: false })), 0);
});

test("what is away is tried again where that does nothing twice", () => {
  assert.equal(delayS(refused("UNAVAILABLE"), longest), 0.1);
  assert.equal(delayS(refused("UNAVAILABLE", undefined, { repeatable: false })), undefined);
});

test("a quota without a time is not waited for", () => {
  assert.equal(delayS(refused("RESOURCE_EXHAUSTED")), undefined);
});

test("no other refusal changes by waiting", () => {
  for (const code of ["ABORTED", "INTERNAL", "DEADLINE_EXCEEDED", "NOT_FOUND"] as const) {
    assert.equal(delayS(refused(code, 1)), undefined, code);
  }
});

test("there are four attempts and no fifth", () => {
  assert.equal(delayS(refused("UNAVAILABLE", 1, { attempt: 3 })), 1);
  assert.equal(delayS(refused("UNAVAILABLE", 1, { attempt: 4 })), undefined);
});

test("a wait that would pass the deadline is not begun", () => {
  assert.equal(delayS(refused("UNAVAILABLE", 2, { leftS: 2.1 })), 2);
  assert.equal(delayS(refused("UNAVAILABLE", 2, { leftS: 2 })), undefined);
});

test("waits double up to their bound, and are drawn from 0 on", () => {
  const waits = [1, 2, 3, 4, 5, 6, 7, 30].map((attempt) => backoffS(attempt, longest));
  assert.deepEqual(waits, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_DELAY_S, LONGEST_DELAY_S]);
  assert.equal(backoffS(5, () => 0), 0);
});

test("a wait ends with its signal", async () => {
  const given = new AbortController();
  const waiting = sleep(60, given.signal);
  given.abort(new Error("given up"));
  await assert.rejects(waiting, /given up/);
  await assert.rejects(sleep(60, given.signal), /given up/);
});
