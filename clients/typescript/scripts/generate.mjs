// Writes src/gen: messages and services from the protos, and the types of REST and of WebSockets
// from what the gateway says of itself. All of it follows from the same descriptors.

import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { load } from "js-yaml";
import openapiTS, { astToString } from "openapi-typescript";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const tools = join(root, ".venv", "bin");
const gen = join(root, "clients", "typescript", "src", "gen");

rmSync(gen, { recursive: true, force: true });
mkdirSync(gen, { recursive: true });
generateMessages();
generateRegistry();
await generateRest();

/** Runs our plugin of buf.gen.yaml alone: others need the tools of other languages. */
function generateMessages() {
  const template = load(readFileSync(join(root, "buf.gen.yaml"), "utf8"));
  const plugins = template.plugins.filter((plugin) => plugin.out.startsWith("clients/typescript/"));
  run("buf", "generate", "--template", JSON.stringify({ ...template, plugins }));
}

/** Gathers all files, for whoever looks types up by name, as the JSON of `google.protobuf.Any` does. */
function generateRegistry() {
  const files = readdirSync(gen, { recursive: true }).filter((path) => path.endsWith("_pb.ts"));
  const named = files.sort().map((path) => {
    const module = path.replaceAll("\\", "/").replace(/\.ts$/, "");
    return { name: `file_${module.replace(/_pb$/, "").replaceAll("/", "_")}`, module };
  });
  const imports = named.map(({ name, module }) => `import { ${name} } from "./${module}.js";`);
  const list = named.map(({ name }) => `  ${name},`);
  write(
    "registry.ts",
    `import { createRegistry } from "@bufbuild/protobuf";\n${imports.join("\n")}\n\n` +
      "/** Every message and service of the contracts, by name. */\n" +
      `export const registry = createRegistry(\n${list.join("\n")}\n);\n`,
  );
}

async function generateRest() {
  const openapi = described("openapi");
  Object.assign(openapi.components.schemas, socketSchemas(described("asyncapi")));
  for (const { operation } of operations(openapi)) tellFailuresOnce(operation);
  const types = astToString(await openapiTS(openapi, { alphabetize: false }));
  write("rest.ts", types);
  const having = (is) =>
    operations(openapi).filter(({ operation }) => (operation.parameters ?? []).some(is));
  const repeatable = having(isIdempotencyKey).map(({ verb, path }) => `${verb.toUpperCase()} ${path}`);
  const slashed = having(holdsSlashes).map(({ path }) => path);
  write(
    "facts.ts",
    "/** What takes an `Idempotency-Key`, and so is done once however often it is asked for. */\n" +
      constant("repeatable", repeatable) +
      "\n/** Paths whose last part may hold slashes, which stay as they are. */\n" +
      constant("slashed", slashed),
  );
}

function constant(name, texts) {
  const listed = JSON.stringify([...new Set(texts)], null, 2);
  return `export const ${name}: ReadonlySet<string> = new Set(${listed});\n`;
}

/** All failures of a path have one form, and our errors tell them apart: `default` stands for them. */
function tellFailuresOnce(operation) {
  const { responses } = operation;
  responses.default = responses["500"];
  for (const status of Object.keys(responses)) if (/^[345]/.test(status)) delete responses[status];
}

/** The frames of each socket as two unions among the schemas: "Event_Exchange.Sent" and "….Received". */
function socketSchemas(asyncapi) {
  const schemas = { ...asyncapi.components.schemas };
  for (const [name, channel] of Object.entries(asyncapi.channels)) {
    const operation = (action) => asyncapi.operations[`${name}_${action}`]?.messages ?? [];
    const union = (messages) => ({
      oneOf: messages.map(({ $ref }) => channel.messages[$ref.split("/").at(-1)].payload),
    });
    // The document is the server's: what it receives is sent by whoever reads these types.
    if (operation("receive").length) schemas[`${name}.Sent`] = union(operation("receive"));
    schemas[`${name}.Received`] = union(operation("send"));
  }
  return schemas;
}

function operations(openapi) {
  return Object.entries(openapi.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([verb, operation]) => ({ path, verb, operation })),
  );
}

function isIdempotencyKey(parameter) {
  return parameter.in === "header" && parameter.name === "Idempotency-Key";
}

function holdsSlashes(parameter) {
  return parameter["x-slashes"] === true;
}

function described(name) {
  return JSON.parse(run("python", "-m", "steward_gateway.describe", name));
}

function run(program, ...given) {
  const options = { cwd: root, encoding: "utf8", maxBuffer: 64 << 20 };
  return execFileSync(join(tools, program), given, {
    ...options,
    stdio: ["ignore", "pipe", "inherit"],
  });
}

function write(name, text) {
  writeFileSync(join(gen, name), `// Generated by scripts/generate.mjs.\n\n${text}`);
}
