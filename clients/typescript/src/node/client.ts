/** A connection to a Steward server over gRPC. */

import type { SecureContextOptions } from "node:tls";
import type { DescService } from "@bufbuild/protobuf";
import { createClient, type Client } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { Credentials, type Exchange } from "../credentials.js";
import { AuthService, type User } from "../gen/steward/auth/v1/auth_pb.js";
import { BudgetService } from "../gen/steward/budget/v1/budget_pb.js";
import { InferenceService } from "../gen/steward/inference/v1/inference_pb.js";
import { ActionType, PolicyService } from "../gen/steward/inference/v1/policies_pb.js";
import { AgentStream, type AgentInit } from "./agents.js";
import { Session } from "./session.js";
import { StewardTransport } from "./transport.js";

export interface ClientOptions {
  /** A person's access token, an API key or an agent's IC token; nothing for a sign-in to come. */
  credential?: string;
  /** Speak TLS; with `ca` for a certificate that the system does not know. */
  tls?: boolean | Pick<SecureContextOptions, "ca" | "cert" | "key">;
  /** How often a call is made at most. */
  attempts?: number;
  /** How long a call with one answer may take that says nothing of it, with all its attempts. */
  timeoutMs?: number;
}

/** Connect when the first call is made: `connect("127.0.0.1:50051", { credential })`. */
export function connect(address: string, options: ClientOptions = {}): Steward {
  const { tls = false } = options;
  const baseUrl = `${tls ? "https" : "http"}://${address}`;
  const secure = typeof tls === "object" ? tls : undefined;
  return new Steward(baseUrl, new Http2SessionManager(baseUrl, undefined, secure), options);
}

export class Steward implements Disposable {
  /** For `createClient` of Connect: `service` is that. */
  readonly transport: StewardTransport;
  readonly #baseUrl: string;
  readonly #connection: Http2SessionManager;
  readonly #options: ClientOptions;
  readonly #credentials: Credentials;

  /** @internal made by `connect` */
  constructor(baseUrl: string, connection: Http2SessionManager, options: ClientOptions) {
    this.#baseUrl = baseUrl;
    this.#connection = connection;
    this.#options = options;
    const { credential = "", attempts = 4, timeoutMs = 30_000 } = options;
    this.#credentials = new Credentials(credential, this.#exchange);
    this.transport = new StewardTransport(
      createGrpcTransport({ baseUrl, sessionManager: connection }),
      { credentials: this.#credentials, attempts, timeoutMs },
    );
  }

  /** A service of the contracts, such as `AgentService`, with a method for each of its own. */
  service<Service extends DescService>(service: Service): Client<Service> {
    return createClient(service, this.transport);
  }

  /** The same connection, used with another credential. */
  as(credential: string): Steward {
    return new Steward(this.#baseUrl, this.#connection, { ...this.#options, credential });
  }

  /** Sign in by name or address; the sign-in renews itself from then on. */
  async signIn(name: string, password: string): Promise<User | undefined> {
    const by = name.includes("@") ? { email: name } : { username: name };
    const pair = await this.service(AuthService).login({ ...by, password });
    this.#credentials.keep({ ...pair, expiresInS: pair.expiresIn });
    return pair.user;
  }

  /** End the sign-in, on open streams too. */
  async signOut(): Promise<void> {
    await this.service(AuthService).logout({});
    this.#credentials.forget();
  }

  /** A runtime's stream, by an agent's IC token: leases are taken and paid from over it. */
  session(): Session {
    const budget = this.service(BudgetService);
    return new Session((requests, options) => budget.session(requests, options));
  }

  /** A stream of agents that make steps, with the first of them. */
  async agents(agents: AgentInit[]): Promise<AgentStream> {
    const stream = this.agentStream();
    try {
      await stream.open(agents);
    } catch (error) {
      await stream.close();
      throw error;
    }
    return stream;
  }

  /** A stream of agents, without any yet. */
  agentStream(): AgentStream {
    const inference = this.service(InferenceService);
    return new AgentStream(
      (requests, options) => inference.stream(requests, options),
      this.#isDiscrete,
    );
  }

  /** End the connection, and what is under way on it; of all that share it. */
  close(): void {
    this.#connection.abort();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  readonly #exchange: Exchange = async (refreshToken) => {
    const pair = await this.service(AuthService).refresh({ refreshToken });
    return { ...pair, expiresInS: pair.expiresIn };
  };

  readonly #isDiscrete = async (policy: string): Promise<boolean> => {
    const [name, number] = policy.split("@");
    const { policies } = await this.service(PolicyService).listPolicies({});
    const versions = policies.find((each) => each.name === name)?.versions;
    const version = versions?.find((each) => each.version === Number(number));
    return version?.actionType === ActionType.DISCRETE;
  };
}
