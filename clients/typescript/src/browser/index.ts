/** Steward over REST and WebSockets, for browsers. Start reading at client.ts. */

export * from "../errors.js";
export {
  connect,
  Steward,
  type ClientOptions,
  type Event,
  type EventOptions,
  type ExecutionFrame,
  type ExecutionOptions,
} from "./client.js";
export type { FollowOptions } from "./following.js";
export { PolicyStream, type PolicyOptions, type Step } from "./policy.js";
export type { components, operations, paths } from "../gen/rest.js";
