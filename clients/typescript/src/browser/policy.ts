/** One agent that makes steps with a policy over `/stream`. */

import { StewardError, StreamBroken } from "../errors.js";
import type { components } from "../gen/rest.js";
import { promiseWithResolvers, type PromiseWithResolvers } from "../queue.js";
import { errorOfClose } from "./following.js";

type DriveResponse = components["schemas"]["inference.v1.DriveResponse"];

/** What the agent is to do, what the policy expects of it, and how full its memory is. */
export type Step = Pick<DriveResponse, "action" | "value" | "pressure">;

export interface PolicyOptions {
  /** Such as "cartpole" or "cartpole@3"; without it, the server's default. */
  policy?: string;
}

export class PolicyStream {
  readonly #socket: WebSocket;
  readonly #credential: () => Promise<string>;
  readonly #policy: string | undefined;
  readonly #isOpen = promiseWithResolvers<void>();
  /** Answers come in the order of what they answer. */
  readonly #waiting: PromiseWithResolvers<DriveResponse>[] = [];
  #cut: StewardError | undefined;

  constructor(socket: WebSocket, credential: () => Promise<string>, options: PolicyOptions) {
    this.#socket = socket;
    this.#credential = credential;
    this.#policy = options.policy;
    this.#isOpen.promise.catch(() => undefined); // whoever makes a step is told
    socket.onopen = () => this.#isOpen.resolve();
    socket.onmessage = ({ data }: MessageEvent<string>) => {
      this.#waiting.shift()?.resolve(JSON.parse(data) as DriveResponse);
    };
    socket.onclose = (event) => this.#end(errorOfClose(event));
  }

  /**
   * Make a step: the likeliest, or one drawn at random where `deterministic` is false.
   *
   * @throws {StewardError} what was asked is refused, and the stream goes on.
   * @throws {StreamBroken} the socket is cut, and with it the agent's state is gone.
   */
  async step(observation: number[], { deterministic = true } = {}): Promise<Step> {
    await this.#isOpen.promise;
    const token = await this.#credential();
    if (this.#cut) throw this.#cut;
    const answer = promiseWithResolvers<DriveResponse>();
    this.#waiting.push(answer);
    const policy = this.#policy;
    this.#socket.send(JSON.stringify({ observation, deterministic, token, policy }));
    const { error, ...step } = await answer.promise;
    if (error) throw new StewardError({ code: "UNKNOWN", message: error });
    return step;
  }

  /** End the agent and its socket. */
  close(): void {
    this.#socket.close();
  }

  #end(cause: StewardError): void {
    const message = `the stream is cut (${cause.message}), and the agent's state is gone`;
    this.#cut = new StreamBroken({ code: cause.code, message, cause });
    this.#isOpen.reject(this.#cut);
    for (const answer of this.#waiting.splice(0)) answer.reject(this.#cut);
  }
}
