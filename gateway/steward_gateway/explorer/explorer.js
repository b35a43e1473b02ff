// Reads /openapi.json, shows it, and tries calls. Text from anywhere only ever becomes text nodes.

const byId = (id) => document.getElementById(id);
const METHODS = ["get", "post", "put", "patch", "delete"];

let api = null;
let operations = [];
let credential = null; // {header, value}: lives here and nowhere else
let underWay = null;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// The little of Markdown that comments use: paragraphs, lists, `code`.
function prose(text) {
  const block = make("div");
  for (const part of (text ?? "").split(/\n\n+/).filter(Boolean)) {
    if (part.startsWith("- ")) {
      const items = part.slice(2).split(/\n- /);
      block.append(make("ul", {}, ...items.map((item) => make("li", {}, ...inline(item)))));
    } else {
      block.append(make("p", {}, ...inline(part)));
    }
  }
  return block;
}

function inline(text) {
  const isCode = (index) => index % 2 === 1;
  return text.split("`").map((piece, i) => (isCode(i) ? make("code", {}, piece) : piece));
}

function resolve(node) {
  let found = node;
  while (found?.$ref) {
    found = found.$ref.slice(2).split("/").reduce((at, name) => at?.[name], api);
  }
  return found ?? {};
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const kinds = [schema.type ?? "any"].flat();
  if (schema.items) return `list of ${typeOf(schema.items)}`;
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return `map of ${typeOf(schema.additionalProperties)}`;
  }
  return kinds.join(" or ") + (schema.format ? ` (${schema.format})` : "");
}

function limitsOf(schema) {
  const { minLength, maxLength, minimum, maximum, exclusiveMinimum, maxItems } = schema;
  const said = { minLength, maxLength, minimum, maximum, exclusiveMinimum, maxItems };
  const known = Object.entries(said).filter(([, value]) => value !== undefined);
  const words = schema.enum ? [`one of ${schema.enum.map(String).join(", ")}`] : [];
  return [...known.map(([name, value]) => `${name} ${value}`), ...words].join("; ");
}

// What a schema holds inside, wherever it is wrapped.
function inner(schema) {
  if (schema.$ref) return resolve(schema);
  if (schema.anyOf) return inner(schema.anyOf.find((each) => each.$ref) ?? {});
  if (schema.contentSchema) return inner(schema.contentSchema);
  if (schema.items) return inner(schema.items);
  if (typeof schema.additionalProperties === "object") return inner(schema.additionalProperties);
  return schema;
}

function fields(schema) {
  const whole = inner(schema);
  const list = make("dl");
  for (const [name, field] of Object.entries(whole.properties ?? {})) {
    const limits = limitsOf(field);
    list.append(
      make("dt", {}, make("code", {}, name), " ", make("small", {}, typeOf(field))),
      make("dd", {}, prose(field.description), limits ? make("p", { class: "quiet" }, limits) : null),
    );
    if (inner(field).properties) list.append(make("dd", {}, lazily("Its fields", () => fields(field))));
  }
  return list;
}

// Filled when it is opened: schemas may hold themselves.
function lazily(title, fill, attributes = {}) {
  const details = make("details", attributes, make("summary", {}, title));
  let filled = false;
  const open = () => {
    if (details.open && !filled) {
      filled = true;
      details.append(fill());
    }
  };
  details.addEventListener("toggle", open);
  open();
  return details;
}

const pretty = (value) => JSON.stringify(value, null, 2);
const jsonOf = (holder) => holder?.content?.["application/json"];

function shownContent(content) {
  const [type, media] = Object.entries(content ?? {})[0] ?? [];
  if (!type) return make("p", { class: "quiet" }, "No body.");
  const types = Object.keys(content).join(", ");
  const block = make("div", {}, make("p", { class: "quiet" }, types));
  if (media.example !== undefined) block.append(make("pre", { tabindex: 0 }, pretty(media.example)));
  if (inner(media.schema ?? {}).properties) {
    block.append(lazily("Fields", () => fields(media.schema)));
  }
  return block;
}

function list(word) {
  const wanted = word.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const matching = operations.filter((each) => wanted.every((part) => each.words.includes(part)));
  byId("found").textContent = wanted.length ? `${matching.length} found` : "";
  const current = location.hash.slice(1);
  byId("list").replaceChildren(
    ...api.tags.flatMap(({ name }) => {
      const own = matching.filter((each) => each.tag === name);
      if (!own.length) return [];
      return [make("h2", {}, name), make("ul", {}, ...own.map((each) => make("li", {}, link(each, current))))];
    }),
  );
}

