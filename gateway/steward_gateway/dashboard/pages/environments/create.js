// A new environment, of an image or of what was kept of another.
import { html, useEffect, useRef } from "../../vendor/preact.js";
import { get, post } from "../../api.js";
import { useLoad } from "../../load.js";
import { Form } from "../../parts/forms.js";
import { Empty, Shown } from "../../parts/notes.js";
import { go } from "../../router.js";
import { pairsOf, portsOf, secondsOf, tellingFields } from "./shared.js";

/** @typedef {import("../../api.js").Schemas} Schemas */
/** @typedef {{images: [string, string][], classes: string[]}} Offered */

/** @param {Offered} offered @param {string} image */
const fieldsOf = ({ images, classes }, image) => [
  { name: "name", label: "Name", required: true, placeholder: "my-machine", hint: "Lower-case letters, digits and -." },
  { name: "image", label: "Image", type: "select", value: image, options: images },
  { name: "resources.cpu", label: "CPU", value: "500m", required: true, hint: "Cores, such as 2, or thousandths: 500m." },
  { name: "resources.memory", label: "Memory", value: "512Mi", required: true, hint: "Such as 512Mi or 2Gi." },
  { name: "resources.storage", label: "Disk", value: "1Gi", required: true, hint: "For all that is written." },
  { name: "isolation.runtime_class", label: "Isolation", type: "select", options: /** @type {[string, string][]} */ ([["", "as the host does it"], ...classes.map((each) => [each, each])]) },
  { name: "timeout", label: "Lives for", value: "1h", hint: "Such as 45m, 2h or 1d." },
  { name: "idle_timeout", label: "Ends when unused for", placeholder: "never", hint: "Empty: it is not ended for that." },
  { name: "command", label: "Command", type: "textarea", rows: 2, hint: "Run by sh; it ends with that. Empty: it lives until it is ended." },
  { name: "env", label: "Variables", type: "textarea", rows: 2, hint: "NAME=value, one a line." },
  { name: "labels", label: "Labels", type: "textarea", rows: 2, hint: "name=value, one a line." },
  { name: "isolation.network_policy.allowed_ingress_ports", label: "Open ports", placeholder: "8080", hint: "For links to what it serves." },
  { name: "internet", label: "May reach the internet", type: "checkbox" },
];

/** @param {{close: () => void, image?: string}} given  `image`: what is chosen already. */
export function Create({ close, image = "" }) {
  const offered = useLoad(async (signal) => {
    const [known, kept, health] = await Promise.all([
      get("/api/v1/images", { signal }),
      get("/api/v1/snapshots", { query: { limit: 1000 }, signal }),
      get("/api/v1/health", { signal }),
    ]);
    const images = /** @type {[string, string][]} */ ([
      ...known.images.map(({ name }) => [name, name]),
      ...kept.snapshots.map(({ image: of, name }) => [of, `snapshot ${name}`]),
    ]);
    return { images, classes: health.environments?.runtime_classes ?? [] };
  });
  const form = useRef(/** @type {HTMLDivElement | null} */ (null));
  const isThere = offered.data !== undefined;
  useEffect(() => form.current?.querySelector("input")?.focus(), [isThere]);
  /** @param {Offered} known */
  const sending = (known) => async (/** @type {Record<string, string>} */ values) => {
    const names = fieldsOf(known, image).map(({ name }) => name);
    const given = {
      name: values["name"],
      image: values["image"],
      resources: { cpu: values["resources.cpu"], memory: values["resources.memory"], storage: values["resources.storage"] },
      timeout: secondsOf(values["timeout"], "timeout"),
      idle_timeout: secondsOf(values["idle_timeout"], "idle_timeout"),
      command: values["command"] ? ["sh", "-c", values["command"]] : undefined,
      env: pairsOf(values["env"], "env"),
      labels: pairsOf(values["labels"], "labels"),
      isolation: {
        runtime_class: values["isolation.runtime_class"],
        network_policy: {
          allow_internet: values["internet"] === "true",
          allowed_ingress_ports: portsOf(values["isolation.network_policy.allowed_ingress_ports"]),
        },
      },
    };
    const made = await tellingFields(names, () => post("/api/v1/environments", { body: /** @type {any} */ (given) }));
    go(`/environments/${made.id}`);
  };
  return html`
    <${Shown} of=${offered}>${(/** @type {Offered} */ known) =>
      known.images.length === 0
        ? html`<${Empty} title="There is no image."><p>Import one with <code>steward image import</code>.</p><//>`
        : html`<div class="paired" ref=${form}><${Form} submit="Create" send=${sending(known)} cancel=${close} fields=${fieldsOf(known, image)} /></div>`}<//>`;
}
