// Whether the server answers. Who is cut off asks again, a little less often each time.
import { storeOf } from "./store.js";

/** @type {import("./store.js").Store<"reached" | "unreachable">} */
export const connection = storeOf(/** @type {"reached" | "unreachable"} */ ("reached"));

/** Grows each time the server is reached again: what was loaded before may be old. */
export const revived = storeOf(0);

/** What a proxy answers for a server that is away. */
const OF_PROXIES = [502, 503, 504];

/** Whether the server itself answers: it tells its refusals in JSON, also those that a proxy might answer. @param {Response} response */
export const isOfServer = ({ status, headers }) => !OF_PROXIES.includes(status) || (headers.get("Content-Type") ?? "").includes("json");

const FIRST_S = 0.5;
const LONGEST_S = 10;

/** @type {ReturnType<typeof setTimeout> | undefined} */
let asking;
let waitS = FIRST_S;

export function unreachable() {
  connection.set("unreachable");
  if (asking === undefined) askLater();
}

/** Something broke off: find out whether the server is away, or only did not want that. */
export async function doubt() {
  if (connection.get() === "reached" && !(await answers())) unreachable();
}

export function reached() {
  if (connection.get() === "reached") return;
  clearTimeout(asking);
  asking = undefined;
  waitS = FIRST_S;
  connection.set("reached");
  revived.set(revived.get() + 1);
}

function askLater() {
  asking = setTimeout(ask, waitS * 1000);
  waitS = Math.min(waitS * 1.5, LONGEST_S);
}

async function ask() {
  if (await answers()) reached();
  else askLater();
}

async function answers() {
  try {
    return isOfServer(await fetch("/health", { credentials: "omit", cache: "no-store" }));
  } catch {
    return false;
  }
}

addEventListener("offline", unreachable);
addEventListener("online", () => {
  if (connection.get() === "reached") return;
  clearTimeout(asking);
  waitS = FIRST_S;
  ask();
});
