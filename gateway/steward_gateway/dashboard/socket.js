// A WebSocket that is opened again where it broke off.
import { connection, doubt, revived } from "./connection.js";
import { accessToken, person } from "./session.js";

const CREDENTIAL_ENDED = 4016;
const LONGEST_WAIT_MS = 10_000;

/** @param {string} path @param {Record<string, string | number>} query */
export function socketUrl(path, query = {}) {
  const url = new URL(path, location.origin);
  url.protocol = url.protocol.replace("http", "ws");
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, String(value));
  return url;
}

/**
 * @param {{
 *   path: string,
 *   query?: () => Record<string, string | number>,
 *   hear: (message: any) => void,
 *   state?: (state: "off" | "opening" | "open") => void,
 *   wanted?: () => boolean,
 *   forget?: () => void,
 * }} given  `query`: of the next opening; `wanted`: whether it is to be open at all; `forget`: whoever is next is somebody else.
 */
export function socketOf({ path, query = () => ({}), hear, state = () => {}, wanted = () => true, forget = () => {} }) {
  /** @type {WebSocket | null} */
  let socket = null;
  let attempts = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let waiting;

  async function open() {
    const mayOpen = () => !socket && waiting === undefined && wanted() && person.get() && !person.get()?.mustChangePassword;
    if (!mayOpen()) return;
    state("opening");
    const token = await accessToken();
    if (!mayOpen()) return;
    if (!token) return openLater();
    const opened = new WebSocket(socketUrl(path, query()), ["Authorization", token]);
    socket = opened;
    opened.onopen = () => {
      attempts = 0;
      state("open");
    };
    opened.onmessage = ({ data }) => socket === opened && hear(JSON.parse(data));
    opened.onclose = async ({ code }) => {
      if (socket !== opened) return;
      socket = null;
      state(person.get() ? "opening" : "off");
      if (code === CREDENTIAL_ENDED) await accessToken({ instead: token });
      else doubt();
      openLater();
    };
  }

  function openLater() {
    const waitMs = Math.min(250 * 2 ** attempts++, LONGEST_WAIT_MS) * (0.5 + Math.random() / 2);
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      waiting = undefined;
      open();
    }, waitMs);
  }

  function close() {
    clearTimeout(waiting);
    waiting = undefined;
    attempts = 0;
    const closing = socket;
    socket = null;
    closing?.close();
    state("off");
  }

  person.follow((who) => {
    if (who) return void open();
    forget();
    close();
  });
  revived.follow(() => {
    clearTimeout(waiting);
    waiting = undefined;
    attempts = 0;
    open();
  });
  connection.follow((now) => {
    if (now !== "unreachable" || !socket) return;
    const closing = socket; // it may take minutes to notice that the network went away
    socket = null;
    closing.close();
    state("opening");
  });

  return {
    open,
    close,
    /** @param {object} message */
    send: (message) => {
      if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    },
  };
}
