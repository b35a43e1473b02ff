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
