/** Streams of the gateway that go on where they were cut. */

import { CODES, errorOf, Unavailable, type Code, type StewardError } from "../errors.js";
import { Queue } from "../queue.js";
import { backoffS, sleep } from "../retry.js";
import { errorOfBody } from "./refusals.js";

export interface FollowOptions {
  /** Begin after this sequence: 0 is with all there is; without it, with what comes. */
  since?: number;
  /** Ends it. */
  signal?: AbortSignal;
  /**
   * Told of each cut, and of the sequence it goes on from: undefined where nothing was seen yet, so
   * that what happens until the stream stands again is not told.
   */
  onCut?: (error: StewardError, since: number | undefined) => void;
}

/** One opened stream: messages until it is over. It ends with an error if it is cut. */
export type Opened<T> = (since: number | undefined, signal: AbortSignal) => AsyncIterable<T>;

/**
 * Messages of one stream after the other, each opened where the one before was cut.
 *
 * @throws {StewardError} it is refused, so that to open it again would not help.
 */
export async function* following<T>(
  open: Opened<T>,
  sequenceOf: (message: T) => number | undefined,
  { since, signal, onCut }: FollowOptions,
): AsyncGenerator<T, void> {
  const hangUp = new AbortController();
  const ends = signal ? AbortSignal.any([signal, hangUp.signal]) : hangUp.signal;
  try {
    for (let attempt = 1; !ends.aborted; attempt += 1) {
      try {
        for await (const message of open(since, ends)) {
          attempt = 0;
          since = sequenceOf(message) || since;
          yield message;
        }
        return;
      } catch (error) {
        if (ends.aborted) return;
        if (!(error instanceof Unavailable)) throw error;
        onCut?.(error, since);
      }
      await sleep(backoffS(Math.max(1, attempt)), ends).catch(() => undefined);
    }
  } finally {
    hangUp.abort();
  }
}

export interface SocketOptions {
  /** Sent when nothing was heard for a while, so that something is. */
  ping?: unknown;
  signal: AbortSignal;
}

/** After so long without a frame a socket is asked for one, and after twice as long given up. */
export const QUIET_MS = 40_000;

/** What a reader may be behind by; then the socket is closed, and opened again where it is. */
export const MOST_WAITING = 10_000;

/** The frames of a socket until it is over; it fails with what its close code stands for. */
export function framesOf<T>(socket: WebSocket, { ping, signal }: SocketOptions): Queue<T> {
  const frames = new Queue<T>();
  let heardAtMs = performance.now();
  const watch = setInterval(() => {
    const quietMs = performance.now() - heardAtMs;
    if (quietMs > 2 * QUIET_MS) end(cut("nothing is heard of the server"));
    else if (quietMs > QUIET_MS && ping) socket.send(JSON.stringify(ping));
  }, QUIET_MS / 4);
  const end = (error?: unknown) => {
    clearInterval(watch);
    signal.removeEventListener("abort", leave);
    frames.end(error);
    socket.close();
  };
  const leave = () => end();
  signal.addEventListener("abort", leave);
  if (signal.aborted) leave();
  socket.onmessage = ({ data }: MessageEvent<string>) => {
    heardAtMs = performance.now();
    const frame = JSON.parse(data) as { type?: string; error?: unknown };
    if (frame.type === "Error") return end(errorOfBody({ error: frame.error }));
    frames.push(frame as T);
    if (frames.size > MOST_WAITING) end(cut("the reader is too far behind"));
  };
  socket.onclose = (event) => end(errorOfClose(event));
  return frames;
}

/** What a close code stands for: 4000 and the number of gRPC's code, or that the line is cut. */
export function errorOfClose({ code, reason }: Pick<CloseEvent, "code" | "reason">): StewardError {
  const status: Code | undefined = code >= 4000 ? CODES[code - 4000] : undefined;
  const message = reason || "the socket was cut";
  if (status === undefined || status === "OK") return cut(message);
  return errorOf({ code: status, message, reason: /^[A-Z_]+$/.test(reason) ? reason : "" });
}

/** A stream that is over before its end, and may be opened again. */
export function cut(message: string, cause?: unknown): Unavailable {
  return new Unavailable({ code: "UNAVAILABLE", message, cause });
}
