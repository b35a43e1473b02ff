/** Calls as a Steward client makes them: with a credential, tried again, failing with our errors. */

import type {
  DescMessage,
  DescMethodStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import type { ContextValues, StreamResponse, Transport, UnaryResponse } from "@connectrpc/connect";
import type { Credentials } from "../credentials.js";
import { Unauthorized, type StewardError } from "../errors.js";
import { delayS, sleep } from "../retry.js";
import { identified, isPublic, isRepeatable } from "./methods.js";
import { errorOfCall } from "./refusals.js";

export interface Manners {
  credentials: Credentials;
  /** How often a call is made at most. */
  attempts: number;
  /** How long a call with one answer may take that says nothing of it, with all its attempts. */
  timeoutMs: number;
}

/** One attempt: what it shows, and the time it has. */
interface Attempt {
  header: Headers;
  timeoutMs: number | undefined;
}

export class StewardTransport implements Transport {
  readonly #wire: Transport;
  readonly #manners: Manners;

  constructor(wire: Transport, manners: Manners) {
    this.#wire = wire;
    this.#manners = manners;
  }

  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: MessageInitShape<I>,
    contextValues?: ContextValues,
  ): Promise<UnaryResponse<I, O>> {
    const request = identified(method, input);
    const call = new Call(this.#manners, {
      isPublic: isPublic(method),
      repeatable: isRepeatable(method, request),
      timeoutMs: timeoutMs ?? this.#manners.timeoutMs,
      header,
      signal,
    });
    return call.make(({ header, timeoutMs }) =>
      this.#wire.unary(method, signal, timeoutMs, header, request, contextValues),
    );
  }

  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    contextValues?: ContextValues,
  ): Promise<StreamResponse<I, O>> {
    const isSaidOnce = method.methodKind === "server_streaming";
    const said = isSaidOnce ? (await collected(input)).map((each) => identified(method, each)) : [];
    const call = new Call(this.#manners, {
      isPublic: isPublic(method),
      // What is read may be read again; what was said as it came to mind cannot be repeated.
      repeatable: said.every((each) => isRepeatable(method, each)),
      once: !isSaidOnce,
      timeoutMs,
      header,
      signal,
    });
    const open = () =>
      call.make(({ header, timeoutMs }) => {
        const messages = isSaidOnce ? replayed(said) : input;
        return this.#wire.stream(method, signal, timeoutMs, header, messages, contextValues);
      });
    const opened = await open();
    return { ...opened, message: answers(call, opened, open) };
  }
}

/** A call from its first attempt to its answer. */
class Call {
  readonly #manners: Manners;
  readonly #asked: Asked;
  readonly #endsAtMs: number;
  #attempt = 0;
  #shown = "";
  #isRenewed = false;

  constructor(manners: Manners, asked: Asked) {
    this.#manners = manners;
    this.#asked = asked;
    this.#endsAtMs = performance.now() + (asked.timeoutMs ?? Infinity);
  }

  /** Make attempts until one is answered, or the refusal is to be given. */
  async make<T>(send: (attempt: Attempt) => Promise<T>): Promise<T> {
    for (;;) {
      const header = new Headers(this.#asked.header);
      this.#shown = this.#asked.isPublic ? "" : await this.#manners.credentials.current();
      if (this.#shown) header.set("authorization", `Bearer ${this.#shown}`);
      this.#attempt += 1;
      try {
        const leftMs = this.#leftMs();
        // The wire counts in whole milliseconds, and takes 0 for no deadline at all.
        const timeoutMs = Number.isFinite(leftMs) ? Math.max(1, Math.ceil(leftMs)) : undefined;
        return await send({ header, timeoutMs });
      } catch (error) {
        await this.refused(errorOfCall(error));
      }
    }
  }

  /**
   * Return when it is time for another attempt.
   *
   * @throws the refusal, if there is to be none.
   */
  async refused(error: StewardError): Promise<void> {
    const { isPublic, repeatable, once, signal } = this.#asked;
    if (once || signal?.aborted) throw error;
    if (error instanceof Unauthorized) {
      if (isPublic || !this.#shown || this.#isRenewed) throw error;
      if (!(await this.#manners.credentials.renew(this.#shown))) throw error;
      this.#isRenewed = true;
      return;
    }
    const waitS = delayS({
      error,
      attempt: this.#attempt,
      attempts: this.#manners.attempts,
      repeatable,
      leftS: this.#leftMs() / 1000,
    });
    if (waitS === undefined) throw error;
    await sleep(waitS, signal).catch(() => {
      throw error;
    });
  }

  #leftMs(): number {
    return this.#endsAtMs - performance.now();
  }
}

interface Asked {
  isPublic: boolean;
  repeatable: boolean;
  /** There is one attempt only. */
  once?: boolean;
  timeoutMs: number | undefined;
  header: HeadersInit | undefined;
  signal: AbortSignal | undefined;
}

/** The answers of a stream, which is opened again if it fails before the first. */
async function* answers<I extends DescMessage, O extends DescMessage>(
  call: Call,
  opened: StreamResponse<I, O>,
  open: () => Promise<StreamResponse<I, O>>,
): AsyncGenerator<MessageShape<O>> {
  let hasBegun = false;
  for (;;) {
    try {
      for await (const message of opened.message) {
        hasBegun = true;
        yield message;
      }
      return;
    } catch (error) {
      const refusal = errorOfCall(error);
      if (hasBegun) throw refusal;
      await call.refused(refusal);
    }
    opened = await open();
  }
}

async function collected<T>(input: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const each of input) all.push(each);
  return all;
}

async function* replayed<T>(said: T[]): AsyncGenerator<T> {
  yield* said;
}