function link(operation, current) {
  return make(
    "a",
    {
      href: `#${operation.id}`,
      class: operation.deprecated ? "old" : null,
      "aria-current": operation.id === current ? "page" : null,
    },
    make("span", { class: `verb ${operation.verb}` }, operation.verb.toUpperCase()),
    make("span", {}, operation.path),
  );
}

function show(operation) {
  underWay?.abort();
  const { about } = operation;
  const told = about.description?.startsWith(about.summary) ? null : make("p", {}, about.summary);
  byId("operation").replaceChildren(
    make("h2", {}, make("span", { class: `verb ${operation.verb}` }, operation.verb.toUpperCase()), " ",
      make("code", {}, operation.path)),
    operation.deprecated ? make("p", { class: "quiet" }, `Another path of ${about["x-alias-of"]}.`) : "",
    told ?? "",
    prose(about.description),
    make("p", { class: "quiet" }, "Over gRPC, Connect and gRPC-Web: ", make("code", {}, about["x-rpc"])),
    make("h3", {}, "Try it"),
    trial(operation),
    make("h3", {}, "Request"),
    about.parameters ? parameters(about.parameters) : "",
    about.requestBody ? shownContent(about.requestBody.content) : make("p", { class: "quiet" }, "No body."),
    make("h3", {}, "Answers"),
    ...Object.entries(about.responses).map(([status, response]) => answer(status, resolve(response))),
  );
  document.title = `${operation.verb.toUpperCase()} ${operation.path} – Steward API`;
}

function parameters(all) {
  const list = make("dl");
  for (const each of all.map(resolve)) {
    const where = `${each.in}, ${typeOf(each.schema)}${each.required ? ", required" : ""}`;
    const limits = limitsOf(each.schema);
    list.append(
      make("dt", {}, make("code", {}, each.name), " ", make("small", {}, where)),
      make("dd", {}, prose(each.description), limits ? make("p", { class: "quiet" }, limits) : null),
    );
  }
  return list;
}

function answer(status, response) {
  const title = make("span", {}, make("b", { class: status < 400 ? "good" : "bad" }, status), " ", response.description);
  return lazily(title, () => shownContent(response.content), { open: status < 300 });
}

function trial(operation) {
  const { about } = operation;
  const inputs = (about.parameters ?? []).map(resolve).map((parameter) => ({
    parameter,
    input: make("input", {
      name: parameter.name,
      placeholder: parameter.example ?? "",
      required: parameter.required ?? false,
      autocomplete: "off",
    }),
  }));
  const media = jsonOf(about.requestBody);
  const body = media && make("textarea", { spellcheck: "false", "aria-label": "Body, JSON" });
  if (body) body.value = pretty(media.example ?? {});
  const send = make("button", {}, "Send");
  const stop = make("button", { type: "button", class: "plain", disabled: true, onclick: () => underWay?.abort() }, "Stop");
  const result = make("div", { role: "status" });
  return make(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        call(operation, inputs, body, { send, stop, result });
      },
    },
    ...inputs.map(({ parameter, input }) => make("label", {}, `${parameter.name} `, make("small", {}, parameter.in), input)),
    body ? make("label", {}, "Body", body) : "",
    make("p", {}, send, " ", stop),
    result,
  );
}

async function call(operation, inputs, body, { send, stop, result }) {
  const [url, headers] = requestOf(operation, inputs);
  if (body) headers["Content-Type"] = "application/json";
  if (credential) headers[credential.header] = credential.value;
  const aborting = (underWay = new AbortController());
  send.disabled = true;
  stop.disabled = false;
  const text = make("pre", { tabindex: 0 });
  const begun = performance.now();
  try {
    const response = await fetch(url, {
      method: operation.verb.toUpperCase(),
      headers,
      body: body?.value,
      signal: aborting.signal,
      credentials: "omit",
      cache: "no-store",
    });
    const took = Math.round(performance.now() - begun);
    const kind = response.ok ? "good" : "bad";
    const shown = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    result.replaceChildren(
      make("p", {}, make("b", { class: kind }, `${response.status} ${response.statusText}`), ` in ${took} ms`),
      make("details", {}, make("summary", {}, "Headers"), make("pre", { tabindex: 0 }, shown)),
      text,
    );
    await read(response, text);
  } catch (error) {
    const said = aborting.signal.aborted ? "Stopped." : `No answer: ${error.message}`;
    if (!text.isConnected) result.replaceChildren();
    result.append(make("p", { class: aborting.signal.aborted ? "quiet" : "bad" }, said));
  } finally {
    send.disabled = false;
    stop.disabled = true;
  }
}

