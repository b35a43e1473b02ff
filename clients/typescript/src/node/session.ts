/** One runtime's stream to the server: leases are taken, paid from and returned over it. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { CallOptions } from "@connectrpc/connect";
import type { StewardError } from "../errors.js";
import {
  SessionRequestSchema,
  type Control,
  type HandshakeRequestSchema,
  type HandshakeResponse,
  type RefreshRequestSchema,
  type RefreshResponse,
  type ReportAck,
  type ReturnRequestSchema,
  type ReturnResponse,
  type SessionRequest,
  type SessionResponse,
  type UsageSchema,
} from "../gen/steward/budget/v1/budget_pb.js";
import { Queue } from "../queue.js";
import { Line } from "./line.js";
import { errorOfStatus } from "./refusals.js";

/** What each message is answered with, by the names of both. */
const ANSWERS = {
  handshake: "handshake",
  reportBatch: "reportAck",
  refresh: "refresh",
  returnLease: "returnLease",
  heartbeat: "heartbeat",
  resumeLease: "leaseResumed",
  agentStarted: "eventAccepted",
  agentStopped: "eventAccepted",
  piiAlert: "eventAccepted",
  circuitOpened: "eventAccepted",
  takeAllotment: "allotment",
} as const;

type Asked = Exclude<MessageInitShape<typeof SessionRequestSchema>["message"], { case?: undefined }>;
type AskedCase = keyof typeof ANSWERS;
type AskedValue<Case extends AskedCase> = Extract<Asked, { case: Case }>["value"];
type Answer<Case extends AskedCase> = Extract<
  SessionResponse["message"],
  { case: (typeof ANSWERS)[Case] }
>["value"];

type OpenCall = (
  requests: AsyncIterable<SessionRequest>,
  options: CallOptions,
) => AsyncIterable<SessionResponse>;

export class Session implements AsyncDisposable {
  /** What the server says by itself: stops, revocations, changes of the budget; ends with the stream. */
  readonly pushes: AsyncIterableIterator<Control, undefined>;
  readonly #pushes = new Queue<Control>();
  readonly #line: Line<SessionRequest, SessionResponse>;
  /** The leases of batches of reports that wait for their answer. */
  readonly #batches = new Map<bigint, string>();

  constructor(call: OpenCall) {
    this.pushes = this.#pushes;
    this.#line = new Line({
      open: (requests, signal) => call(requests, { signal }),
      receive: (response) => this.#receive(response),
    });
    void this.#line.ended.then(() => this.#pushes.end(this.#line.cut));
  }

  /** Take a lease; its provider key comes sealed. */
  handshake(request: MessageInitShape<typeof HandshakeRequestSchema> = {}): Promise<HandshakeResponse> {
    return this.ask("handshake", request);
  }

  /** Book what calls have used; up to 1,000 at once. See `refused` of the answer. */
  report(leaseId: string, usages: MessageInitShape<typeof UsageSchema>[]): Promise<ReportAck> {
    return this.ask("reportBatch", { leaseId, usages });
  }

  /** Ask for more; a denial is an answer, not an error. */
  refresh(request: MessageInitShape<typeof RefreshRequestSchema>): Promise<RefreshResponse> {
    return this.ask("refresh", request);
  }

  /** Give back what is unspent. */
  returnLease(request: MessageInitShape<typeof ReturnRequestSchema>): Promise<ReturnResponse> {
    return this.ask("returnLease", request);
  }

  /**
   * Send any message of a session, and wait for the answer that belongs to it.
   *
   * @throws {StewardError} it is refused, and the session goes on; or the stream is cut.
   */
  async ask<Case extends AskedCase>(name: Case, value: AskedValue<Case>): Promise<Answer<Case>> {
    const { message } = await this.#line.ask((messageId) => {
      const said = create(SessionRequestSchema, { messageId, message: asked(name, value) });
      if (said.message.case === "reportBatch") {
        this.#batches.set(messageId, said.message.value.leaseId);
      }
      return said;
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

  /** End the stream; leases stay as they are. */
  close(): Promise<void> {
    return this.#line.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #receive(response: SessionResponse): void {
    if (response.inReplyTo === 0n) {
      if (response.message.case === "control") this.#pushes.push(response.message.value);
      return;
    }
    for (const number of this.#answeredBy(response)) {
      this.#batches.delete(number);
      this.#line.answer(number, response);
    }
  }

  /** The messages a response answers: of batches that were booked together, all. */
  #answeredBy({ inReplyTo, message }: SessionResponse): bigint[] {
    if (message.case !== "reportAck") return [inReplyTo];
    const { leaseId } = message.value;
    return [...this.#batches]
      .filter(([number, lease]) => number <= inReplyTo && lease === leaseId)
      .map(([number]) => number);
  }
}

function asked<Case extends AskedCase>(name: Case, value: AskedValue<Case>): Asked {
  return { case: name, value } as Asked;
}
