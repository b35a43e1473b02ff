/**
 * One stream for the steps of many agents, several messages under way.
 *
 * A stream that breaks is never mended in silence: what the policies kept of its agents may be
 * lost, and only the caller knows what that means.
 */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { CallOptions } from "@connectrpc/connect";
import { InvalidRequest, ServerFault, type StewardError } from "../errors.js";
import {
  StreamRequestSchema,
  type PackedResults,
  type StepResponse,
  type StreamAgentSchema,
  type StreamOpened,
  type StreamRequest,
  type StreamResponse,
} from "../gen/steward/inference/v1/inference_pb.js";
import { Line, streamBroken } from "./line.js";
import { errorOfStatus } from "./refusals.js";

/** Of each kind of message, what it is answered with. */
const ANSWERS = { open: "opened", step: "step", packed: "packed", close: "closed" } as const;

type Asked = Exclude<MessageInitShape<typeof StreamRequestSchema>["message"], { case?: undefined }>;
type AskedCase = keyof typeof ANSWERS;
type AskedValue<Case extends AskedCase> = Extract<Asked, { case: Case }>["value"];
type Answer<Case extends AskedCase> = Extract<
  StreamResponse["message"],
  { case: (typeof ANSWERS)[Case] }
>["value"];

type OpenCall = (
  requests: AsyncIterable<StreamRequest>,
  options: CallOptions,
) => AsyncIterable<StreamResponse>;

export type AgentInit = MessageInitShape<typeof StreamAgentSchema>;

export interface StepOptions {
  /** The likeliest action in place of one drawn at random. */
  deterministic?: boolean;
  /** How long it may take from its arrival at the server; the step may have been made all the same. */
  timeoutMs?: number;
}

/** A step of many agents of one policy: a row for each observation. */
export interface Steps {
  /** Of a discrete policy one choice a row; of a continuous one its numbers, row after row. */
  actions: Int32Array | Float32Array;
  values: Float32Array;
  logProbs: Float32Array;
  pressures: Float32Array;
  /** Rows for which the policy gave no finite numbers: their agents begin anew, and what else is told
   * of these rows means nothing. */
  failed: number[];
}

const NUMBER_BYTES = 4; // of a packed int32 or float32

/** Whether actions of a policy, named with its version, are choices; else they are numbers. */
export type IsDiscrete = (policy: string) => Promise<boolean>;

export class AgentStream implements AsyncDisposable {
  readonly #line: Line<StreamRequest, StreamResponse>;
  readonly #isDiscrete: IsDiscrete;
  readonly #policies = new Map<number, string>();
  readonly #discrete = new Map<string, Promise<boolean>>();
  /** Agents that a reset took out and did not bring back: the server knows them no more. */
  readonly #takenOut = new Set<number>();

