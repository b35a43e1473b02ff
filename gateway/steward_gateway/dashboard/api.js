// Calls of REST with the credential of whoever is signed in.
import { credential, endSession } from "./session.js";
import { connection, doubt, isOfServer, reached, unreachable } from "./connection.js";

/** @typedef {import("./types.js").Schemas} Schemas */

/** A refusal, whichever dialect it was told in. */
export class ApiError extends Error {
  /**
   * @param {number} status  0 if there was no answer.
   * @param {string} message
   * @param {{reason?: string, fields?: Record<string, string>, errors?: TextError[], retryAfterS?: number}} more
   */
  constructor(status, message, { reason = "", fields = {}, errors = [], retryAfterS = 0 } = {}) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.fields = fields;
    this.errors = errors;
    this.retryAfterS = retryAfterS;
  }
}

const AWAY = "The server cannot be reached just now.";
/** What broke off on its way can be asked for again so soon. */
const AGAIN_S = 5;

/** @typedef {{line: number, column: number, path: string, message: string}} TextError */

/**
 * @template {import("./types.js").PathOf<"get">} Path
 * @param {Path} path  As the API's description has it, with its braces.
 * @param {import("./types.js").Options<Path, "get">} [options]
 * @returns {Promise<import("./types.js").AnswerOf<Path, "get">>}
 */
export const get = (path, options = {}) => json("GET", path, options);

/**
 * One that got no answer may have been done: the same sent again is told by its key, so that nothing is made twice.
 * @template {import("./types.js").PathOf<"post">} Path
 * @param {Path} path
 * @param {import("./types.js").Options<Path, "post">} [options]
 * @returns {Promise<import("./types.js").AnswerOf<Path, "post">>}
 */
export async function post(path, options = {}) {
  const wish = JSON.stringify([path, options]);
  const key = unanswered.get(wish) ?? randomKey();
  unanswered.set(wish, key);
  try {
    const answer = await json("POST", path, options, key);
    unanswered.delete(wish);
    return answer;
  } catch (error) {
    if (error instanceof ApiError && error.status >= 400 && error.status < 500) unanswered.delete(wish);
    throw error;
  }
}

/** The `Idempotency-Key` of each creation that has no answer, by what was wished. @type {Map<string, string>} */
const unanswered = new Map();

/** `crypto.randomUUID` is there for https only. */
const randomKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/**
 * @template {import("./types.js").PathOf<"put">} Path
 * @param {Path} path
 * @param {import("./types.js").Options<Path, "put">} [options]
 * @returns {Promise<import("./types.js").AnswerOf<Path, "put">>}
 */
export const put = (path, options = {}) => json("PUT", path, options);

/**
 * @template {import("./types.js").PathOf<"patch">} Path
 * @param {Path} path
 * @param {import("./types.js").Options<Path, "patch">} [options]
 * @returns {Promise<import("./types.js").AnswerOf<Path, "patch">>}
 */
export const patch = (path, options = {}) => json("PATCH", path, options);

/**
 * @template {import("./types.js").PathOf<"delete">} Path
 * @param {Path} path
 * @param {import("./types.js").Options<Path, "delete">} [options]
 * @returns {Promise<import("./types.js").AnswerOf<Path, "delete">>}
 */
export const remove = (path, options = {}) => json("DELETE", path, options);

/**
 * @param {string} method
 * @param {string} path
 * @param {LooseOptions} options
 * @param {string} [key]
 * @returns {Promise<any>}
 */
async function json(method, path, options, key) {
  const response = await request(method, path, { ...options, key });
  const type = response.headers.get("Content-Type") ?? "";
  return type.startsWith("application/json") ? response.json() : undefined;
}

/** @typedef {{path?: Record<string, string | undefined>, query?: object, body?: unknown, signal?: AbortSignal, key?: string}} LooseOptions  `key`: told as `Idempotency-Key`. */

/**
 * The answer itself, for what is no JSON: files, texts, streams. A `body` that is text or a Blob is sent as it is.
 * @param {string} method
 * @param {string} path
 * @param {LooseOptions} [options]
 * @returns {Promise<Response>}
 * @throws {ApiError}
 */
