import assert from "node:assert/strict";
import { test } from "node:test";
import { Queue } from "../src/queue.js";

test("what comes before and after it is asked for is read in its order", async () => {
  const queue = new Queue<number>();
  queue.push(1);
  const reading = Promise.all([queue.next(), queue.next()]);
  queue.push(2);
  assert.deepEqual(await reading, [
    { value: 1, done: false },
    { value: 2, done: false },
  ]);
});

test("what there is can be read after the end, and then its error once", async () => {
  const queue = new Queue<number>();
  queue.push(1);
  queue.end(new Error("cut"));
  queue.push(2);
  assert.deepEqual(await queue.next(), { value: 1, done: false });
  await assert.rejects(queue.next(), /cut/);
  assert.deepEqual(await queue.next(), { value: undefined, done: true });
});

test("whoever waits is told of the end", async () => {
  const queue = new Queue<number>();
  const waiting = queue.next();
  queue.end();
  assert.deepEqual(await waiting, { value: undefined, done: true });
});
