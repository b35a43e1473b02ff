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