export async function request(method, path, { path: names = {}, query = {}, body, signal, key } = {}) {
  const url = urlOf(path, names, query);
  const isRaw = typeof body === "string" || body instanceof Blob;
  let token = await renewed();
  const send = async () => {
    /** @type {Record<string, string>} */
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (body !== undefined && !isRaw) headers["Content-Type"] = "application/json";
    if (key) headers["Idempotency-Key"] = key;
    const sent = body === undefined || isRaw ? /** @type {BodyInit | undefined} */ (body) : JSON.stringify(body);
    try {
      const response = await fetch(url, { method, headers, body: sent, signal, credentials: "omit", cache: "no-store" });
      if (isOfServer(response)) reached();
      else await doubt();
      return whole(response, method, signal);
    } catch (error) {
      if (signal?.aborted) throw error;
      unreachable();
      throw new ApiError(0, AWAY);
    }
  };
  let response = await send();
  if (response.status === 401 && token) {
    token = await renewed({ instead: token });
    if (token) response = await send();
    if (response.status === 401) endSession(token);
  }
  if (response.ok) return response;
  if (!isOfServer(response) && connection.get() === "unreachable") throw new ApiError(0, AWAY);
  throw await refusalOf(response);
}

/**
 * "" if nobody is signed in.
 * @param {{instead?: string}} [options]
 * @throws {ApiError} somebody is, but that could not be renewed just now.
 */
async function renewed(options) {
  const { token, failed } = await credential(options);
  if (!failed) return token;
  if (connection.get() === "unreachable") throw new ApiError(0, AWAY);
  throw new ApiError(failed.status, "Your sign-in could not be renewed just now.", { retryAfterS: failed.retryAfterS });
}

/**
 * The first bytes of an answer; the rest is not asked for.
 * @param {Response} response
 * @param {number} mostBytes
 * @param {AbortSignal} [signal]
 * @returns {Promise<{bytes: Uint8Array, isWhole: boolean}>}
 * @throws {ApiError} it broke off on its way.
 */
export const beginning = (response, mostBytes, signal) =>
  unbroken(async () => {
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const bytes = new Uint8Array(mostBytes);
    let length = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { bytes: bytes.subarray(0, length), isWhole: true };
      const piece = value.subarray(0, mostBytes - length);
      bytes.set(piece, length);
      length += piece.length;
      if (piece.length < value.length) {
        await reader.cancel();
        return { bytes, isWhole: false };
      }
    }
  }, "GET", signal);

/**
 * An answer that breaks off on its way is told as any other refusal, however it is read as a whole.
 * @param {Response} response
 * @param {string} method
 * @param {AbortSignal} [signal]
 */
function whole(response, method, signal) {
  for (const way of /** @type {const} */ (["json", "text", "blob", "arrayBuffer"])) {
    const read = response[way].bind(response);
    /** @type {any} */ (response)[way] = () => unbroken(read, method, signal);
  }
  return response;
}

/**
 * @template Body
 * @param {() => Promise<Body>} read
 * @param {string} method
 * @param {AbortSignal} [signal]
 */
async function unbroken(read, method, signal) {
  try {
    return await read();
  } catch (error) {
    if (signal?.aborted) throw error;
    doubt();
    const next = method === "GET" ? "Try again." : "It may have been done: look, before you try again.";
    throw new ApiError(0, `The answer broke off on its way. ${next}`, { retryAfterS: AGAIN_S });
  }
}

/**
 * @param {string} path
 * @param {Record<string, string | undefined>} names
 * @param {object} query
 */
export function urlOf(path, names, query) {
  // A path of a playbook keeps its slashes.
  const filled = path.replace(/{([^}=]+)(=[^}]*)?}/g, (_, name) =>
    (names[name] ?? "").split("/").map(encodeURIComponent).join("/"),
  );
  const url = new URL(filled, location.origin);
  for (const [name, value] of Object.entries(query)) {
    for (const each of [value].flat()) {
      if (each !== undefined && each !== null && each !== "") url.searchParams.append(name, String(each));
    }
  }
  return url;
}

/** @param {Response} response */
async function refusalOf(response) {
  const body = await response.json().catch(() => null);
  const told = body?.detail ?? body?.error ?? body ?? {};
  const flat = typeof told === "string" ? { message: body?.message ?? told } : told;
  const details = flat.details ?? body?.details ?? {};
  return new ApiError(response.status, flat.message ?? `It was refused: ${response.status} ${response.statusText}`, {
    reason: flat.reason ?? details.reason ?? body?.reason ?? "",
    fields: flat.fields ?? details.fields ?? body?.fields ?? {},
    errors: flat.errors ?? details.errors ?? body?.errors ?? [],
    retryAfterS: Number(response.headers.get("Retry-After") ?? 0),
  });
}
