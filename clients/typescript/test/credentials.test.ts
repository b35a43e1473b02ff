import assert from "node:assert/strict";
import { test } from "node:test";
import { Credentials, type TokenPair } from "../src/credentials.js";
import { errorOf } from "../src/errors.js";

/** A sign-in whose tokens are numbered, and what was asked of the server for it. */
function signedIn(exchange?: (refreshToken: string) => Promise<TokenPair>) {
  const spent: string[] = [];
  const clock = { ms: 0 };
  const credentials = new Credentials(
    "",
    async (refreshToken) => {
      spent.push(refreshToken);
      await Promise.resolve();
      return exchange ? exchange(refreshToken) : pair(spent.length + 1);
    },
    () => clock.ms,
  );
  credentials.keep(pair(1));
  return { credentials, spent, clock };
}

function pair(number: number): TokenPair {
  return { accessToken: `access ${number}`, refreshToken: `refresh ${number}`, expiresInS: 3600 };
}

test("a token that lasts is shown as it is, and cannot be renewed", async () => {
  const credentials = new Credentials("ic_1", () => assert.fail("there is nothing to exchange"));
  assert.equal(await credentials.current(), "ic_1");
  assert.equal(await credentials.renew("ic_1"), false);
});

test("a sign-in is renewed shortly before it ends", async () => {
  const { credentials, spent, clock } = signedIn();
  clock.ms = 3_569_000;
  assert.equal(await credentials.current(), "access 1");
  clock.ms = 3_570_000;
  assert.equal(await credentials.current(), "access 2");
  assert.deepEqual(spent, ["refresh 1"]);
});

test("however many need it at once, one exchange is made", async () => {
  const { credentials, spent } = signedIn();
  const renewed = await Promise.all([1, 2, 3].map(() => credentials.renew("access 1")));
  assert.deepEqual(renewed, [true, true, true]);
  assert.deepEqual(spent, ["refresh 1"]);
  assert.equal(await credentials.renew("access 1"), true, "it was renewed already");
  assert.deepEqual(spent, ["refresh 1"]);
});

test("a refresh token that is not good any more ends the sign-in", async () => {
  const { credentials } = signedIn(() => Promise.reject(errorOf({ code: "UNAUTHENTICATED", message: "" })));
  assert.equal(await credentials.renew("access 1"), false);
  assert.equal(await credentials.current(), "");
});

test("a renewal that fails for another reason may be tried again", async () => {
  let isAway = true;
  const { credentials, clock } = signedIn(() =>
    isAway ? Promise.reject(errorOf({ code: "UNAVAILABLE", message: "" })) : Promise.resolve(pair(2)),
  );
  clock.ms = 3_580_000;
  assert.equal(await credentials.current(), "access 1", "which may still be good");
  isAway = false;
  assert.equal(await credentials.current(), "access 2");
});

test("who signed out meanwhile stays so", async () => {
  const { credentials } = signedIn();
  const renewing = credentials.renew("access 1");
  credentials.forget();
  await renewing;
  assert.equal(await credentials.current(), "");
});
