/** Steward over gRPC, for Node. Start reading at client.ts. */

export * from "../errors.js";
export { AgentStream, type AgentInit, type StepOptions, type Steps } from "./agents.js";
export { connect, Steward, type ClientOptions } from "./client.js";
export { errorOfCall, errorOfStatus } from "./refusals.js";
export { Session } from "./session.js";
