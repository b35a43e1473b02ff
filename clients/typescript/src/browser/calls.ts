/** Calls of the REST paths: with a credential, tried again, failing with our errors. */

import createFetch, { type Client, type MaybeOptionalInit } from "openapi-fetch";
import type { HttpMethod, PathsWithMethod, RequiredKeysOf } from "openapi-typescript-helpers";
import type { Credentials } from "../credentials.js";
import { DeadlineExceeded, StewardError, Unauthorized, Unavailable } from "../errors.js";
import { repeatable, slashed } from "../gen/facts.js";
import type { paths } from "../gen/rest.js";
import { delayS, sleep } from "../retry.js";
import { errorOfAnswer } from "./refusals.js";

export interface CallOptions {
  /** How often a call is made at most. */
  attempts: number;
  /** How long a call may take, with all its attempts. */
  timeoutMs: number;
}

/** What a path answers by one of its verbs: the types are those of `/openapi.json`. */
export type Answer<Operation> = Operation extends { responses: infer Responses }
  ? { [Status in keyof Responses & OkStatus]: BodyOf<Responses[Status]> }[keyof Responses & OkStatus]
  : never;

type OkStatus = 200 | 201 | 202 | 204;
type BodyOf<Response> = Response extends { content: { "application/json": infer Body } } ? Body : undefined;

/** A call by one verb of each path that has it: `get("/api/v1/agents/{agent_id}", { params })`. */
export type Verb<Method extends HttpMethod> = <
  Path extends PathsWithMethod<paths, Method>,
  Init extends MaybeOptionalInit<paths[Path], Method>,
>(
  path: Path,
  ...init: RequiredKeysOf<Init> extends never ? [Init?] : [Init]
) => Promise<Answer<paths[Path][Method]>>;

/** What calls are made with, as far as it matters here. */
export interface Init {
  headers?: HeadersInit;
  signal?: AbortSignal | null;
  params?: { path?: Record<string, unknown>; query?: Record<string, unknown> };
  body?: unknown;
  parseAs?: "json" | "stream";
}

export class Calls {
  readonly #http: Client<paths>;
  readonly #credentials: Credentials;
  readonly #options: CallOptions;

  constructor(baseUrl: string, credentials: Credentials, options: CallOptions) {
    this.#http = createFetch<paths>({ baseUrl, pathSerializer: filled });
    this.#credentials = credentials;
    this.#options = options;
  }

  verb<Method extends HttpMethod>(method: Method): Verb<Method> {
    return (path, ...[init]) => this.#call(method, path as string, (init ?? {}) as Init) as never;
  }

  /** Call what anybody may call: no credential is shown, nor renewed for it. */
  callPublic(method: HttpMethod, path: string, init: Init): Promise<unknown> {
    return this.#call(method, path, init, { isPublic: true });
  }

  /** Open a stream, which lasts as long as it lasts. */
  async open(path: string, init: Init): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    const streamed = { ...init, parseAs: "stream" as const };
    return (await this.#call("get", path, streamed, { lasts: true })) as never;
  }

  async #call(
    method: HttpMethod,
    path: string,
    init: Init,
    { isPublic = false, lasts = false } = {},
  ): Promise<unknown> {
    const headers = new Headers(init.headers);
    const takesKey = repeatable.has(`${method.toUpperCase()} ${path}`);
    if (takesKey && !headers.has("idempotency-key")) headers.set("idempotency-key", randomKey());
    const { timeoutMs, attempts } = this.#options;
    const endsAtMs = performance.now() + (lasts ? Infinity : timeoutMs);
    const leftS = () => (endsAtMs - performance.now()) / 1000;
    const signals = [init.signal, lasts ? undefined : AbortSignal.timeout(timeoutMs)];
    const signal = AbortSignal.any(signals.filter((each) => each instanceof AbortSignal));
    let isRenewed = false;
    for (let attempt = 1; ; attempt += 1) {
      const shown = isPublic ? "" : await this.#credentials.current();
      if (shown) headers.set("authorization", `Bearer ${shown}`);
      if (!lasts) headers.set("x-request-timeout", Math.max(0.001, leftS()).toFixed(3));
      try {
        return await this.#attempt(method, path, { ...init, headers, signal });
      } catch (error) {
        if (!(error instanceof StewardError) || signal.aborted) throw error;
        if (error instanceof Unauthorized && shown && !isRenewed) {
          isRenewed = true;
          if (await this.#credentials.renew(shown)) continue;
          throw error;
        }
        const waitS = delayS({
          error,
          attempt,
          attempts,
          repeatable: method === "get" || takesKey,
          leftS: leftS(),
        });
        if (waitS === undefined) throw error;
        await sleep(waitS, signal).catch(() => {
          throw error;
        });
      }
    }
  }

  async #attempt(method: HttpMethod, path: string, init: Init): Promise<unknown> {
    // The types were checked where the call was written; here any path is like another.
    const request = this.#http.request as (
      method: HttpMethod,
      path: string,
      init: Init,
    ) => Promise<{ data?: unknown; error?: unknown; response: Response }>;
    const { data, error, response } = await request(method, path, init).catch((cause: unknown) => {
      throw unanswered(cause);
    });
    if (!response.ok) throw errorOfAnswer(response, error);
    return data;
  }
}

/** A path with its parameters. */
export function filled(path: string, parameters: Record<string, unknown>): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const part = encodeURIComponent(String(parameters[name]));
    return slashed.has(path) ? part.replaceAll("%2F", "/") : part;
  });
}

/** Why there was no answer: `fetch` says it by the kind of what it throws. */
export function unanswered(cause: unknown): unknown {
  if (cause instanceof DOMException && cause.name === "TimeoutError") {
    const message = "there was no answer in time; it may have been done all the same";
    return new DeadlineExceeded({ code: "DEADLINE_EXCEEDED", message, cause });
  }
  if (cause instanceof DOMException && cause.name === "AbortError") {
    return new Unavailable({ code: "CANCELLED", message: "the call was given up", cause });
  }
  if (cause instanceof TypeError) {
    return new Unavailable({ code: "UNAVAILABLE", message: "the server cannot be reached", cause });
  }
  return cause;
}

/** A text that nobody else has. `crypto.randomUUID` is not to be had on pages without TLS. */
function randomKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
