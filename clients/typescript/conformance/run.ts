/** Makes the steps of clients/conformance/script.json through this client, and prints TAP. */

import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { fromJson, toJson, type DescMessage, type DescMethod, type Message, type MessageShape } from "@bufbuild/protobuf";
import { createClient, type CallOptions } from "@connectrpc/connect";
import { registry } from "../src/gen/registry.js";
import {
  ControlSchema,
  SessionRequestSchema,
  SessionResponseSchema,
} from "../src/gen/steward/budget/v1/budget_pb.js";
import {
  StreamRequestSchema,
  StreamResponseSchema,
} from "../src/gen/steward/inference/v1/inference_pb.js";
import { connect, StewardError, type AgentStream, type Session, type Steward } from "../src/node/index.js";
import { difference, substituted, valueAt, type Json } from "./pattern.js";

interface Refusal {
  kind?: string;
  code?: string;
  reason?: string;
  facts?: Record<string, string>;
  fields?: string[];
  errors?: Json[];
  retry_after?: boolean;
}

interface Call {
  as?: string;
  call: string;
  send?: Json;
}

interface Exchange {
  send?: Record<string, Json>;
  answer?: Json;
  refusal?: Refusal;
  push?: Json;
  meanwhile?: Call & { answer?: Json; keep?: Record<string, string> };
  together?: boolean;
  keep?: Record<string, string>;
}

interface Step extends Call {
  say: string;
  at?: "shaky";
  timeout_s?: number;
  answer?: Json;
  refusal?: Refusal;
  answers?: Json[];
  ends?: boolean;
  session?: Exchange[];
  stream?: Exchange[];
  at_least_s?: number;
  at_most_s?: number;
  keep?: Record<string, string>;
}

/** What came is not what was expected. */
class Differs extends Error {}

const PUSH_PATIENCE_MS = 5_000;

const variables = new Map<string, string>();
for (const [name, value] of Object.entries(process.env)) {
  if (name.startsWith("STEWARD_VAR_")) variables.set(name.slice("STEWARD_VAR_".length), value ?? "");
}

const addresses = { server: connect(needed("STEWARD_SERVER")), shaky: connect(needed("STEWARD_SHAKY")) };

const script = JSON.parse(readFileSync(needed("CONFORMANCE_SCRIPT"), "utf8")) as { steps: Step[] };
console.log(`1..${script.steps.length}`);
for (const [index, step] of script.steps.entries()) {
  try {
    await make(step);
    console.log(`ok ${index + 1} - ${step.say}`);
  } catch (error) {
    console.log(`not ok ${index + 1} - ${step.say}`);
    const told = error instanceof Differs ? error.message : String((error as Error).stack);
    for (const line of told.split("\n")) console.log(`# ${line}`);
    process.exitCode = 1;
    break;
  }
}
addresses.server.close();
addresses.shaky.close();

async function make(written: Step): Promise<void> {
  const beganMs = performance.now();
  if (written.session) await converseOverSession(written);
  else if (written.stream) await converseOverStream(written);
  else await makeCall(filled(written));
  const tookS = (performance.now() - beganMs) / 1000;
  if (tookS < (written.at_least_s ?? 0)) throw new Differs(`it took ${tookS} s only`);
  if (tookS > (written.at_most_s ?? Infinity)) throw new Differs(`it took ${tookS} s`);
}

async function makeCall(step: Step): Promise<void> {
  const method = methodOf(step.call);
  const options: CallOptions = step.timeout_s ? { timeoutMs: step.timeout_s * 1000 } : {};
  let last: Json | undefined;
  if (method.methodKind === "unary") {
    const call = () => unary(client(step), method, step.send ?? {}, options);
    if (step.refusal) await expectRefusal(step.refusal, call);
    else expect(step.answer ?? {}, (last = await call()));
  } else {
    const call = () => streamed(client(step), method, step, options);
    if (step.refusal) await expectRefusal(step.refusal, call);
    else last = await call();
  }
  keep(step.keep, last);
}

async function unary(
  steward: Steward,
  method: DescMethod,
  send: Json,
  options: CallOptions = {},
): Promise<Json> {
  const call = methodsOf(steward, method)[method.localName] as Unary;
  return jsonOf(method.output, await call(fromJson(method.input, send, { registry }), options));
}

/** The last of exactly the answers that are expected first. */
async function streamed(
  steward: Steward,
  method: DescMethod,
  step: Step,
  options: CallOptions,
): Promise<Json | undefined> {
  const call = methodsOf(steward, method)[method.localName] as Streaming;
  const request = fromJson(method.input, step.send ?? {}, { registry });
  const hangUp = new AbortController();
  const answers = call(request, { ...options, signal: hangUp.signal })[Symbol.asyncIterator]();
  try {
    let last: Json | undefined;
    for (const [at, pattern] of (step.answers ?? [{}]).entries()) {
      const { value, done } = await answers.next();
      if (done) throw new Differs(`the stream ended after ${at} answers`);
      last = jsonOf(method.output, value);
      expect(pattern, last);
    }
    if (step.ends && !(await answers.next()).done) throw new Differs("the stream went on");
    return last;
  } finally {
    hangUp.abort();
  }
}

async function converseOverSession(step: Step): Promise<void> {
  await using session = client(filled({ ...step, session: undefined })).session();
  await converse(step.session ?? [], (send) => askSession(session, send), async () => {
    const { value } = await withinPatience(session.pushes.next());
    return value && { control: jsonOf(ControlSchema, value) };
  });
}

