/**
 * What a server can refuse, as exceptions, the same for gRPC and REST.
 *
 * StewardError                  everything below; `code`, `reason`, `facts`, `fields`, `errors`
 * ├── Unauthorized              no credential, or one that is not good (any more)
 * ├── Forbidden                 a good credential that may not do this
 * ├── NotFound                  no such thing, or none the caller may see
 * ├── InvalidRequest            a value is wrong; `fields` says which and why
 * ├── Conflict                  the thing is in a state, or has a name, that does not allow it
 * │   └── AgentStopped          the agent was told to stop; start it first
 * ├── BudgetExceeded            nothing is left, or too little
 * ├── RateLimited               too many calls; `retryAfterS` says when to try again
 * ├── CircuitOpen               something behind the server keeps failing; `retryAfterS` likewise
 * ├── Unavailable               the server cannot be reached, or not now
 * │   └── StreamBroken          a stream of agents is cut, and their state may be lost
 * ├── DeadlineExceeded          no answer in time; it may have been done all the same
 * └── ServerFault               a fault of the server's; its message names what to look for in the log
 */

/** The names of gRPC's codes by their numbers. */
export const CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

export type Code = (typeof CODES)[number];

/** Something wrong in a text, such as a playbook's. Lines and columns count from 1. */
export interface TextError {
  line: number;
  column: number;
  /** Of the text, where it has a place. */
  path: string;
  message: string;
}

export interface Refusal {
  code: Code;
  message: string;
  reason?: string | undefined;
  facts?: Readonly<Record<string, string>> | undefined;
  fields?: Readonly<Record<string, string>> | undefined;
  retryAfterS?: number | undefined;
  errors?: readonly TextError[] | undefined;
  cause?: unknown;
}

/** A refusal. `reason` is stable and made for programs, the message for people. */
export class StewardError extends Error {
  /** The reason where the server gives none. */
  static readonly defaultReason: string = "UNKNOWN";
  override readonly name: string = "StewardError";
  readonly code: Code;
  readonly reason: string;
  /** What the refusal is about, by name. */
  readonly facts: Readonly<Record<string, string>>;
  /** Which fields of the request are wrong, and why. */
  readonly fields: Readonly<Record<string, string>>;
  /** When to try again; undefined if the server did not say. */
  readonly retryAfterS: number | undefined;
  /** What is wrong with a text that was sent, or asked for. */
  readonly errors: readonly TextError[];

  constructor(refusal: Refusal) {
    super(refusal.message, { cause: refusal.cause });
    this.code = refusal.code;
    this.reason = refusal.reason || new.target.defaultReason;
    this.facts = refusal.facts ?? {};
    this.fields = refusal.fields ?? {};
    this.retryAfterS = refusal.retryAfterS;
    this.errors = refusal.errors ?? [];
  }
}

export class Unauthorized extends StewardError {
  static override readonly defaultReason: string = "UNAUTHENTICATED";
  override readonly name: string = "Unauthorized";
}
export class Forbidden extends StewardError {
  static override readonly defaultReason: string = "PERMISSION_DENIED";
  override readonly name: string = "Forbidden";
}
export class NotFound extends StewardError {
  static override readonly defaultReason: string = "NOT_FOUND";
  override readonly name: string = "NotFound";
}
export class InvalidRequest extends StewardError {
  static override readonly defaultReason: string = "VALIDATION_ERROR";
  override readonly name: string = "InvalidRequest";
}
export class Conflict extends StewardError {
  static override readonly defaultReason: string = "CONFLICT";
  override readonly name: string = "Conflict";
}
export class AgentStopped extends Conflict {
  static override readonly defaultReason: string = "AGENT_STOPPED";
  override readonly name: string = "AgentStopped";
}
export class BudgetExceeded extends StewardError {
  static override readonly defaultReason: string = "BUDGET_EXCEEDED";
  override readonly name: string = "BudgetExceeded";
}
export class RateLimited extends StewardError {
  static override readonly defaultReason: string = "RATE_LIMITED";
  override readonly name: string = "RateLimited";
}
export class CircuitOpen extends StewardError {
  static override readonly defaultReason: string = "CIRCUIT_OPEN";
  override readonly name: string = "CircuitOpen";
}
export class Unavailable extends StewardError {
  static override readonly defaultReason: string = "UNAVAILABLE";
  override readonly name: string = "Unavailable";
}
export class StreamBroken extends Unavailable {
  static override readonly defaultReason: string = "STREAM_BROKEN";
  override readonly name: string = "StreamBroken";
}
export class DeadlineExceeded extends StewardError {
  static override readonly defaultReason: string = "DEADLINE_EXCEEDED";
  override readonly name: string = "DeadlineExceeded";
}
export class ServerFault extends StewardError {
  static override readonly defaultReason: string = "INTERNAL_ERROR";
  override readonly name: string = "ServerFault";
}

const BY_REASON: Partial<Record<string, typeof StewardError>> = {
  BUDGET_EXCEEDED: BudgetExceeded,
  LIMIT_COST_PER_MONTH: BudgetExceeded,
  RATE_LIMITED: RateLimited,
  ACCOUNT_LOCKED: RateLimited,
  CIRCUIT_OPEN: CircuitOpen,
  AGENT_STOPPED: AgentStopped,
};

const BY_CODE: Partial<Record<Code, typeof StewardError>> = {
  UNAUTHENTICATED: Unauthorized,
  PERMISSION_DENIED: Forbidden,
  NOT_FOUND: NotFound,
  INVALID_ARGUMENT: InvalidRequest,
  OUT_OF_RANGE: InvalidRequest,
  ALREADY_EXISTS: Conflict,
  FAILED_PRECONDITION: Conflict,
  ABORTED: Conflict,
  RESOURCE_EXHAUSTED: RateLimited,
  UNAVAILABLE: Unavailable,
  CANCELLED: Unavailable,
  DEADLINE_EXCEEDED: DeadlineExceeded,
};

/** The exception of a refusal: by its reason where that says more, else by its code. */
export function errorOf(refusal: Refusal): StewardError {
  const Kind = BY_REASON[refusal.reason ?? ""] ?? BY_CODE[refusal.code] ?? ServerFault;
  return new Kind(refusal);
}
