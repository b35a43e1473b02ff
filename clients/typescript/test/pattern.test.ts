import assert from "node:assert/strict";
import { test } from "node:test";
import { difference, substituted, valueAt, type Json } from "../conformance/pattern.js";

const matches = (pattern: Json, value: Json) => difference(pattern, value) === undefined;

test("an object matches what has more, a list only what is as long", () => {
  assert.ok(matches({ a: 1 }, { a: 1, b: 2 }));
  assert.ok(!matches({ a: 1, b: 2 }, { a: 1 }));
  assert.ok(matches([{ a: 1 }], [{ a: 1, b: 2 }]));
  assert.ok(!matches([], [1]));
});

test("null matches what is absent", () => {
  assert.ok(matches({ a: null }, {}));
  assert.ok(!matches({ a: null }, { a: 0 }));
});

test("numbers match up to what a float can tell, and texts are no numbers", () => {
  assert.ok(matches(88.69495, 88.694954));
  assert.ok(!matches(88.69495, 88.6951));
  assert.ok(!matches(1, "1"));
});

test("texts match a pattern as a whole", () => {
  assert.ok(matches({ $match: "lease_.+" }, "lease_1"));
  assert.ok(!matches({ $match: "lease_" }, "lease_1"));
  assert.ok(!matches({ $match: ".*" }, 1));
});

test("anything, and a list in which each is found", () => {
  assert.ok(matches({ a: { $any: true } }, { a: false }));
  assert.ok(!matches({ a: { $any: true } }, {}));
  assert.ok(matches({ $has: [{ a: 2 }, { a: 1 }] }, [{ a: 1 }, { a: 2 }, { a: 3 }]));
  assert.ok(!matches({ $has: [{ a: 4 }] }, [{ a: 1 }]));
});

test("what differs is told with its place", () => {
  assert.equal(difference({ a: [{ b: 1 }] }, { a: [{ b: 2 }] }), "$.a.0.b is 2 and not 1");
});

test("variables are put in everywhere, and one that nobody set is a fault", () => {
  const variables = new Map([["A", "x"]]);
  assert.deepEqual(substituted({ a: ["${A}-${A}"] }, variables), { a: ["x-x"] });
  assert.throws(() => substituted("${B}", variables), /\$\{B\} has no value/);
});

test("a path leads into objects and lists", () => {
  assert.equal(valueAt({ a: [{ b: "c" }] }, "a.0.b"), "c");
  assert.equal(valueAt({ a: [] }, "a.0.b"), undefined);
});