async function askSession(session: Session, send: Json): Promise<Json> {
  const { message } = fromJson(SessionRequestSchema, send, { registry });
  if (!message.case) throw new Error(`${JSON.stringify(send)} is no message of a session`);
  const value = await session.ask(message.case, message.value);
  return memberOf(SessionResponseSchema, value);
}

async function converseOverStream(step: Step): Promise<void> {
  await using stream = client(filled({ ...step, stream: undefined })).agentStream();
  await converse(step.stream ?? [], (send) => askStream(stream, send), () => {
    throw new Error("a stream of steps pushes nothing");
  });
}

async function askStream(stream: AgentStream, send: Json): Promise<Json> {
  const { message } = fromJson(StreamRequestSchema, send, { registry });
  if (!message.case) throw new Error(`${JSON.stringify(send)} is no message of a stream`);
  const value = await stream.ask(message.case, message.value);
  return memberOf(StreamResponseSchema, value);
}

async function converse(
  exchanges: Exchange[],
  ask: (send: Json) => Promise<Json>,
  pushed: () => Promise<Json | undefined>,
): Promise<void> {
  const waiting: Promise<void>[] = [];
  for (const [at, written] of exchanges.entries()) {
    const { meanwhile } = written;
    if (meanwhile) {
      const call = filled(meanwhile);
      const answer = await unary(client(call), methodOf(call.call), call.send ?? {});
      expect(call.answer ?? {}, answer);
      keep(call.keep, answer);
    }
    const { send, refusal, answer, push, together } = filled({ ...written, meanwhile: undefined });
    if (send) {
      const asking = ask(send);
      const expecting = refusal
        ? expectRefusal(refusal, () => asking)
        : asking.then((came) => {
            expect(answer ?? {}, came);
            keep(written.keep, came);
          });
      waiting.push(expecting);
      if (!(together && exchanges[at + 1]?.together)) await Promise.all(waiting.splice(0));
    }
    if (push !== undefined) {
      const came = await pushed();
      expect(push, came);
      keep(written.keep, came);
    }
  }
}

function expect(pattern: Json, came: Json | undefined): void {
  const differs = difference(pattern, came);
  if (differs) {
    throw new Differs(`${differs}\nexpected ${JSON.stringify(pattern)}\ncame ${JSON.stringify(came)}`);
  }
}

async function expectRefusal(expected: Refusal, call: () => Promise<unknown>): Promise<void> {
  const error = await call().then(
    (answer) => {
      throw new Differs(`expected ${JSON.stringify(expected)}\ncame ${JSON.stringify(answer)}`);
    },
    (error: unknown) => error,
  );
  if (!(error instanceof StewardError)) throw error;
  const came = {
    kind: error.name,
    code: error.code,
    reason: error.reason,
    facts: { ...error.facts },
    fields: Object.keys(error.fields).sort(),
    errors: error.errors.map((each) => ({ ...each })),
    retry_after: error.retryAfterS !== undefined,
  };
  const { fields, ...rest } = expected;
  expect(rest as Json, came);
  if (fields && !isDeepStrictEqual([...fields].sort(), came.fields)) expect(fields.sort(), came.fields);
}

/** An answer under the name that it has in the response around it. */
function memberOf(response: DescMessage, answer: Message): Json {
  const field = response.fields.find((each) => each.message?.typeName === answer.$typeName);
  if (!field?.message) throw new Error(`${answer.$typeName} is no answer of ${response.name}`);
  return { [field.jsonName]: jsonOf(field.message, answer) };
}

function keep(paths: Record<string, string> | undefined, came: Json | undefined): void {
  for (const [name, path] of Object.entries(paths ?? {})) {
    const value = valueAt(came, path);
    if (value === undefined) throw new Differs(`${path} is not there\ncame ${JSON.stringify(came)}`);
    variables.set(name, typeof value === "string" ? value : JSON.stringify(value));
  }
}

function client({ as, at }: { as?: string; at?: "shaky" }): Steward {
  return addresses[at ?? "server"].as(as ?? "");
}

function methodOf(name: string): DescMethod {
  const [service = "", method] = name.split("/");
  const found = registry.getService(service)?.methods.find((each) => each.name === method);
  if (!found) throw new Error(`there is no method ${name}`);
  return found;
}

type Unary = (request: unknown, options: CallOptions) => Promise<MessageShape<DescMessage>>;
type Streaming = (request: unknown, options: CallOptions) => AsyncIterable<MessageShape<DescMessage>>;

function methodsOf(steward: Steward, method: DescMethod): Record<string, Unary | Streaming> {
  return createClient(method.parent, steward.transport) as unknown as Record<string, Unary | Streaming>;
}

function jsonOf<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): Json {
  return toJson(schema, message, { registry }) as Json;
}

/** With the values that variables have now. */
function filled<T extends object>(written: T): T {
  return substituted(written as unknown as Json, variables) as unknown as T;
}

async function withinPatience<T>(coming: Promise<T>): Promise<T> {
  const patience = AbortSignal.timeout(PUSH_PATIENCE_MS);
  return Promise.race([
    coming,
    new Promise<never>((_, reject) => {
      patience.addEventListener("abort", () => reject(new Differs("nothing was pushed")));
    }),
  ]);
}

function needed(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}
