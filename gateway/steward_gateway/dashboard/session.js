// Who is signed in, in every tab of this browser: one renews, and all go on with what it was given.
import { storeOf } from "./store.js";
import { doubt, isOfServer, reached, unreachable } from "./connection.js";

/** @typedef {"admin" | "user" | "viewer"} Role */
/** @typedef {{id: string, username: string, role: Role, mustChangePassword: boolean}} Person */
/** @typedef {{access: string, refresh: string, endsAtMs: number}} Pair */

/** @typedef {{token: string, failed?: {status: number, retryAfterS: number}}} Credential  `failed`: somebody is signed in, but it could not be renewed just now. */

/** @type {import("./store.js").Store<Person | null>} */
export const person = storeOf(/** @type {Person | null} */ (null));

/** Whether somebody is signed in of whom the server could not yet say who it is. */
export const isAwaited = storeOf(false);

/** Why nobody is signed in, if there is something to say. */
export const farewell = storeOf("");

const ENDED = "Your session has ended. Sign in to go on where you were.";
const KEPT = "steward.session";
/** Renewed this long before it ends, so that no call meets its end. */
const EARLY_MS = 60_000;
/** When to try again what failed for a moment, if the server does not say. */
const AGAIN_S = 5;

/** @type {Promise<Credential> | null} */
let renewing = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let askingAgain;

/** @returns {Pair | null} */
function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? "null");
  } catch {
    return null;
  }
}

/** @param {string} path @param {object} body @param {string} [bearer] */
function post(path, body, bearer) {
  /** @type {Record<string, string>} */
  const headers = { "Content-Type": "application/json" };
  if (bearer) headers["Authorization"] = `Bearer ${bearer}`;
  return fetch(path, { method: "POST", headers, body: JSON.stringify(body), credentials: "omit" });
}

/** @param {{access_token: string, refresh_token: string, expires_in: number}} given */
function keep(given) {
  const endsAtMs = Date.now() + given.expires_in * 1000;
  const pair = { access: given.access_token, refresh: given.refresh_token, endsAtMs };
  localStorage.setItem(KEPT, JSON.stringify(pair));
}

function forget() {
  localStorage.removeItem(KEPT);
  nobody();
}

function nobody() {
  clearTimeout(askingAgain);
  isAwaited.set(false);
  person.set(null);
}

/**
 * A token that is good for a while, or "" if nobody is signed in or it cannot be renewed just now.
 * @param {{instead?: string}} [options]  `instead`: one that the server no longer takes.
 */
export const accessToken = async (options) => (await credential(options)).token;

/**
 * The same, told apart.
 * @param {{instead?: string}} [options]
 * @returns {Promise<Credential>}
 */
export async function credential({ instead = "" } = {}) {
  const pair = kept();
  if (!pair) return { token: "" };
  if (pair.access !== instead && Date.now() < pair.endsAtMs - EARLY_MS) return { token: pair.access };
  renewing ??= oneAtATime(() => renew(instead)).finally(() => (renewing = null));
  return renewing;
}

/**
 * A refresh token is good once: of several tabs one may use it. Locks are there on https and localhost.
 * @param {() => Promise<Credential>} renewed
 * @returns {Promise<Credential>}
 */
async function oneAtATime(renewed) {
  return navigator.locks ? navigator.locks.request(KEPT, renewed) : renewed();
}

