// A pole that a policy balances: physics here, decisions over /stream, thirty a second.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { accessToken, mayAs } from "../../session.js";
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
const STEPS_A_SECOND = 30;
const FRAME_MS = 1000 / STEPS_A_SECOND;
/** What a push adds to the cart's speed, in m/s. */
const NUDGE = 0.6;

/** @typedef {[number, number, number, number]} Cart  Place, speed, angle, and how fast that changes. */

/** @param {Cart} cart @param {number} action @returns {Cart} */
function moved([x, v, angle, w], action) {
  const force = action === 1 ? FORCE_N : -FORCE_N;
  const mass = CART_KG + POLE_KG;
  const push = (force + POLE_KG * HALF_POLE_M * w * w * Math.sin(angle)) / mass;
  const turn = (GRAVITY * Math.sin(angle) - Math.cos(angle) * push) / (HALF_POLE_M * (4 / 3 - (POLE_KG * Math.cos(angle) ** 2) / mass));
  const gain = push - (POLE_KG * HALF_POLE_M * turn * Math.cos(angle)) / mass;
  return [x + TURN_S * v, v + TURN_S * gain, angle + TURN_S * w, w + TURN_S * turn];
}

/** @returns {Cart} */
const fresh = () => /** @type {Cart} */ (Array.from({ length: 4 }, () => (Math.random() - 0.5) / 10));

/** What each policy sees of it, by name. @type {Record<string, (cart: Cart) => number[]>} */
const SEEN = {
  cartpole: (cart) => cart,
  "cartpole-memory": ([x, , angle]) => [x, angle], // how fast they change it has to remember
};

/** @typedef {{steps: number, best: number, falls: number, pressure: number}} Score */

/** @type {Score} */
const NONE = { steps: 0, best: 0, falls: 0, pressure: 0 };

/** @param {{policies: import("../../api.js").Schemas["inference.v1.Policy"][]}} given  One of them balances it. */
export function CartPole({ policies }) {
  const names = policies.filter(({ name, latest }) => name in SEEN && latest > 0).map(({ name }) => name);
  const [chosen, setChosen] = useState("");
  const policy = names.includes(chosen) ? chosen : (names[0] ?? "");
  const [isOn, setOn] = useState(false);
  const [cart, setCart] = useState(/** @type {Cart} */ ([0, 0, 0, 0]));
  const [score, setScore] = useState(NONE);
  const [said, setSaid] = useState("It stands still.");
  const nudge = useRef(0);

  useEffect(() => {
    const seen = SEEN[policy];
    if (!isOn || !seen) return undefined;
    /** @type {WebSocket | null} */
    let socket = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    let isOver = false;
    let state = fresh();
    let now = NONE;
    /** @param {string} why */
    const end = (why) => {
      if (isOver) return;
      setSaid(why);
      setOn(false);
    };
    const ask = async () => {
      const token = await accessToken(); // another, where the last one is about to end
      if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ observation: seen(state), token, policy, deterministic: true }));
    };
    /** @param {{data: string}} message */
    const act = ({ data }) => {
      const { action, pressure, error } = JSON.parse(data);
      if (isOver) return;
      if (error) return end(`It was refused: ${typeof error === "string" ? error : error.message}`);
      state = moved(state, action);
      state[1] += nudge.current;
      nudge.current = 0;
      const isDown = Math.abs(state[0]) > EDGE_M || Math.abs(state[2]) > FALLEN_RAD;
      if (isDown) state = fresh();
      const steps = isDown ? 0 : now.steps + 1;
      now = { steps, best: Math.max(now.best, steps), falls: now.falls + Number(isDown), pressure: pressure ?? 0 };
      setCart(state);
      setScore(now);
      timer = setTimeout(ask, FRAME_MS);
    };
    setSaid("It is balanced.");
    socket = new WebSocket(socketUrl("/stream"));
    socket.onopen = ask;
    socket.onmessage = act;
    socket.onclose = () => end("The stream was cut. Let it run again when the server is back.");
    return () => {
      isOver = true;
      clearTimeout(timer);
      socket?.close();
    };
  }, [isOn, policy]);

  if (!mayAs("admin", "user") || names.length === 0) return null;
  const toggle = () => {
    if (isOn) setSaid("It stands still.");
    setOn(!isOn);
  };
  /** @param {number} by  m/s. */
  const push = (by) => () => {
    nudge.current += by;
  };
  const tools = html`
    ${names.length > 1 ? html`<select aria-label="Policy that balances it" value=${policy} onChange=${(/** @type {Event} */ { currentTarget }) => setChosen(/** @type {HTMLSelectElement} */ (currentTarget).value)}>${names.map((each) => html`<option value=${each}>${each}</option>`)}</select>` : null}
    <button type="button" onClick=${toggle}>${isOn ? "Stop it" : "Let it run"}</button>`;
  const [x, , angle] = cart;
  const at = 100 + (x / EDGE_M) * 90;
  return html`
    <${Card} title="CartPole, live" tools=${tools}>
      <svg class="cartpole" viewBox="0 0 200 84" role="img" aria-label="A cart that balances a pole">
        <line class="rail" x1="10" x2="190" y1="73" y2="73" />
        <rect class="cart" x=${at - 14} y="66" width="28" height="14" rx="3" />
        <line class="pole" x1=${at} y1="68" x2=${at + 55 * Math.sin(angle)} y2=${68 - 55 * Math.cos(angle)} />
      </svg>
      <p><span role="status">${said}</span> <span class="quiet score">${score.steps > 0 || isOn ? `${score.steps} steps, at best ${score.best}; fallen ${score.falls} times${score.pressure > 0 ? `; pressure ${score.pressure.toFixed(3)}` : ""}` : ""}</span></p>
      <p class="quiet">Each step is asked of the policy over the WebSocket <code>/stream</code>, ${STEPS_A_SECOND} a second.</p>
      <div class="actions">
        <button type="button" class="plain" disabled=${!isOn} onClick=${push(-NUDGE)}>Push it left</button>
        <button type="button" class="plain" disabled=${!isOn} onClick=${push(NUDGE)}>Push it right</button>
      </div>
    <//>`;
}
