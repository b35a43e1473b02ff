// A pole that a policy balances: physics here, decisions over /stream, thirty a second.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { accessToken } from "../../session.js";
import { mayAs } from "../../session.js";
import { socketUrl } from "../../socket.js";
import { Card } from "../../parts/layout.js";

/** The constants of CartPole-v1, in SI units. */
const GRAVITY = 9.8;
const CART_KG = 1;
const POLE_KG = 0.1;
const HALF_POLE_M = 0.5;
const FORCE_N = 10;
const TURN_S = 0.02;
const FALLEN_RAD = (12 * Math.PI) / 180;
const EDGE_M = 2.4;
const FRAME_MS = 33;

/** @typedef {[number, number, number, number]} Cart  Place, speed, angle, and how fast that changes. */

/** @param {Cart} cart @param {number} action @returns {Cart} */
export function moved([x, v, angle, w], action) {
  const force = action === 1 ? FORCE_N : -FORCE_N;
  const mass = CART_KG + POLE_KG;
  const push = (force + POLE_KG * HALF_POLE_M * w * w * Math.sin(angle)) / mass;
  const turn = (GRAVITY * Math.sin(angle) - Math.cos(angle) * push) / (HALF_POLE_M * (4 / 3 - (POLE_KG * Math.cos(angle) ** 2) / mass));
  const gain = push - (POLE_KG * HALF_POLE_M * turn * Math.cos(angle)) / mass;
  return [x + TURN_S * v, v + TURN_S * gain, angle + TURN_S * w, w + TURN_S * turn];
}

/** @returns {Cart} */
const fresh = () => /** @type {Cart} */ (Array.from({ length: 4 }, () => (Math.random() - 0.5) / 10));

export function CartPole() {
  const [isOn, setOn] = useState(false);
  const [cart, setCart] = useState(/** @type {Cart} */ ([0, 0, 0, 0]));
  const [said, setSaid] = useState("It stands still. Each of its steps is asked of the policy over the WebSocket /stream.");
  const steps = useRef(0);
  useEffect(() => {
    if (!isOn) return undefined;
    /** @type {WebSocket | null} */
    let socket = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    let isOver = false;
    let state = fresh();
    steps.current = 0;
    const begin = async () => {
      const token = await accessToken();
      if (isOver) return;
      const opened = (socket = new WebSocket(socketUrl("/stream")));
      const ask = () => opened.readyState === WebSocket.OPEN && opened.send(JSON.stringify({ observation: state, token, policy: "cartpole", deterministic: true }));
      opened.onopen = ask;
      opened.onmessage = ({ data }) => {
        const { action, error } = JSON.parse(data);
        if (error) {
          setSaid(`It was refused: ${typeof error === "string" ? error : error.message}`);
          setOn(false);
          return;
        }
        state = moved(state, action);
        if (Math.abs(state[0]) > EDGE_M || Math.abs(state[2]) > FALLEN_RAD) state = fresh();
        steps.current += 1;
        setCart(state);
        setSaid(`${steps.current} steps`);
        timer = setTimeout(ask, FRAME_MS);
      };
      opened.onclose = () => isOver || (setSaid("The stream was cut. Let it run again when the server is back."), setOn(false));
    };
    begin();
    return () => {
      isOver = true;
      clearTimeout(timer);
      socket?.close();
    };
  }, [isOn]);
  if (!mayAs("admin", "user")) return null;
  const [x, , angle] = cart;
  const at = 100 + (x / EDGE_M) * 90;
  return html`
    <${Card} title="CartPole, live" tools=${html`<button type="button" onClick=${() => setOn(!isOn)}>${isOn ? "Stop it" : "Let it run"}</button>`}>
      <svg class="cartpole" viewBox="0 0 200 90" role="img" aria-label="A cart that balances a pole">
        <line class="rail" x1="10" x2="190" y1="75" y2="75" />
        <rect class="cart" x=${at - 14} y="66" width="28" height="14" rx="3" />
        <line class="pole" x1=${at} y1="68" x2=${at + 55 * Math.sin(angle)} y2=${68 - 55 * Math.cos(angle)} />
      </svg>
      <p class="quiet" role="status">${said}</p>
    <//>`;
}
