/** What a client shows, and how a sign-in is renewed; the same for gRPC and REST. */

import { Unauthorized } from "./errors.js";

/** What a sign-in or its renewal is answered. */
export interface TokenPair {
  accessToken: string;
  refreshToken: string;
  expiresInS: number;
}

/** Exchanges a refresh token for a new pair. */
export type Exchange = (refreshToken: string) => Promise<TokenPair>;

/** So long before its end an access token is renewed: an answer may be under way for a while. */
export const RENEW_BEFORE_S = 30;

/**
 * A token that lasts (an API key, an IC token), or a sign-in that renews itself.
 *
 * A refresh token is good for one exchange: however many calls need it at once, one is made.
 */
export class Credentials {
  #shown: string;
  #refreshToken = "";
  #endsAtMs = Infinity;
  #exchanging: Promise<boolean> | undefined;
  readonly #exchange: Exchange;
  readonly #nowMs: () => number;

  constructor(shown: string, exchange: Exchange, nowMs = () => performance.now()) {
    this.#shown = shown;
    this.#exchange = exchange;
    this.#nowMs = nowMs;
  }

  /** What is to be shown now; "" is nothing. */
  async current(): Promise<string> {
    if (this.#refreshToken && this.#nowMs() >= this.#endsAtMs - RENEW_BEFORE_S * 1000) {
      // Where that fails for now, the one there is may still be good; else the call will tell.
      await this.renew(this.#shown).catch(() => false);
    }
    return this.#shown;
  }

  keep(pair: TokenPair): void {
    this.#shown = pair.accessToken;
    this.#refreshToken = pair.refreshToken;
    this.#endsAtMs = this.#nowMs() + pair.expiresInS * 1000;
  }

  forget(): void {
    this.#shown = this.#refreshToken = "";
    this.#endsAtMs = Infinity;
  }

  /** Get another token than the one that was shown; false if there is no way to. */
  async renew(shown: string): Promise<boolean> {
    if (this.#shown !== shown) return this.#shown !== ""; // another call has seen to it
    if (!this.#refreshToken) return false;
    this.#exchanging ??= this.#renewOnce().finally(() => (this.#exchanging = undefined));
    return this.#exchanging;
  }

  async #renewOnce(): Promise<boolean> {
    const spent = this.#refreshToken;
    try {
      const pair = await this.#exchange(spent);
      if (this.#refreshToken === spent) this.keep(pair); // else signed out, or in, meanwhile
      return true;
    } catch (error) {
      if (!(error instanceof Unauthorized)) throw error;
      if (this.#refreshToken === spent) this.forget();
      return false;
    }
  }
}
