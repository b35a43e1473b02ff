// Who is signed in, in every tab of this browser: one renews, and all go on with what it was given.
import { storeOf } from "./store.js";
import { reached, unreachable } from "./connection.js";

/** @typedef {"admin" | "user" | "viewer"} Role */
/** @typedef {{id: string, username: string, role: Role, mustChangePassword: boolean}} Person */
/** @typedef {{access: string, refresh: string, endsAtMs: number}} Pair */

/** @type {import("./store.js").Store<Person | null>} */
export const person = storeOf(/** @type {Person | null} */ (null));

/** Why nobody is signed in, if there is something to say. */
export const farewell = storeOf("");

const ENDED = "Your session has ended. Sign in to go on where you were.";
const KEPT = "steward.session";
/** Renewed this long before it ends, so that no call meets its end. */
const EARLY_MS = 60_000;

/** @type {Promise<string> | null} */
let renewing = null;

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
  person.set(null);
}

/**
 * A token that is good for a while, or "" if nobody is signed in.
 * @param {{instead?: string}} [options]  `instead`: one that the server no longer takes.
 */
export async function accessToken({ instead = "" } = {}) {
  const pair = kept();
  if (!pair) return "";
  if (pair.access !== instead && Date.now() < pair.endsAtMs - EARLY_MS) return pair.access;
  renewing ??= oneAtATime(() => renew(instead)).finally(() => (renewing = null));
  return renewing;
}

/**
 * A refresh token is good once: of several tabs one may use it. Locks are there on https and localhost.
 * @param {() => Promise<string>} renewed
 * @returns {Promise<string>}
 */
async function oneAtATime(renewed) {
  return navigator.locks ? navigator.locks.request(KEPT, renewed) : renewed();
}

/** @param {string} instead */
async function renew(instead) {
  const pair = kept();
  if (!pair) return "";
  const isGood = Date.now() < pair.endsAtMs && pair.access !== instead;
  if (isGood && Date.now() < pair.endsAtMs - EARLY_MS) return pair.access; // another tab was first
  let response;
  try {
    response = await post("/api/auth/refresh", { refresh_token: pair.refresh });
  } catch {
    unreachable();
    return isGood ? pair.access : "";
  }
  reached();
  if (response.ok) {
    keep(await response.json());
    return kept()?.access ?? "";
  }
  if (response.status === 401 || response.status === 403) {
    endSession(ENDED);
    return "";
  }
  return isGood ? pair.access : "";
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

/** Find out who the kept token belongs to. What cannot be found out now is asked again once the server is back. */
export async function recognise() {
  let response;
  let bearer = "";
  do {
    bearer = await accessToken({ instead: bearer });
    if (!bearer) return;
    try {
      response = await fetch("/api/v1/auth/me", { headers: { Authorization: `Bearer ${bearer}` }, credentials: "omit" });
    } catch {
      return unreachable();
    }
  } while (response.status === 401);
  if (!response.ok) return;
  const me = await response.json();
  person.set({ id: me.id, username: me.username, role: me.role, mustChangePassword: me.must_change_password ?? false });
}

export async function signOut() {
  const ending = kept()?.access;
  forget();
  farewell.set("You are signed out.");
  await post("/api/auth/logout", {}, ending).catch(() => undefined);
}

/** @param {string} [why] */
export function endSession(why = ENDED) {
  if (!kept()) return;
  forget();
  farewell.set(why);
}

addEventListener("storage", ({ key, newValue }) => {
  if (key !== KEPT) return;
  if (newValue === null) {
    person.set(null);
    farewell.set("You are signed out.");
  } else if (!person.get()) {
    recognise();
  }
});

/** @param {Role[]} roles */
export const mayAs = (...roles) => roles.includes(person.get()?.role ?? "viewer");
