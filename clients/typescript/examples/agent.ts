/**
 * An agent that borrows, pays for one call, gives the rest back, and balances a pole.
 *
 *     STEWARD_SERVER=127.0.0.1:50051 STEWARD_IC_TOKEN=ic_… npm run --silent example
 */

import { randomUUID } from "node:crypto";
import { connect } from "../src/node/index.js";

const dollars = (nanousd: bigint) => `$${Number(nanousd) / 1e9}`;

const steward = connect(process.env["STEWARD_SERVER"] ?? "127.0.0.1:50051", {
  credential: process.env["STEWARD_IC_TOKEN"] ?? "",
});

const session = steward.session();
const lease = await session.handshake({ requestedBudgetNanousd: 100_000_000n });
console.log(`${lease.leaseId}: lent ${dollars(lease.budgetGrantedNanousd)} for calls of ${lease.provider}`);

// Here the agent calls its provider; what that used is told afterwards.
const used = { model: "gpt-4o-mini", inputTokens: 1_200n, outputTokens: 300n, costNanousd: 360_000n };
const { leaseSpentNanousd } = await session.report(lease.leaseId, [{ requestId: randomUUID(), ...used }]);
console.log(`paid ${dollars(leaseSpentNanousd)}`);

const { returnedNanousd } = await session.returnLease({ leaseId: lease.leaseId });
console.log(`gave ${dollars(returnedNanousd)} back`);
await session.close();

const agents = await steward.agents([{ policy: "cartpole", seed: 1n }]);
console.log("cartpole balances a pole");
for (const tilt of [0.05, -0.05, 0.02]) {
  const { action } = await agents.step(0, [0, 0, tilt, 0], { deterministic: true });
  console.log(`tilted by ${tilt}: push ${action?.kind.value === 1n ? "right" : "left"}`);
}
await agents.close();
steward.close();
