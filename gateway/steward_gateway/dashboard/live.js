// What happens, as it happens: one socket to /ws for the whole page, opened again where it broke off.
import { useEffect, useRef } from "./vendor/preact.js";
import { socketOf } from "./socket.js";
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

/** @type {Set<(events: LiveEvent[]) => void>} */
const listeners = new Set();
/** @type {LiveEvent[]} */
let batch = [];
/** @type {ReturnType<typeof setTimeout> | undefined} */
let telling;
let newest = -1;
let wasOpen = false;

/** @param {LiveEvent} event */
function hear(event) {
  const isHeard = event.sequence <= newest && event.type !== "Gap";
  if (typeof event.sequence === "number") newest = Math.max(newest, event.sequence);
  if (isHeard || event.type === "Heartbeat" || event.type === "Error") return;
  batch.push(event);
  telling ??= setTimeout(tell, BATCH_MS);
}

function tell() {
  telling = undefined;
  const events = batch;
  batch = [];
  for (const heard of [...listeners]) heard(events);
}

/** @param {"off" | "opening" | "open"} state */
function follow(state) {
  liveState.set(state);
  if (state !== "open") return;
  // Without a sequence to go on from, nobody can say what was missed.
  if (wasOpen && newest < 0) hear({ type: "Gap", sequence: newest, timestamp: "", agent_id: "", data: {} });
  wasOpen = true;
}

socketOf({
  path: "/ws",
  query: () => /** @type {Record<string, number>} */ (newest >= 0 ? { since: newest } : {}),
  hear,
  state: follow,
  forget: () => {
    newest = -1;
    wasOpen = false;
  },
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
