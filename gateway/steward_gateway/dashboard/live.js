// What happens, as it happens: one socket to /ws for the whole page, opened again where it broke off.
import { useEffect, useRef } from "./vendor/preact.js";
import { accessToken, person } from "./session.js";
import { connection, doubt, revived } from "./connection.js";
import { storeOf } from "./store.js";

/**
 * @typedef {object} LiveEvent
 * @property {string} type  "CostUpdate", "Gap" …
 * @property {number} sequence
 * @property {string} timestamp
 * @property {string} agent_id
 * @property {Record<string, any>} data
 */

/** @type {import("./store.js").Store<"off" | "opening" | "open">} */
export const liveState = storeOf(/** @type {"off" | "opening" | "open"} */ ("off"));

/** Listeners hear of events in batches: a page that draws for each of thousands a second stands still. */
const BATCH_MS = 100;
const CREDENTIAL_ENDED = 4016;
const LONGEST_WAIT_MS = 10_000;

/** @type {Set<(events: LiveEvent[]) => void>} */
const listeners = new Set();
/** @type {LiveEvent[]} */
let batch = [];
/** @type {ReturnType<typeof setTimeout> | undefined} */
let telling;
/** @type {WebSocket | null} */
let socket = null;
let newest = -1;
let attempts = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let waiting;

/** @param {string} path @param {Record<string, string | number>} query */
export function socketUrl(path, query = {}) {
  const url = new URL(path, location.origin);
  url.protocol = url.protocol.replace("http", "ws");
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, String(value));
  return url;
}

async function open() {
  if (socket || waiting !== undefined || !person.get() || person.get()?.mustChangePassword) return;
  liveState.set("opening");
  const token = await accessToken();
  if (!token || socket) return;
  const opened = new WebSocket(socketUrl("/ws", newest >= 0 ? { since: newest } : undefined), ["Authorization", token]);
  socket = opened;
  opened.onopen = () => {
    attempts = 0;
    liveState.set("open");
  };
  opened.onmessage = ({ data }) => hear(JSON.parse(data));
  opened.onclose = async ({ code }) => {
    if (socket !== opened) return;
    socket = null;
    liveState.set(person.get() ? "opening" : "off");
    if (code === CREDENTIAL_ENDED) await accessToken({ instead: token });
    else doubt();
    const waitMs = Math.min(250 * 2 ** attempts++, LONGEST_WAIT_MS) * (0.5 + Math.random() / 2);
    waiting = setTimeout(() => {
      waiting = undefined;
      open();
    }, waitMs);
  };
}

function close() {
  clearTimeout(waiting);
  waiting = undefined;
  newest = -1;
  attempts = 0;
  const closing = socket;
  socket = null;
  closing?.close();
  liveState.set("off");
}

/** @param {LiveEvent} event */
function hear(event) {
  if (typeof event.sequence === "number") newest = Math.max(newest, event.sequence);
  if (event.type === "Heartbeat" || event.type === "Error") return;
  batch.push(event);
  telling ??= setTimeout(tell, BATCH_MS);
}

function tell() {
  telling = undefined;
  const events = batch;
  batch = [];
  for (const heard of [...listeners]) heard(events);
}

person.follow((who) => (who ? open() : close()));
revived.follow(() => {
  clearTimeout(waiting);
  waiting = undefined;
  attempts = 0;
  open();
});
connection.follow((state) => {
  if (state !== "unreachable" || !socket) return;
  const closing = socket; // it may take minutes to notice that the network went away
  socket = null;
  closing.close();
  liveState.set("opening");
});

/**
 * Hear of events of these types, in batches; a "Gap" says that some were lost.
 * @param {string[]} types
 * @param {(events: LiveEvent[]) => void} heard
 */
export function useEvents(types, heard) {
  const latest = useRef(heard);
  latest.current = heard;
  useEffect(() => {
    /** @param {LiveEvent[]} events */
    const choose = (events) => {
      const chosen = events.filter(({ type }) => type === "Gap" || types.includes(type));
      if (chosen.length > 0) latest.current(chosen);
    };
    listeners.add(choose);
    return () => void listeners.delete(choose);
  }, [types.join()]);
}
