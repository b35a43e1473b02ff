/** When a refused call is made again. */

import type { StewardError } from "./errors.js";

export const FIRST_DELAY_S = 0.1;
export const LONGEST_DELAY_S = 5;

export interface Refused {
  error: StewardError;
  /** How many attempts were made, this one included. */
  attempt: number;
  /** How many may be made in all. */
  attempts: number;
  /** Whether making it twice does no more than making it once. */
  repeatable: boolean;
  /** Until the caller's deadline; Infinity without one. */
  leftS: number;
}

/** How long to wait before another attempt; undefined: there is to be none. */
export function delayS(refused: Refused, random: () => number = Math.random): number | undefined {
  const { error, attempt, attempts, repeatable, leftS } = refused;
  if (attempt >= attempts) return undefined;
  if (error.code !== "RESOURCE_EXHAUSTED" && error.code !== "UNAVAILABLE") return undefined;
  let waitS = error.retryAfterS;
  if (waitS === undefined) {
    // Nothing says that it was not done: a quota does not change by waiting, and what is away may
    // have been reached.
    if (error.code !== "UNAVAILABLE" || !repeatable) return undefined;
    waitS = backoffS(attempt, random);
  }
  return waitS < leftS ? waitS : undefined;
}

/** Twice as long each time, drawn from 0 on so that many clients do not come back at once. */
export function backoffS(attempt: number, random: () => number = Math.random): number {
  return random() * Math.min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1));
}

/** Let time pass, or reject with the reason of the signal. */
export function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(done, seconds * 1000);
    signal?.addEventListener("abort", aborted, { once: true });
    function done() {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }
    function aborted() {
      clearTimeout(timer);
      reject(signal?.reason);
    }
  });
}