  constructor(call: OpenCall, isDiscrete: IsDiscrete) {
    this.#isDiscrete = isDiscrete;
    this.#line = new Line({
      open: (requests, signal) => call(requests, { signal }),
      receive: (response) => this.#line.answer(response.sequence, response),
      broken: streamBroken,
    });
  }

  /** Bring agents into the stream; they are numbered on from `first` of the answer. */
  async open(agents: AgentInit[]): Promise<StreamOpened> {
    const opened = await this.ask("open", { agents });
    if (opened.policies.length !== agents.length || opened.begun.length !== agents.length) {
      throw withoutRows(agents.length);
    }
    opened.policies.forEach((policy, at) => this.#policies.set(opened.first + at, policy));
    return opened;
  }

  /** Let one agent make a step. */
  step(agent: number, observation: number[], options: StepOptions = {}): Promise<StepResponse> {
    const { deterministic = false, timeoutMs = 0 } = options;
    return this.ask("step", { agent, observation, deterministic }, timeoutMs);
  }

  /**
   * Let agents of one policy make a step each: rows of observations, one after the other.
   *
   * Without `agents` all of the stream make one, in their order.
   */
  async steps(
    observations: Float32Array,
    { agents, deterministic = false, timeoutMs = 0 }: StepOptions & { agents?: number[] } = {},
  ): Promise<Steps> {
    checkRows(observations.length, agents?.length);
    // Before it is sent: where nobody can tell how its results are to be read, no step is made.
    const isDiscrete = await this.#readsChoices(agents?.[0]);
    const packed = { observations: bytesOf(observations), agents: agents ?? [], deterministic };
    return stepsOf(await this.ask("packed", packed, timeoutMs), isDiscrete, agents?.length);
  }

  /** Whether the policy of an agent, or of the first there is, gives choices. */
  async #readsChoices(agent?: number): Promise<boolean> {
    const [first] = this.#policies.values();
    const policy = agent === undefined ? first : this.#policies.get(agent);
    if (policy === undefined) return false; // the server says what is wrong with it
    const known = this.#discrete.get(policy) ?? this.#isDiscrete(policy);
    this.#discrete.set(policy, known);
    known.catch(() => this.#discrete.delete(policy)); // to be asked again
    return known;
  }

  /**
   * Begin the sequences of agents anew: they end, and others take their places.
   *
   * One that was refused can be asked for again.
   */
  async reset(agents: number[], inits: AgentInit[]): Promise<StreamOpened> {
    if (agents.length === 0 || inits.length !== agents.length) {
      const message = `${inits.length} agents are to take the places of ${agents.length}; give one for each`;
      throw new InvalidRequest({ code: "INVALID_ARGUMENT", message });
    }
    if (new Set(agents).size < agents.length) {
      const message = `agents are ${agents.join(", ")}; name each of them once`;
      throw new InvalidRequest({ code: "INVALID_ARGUMENT", message });
    }
    await this.end(agents);
    for (const agent of agents) this.#takenOut.add(agent);
    const opened = await this.open(inits.map((init) => ({ ...init, reset: true })));
    for (const agent of agents) this.#takenOut.delete(agent);
    return opened;
  }

  /** End agents; their numbers are not to be used again. */
  async end(agents: number[]): Promise<void> {
    const left = agents.filter((agent) => !this.#takenOut.has(agent));
    if (left.length > 0) await this.ask("close", { agents: left });
    for (const agent of agents) {
      this.#policies.delete(agent);
      this.#takenOut.delete(agent);
    }
  }

  /**
   * Send any message of the stream, and wait for its answer.
   *
   * @throws {StewardError} it is refused, and the stream goes on.
   * @throws {StreamBroken} the stream is cut.
   */
  async ask<Case extends AskedCase>(
    name: Case,
    value: AskedValue<Case>,
    timeoutMs = 0,
  ): Promise<Answer<Case>> {
    const { message } = await this.#line.ask((sequence) => {
      const asked = { case: name, value } as Asked;
      return create(StreamRequestSchema, { sequence, timeoutMs, message: asked });
    });
    if (message.case === "refusal") throw errorOfStatus(message.value);
    if (message.case !== ANSWERS[name]) {
      throw new TypeError(`${name} was answered with ${message.case}`);
    }
    return message.value as Answer<Case>;
  }

  /** Why the stream is over; undefined while it stands, and after `close`. */
  get cut(): StewardError | undefined {
    return this.#line.cut;
  }

  /** End the stream, and with it its agents without an id. */
  close(): Promise<void> {
    return this.#line.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Refuse rows that cannot be those of so many agents, or of all there are. */
function checkRows(numberCount: number, agentCount?: number): void {
  if (numberCount > 0 && (agentCount === undefined || numberCount % agentCount === 0)) return;
  const message =
    `${numberCount} numbers are given for ${agentCount ?? "all"} agents; give a row for each, ` +
    "all of them as long, and an agent at least";
  throw new InvalidRequest({ code: "INVALID_ARGUMENT", message });
}

/**
 * Read packed results of so many agents. The wire is little-endian, as is every machine that Node
 * runs on today.
 */
export function stepsOf(
  results: PackedResults,
  isDiscrete: boolean,
  count = Math.floor(results.values.length / NUMBER_BYTES),
): Steps {
  const bytes = count * NUMBER_BYTES;
  const columns = [results.values, results.logProbs, results.pressures];
  const hasRows =
    columns.every((each) => each.length === bytes) &&
    results.actions.length > 0 &&
    results.actions.length % bytes === 0;
  if (!hasRows) throw withoutRows(count);
  return {
    actions: isDiscrete ? new Int32Array(copied(results.actions)) : floats(results.actions),
    values: floats(results.values),
    logProbs: floats(results.logProbs),
    pressures: floats(results.pressures),
    failed: results.failed,
  };
}

function withoutRows(count: number): ServerFault {
  const message = `the answer has not a row for each of ${count} agents`;
  return new ServerFault({ code: "INTERNAL", message });
}

function floats(packed: Uint8Array): Float32Array {
  return new Float32Array(copied(packed));
}

/** Into a buffer of its own: what comes off the wire need not begin where a number may. */
function copied(packed: Uint8Array): ArrayBuffer {
  return Uint8Array.from(packed).buffer;
}

function bytesOf(numbers: Float32Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(numbers.slice().buffer);
}
