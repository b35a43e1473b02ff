// A terminal: the library is loaded with it, and the shell outlives a connection that breaks off.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { ApiError, get } from "../../api.js";
import { connection, doubt, revived } from "../../connection.js";
import { socketUrl } from "../../socket.js";
import { accessToken } from "../../session.js";

/** @type {Promise<typeof import("../../vendor/xterm.js")> | null} */
let library = null;

function loaded() {
  if (!library) {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = "/dashboard/vendor/xterm.css";
    document.head.append(style);
    library = import("../../vendor/xterm.js");
    library.catch(() => {
      library = null; // the server is away; it is loaded once it is back
      style.remove();
      doubt();
    });
  }
  return library;
}

const LONGEST_WAIT_MS = 5000;
const WORDS = { opening: "Opening…", open: "Connected.", cut: "Cut off; the shell waits, connecting again…", over: "The shell has ended.", refused: "No shell could be opened." };
/** Refused so often in a row, it is no matter of the moment. */
const MOST_REFUSALS = 3;

/**
 * A handshake that was refused does not say why: another call meets what may pass, such as too many calls.
 * @param {string} id
 * @returns {Promise<number | null>} how long to wait, in ms; null if that call is answered.
 */
async function passingMs(id) {
  try {
    await get("/api/v1/environments/{environment_id}", { path: { environment_id: id } });
  } catch (failed) {
    if (!(failed instanceof ApiError)) throw failed;
    if (failed.status === 0 || failed.status === 429 || failed.status >= 500) return failed.retryAfterS * 1000;
  }
  return null;
}

/** @param {{id: string}} given */
export function Shell({ id }) {
  const holder = useRef(/** @type {HTMLDivElement | null} */ (null));
  const button = useRef(/** @type {HTMLButtonElement | null} */ (null));
  const [state, setState] = useState(/** @type {keyof typeof WORDS} */ ("opening"));
  const [shells, setShells] = useState(1);

  useEffect(() => {
    let isLeft = false;
    let wasOpen = false;
    let attempts = 0;
    let refusals = 0;
    let isBegun = false;
    /** @type {WebSocket | null} */
    let socket = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let waiting;
    /** @type {() => void} */
    let dispose = () => {};
    // randomUUID is there on https and localhost only.
    const session = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    setState("opening");

    const begin = async () => {
      const found = await loaded().catch(() => null);
      if (isLeft || isBegun || !found || !holder.current) return;
      isBegun = true;
      const { Terminal, FitAddon } = found;
      const terminal = new Terminal({ scrollback: 5000, cursorBlink: false, screenReaderMode: true });
      const fit = new FitAddon();
      terminal.loadAddon(fit);
      terminal.open(holder.current);
      fit.fit();
      /** @param {object} frame */
      const send = (frame) => socket?.readyState === WebSocket.OPEN && socket.send(JSON.stringify(frame));
      terminal.onData((data) => send({ type: "stdin", data }));
      terminal.onResize(({ cols, rows }) => send({ type: "resize", cols, rows }));
      terminal.attachCustomKeyEventHandler((event) => {
        if (event.getModifierState("AltGraph")) return true; // on Windows it is Ctrl+Alt, and types a character
        if (!(event.ctrlKey && event.altKey && event.code === "KeyX")) return true;
        if (event.type === "keydown") button.current?.focus();
        return false;
      });
      const sizes = new ResizeObserver(() => fit.fit());
      sizes.observe(holder.current);

      const open = async () => {
        const token = await accessToken();
        if (isLeft) return;
        if (!token) return openLater();
        // Once there was a shell it is that one or none: never another that looks like it.
        const query = { cols: terminal.cols, rows: terminal.rows, session, ...(wasOpen ? { existing: "true" } : {}) };
        const opened = new WebSocket(socketUrl(`/api/v1/environments/${encodeURIComponent(id)}/attach`, query), ["Authorization", token]);
        socket = opened;
        let isOpen = false;
        let isOver = false;
        opened.onopen = () => {
          isOpen = true;
          attempts = refusals = 0;
          if (wasOpen) terminal.reset(); // what was written last is shown again
          wasOpen = true;
          setState("open");
          send({ type: "resize", cols: terminal.cols, rows: terminal.rows });
        };
        opened.onmessage = ({ data }) => {
          const frame = JSON.parse(data);
          if (frame.type === "stdout" || frame.type === "stderr") terminal.write(frame.data);
          else if (frame.type === "error") terminal.write(`\r\n${frame.message}\r\n`);
          else if (frame.type === "exit") isOver = true;
        };
        opened.onclose = async () => {
          if (isLeft) return;
          if (isOver) return setState("over");
          setState(wasOpen ? "cut" : "opening");
          await doubt();
          if (isLeft) return;
          let waitMs = 0;
          if (!isOpen && connection.get() === "reached") {
            const passing = await passingMs(id);
            if (isLeft) return;
            if (passing === null && ++refusals === MOST_REFUSALS) return setState(wasOpen ? "over" : "refused");
            waitMs = passing ?? 0;
          }
          openLater(waitMs);
        };
      };
      const openLater = (leastMs = 0) => {
        waiting = setTimeout(open, Math.max(leastMs, Math.min(300 * 2 ** attempts++, LONGEST_WAIT_MS)));
      };
      const unfollow = connection.follow((now) => now === "unreachable" && socket?.close());
      dispose = () => {
        unfollow();
        sizes.disconnect();
        terminal.dispose();
      };
      terminal.focus();
      await open();
    };
    begin();
    const unrevive = revived.follow(() => void (isBegun || begin()));
    return () => {
      isLeft = true;
      unrevive();
      clearTimeout(waiting);
      socket?.close();
      dispose();
    };
  }, [id, shells]);

  return html`
    <section class="card" aria-label="Terminal">
      <div class="head"><span role="status">${WORDS[state]}</span>
        <span class="quiet">Ctrl+Alt+X leaves the terminal.</span>
        <div class="tools"><button ref=${button} type="button" class="plain" onClick=${() => setShells(shells + 1)}>New shell</button></div></div>
      <div class="shell" ref=${holder}></div>
    </section>`;
}
