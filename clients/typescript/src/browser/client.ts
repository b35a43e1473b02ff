/** A Steward server as a page has it: REST paths and WebSockets. */

import { Credentials, type TokenPair } from "../credentials.js";
import { Unauthorized, type StewardError } from "../errors.js";
import type { components } from "../gen/rest.js";
import { Calls, unanswered, type Verb } from "./calls.js";
import { cut, following, framesOf, type FollowOptions } from "./following.js";
import { PolicyStream, type PolicyOptions } from "./policy.js";
import { errorOfBody } from "./refusals.js";

type Schemas = components["schemas"];

/** An event, or the news that some are left out: a `Gap` says which. */
export type Event = Exclude<Schemas["Event_Exchange.Received"], { type: "Heartbeat" | "Error" }>;

/** What happens to a run, or what its browser shows. */
export type ExecutionFrame = Extract<
  Schemas["Execution_Exchange.Received"],
  { type: "execution_update" | "screenshot_frame" }
>;

export type EventOptions = FollowOptions & Omit<Schemas["events.v1.SubscribeRequest"], "since">;
export type ExecutionOptions = FollowOptions & Omit<Schemas["executions.v1.SubscribeRequest"], "since">;

export interface ClientOptions {
  /** A person's access token, an API key or an agent's IC token; nothing for a sign-in to come. */
  credential?: string;
  /** How often a call is made at most. */
  attempts?: number;
  /** How long a call may take, with all its attempts. */
  timeoutMs?: number;
}

/** `connect(location.origin)`: nothing is sent before the first call. */
export function connect(url: string, options: ClientOptions = {}): Steward {
  return new Steward(url, options);
}

export class Steward {
  /** By each verb the paths that have it; they give what `/openapi.json` says, or fail with our errors. */
  readonly get: Verb<"get">;
  readonly post: Verb<"post">;
  readonly put: Verb<"put">;
  readonly patch: Verb<"patch">;
  readonly delete: Verb<"delete">;
  readonly #url: URL;
  readonly #calls: Calls;
  readonly #credentials: Credentials;

  /** @internal made by `connect` */
  constructor(url: string, { credential = "", attempts = 4, timeoutMs = 30_000 }: ClientOptions) {
    this.#url = new URL(url);
    this.#credentials = new Credentials(credential, async (refresh_token) => {
      const body = { refresh_token };
      return pairOf((await this.#calls.callPublic("post", "/api/auth/refresh", { body })) as Pair);
    });
    const baseUrl = this.#url.href.replace(/\/$/, "");
    this.#calls = new Calls(baseUrl, this.#credentials, { attempts, timeoutMs });
    this.get = this.#calls.verb("get");
    this.post = this.#calls.verb("post");
    this.put = this.#calls.verb("put");
    this.patch = this.#calls.verb("patch");
    this.delete = this.#calls.verb("delete");
  }

