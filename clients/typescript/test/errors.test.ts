import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Code as ConnectCode, ConnectError } from "@connectrpc/connect";
import * as errors from "../src/errors.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.js";
import { TextErrorsSchema } from "../src/gen/steward/gateway/v1/faults_pb.js";
import { errorOfAnswer, errorOfBody } from "../src/browser/refusals.js";
import { errorOfClose } from "../src/browser/following.js";
import { errorOfCall, errorOfStatus } from "../src/node/refusals.js";

function failed(code: ConnectCode, message: string): ConnectError {
  return new ConnectError(message, code);
}

function withDetail<D extends DescMessage>(error: ConnectError, desc: D, init: MessageInitShape<D>): void {
  error.details.push({ type: desc.typeName, value: toBinary(desc, create(desc, init)) });
}

function answered(status: number, body: unknown, headers: Record<string, string> = {}): errors.StewardError {
  return errorOfAnswer(new Response(JSON.stringify(body), { status, headers }), body);
}

test("every code has its kind", () => {
  const kinds = {
    UNAUTHENTICATED: "Unauthorized",
    PERMISSION_DENIED: "Forbidden",
    NOT_FOUND: "NotFound",
    INVALID_ARGUMENT: "InvalidRequest",
    OUT_OF_RANGE: "InvalidRequest",
    ALREADY_EXISTS: "Conflict",
    FAILED_PRECONDITION: "Conflict",
    ABORTED: "Conflict",
    RESOURCE_EXHAUSTED: "RateLimited",
    UNAVAILABLE: "Unavailable",
    CANCELLED: "Unavailable",
    DEADLINE_EXCEEDED: "DeadlineExceeded",
    UNIMPLEMENTED: "ServerFault",
    INTERNAL: "ServerFault",
    UNKNOWN: "ServerFault",
    DATA_LOSS: "ServerFault",
  } as const;
  for (const [code, kind] of Object.entries(kinds)) {
    assert.equal(errors.errorOf({ code: code as errors.Code, message: "" }).name, kind, code);
  }
});

test("a reason says more than its code", () => {
  const error = errors.errorOf({ code: "FAILED_PRECONDITION", reason: "AGENT_STOPPED", message: "" });
  assert.ok(error instanceof errors.AgentStopped && error instanceof errors.Conflict);
  const locked = errors.errorOf({ code: "RESOURCE_EXHAUSTED", reason: "BUDGET_EXCEEDED", message: "" });
  assert.ok(locked instanceof errors.BudgetExceeded);
});

test("where the server gives no reason, the kind has one", () => {
  assert.equal(errors.errorOf({ code: "DEADLINE_EXCEEDED", message: "" }).reason, "DEADLINE_EXCEEDED");
  assert.equal(errors.errorOf({ code: "INTERNAL", message: "" }).reason, "INTERNAL_ERROR");
});

test("a failed call tells everything in its details", () => {
  const wire = failed(ConnectCode.InvalidArgument, "it is wrong");
  withDetail(wire, ErrorInfoSchema, { reason: "PLAYBOOK_INVALID", metadata: { path: "a.yaml" } });
  withDetail(wire, BadRequestSchema, { fieldViolations: [{ field: "content", description: "is wrong" }] });
  withDetail(wire, RetryInfoSchema, { retryDelay: { seconds: 1n, nanos: 500_000_000 } });
  withDetail(wire, TextErrorsSchema, { errors: [{ line: 2, column: 3, path: "steps", message: "none" }] });
  const error = errorOfCall(wire);
  assert.equal(error.name, "InvalidRequest");
  assert.equal(error.code, "INVALID_ARGUMENT");
  assert.equal(error.message, "it is wrong");
  assert.equal(error.reason, "PLAYBOOK_INVALID");
  assert.deepEqual(error.facts, { path: "a.yaml" });
  assert.deepEqual(error.fields, { content: "is wrong" });
  assert.equal(error.retryAfterS, 1.5);
  assert.deepEqual(error.errors, [{ line: 2, column: 3, path: "steps", message: "none" }]);
  assert.equal(error.cause, wire);
});

