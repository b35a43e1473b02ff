// What happens to runs of playbooks, as it happens: one socket to /ws/executions, open while somebody follows.
import { useEffect, useRef } from "./vendor/preact.js";
import { socketOf } from "./socket.js";

/** @typedef {import("./api.js").Schemas["executions.v1.Execution"]} Execution */
/**
 * @typedef {object} RunUpdate
 * @property {string} execution_id
 * @property {number} sequence
 * @property {string} event
 * @property {string} timestamp
 * @property {string} [message]
 * @property {string} [level]
 * @property {string} [by]
 * @property {{step_id: string, step_name: string}} [step_result]
 */
/** @typedef {{execution_id?: string[], frames: boolean, logs: boolean}} Interest */
/** @typedef {{updates: (updates: RunUpdate[]) => void, frame: (frame: string) => void, lost: () => void}} Heard */

/** Listeners hear of updates in batches. */
const BATCH_MS = 100;

/** @type {{interest: Interest, heard: Heard, newest: number | undefined, wasOpen: boolean} | null} */
let follower = null;
/** @type {RunUpdate[]} */
let batch = [];
/** @type {ReturnType<typeof setTimeout> | undefined} */
let telling;

const socket = socketOf({
  path: "/ws/executions",
  hear,
  state: (state) => state === "open" && opened(),
  wanted: () => follower !== null,
});

function opened() {
  if (!follower) return;
  // Without a sequence to go on from, nobody can say what was missed.
  if (follower.wasOpen && follower.newest === undefined) follower.heard.lost();
  follower.wasOpen = true;
  subscribe();
}

function subscribe() {
  if (!follower) return;
  const { interest, newest } = follower;
  socket.send({ type: "subscribe", data: newest === undefined ? interest : { ...interest, since: newest } });
}

/** @param {{type: string, data?: any}} message */
function hear({ type, data }) {
  if (!follower) return;
  if (type === "screenshot_frame") {
    // One that was under way when the subscription changed is of another run.
    if (follower.interest.execution_id?.includes(data.execution_id)) follower.heard.frame(data.frame);
  } else if (type === "execution_update") {
    if (data.sequence <= (follower.newest ?? 0)) return; // subscribed anew, it may be sent twice
    follower.newest = data.sequence;
    batch.push(data);
    telling ??= setTimeout(tell, BATCH_MS);
  } else if (type === "Error" && follower.newest !== undefined) {
    // What came after that sequence is not kept any more: go on from now, and load the rest.
    follower.newest = undefined;
    follower.heard.lost();
    subscribe();
  }
}

function tell() {
  telling = undefined;
  const updates = batch;
  batch = [];
  if (updates.length > 0) follower?.heard.updates(updates);
}

/**
 * Follow all runs, or one: its history comes first, and the frames of its browser while `frames`.
 * One component of a page does so at a time; the last that began is heard.
 * @param {{executionId?: string, frames?: boolean}} wish
 * @param {Heard} heard
 */
export function useRuns({ executionId, frames = false }, heard) {
  const latest = useRef(heard);
  latest.current = heard;
  useEffect(() => {
    const own = {
      interest: executionId ? { execution_id: [executionId], frames: false, logs: true } : { frames: false, logs: false },
      heard: {
        updates: (/** @type {RunUpdate[]} */ updates) => latest.current.updates(updates),
        frame: (/** @type {string} */ frame) => latest.current.frame(frame),
        lost: () => latest.current.lost(),
      },
      newest: executionId ? 0 : undefined,
      wasOpen: false,
    };
    follower = own;
    batch = [];
    socket.open();
    subscribe();
    return () => {
      if (follower !== own) return;
      follower = null;
      batch = [];
      socket.close();
    };
  }, [executionId]);
  useEffect(() => {
    if (!follower || !executionId || follower.interest.frames === frames) return;
    follower.interest = { ...follower.interest, frames };
    subscribe();
  }, [executionId, frames]);
}

/**
 * Do it once things have calmed down: at once the first time, then no more often than this, and only while somebody looks.
 * @param {() => unknown} act
 * @param {number} calmMs
 */
export function useCalmly(act, calmMs) {
  const planned = useRef(/** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined));
  const doneAtMs = useRef(0);
  const latest = useRef(act);
  latest.current = act;
  const isHeldBack = useRef(false);
  const run = () => {
    planned.current = undefined;
    isHeldBack.current = document.hidden;
    if (document.hidden) return;
    doneAtMs.current = Date.now();
    latest.current();
  };
  useEffect(() => {
    const look = () => document.hidden || !isHeldBack.current || run();
    document.addEventListener("visibilitychange", look);
    return () => {
      document.removeEventListener("visibilitychange", look);
      clearTimeout(planned.current);
    };
  }, []);
  return () => {
    if (!isHeldBack.current) planned.current ??= setTimeout(run, Math.max(0, doneAtMs.current + calmMs - Date.now()));
  };
}
