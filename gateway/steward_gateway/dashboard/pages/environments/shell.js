// A terminal: the library is loaded with it, and the shell outlives a connection that breaks off.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { connection, doubt } from "../../connection.js";
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
  }
  return library;
}

const LONGEST_WAIT_MS = 5000;
const WORDS = { opening: "Opening…", open: "Connected.", cut: "Cut off; the shell waits, connecting again…", over: "The shell has ended." };

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
      const { Terminal, FitAddon } = await loaded();
      if (isLeft || !holder.current) return;
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
        if (!(event.ctrlKey && event.altKey && event.code === "KeyX")) return true;
        if (event.type === "keydown") button.current?.focus();
        return false;
      });
      const sizes = new ResizeObserver(() => fit.fit());
      sizes.observe(holder.current);

      const open = async () => {
        const token = await accessToken();
        if (isLeft) return;
        // Once there was a shell it is that one or none: never another that looks like it.
        const query = { cols: terminal.cols, rows: terminal.rows, session, ...(wasOpen ? { existing: "true" } : {}) };
        const opened = new WebSocket(socketUrl(`/api/v1/environments/${encodeURIComponent(id)}/attach`, query), ["Authorization", token]);
        socket = opened;
        let isOpen = false;
        let isOver = false;
        opened.onopen = () => {
          isOpen = true;
          attempts = 0;
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
          setState("cut");
          await doubt();
          if (isLeft) return;
          if (!isOpen && connection.get() === "reached") return setState("over");
          waiting = setTimeout(open, Math.min(300 * 2 ** attempts++, LONGEST_WAIT_MS));
        };
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
    return () => {
      isLeft = true;
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
