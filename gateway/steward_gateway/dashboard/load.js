// Data of a page: loaded, loaded again when something happened and somebody looks, kept while the server is away.
import { useCallback, useEffect, useRef, useState } from "./vendor/preact.js";
import { ApiError } from "./api.js";
import { revived } from "./connection.js";
import { useEvents } from "./live.js";
import { useStore } from "./store.js";

/** However much happens, data are loaded again no more often than this; the API counts calls. */
const CALM_MS = 3000;

/**
 * @template T
 * @typedef {object} Loaded
 * @property {T | undefined} data  The last that was loaded, also while it is loaded again or that failed.
 * @property {ApiError | null} error
 * @property {boolean} loading
 * @property {() => Promise<void>} reload
 */

/**
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {unknown[]} [deps]  What it is loaded for: with another, it begins anew.
 * @param {{on?: string[], of?: string, everyS?: number}} [when]
 *   Types of events after which it is loaded again, of one agent or of all, and how often it is.
 * @returns {Loaded<T>}
 */
export function useLoad(load, deps = [], { on = [], of = "", everyS = 0 } = {}) {
  const [state, setState] = useState(/** @type {{data?: T, error: ApiError | null, loading: boolean}} */ ({ error: null, loading: true }));
  const latest = useRef(load);
  latest.current = load;
  const aborting = useRef(/** @type {AbortController | null} */ (null)); // of the one under way
  const running = useRef(Promise.resolve());
  const isWantedAgain = useRef(false);
  const isToWait = useRef(false); // the server said when to ask again
  const planned = useRef(/** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined));
  const loadedAtMs = useRef(0);
  const isStale = useRef(false);
  const back = useStore(revived);
  const backBefore = useRef(back);

  const unplan = () => {
    clearTimeout(planned.current);
    planned.current = undefined;
    isToWait.current = false;
  };

  /** @returns {Promise<void>} */
  const begin = async () => {
    unplan();
    aborting.current?.abort();
    const own = (aborting.current = new AbortController());
    loadedAtMs.current = Date.now();
    isStale.current = false;
    isWantedAgain.current = false;
    setState((before) => ({ ...before, loading: true }));
    try {
      const data = await latest.current(own.signal);
      if (!own.signal.aborted) setState({ data, error: null, loading: false });
    } catch (error) {
      if (own.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      setState((before) => ({ ...before, error, loading: false }));
      if (error.status === 429 || error.retryAfterS > 0) {
        unplan();
        plan(Math.max(error.retryAfterS * 1000, CALM_MS));
        isToWait.current = true;
      }
    } finally {
      if (!own.signal.aborted) aborting.current = null;
    }
    if (isWantedAgain.current && !own.signal.aborted && !isToWait.current) await begin();
  };

  /** Whatever is under way is of no use any more. */
  const loadAnew = () => (running.current = begin());

  /** What is under way may be older than what is asked for now, but it is let end: else a slow one never would. */
  const reload = useCallback(() => {
    if (!aborting.current) return loadAnew();
    isWantedAgain.current = true;
    return running.current;
  }, []);

  const reloadWhenSeen = () => {
    unplan();
    if (document.hidden) isStale.current = true;
    else reload();
  };

  /** @param {number} inMs */
  const plan = (inMs) => {
    planned.current ??= setTimeout(reloadWhenSeen, inMs);
  };

  useEffect(() => {
    setState({ error: null, loading: true });
    loadAnew();
    return () => {
      unplan();
      aborting.current?.abort();
    };
  }, deps);

  useEffect(() => {
    if (back === backBefore.current) return;
    backBefore.current = back;
    loadAnew();
  }, [back]);

  useEffect(() => {
    if (!everyS) return undefined;
    const timer = setInterval(() => isToWait.current || reloadWhenSeen(), everyS * 1000);
    return () => clearInterval(timer);
  }, [everyS, ...deps]);

  useEffect(() => {
    const look = () => document.hidden || !isStale.current || isToWait.current || reload();
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);

  useEvents(on, (events) => {
    if (!of || events.some(({ type, agent_id }) => type === "Gap" || agent_id === of)) plan(Math.max(0, loadedAtMs.current + CALM_MS - Date.now()));
  });
  return { ...state, data: state.data, reload };
}

/**
 * An action that a button starts: whether it is under way, and what the server said against it.
 * @template {unknown[]} Arguments
 * @param {(...given: Arguments) => Promise<unknown>} act
 */
export function useAction(act) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  /** @param {Arguments} given  @returns {Promise<boolean>} whether it was done. */
  const run = async (...given) => {
    setBusy(true);
    setError(null);
    try {
      await act(...given);
      return true;
    } catch (failed) {
      if (!(failed instanceof ApiError)) throw failed;
      setError(failed);
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { run, busy, error, clear: () => setError(null) };
}