function requestOf(operation, inputs) {
  let { path } = operation;
  const query = new URLSearchParams();
  const headers = {};
  for (const { parameter, input } of inputs) {
    if (parameter.in === "path") {
      path = path.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    } else if (input.value && parameter.in === "header") {
      headers[parameter.name] = input.value;
    } else if (input.value) {
      const values = parameter.schema.type === "array" ? input.value.split(",") : [input.value];
      values.forEach((value) => query.append(parameter.name, value.trim()));
    }
  }
  const url = new URL(path.slice(1), document.baseURI);
  url.search = query;
  return [url, headers];
}

// A stream is shown as it comes; JSON that is whole is set in lines.
async function read(response, element) {
  const type = response.headers.get("Content-Type") ?? "";
  if (type.startsWith("application/json")) {
    const text = await response.text();
    try {
      element.textContent = pretty(JSON.parse(text));
    } catch {
      element.textContent = text;
    }
    return;
  }
  const decoder = new TextDecoder();
  for (const reader = response.body?.getReader(); reader; ) {
    const { done, value } = await reader.read();
    if (done) break;
    element.append(decoder.decode(value, { stream: true }));
    element.scrollTop = element.scrollHeight;
  }
}

// Whatever takes a password and gives an access token signs people in.
function signInOperation() {
  return operations.find(({ about, deprecated }) => {
    const asked = inner(jsonOf(about.requestBody)?.schema ?? {}).properties ?? {};
    const given = inner(jsonOf(resolve(about.responses["200"]))?.schema ?? {}).properties ?? {};
    return !deprecated && asked.password && given.access_token;
  });
}

function use(found, who) {
  credential = found;
  byId("who").textContent = who;
  byId("account").open = false;
}

async function signIn(event) {
  event.preventDefault();
  const { target } = event;
  const { path, verb } = signInOperation();
  const said = byId("sign-in-said");
  try {
    const response = await fetch(new URL(path.slice(1), document.baseURI), {
      method: verb.toUpperCase(),
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(Object.fromEntries(new FormData(target))),
      credentials: "omit",
    });
    const answer = await response.json();
    said.textContent = response.ok ? "" : (answer.error?.message ?? `It was refused: ${response.status}`);
    if (!response.ok) return;
    use({ header: "Authorization", value: `Bearer ${answer.access_token}` }, `Signed in as ${target.username.value}`);
  } catch (error) {
    said.textContent = `No answer: ${error.message}`;
  } finally {
    target.password.value = "";
  }
}

function useKey(event) {
  event.preventDefault();
  const { scheme, value } = event.target;
  const { type, name } = api.components.securitySchemes[scheme.value];
  const isBearer = type === "http";
  use({ header: isBearer ? "Authorization" : name, value: isBearer ? `Bearer ${value.value}` : value.value }, `With ${scheme.value}`);
  value.value = "";
}

function choose() {
  const operation = operations.find(({ id }) => id === location.hash.slice(1));
  if (operation) {
    show(operation);
    byId("operation").focus();
    scrollTo(0, 0);
  } else {
    const about = make("p", {}, "The description itself: ", make("a", { href: "openapi.json" }, "openapi.json"), ", ", make("a", { href: "asyncapi.json" }, "asyncapi.json"), ".");
    byId("operation").replaceChildren(make("h2", {}, api.info.title), prose(api.info.description), about);
  }
  list(byId("search").value);
}

async function begin() {
  const response = await fetch(new URL("openapi.json", document.baseURI), { credentials: "omit" });
  api = await response.json();
  operations = Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((verb) => item[verb]).map((verb) => {
      const about = item[verb];
      const words = `${verb} ${path} ${about.operationId} ${about.description}`.toLowerCase();
      return { id: about.operationId, path, verb, about, words, tag: about.tags[0], deprecated: about.deprecated ?? false };
    }),
  );
  byId("version").textContent = api.info.version;
  const schemes = Object.entries(api.components.securitySchemes).filter(([, scheme]) => scheme.in !== "query");
  byId("use-key").elements.scheme.append(...schemes.map(([name]) => make("option", { value: name }, name)));
  byId("sign-in").hidden = !signInOperation();
  byId("sign-in").addEventListener("submit", signIn);
  byId("use-key").addEventListener("submit", useKey);
  byId("forget").addEventListener("click", () => use(null, "Sign in"));
  byId("search").addEventListener("input", (event) => list(event.target.value));
  addEventListener("hashchange", choose);
  choose();
}

begin().catch((error) => {
  byId("operation").replaceChildren(make("p", { class: "bad" }, `The description cannot be read: ${error.message}`));
});