/** @param {string} instead @returns {Promise<Credential>} */
async function renew(instead) {
  const pair = kept();
  if (!pair) return { token: "" };
  const isGood = Date.now() < pair.endsAtMs && pair.access !== instead;
  if (isGood && Date.now() < pair.endsAtMs - EARLY_MS) return { token: pair.access }; // another tab was first
  let status = 0;
  let retryAfterS = 0;
  try {
    const response = await post("/api/auth/refresh", { refresh_token: pair.refresh });
    status = response.status;
    retryAfterS = againInS(response);
    await heardFrom(response);
    const given = response.ok ? await response.json() : null;
    // Signed out meanwhile, or another tab was first: what is kept now counts.
    if (kept()?.refresh !== pair.refresh) return { token: kept()?.access ?? "" };
    if (given) {
      keep(given);
      return { token: given.access_token };
    }
    if ([400, 401, 403].includes(status)) {
      end();
      return { token: "" };
    }
  } catch {
    if (status === 0) unreachable();
    status = 0; // also an answer that broke off is none
  }
  return isGood ? { token: pair.access } : { token: "", failed: { status, retryAfterS } };
}

/** @param {Response} response */
const againInS = ({ headers }) => Number(headers.get("Retry-After") ?? 0) || AGAIN_S;

/** @param {Response} response */
async function heardFrom(response) {
  if (isOfServer(response)) reached();
  else await doubt();
}

/**
 * @param {string} username
 * @param {string} password
 * @throws {Error} with what the server says of it.
 */
export async function signIn(username, password) {
  let response;
  try {
    response = await post("/api/auth/login", { username, password });
  } catch {
    unreachable();
    throw new Error("The server cannot be reached just now.");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error?.message ?? `It was refused: ${response.status}`);
  keep(body);
  farewell.set("");
  await recognise();
}

/** Find out who the kept token belongs to. What cannot be found out now is asked again a little later. */
export async function recognise() {
  clearTimeout(askingAgain);
  let { token, failed } = await credential();
  if (failed) return recogniseLater(failed.retryAfterS);
  let response = await whoIs(token);
  if (response?.status === 401) {
    ({ token, failed } = await credential({ instead: token }));
    if (failed) return recogniseLater(failed.retryAfterS);
    response = await whoIs(token);
  }
  if (!token) return;
  if (!response || response.status === 429 || response.status >= 500) return recogniseLater(response ? againInS(response) : 0);
  if (!response.ok) return endSession(token);
  const me = await response.json().catch(() => null);
  if (kept()?.access !== token) return recognise(); // it was somebody else's turn meanwhile
  if (!me) return recogniseLater(0);
  know({ id: me.id, username: me.username, role: me.role, mustChangePassword: me.must_change_password ?? false });
}

/** @param {string} token @returns {Promise<Response | null>} */
async function whoIs(token) {
  if (!token) return null;
  try {
    const response = await fetch("/api/v1/auth/me", { headers: { Authorization: `Bearer ${token}` }, credentials: "omit" });
    await heardFrom(response);
    return response;
  } catch {
    unreachable();
    return null;
  }
}

/** @param {number} inS  0 if the server did not say. */
function recogniseLater(inS) {
  if (!kept()) return;
  clearTimeout(askingAgain);
  askingAgain = setTimeout(recognise, (inS || AGAIN_S) * 1000);
  isAwaited.set(true);
}

/** @param {Person} who */
function know(who) {
  const before = person.get();
  if (before?.id !== who.id) person.set(null); // what was heard was for somebody else
  if (JSON.stringify(before) !== JSON.stringify(who)) person.set(who);
  isAwaited.set(false);
}

export async function signOut() {
  const ending = kept()?.access;
  forget();
  farewell.set("You are signed out.");
  await post("/api/auth/logout", {}, ending).catch(() => undefined);
}

/** The server takes this token no more, though it is new. Another that is kept by now may be good. @param {string} token */
export function endSession(token) {
  if (kept()?.access === token) end();
}

function end() {
  forget();
  farewell.set(ENDED);
}

addEventListener("storage", ({ key, newValue }) => {
  if (key !== KEPT) return;
  if (newValue === null) {
    nobody();
    farewell.set("You are signed out.");
  } else {
    recognise(); // it may be somebody else
  }
});

/** @param {Role[]} roles */
export const mayAs = (...roles) => roles.includes(person.get()?.role ?? "viewer");
