// The URL says what is shown: /agents/agent_1 is an agent, /agents all of them.
import { storeOf, useStore } from "./store.js";

const place = storeOf(location.pathname + location.search);

/** @param {string} url @param {{replace?: boolean}} [options] */
export function go(url, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  place.set(location.pathname + location.search);
}

/** What is no UTF-8 stays as it is. @param {string} segment */
function decoded(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** @returns {{path: string, segments: string[], query: URLSearchParams}} */
export function usePlace() {
  useStore(place);
  const path = location.pathname.replace(/\/+$/, "") || "/";
  const segments = path.split("/").slice(1).map(decoded);
  return { path, segments, query: new URLSearchParams(location.search) };
}

/**
 * Change what stands behind the `?`, without a new entry in the browser's history.
 * @param {Record<string, string>} values  "" takes one away.
 */
export function setQuery(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  go(location.pathname + (text ? `?${text}` : ""), { replace: true });
}

/** Links to this page's own URLs change what is shown, and load nothing. */
export function followLinks() {
  addEventListener("popstate", () => place.set(location.pathname + location.search));
  addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = /** @type {Element} */ (event.target).closest?.("a[href^='/']");
    if (!(link instanceof HTMLAnchorElement) || link.target || link.hasAttribute("download") || link.dataset["outside"] !== undefined) return;
    event.preventDefault();
    if (link.pathname + link.search === location.pathname + location.search) return;
    go(link.pathname + link.search);
    scrollTo(0, 0);
    // Who reads the page by ear, or goes by keys, is where the new content begins.
    requestAnimationFrame(() => document.querySelector("main")?.focus({ preventScroll: true }));
  });
}
