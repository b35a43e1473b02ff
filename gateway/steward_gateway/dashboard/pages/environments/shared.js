// What the pages of environments share.
import { ApiError } from "../../api.js";

/** Types of events after which a list or an environment is loaded again. */
export const CHANGES = ["EnvironmentStarted", "EnvironmentStopped", "EnvironmentFailed", "EnvironmentExpired"];

/**
 * Lines `name=value` as an object.
 * @param {string | undefined} text
 * @param {string} field  Where it was typed.
 * @returns {Record<string, string>}
 */
export function pairsOf(text, field) {
  const lines = (text ?? "").split("\n").filter((line) => line.trim() !== "");
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf("=");
      if (at < 1) throw new ApiError(0, "", { fields: { [field]: `"${line}" is not name=value` } });
      return [line.slice(0, at).trim(), line.slice(at + 1)];
    }),
  );
}

/**
 * Do something; what is refused about a field is told of that field. This part of the API names fields in its words only.
 * @template T
 * @param {string[]} names
 * @param {() => Promise<T>} act
 * @returns {Promise<T>}
 */
export async function tellingFields(names, act) {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 400) throw error;
    const known = names.map((name) => name.replaceAll(".", "\\.")).join("|");
    const begins = [...error.message.matchAll(new RegExp(`(?:^invalid request: |; )(${known})(?:[.[][^:;]*)?: `, "g"))];
    if (begins[0]?.index !== 0) throw error; // something else is wrong too: all of it is shown
    const fields = begins.map((begin, i) => [begin[1], error.message.slice(begin.index + begin[0].length, begins[i + 1]?.index)]);
    throw new ApiError(error.status, error.message, { fields: Object.fromEntries(fields) });
  }
}

/** Labels as they are typed and asked for, in an order that stays. @param {Record<string, string>} labels */
export const wordsOf = (labels) => Object.entries(labels).map(([name, value]) => `${name}=${value}`).sort();

/** Parts of a text between commas or spaces. @param {string | undefined} text */
export const partsOf = (text) => (text ?? "").split(/[\s,]+/).filter(Boolean);

/** What is no number is left to the server to refuse. @param {string | undefined} text */
export const portsOf = (text) => partsOf(text).map((each) => (/^\d+$/.test(each) ? Number(each) : each));

const UNITS_S = { s: 1, m: 60, h: 3600, d: 86_400 };

/**
 * A time as it is typed, "90", "45m", "2h" or "1d", in seconds.
 * @param {string | undefined} text
 * @param {string} field  Where it was typed.
 */
export function secondsOf(text, field) {
  const trimmed = (text ?? "").trim();
  if (trimmed === "") return undefined;
  const found = /^(\d{1,9})\s*([smhd]?)$/i.exec(trimmed);
  if (!found) throw new ApiError(0, "", { fields: { [field]: `"${trimmed}" is no time; write it as 90, 45m, 2h or 1d` } });
  return Number(found[1]) * UNITS_S[/** @type {keyof typeof UNITS_S} */ (found[2]?.toLowerCase() || "s")];
}

/** Seconds in the largest unit that says them wholly. @param {number} seconds */
export function timeText(seconds) {
  const [unit, size] = /** @type {[string, number][]} */ (Object.entries(UNITS_S)).findLast(([, each]) => seconds % each === 0) ?? ["s", 1];
  return `${seconds / size}${unit}`;
}

/** A selector that asks for this too. @param {string} selector @param {string} wanted */
export function alsoWanting(selector, wanted) {
  const parts = requirementsOf(selector);
  return parts.includes(wanted) ? selector : [...parts, wanted].join(",");
}

/** What a selector asks for, one by one; a comma between brackets parts nothing. @param {string} selector */
export const requirementsOf = (selector) => selector.split(/,(?![^(]*\))/).map((each) => each.trim()).filter(Boolean);