  /** Sign in by name or address; the sign-in renews itself from then on. */
  async signIn(name: string, password: string): Promise<Schemas["auth.v1.User"] | null> {
    const by = name.includes("@") ? { email: name } : { username: name };
    const answer = await this.#calls.callPublic("post", "/api/auth/login", {
      body: { ...by, password },
    });
    this.#credentials.keep(pairOf(answer as Pair));
    return (answer as Schemas["auth.v1.LoginResponse"]).user;
  }

  /** End the sign-in, on open streams too. */
  async signOut(): Promise<void> {
    await this.post("/api/auth/logout", { body: {} });
    this.#credentials.forget();
  }

  /** Events as they happen, over `/ws`; it goes on where it was cut, until `signal` ends it. */
  async *events(options: EventOptions = {}): AsyncGenerator<Event, void> {
    const { since, signal, onCut, ...query } = options;
    const frames = following(
      (since, signal) =>
        this.#frames<Schemas["Event_Exchange.Received"]>("/ws", { ...query, since }, signal, {
          isLetIn: async () => {
            const params = { query: { ...query, since } };
            await (await this.#calls.open("/api/v1/events", { params, signal })).cancel();
          },
        }),
      (frame) => (frame.type === "Error" ? undefined : frame.sequence),
      { since, signal, onCut },
    );
    for await (const frame of frames) {
      if (frame.type !== "Heartbeat" && frame.type !== "Error") yield frame;
    }
  }

  /** What happens to runs of playbooks, over `/ws/executions`; it goes on where it was cut. */
  async *executions(options: ExecutionOptions = {}): AsyncGenerator<ExecutionFrame, void> {
    const { since, signal, onCut, ...query } = options;
    const frames = following(
      (since, signal) =>
        this.#frames<Schemas["Execution_Exchange.Received"]>("/ws/executions", { ...query, since }, signal, {
          ping: { type: "ping", data: { timestamp: Date.now() } },
          isLetIn: () => this.get("/api/executions", { params: { query: { limit: 1 } }, signal }),
        }),
      (frame) => (frame.type === "execution_update" ? frame.data.sequence : undefined),
      { since, signal, onCut },
    );
    for await (const frame of frames) {
      if (frame.type === "execution_update" || frame.type === "screenshot_frame") yield frame;
    }
  }

  /**
   * What happens to one run, to its end, by plain HTTP: nothing but a header shows the credential,
   * which an `EventSource` cannot set.
   */
  watch(
    execution_id: string,
    { frames, ...options }: FollowOptions & { frames?: boolean } = {},
  ): AsyncGenerator<Schemas["executions.v1.WatchResponse"], void> {
    return following(
      (since, signal) =>
        this.#lines<Schemas["executions.v1.WatchResponse"]>("/api/executions/{execution_id}/events", {
          params: { path: { execution_id }, query: { since, frames } },
          signal,
        }),
      (message) => message.sequence,
      options,
    );
  }

  /** An agent that makes steps with a policy, over `/stream`; it lives as long as the socket. */
  policy(options: PolicyOptions = {}): PolicyStream {
    const socket = new WebSocket(this.#socketUrl("/stream", {}));
    return new PolicyStream(socket, () => this.#credentials.current(), options);
  }

  async *#frames<T>(
    path: string,
    query: Query,
    signal: AbortSignal,
    { ping, isLetIn }: { ping?: unknown; isLetIn: () => Promise<unknown> },
  ): AsyncGenerator<T, void> {
    const shown = await this.#credentials.current();
    // A page can set no header of a socket but this; the server picks the first.
    const socket = new WebSocket(this.#socketUrl(path, query), shown ? ["Authorization", shown] : []);
    let isOpen = false;
    socket.onopen = () => (isOpen = true);
    try {
      yield* framesOf<T>(socket, { ping, signal });
    } catch (error) {
      // Browsers hide why a socket was not opened: the same question over REST has the answer.
      if (!isOpen) await isLetIn();
      if (error instanceof Unauthorized && (await this.#credentials.renew(shown))) {
        throw cut("the sign-in was renewed", error);
      }
      throw error;
    }
  }

  async *#lines<T>(path: string, init: Parameters<Calls["open"]>[1]): AsyncGenerator<T, void> {
    const headers = { accept: "application/x-ndjson" };
    const body = await this.#calls.open(path, { ...init, headers });
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      for (let rest = ""; ; ) {
        const { value = "", done } = await reader.read().catch((cause: unknown) => {
          throw unanswered(cause);
        });
        const lines = (rest + value).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) yield messageOf<T>(line);
        if (done) return;
      }
    } finally {
      await reader.cancel().catch(() => undefined);
    }
  }

  #socketUrl(path: string, query: Query): URL {
    const url = new URL(this.#url.href.replace(/\/$/, "") + path);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    for (const [name, values] of Object.entries(query)) {
      if (values === undefined || values === null) continue;
      for (const value of Array.isArray(values) ? values : [values]) {
        url.searchParams.append(name, String(value));
      }
    }
    return url;
  }
}

type Query = Record<string, unknown>;
type Pair = Pick<Schemas["auth.v1.LoginResponse"], "access_token" | "refresh_token" | "expires_in">;

function pairOf(answer: Pair): TokenPair {
  const { access_token, refresh_token, expires_in } = answer;
  return { accessToken: access_token, refreshToken: refresh_token, expiresInS: expires_in };
}

/** The message in a line; the last one may say why there are no more. */
function messageOf<T>(line: string): T {
  const message = JSON.parse(line) as Record<string, unknown>;
  if ("error" in message || "detail" in message) throw errorOfBody(message) satisfies StewardError;
  return message as T;
}