test("a refusal inside a stream is read like one outside", () => {
  const info = create(ErrorInfoSchema, { reason: "LEASE_NOT_FOUND", metadata: { lease: "lease_x" } });
  const status = create(StatusSchema, { code: 5, message: "none", details: [anyPack(ErrorInfoSchema, info)] });
  const error = errorOfStatus(status);
  assert.deepEqual([error.name, error.code, error.reason], ["NotFound", "NOT_FOUND", "LEASE_NOT_FOUND"]);
  assert.deepEqual(error.facts, { lease: "lease_x" });
});

test("a refusal of REST is read in Iron", () => {
  const error = answered(400, {
    error: { code: "VALIDATION_ERROR", message: "no", fields: { name: "is missing" }, details: { a: "b" } },
  });
  assert.equal(error.name, "InvalidRequest");
  assert.deepEqual([error.fields, error.facts], [{ name: "is missing" }, { a: "b" }]);
  const stopped = answered(409, { error: { code: "CONFLICT", message: "no", reason: "AGENT_STOPPED" } });
  assert.equal(stopped.name, "AgentStopped");
  assert.equal(answered(402, { error: { code: "BUDGET_EXCEEDED", message: "no" } }).name, "BudgetExceeded");
  assert.equal(answered(503, { error: { code: "CIRCUIT_OPEN", message: "no" } }).name, "CircuitOpen");
});

test("a refusal of REST is read in Ignition", () => {
  const errors = [{ line: 1, column: 1, path: "", message: "is empty" }];
  const error = answered(400, {
    detail: { error: "invalid_playbook", message: "no", details: { errors, fields: { a: "b" }, path: "p" } },
  });
  assert.deepEqual([error.name, error.reason], ["InvalidRequest", "INVALID_PLAYBOOK"]);
  assert.deepEqual([error.errors, error.fields, error.facts], [errors, { a: "b" }, { path: "p" }]);
  const taken = { error: "resource_conflict", message: "no", details: { reason: "WRONG_STATE" } };
  assert.deepEqual([answered(409, { detail: taken }).name, answered(409, { detail: taken }).reason], [
    "Conflict",
    "WRONG_STATE",
  ]);
});

test("a refusal of REST is read in AgentBox and Cyborg, which tell a sentence", () => {
  const missing = answered(404, { error: "Not Found", message: "no environment", code: 404 });
  assert.deepEqual([missing.name, missing.message], ["NotFound", "no environment"]);
  const wrong = answered(422, { detail: "observation has 3 numbers" });
  assert.deepEqual([wrong.name, wrong.message], ["InvalidRequest", "observation has 3 numbers"]);
});

test("a proxy's page in place of an answer is a fault that names its status", () => {
  const error = answered(502, "<html>");
  assert.deepEqual([error.name, error.message], ["Unavailable", "502 "]);
});

test("seconds to wait come from the header", () => {
  const limited = { error: { code: "RATE_LIMITED", message: "no" } };
  assert.equal(answered(429, limited, { "Retry-After": "7" }).retryAfterS, 7);
  assert.equal(answered(429, limited).retryAfterS, undefined);
});

test("a frame that tells of a refusal is read in its dialect", () => {
  const iron = { error: { code: "NOT_FOUND", message: "no lease", reason: "LEASE_NOT_FOUND", details: {} } };
  assert.deepEqual([errorOfBody(iron).name, errorOfBody(iron).reason], ["NotFound", "LEASE_NOT_FOUND"]);
  const ignition = { error: { error: "validation_error", message: "no", details: { fields: { type: "no" } } } };
  assert.equal(errorOfBody(ignition).name, "InvalidRequest");
  assert.deepEqual(errorOfBody(ignition).fields, { type: "no" });
});

test("a close code tells why a socket was ended", () => {
  const ended = errorOfClose({ code: 4016, reason: "CREDENTIAL_ENDED" });
  assert.deepEqual([ended.name, ended.reason], ["Unauthorized", "CREDENTIAL_ENDED"]);
  assert.equal(errorOfClose({ code: 1001, reason: "the gateway is stopping" }).name, "Unavailable");
  assert.equal(errorOfClose({ code: 1006, reason: "" }).name, "Unavailable");
  assert.equal(errorOfClose({ code: 4013, reason: "internal error" }).name, "ServerFault");
});
