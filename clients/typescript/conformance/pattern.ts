/** Whether JSON is as a pattern says. */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** Where and how a value differs; undefined if it matches. A member that is absent is undefined. */
export function difference(pattern: Json, value: Json | undefined, path = "$"): string | undefined {
  if (pattern === null) return value === undefined ? undefined : `${path} is there: ${shown(value)}`;
  if (typeof pattern === "object" && !Array.isArray(pattern)) {
    if ("$any" in pattern) return value === undefined ? `${path} is absent` : undefined;
    if ("$match" in pattern) {
      const isMatch = typeof value === "string" && new RegExp(`^(?:${String(pattern.$match)})$`, "s").test(value);
      return isMatch ? undefined : `${path} is ${shown(value)}, which /${String(pattern.$match)}/ does not match`;
    }
    if ("$has" in pattern) {
      if (!Array.isArray(value)) return `${path} is no list: ${shown(value)}`;
      const missing = (pattern.$has as Json[]).find((each) =>
        value.every((item) => difference(each, item) !== undefined),
      );
      return missing === undefined ? undefined : `${path} has nothing like ${shown(missing)}: ${shown(value)}`;
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return `${path} is no object: ${shown(value)}`;
    }
    return first(Object.entries(pattern), ([name, each]) => difference(each, value[name], `${path}.${name}`));
  }
  if (Array.isArray(pattern)) {
    if (!Array.isArray(value)) return `${path} is no list: ${shown(value)}`;
    if (value.length !== pattern.length) {
      return `${path} has ${value.length} items and not ${pattern.length}: ${shown(value)}`;
    }
    return first([...pattern.entries()], ([at, each]) => difference(each, value[at], `${path}.${at}`));
  }
  const isSame =
    typeof pattern === "number" && typeof value === "number"
      ? Math.abs(pattern - value) <= 1e-6 * Math.max(1, Math.abs(pattern), Math.abs(value))
      : pattern === value;
  return isSame ? undefined : `${path} is ${shown(value)} and not ${shown(pattern)}`;
}

/** The value at a path such as "leases.0.id". */
export function valueAt(value: Json | undefined, path: string): Json | undefined {
  for (const part of path.split(".")) {
    if (typeof value !== "object" || value === null) return undefined;
    value = Array.isArray(value) ? value[Number(part)] : value[part];
  }
  return value;
}

/** Put the values of variables into every text. */
export function substituted<T extends Json>(value: T, variables: ReadonlyMap<string, string>): T {
  const replaced = (text: string) =>
    text.replace(/\$\{(\w+)\}/g, (whole, name: string) => {
      const found = variables.get(name);
      if (found === undefined) throw new Error(`${whole} has no value`);
      return found;
    });
  const walk = (each: Json): Json => {
    if (typeof each === "string") return replaced(each);
    if (Array.isArray(each)) return each.map(walk);
    if (typeof each !== "object" || each === null) return each;
    return Object.fromEntries(Object.entries(each).map(([name, inner]) => [name, walk(inner)]));
  };
  return walk(value) as T;
}

function first<T>(items: T[], find: (item: T) => string | undefined): string | undefined {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}

function shown(value: Json | undefined): string {
  return value === undefined ? "absent" : JSON.stringify(value);
}
