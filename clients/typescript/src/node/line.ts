/** A stream both ways while it stands: what is asked, and its answers. */

import { StreamBroken, Unavailable, type StewardError } from "../errors.js";
import { promiseWithResolvers, Queue, type PromiseWithResolvers } from "../queue.js";
import { errorOfCall } from "./refusals.js";

export interface LineOptions<Request, Response> {
  /** Begin the call. */
  open(requests: AsyncIterable<Request>, signal: AbortSignal): AsyncIterable<Response>;
  /** Do what is to be done with what came: most of it is an answer, by its number. */
  receive(response: Response): void;
  /** The error of whoever waits for an answer when the stream is cut. */
  broken?(cut: StewardError): StewardError;
}

export class Line<Request, Response> {
  /** Settles when the stream is over; never rejects. */
  readonly ended: Promise<void>;
  readonly #requests = new Queue<Request>();
  readonly #waiting = new Map<bigint, PromiseWithResolvers<Response>>();
  readonly #hangUp = new AbortController();
  readonly #options: LineOptions<Request, Response>;
  #isClosed = false;
  #cut: StewardError | undefined;
  #number = 0n;

  constructor(options: LineOptions<Request, Response>) {
    this.#options = options;
    this.ended = this.#read();
  }

  /** Why it is over; undefined while it stands, and after it was closed from here. */
  get cut(): StewardError | undefined {
    return this.#isClosed ? undefined : this.#cut;
  }

  /** Send a message with the next number, and wait for its answer. */
  async ask(say: (number: bigint) => Request): Promise<Response> {
    if (this.#cut) throw this.#broken(this.#cut);
    const number = ++this.#number;
    const answer = promiseWithResolvers<Response>();
    this.#waiting.set(number, answer);
    this.#requests.push(say(number));
    return answer.promise;
  }

  /** Hand an answer to whoever waits for it. */
  answer(number: bigint, response: Response): void {
    this.#waiting.get(number)?.resolve(response);
    this.#waiting.delete(number);
  }

  /** Say that nothing more comes, and wait for the server to end it; what takes long is cut. */
  async close(patienceMs = 1_000): Promise<void> {
    this.#isClosed = true;
    this.#requests.end();
    const timer = setTimeout(() => this.#hangUp.abort(), patienceMs);
    await this.ended;
    clearTimeout(timer);
  }

  async #read(): Promise<void> {
    let cut: StewardError = new Unavailable({ code: "UNAVAILABLE", message: "the server ended it" });
    try {
      for await (const response of this.#options.open(this.#requests, this.#hangUp.signal)) {
        this.#options.receive(response);
      }
    } catch (error) {
      cut = errorOfCall(error);
    }
    if (this.#isClosed) cut = new Unavailable({ code: "CANCELLED", message: "it was closed" });
    this.#cut = cut;
    this.#requests.end();
    for (const answer of this.#waiting.values()) answer.reject(this.#broken(cut));
    this.#waiting.clear();
  }

  #broken(cut: StewardError): StewardError {
    return this.#options.broken?.(cut) ?? cut;
  }
}

/** What is said of a stream of agents that is cut. */
export function streamBroken(cut: StewardError): StreamBroken {
  return new StreamBroken({
    code: cut.code,
    message:
      `the stream is cut (${cut.message}): steps under way may have been made, and what the ` +
      "policy kept of agents without an id is lost; open another",
    facts: cut.facts,
    cause: cut,
  });
}
