/** From the bodies of refusals, in whichever dialect their path speaks, to our errors. */

import { errorOf, StewardError, type Code, type Refusal, type TextError } from "../errors.js";

/** What a status stands for. HTTP tells less than gRPC: 409 may be any of three codes. */
const CODE_OF_STATUS: Partial<Record<number, Code>> = {
  400: "INVALID_ARGUMENT",
  401: "UNAUTHENTICATED",
  402: "RESOURCE_EXHAUSTED",
  403: "PERMISSION_DENIED",
  404: "NOT_FOUND",
  405: "UNIMPLEMENTED",
  406: "INVALID_ARGUMENT",
  408: "DEADLINE_EXCEEDED",
  409: "FAILED_PRECONDITION",
  412: "ABORTED",
  413: "INVALID_ARGUMENT",
  414: "INVALID_ARGUMENT",
  415: "INVALID_ARGUMENT",
  422: "INVALID_ARGUMENT",
  429: "RESOURCE_EXHAUSTED",
  431: "INVALID_ARGUMENT",
  499: "CANCELLED",
  501: "UNIMPLEMENTED",
  502: "UNAVAILABLE",
  503: "UNAVAILABLE",
  504: "DEADLINE_EXCEEDED",
  507: "RESOURCE_EXHAUSTED",
};

/** Codes of bodies that say more than their status does. */
const TELLING = new Set(["BUDGET_EXCEEDED", "CIRCUIT_OPEN", "RATE_LIMITED"]);

/** The exception of an answer that is none. */
export function errorOfAnswer(response: Response, body: unknown): StewardError {
  const retryAfter = response.headers.get("retry-after");
  return errorOf({
    code: CODE_OF_STATUS[response.status] ?? "INTERNAL",
    ...read(body),
    message: read(body).message ?? `${response.status} ${response.statusText}`,
    retryAfterS: retryAfter !== null && /^\d+$/.test(retryAfter) ? Number(retryAfter) : undefined,
  });
}

/** The exception of a frame or a last line that tells of a refusal. */
export function errorOfBody(body: unknown): StewardError {
  const { message = "it was refused", ...refusal } = read(body);
  const code = CODE_OF_WORD[refusal.word ?? ""] ?? "UNKNOWN";
  return errorOf({ code, message, ...refusal });
}

/** What Iron and Ignition call the statuses that matter to whoever reads a stream. */
const CODE_OF_WORD: Partial<Record<string, Code>> = {
  VALIDATION_ERROR: "INVALID_ARGUMENT",
  UNAUTHORIZED: "UNAUTHENTICATED",
  FORBIDDEN: "PERMISSION_DENIED",
  NOT_FOUND: "NOT_FOUND",
  CONFLICT: "FAILED_PRECONDITION",
  BUDGET_EXCEEDED: "RESOURCE_EXHAUSTED",
  RATE_LIMITED: "RESOURCE_EXHAUSTED",
  UNAVAILABLE: "UNAVAILABLE",
  CIRCUIT_OPEN: "UNAVAILABLE",
  DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
  INTERNAL_ERROR: "INTERNAL",
  PERMISSION_DENIED: "PERMISSION_DENIED",
  RESOURCE_CONFLICT: "FAILED_PRECONDITION",
  TIMEOUT_ERROR: "DEADLINE_EXCEEDED",
};

type Told = Partial<Pick<Refusal, "message" | "reason" | "facts" | "fields" | "errors">> & {
  word?: string;
};

function read(body: unknown): Told {
  if (!isObject(body)) return {};
  if (isObject(body["error"])) return iron(body["error"]);
  if (isObject(body["detail"])) return ignition(body["detail"]);
  // AgentBox tells a sentence, Cyborg nothing but one.
  const message = body["message"] ?? body["detail"] ?? body["error"];
  return typeof message === "string" ? { message } : {};
}

function iron(error: Record<string, unknown>): Told {
  if (isObject(error["details"]) && !("code" in error)) return ignition(error);
  const code = text(error["code"]);
  return {
    word: code,
    message: text(error["message"]),
    reason: text(error["reason"]) || (TELLING.has(code) ? code : ""),
    facts: texts(error["details"]),
    fields: texts(error["fields"]),
    errors: errors(error["errors"]),
  };
}

function ignition(detail: Record<string, unknown>): Told {
  const { reason, fields, errors: wrong, ...facts } = isObject(detail["details"]) ? detail["details"] : {};
  const word = text(detail["error"]).toUpperCase();
  return {
    word,
    message: text(detail["message"]),
    // What is not found or invalid is named in place of its status.
    reason: text(reason) || (word in CODE_OF_WORD && !TELLING.has(word) ? "" : word),
    facts: texts(facts),
    fields: texts(fields),
    errors: errors(wrong),
  };
}

function errors(listed: unknown): TextError[] {
  return Array.isArray(listed) ? (listed as TextError[]) : [];
}

function texts(named: unknown): Record<string, string> {
  return isObject(named) ? (named as Record<string, string>) : {};
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
