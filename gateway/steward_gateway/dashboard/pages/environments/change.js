// What of an environment can be changed: how long it lives, its labels, and whom it reaches.
import { html } from "../../vendor/preact.js";
import { get, patch } from "../../api.js";
import { useLoad } from "../../load.js";
import { DialogButton } from "../../parts/dialogs.js";
import { ActionButton, Form } from "../../parts/forms.js";
import { say } from "../../parts/notes.js";
import { pairsOf, partsOf, portsOf, secondsOf, tellingFields, timeText, wordsOf } from "./shared.js";

/** @typedef {import("../../api.js").Schemas["environments.v1.EnvironmentDetails"]} Details */
/** @typedef {{it: Details, changed: () => void}} Given */

const HOUR_S = 3600;

/** @param {string} id @param {object} body */
const change = (id, body) => patch("/api/v1/environments/{environment_id}", { path: { environment_id: id }, body: /** @type {any} */ (body) });

/** @param {Given} given */
export function Longer({ it, changed }) {
  const act = async () => {
    await change(it.id, { timeout: it.timeout + HOUR_S });
    say("It lives an hour longer.");
    changed();
  };
  return html`<${ActionButton} title="Let it live an hour longer" act=${act}>One hour more<//>`;
}

/** @param {Given} given */
export function Change({ it, changed }) {
  const fields = [
    { name: "timeout", label: "Lives for", required: true, value: timeText(it.timeout), hint: "From its creation. Such as 45m, 2h or 1d." },
    { name: "idle_timeout", label: "Ends when unused for", value: it.idle_timeout ? timeText(it.idle_timeout) : "", placeholder: "never", hint: "Empty: it is not ended for that." },
    { name: "labels", label: "Labels", type: "textarea", rows: 4, value: wordsOf(it.labels).join("\n"), hint: "name=value, one a line." },
  ];
  /** @param {Record<string, string>} values */
  const send = async (values) => {
    const labels = pairsOf(values["labels"], "labels");
    const timeout = secondsOf(values["timeout"], "timeout");
    const idleTimeout = secondsOf(values["idle_timeout"], "idle_timeout") ?? 0;
    const added = Object.fromEntries(Object.entries(labels).filter(([name, value]) => it.labels[name] !== value));
    const gone = Object.keys(it.labels).filter((name) => !(name in labels));
    const given = {
      ...(timeout === it.timeout ? {} : { timeout }),
      ...(idleTimeout === (it.idle_timeout ?? 0) ? {} : { idle_timeout: idleTimeout }),
      ...(Object.keys(added).length > 0 ? { labels: added } : {}),
      ...(gone.length > 0 ? { remove_labels: gone } : {}),
    };
    if (Object.keys(given).length > 0) await tellingFields(fields.map(({ name }) => name), () => change(it.id, given));
  };
  return html`
    <${DialogButton} label="Change" class="plain" title=${`Change ${it.name}`}>${(/** @type {() => void} */ close) => html`
      <${Form} submit="Save" send=${send} cancel=${close} fields=${fields} done=${() => {
        close();
        changed();
      }} />`}<//>`;
}

/** Only where the driver can. @param {Given} given */
export function ChangeNetwork({ it, changed }) {
  const health = useLoad((signal) => get("/api/v1/health", { signal }));
  if (!health.data?.environments?.features.includes("network_change")) return null;
  const network = it.isolation?.network_policy;
  const fields = [
    { name: "allow_internet", label: "May reach the internet", type: "checkbox", value: network?.allow_internet === true, hint: "Public addresses; private ones stay closed." },
    { name: "network.allowed_egress_cidrs", label: "Networks it may reach too", type: "textarea", rows: 2, value: network?.allowed_egress_cidrs.join("\n") ?? "", placeholder: "10.1.0.0/16", hint: "One a line." },
    { name: "network.allowed_ingress_ports", label: "Open ports", value: network?.allowed_ingress_ports.join(", ") ?? "", placeholder: "8080, 9000", hint: "For links to what it serves." },
  ];
  /** @param {Record<string, string>} values */
  const send = (values) =>
    tellingFields(fields.map(({ name }) => name), () =>
      change(it.id, {
        network: {
          allow_internet: values["allow_internet"] === "true",
          allowed_egress_cidrs: partsOf(values["network.allowed_egress_cidrs"]),
          allowed_ingress_ports: portsOf(values["network.allowed_ingress_ports"]),
          allow_cluster_internal: network?.allow_cluster_internal === true,
        },
      }),
    );
  return html`
    <${DialogButton} label="Network" class="plain" title=${`Change the network of ${it.name}`}>${(/** @type {() => void} */ close) => html`
      <p>What is closed is cut at once.</p>
      <${Form} submit="Save" send=${send} cancel=${close} fields=${fields} done=${() => {
        close();
        changed();
      }} />`}<//>`;
}
