// A value that components follow.
import { useEffect, useState } from "./vendor/preact.js";

/**
 * @template T
 * @typedef {object} Store
 * @property {() => T} get
 * @property {(value: T) => void} set
 * @property {(heard: (value: T) => void) => () => void} follow  Gives what ends it.
 */

/**
 * @template T
 * @param {T} value
 * @returns {Store<T>}
 */
export function storeOf(value) {
  /** @type {Set<(value: T) => void>} */
  const followers = new Set();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const heard of [...followers]) heard(value);
    },
    follow(heard) {
      followers.add(heard);
      return () => followers.delete(heard);
    },
  };
}

/**
 * What a store holds; the component is drawn again when that changes.
 * @template T
 * @param {Store<T>} store
 * @returns {T}
 */
export function useStore(store) {
  const [value, setValue] = useState(store.get());
  useEffect(() => {
    setValue(() => store.get());
    return store.follow((next) => setValue(() => next));
  }, [store]);
  return value;
}
