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

socketOf({
  path: "/ws",
  query: () => /** @type {Record<string, number>} */ (newest >= 0 ? { since: newest } : {}),
  hear,
  state: liveState.set,
  forget: () => {
    newest = -1;
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
