// `/internal`: workers that reserve, consume and release.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
  await rm.client("worker-client");
});
after(() => rm.close());

const reserve = (resources, more = {}, options = {}) =>
  rm.post("/internal/reserve", { clientId: "worker-client", resources, ...more }, options);
const consume = (reservationId, usage, more = {}) => rm.post("/internal/consume", { reservationId, usage, ...more });
const release = (reservationId) => rm.post("/internal/release", { reservationId });
const amounts = (pool, amount) => [{ pool, amount }];

async function pool(name) {
  await rm.pool(name, { capacity: 10, refillPerSecond: 0 });
  return name;
}

test("what was used is charged and the rest goes back; saying it twice changes nothing", async () => {
  const name = await pool("consumed");
  const before = await rm.current("worker-client");
  const reserved = ok(await reserve(amounts(name, 8)));
  assert.deepEqual(reserved.resources, amounts(name, 8));
  assert.ok(Date.parse(reserved.expiresAt) > Date.now());
  assert.equal((await rm.poolNow(name)).available, 2);
  assert.equal((await rm.current("worker-client")).heldUsd, before.heldUsd + 0.08);
  const first = ok(await consume(reserved.reservationId, amounts(name, 5)));
  assert.deepEqual(first, { charged: amounts(name, 5), refunded: amounts(name, 3), costUsd: 0.05 });
  assert.deepEqual(ok(await consume(reserved.reservationId, amounts(name, 5))), first);
  const other = await consume(reserved.reservationId, amounts(name, 6));
  assert.deepEqual([other.status, other.body.code], [409, "conflict"]);
  assert.equal((await rm.poolNow(name)).available, 5);
  const after = await rm.current("worker-client");
  assert.equal(Math.round((after.spentUsd - before.spentUsd) * 100), 5);
  assert.equal(after.heldUsd, before.heldUsd);
  assert.deepEqual(ok(await release(reserved.reservationId)), { released: false });
});

test("use is told in parts as the sum so far, and more than was reserved is charged too", async () => {
  const name = await pool("in-parts");
  const { reservationId } = ok(await reserve(amounts(name, 4)));
  const part = ok(await consume(reservationId, amounts(name, 3), { final: false }));
  assert.deepEqual(part, { charged: amounts(name, 3), refunded: amounts(name, 0), costUsd: 0.03 });
  assert.deepEqual(ok(await consume(reservationId, amounts(name, 3), { final: false })), part);
  const all = ok(await consume(reservationId, amounts(name, 6)));
  assert.deepEqual(all, { charged: amounts(name, 6), refunded: amounts(name, 0), costUsd: 0.06 });
  assert.equal((await rm.poolNow(name)).available, 4);
});

test("a release gives everything back, once", async () => {
  const name = await pool("released");
  const before = await rm.current("worker-client");
  const { reservationId } = ok(await reserve(amounts(name, 10)));
  assert.equal((await reserve(amounts(name, 1))).body.code, "insufficient_resources");
  assert.deepEqual(ok(await release(reservationId)), { released: true });
  assert.deepEqual(ok(await release(reservationId)), { released: true });
  assert.equal((await rm.poolNow(name)).available, 10);
  assert.deepEqual(await rm.current("worker-client"), before);
  const late = await consume(reservationId, amounts(name, 1));
  assert.deepEqual([late.status, late.body.code], [409, "conflict"]);
});

test("a reservation that nobody settles expires by itself, and what was said to be used is charged", async () => {
  const name = await pool("expired");
  const before = await rm.current("worker-client");
  const { reservationId } = ok(await reserve(amounts(name, 5), { ttlSeconds: 1 }));
  const partly = ok(await reserve(amounts(name, 5), { ttlSeconds: 1 }));
  ok(await consume(partly.reservationId, amounts(name, 2), { final: false }));
  await waitFor(async () => (await rm.poolNow(name)).available === 8, "the tokens to come back");
  await waitFor(async () => (await rm.current("worker-client")).heldUsd === before.heldUsd, "the hold to end");
  const after = await rm.current("worker-client");
  assert.equal(Math.round((after.spentUsd - before.spentUsd) * 100), 2);
  assert.equal((await consume(reservationId, amounts(name, 1))).status, 409);
  assert.deepEqual(ok(await release(reservationId)), { released: false });
});

test("several pools are all reserved or none", async () => {
  const [one, two] = [await pool("both-one"), await pool("both-two")];
  const half = ok(await reserve(amounts(two, 6)));
  const before = await rm.current("worker-client");
  const both = [{ pool: one, amount: 5 }, { pool: two, amount: 5 }];
  const refused = await reserve(both);
  assert.deepEqual([refused.status, refused.body.code], [429, "insufficient_resources"]);
  assert.ok(refused.body.retryAfterMs > 0 && Number(refused.headers.get("retry-after")) > 0);
  await waitFor(async () => (await rm.poolNow(one)).available === 10, "the first pool to be as it was");
  assert.equal((await rm.poolNow(two)).available, 4);
  assert.deepEqual(await rm.current("worker-client"), before);
  ok(await release(half.reservationId));
  const granted = ok(await reserve(both));
  assert.deepEqual([(await rm.poolNow(one)).available, (await rm.poolNow(two)).available], [5, 5]);
  const used = ok(await consume(granted.reservationId, [{ pool: one, amount: 1 }, { pool: two, amount: 7 }]));
  assert.equal(used.costUsd, 0.08);
  await waitFor(async () => (await rm.poolNow(two)).available === 3, "the other pool to be settled");
  assert.equal((await rm.poolNow(one)).available, 9);
});

test("one key makes one reservation, however many come at once", async () => {
  const name = await pool("keyed");
  const headers = { "idempotency-key": "reserve-1" };
  const answers = await Promise.all(Array.from({ length: 20 }, () => reserve(amounts(name, 3), {}, { headers })));
  assert.equal(new Set(answers.map((answer) => ok(answer).reservationId)).size, 1);
  assert.equal((await rm.poolNow(name)).available, 7);
  const other = await reserve(amounts(name, 4), {}, { headers });
  assert.deepEqual([other.status, other.body.code], [422, "idempotency_mismatch"]);
});

test("a key makes one report of use", async () => {
  const name = await pool("keyed-use");
  const { reservationId } = ok(await reserve(amounts(name, 5)));
  const say = (amount, key, final) => rm.post("/internal/consume", { reservationId, usage: amounts(name, amount), final }, { headers: { "idempotency-key": key } });
  const first = await say(2, "use-1", false);
  assert.deepEqual([first.status, first.headers.get("idempotency-replayed")], [200, null]);
  const again = await say(2, "use-1", false);
  assert.deepEqual([again.body, again.headers.get("idempotency-replayed")], [first.body, "true"]);
  const other = await say(3, "use-1", false);
  assert.deepEqual([other.status, other.body.code], [422, "idempotency_mismatch"]);
  const last = await say(4, "use-2", true);
  assert.equal(last.body.costUsd, 0.04);
  const repeated = await say(4, "use-2", true);
  assert.deepEqual([repeated.body, repeated.headers.get("idempotency-replayed")], [last.body, "true"]);
});

test("a key has the answer that it had, however many came after it, and is for one body only", async () => {
  const name = await pool("many-keys");
  const say = (reservationId, amount, key) =>
    rm.post("/internal/consume", { reservationId, usage: amounts(name, amount), final: false }, { headers: { "idempotency-key": key } });
  const one = ok(await reserve(amounts(name, 5))).reservationId;
  const first = await say(one, 1, "many-1");
  for (let n = 2; n <= 20; n += 1) ok(await say(one, Math.min(n, 5), `many-${n}`));
  const again = await say(one, 1, "many-1");
  assert.deepEqual([again.body, again.headers.get("idempotency-replayed")], [first.body, "true"], "not what is so by now");
  const two = ok(await reserve(amounts(name, 5))).reservationId;
  const other = await say(two, 1, "many-1");
  assert.deepEqual([other.status, other.body.code], [422, "idempotency_mismatch"], "another reservation is another body");
  for (const id of [one, two]) ok(await release(id));
});

test("a reservation needs no slot, and does not wait behind its client's queue for them", async () => {
  await rm.pool("slots", { capacity: 1000, refillPerSecond: 0 });
  await rm.client("busy-client", { maxConcurrent: 2 });
  const runs = await Promise.all(Array.from({ length: 8 }, () => rm.execute(rm.work("busy-client", "slots", 1, { input: { simulate: { delayMs: 1_500 } } }))));
  await waitFor(async () => (await rm.get(`/api/queue/position/${runs.at(-1).body.requestId}`)).body.blockedBy === "concurrency", "the queue");
  for (let n = 0; n < 5; n += 1) {
    const answer = await rm.post("/internal/reserve", { clientId: "busy-client", resources: amounts("slots", 2) });
    assert.equal(answer.status, 200, answer.text);
  }
  await Promise.all(runs.map(({ body }) => rm.ended(body.requestId)));
});

test("a use of a pool that is not reserved, or of another client's, is refused", async () => {
  const name = await pool("own");
  const { reservationId } = ok(await reserve(amounts(name, 1)));
  const wrong = await consume(reservationId, amounts("kv-storage", 1));
  assert.deepEqual([wrong.status, wrong.body.errors[0].pointer], [400, "/usage/0/pool"]);
  assert.equal((await rm.get(`/api/execution/${reservationId}`)).status, 404);
  assert.equal((await rm.post(`/api/execution/${reservationId}/cancel`)).status, 404);
});

test("a reservation beyond the budget is refused and takes nothing", async () => {
  const name = await pool("dear");
  await rm.client("poor", { monthlyBudgetUsd: 0.05 });
  const answer = await rm.post("/internal/reserve", { clientId: "poor", resources: amounts(name, 6) });
  assert.deepEqual([answer.status, answer.body.code], [402, "budget_exceeded"]);
  assert.equal((await rm.poolNow(name)).available, 10);
});

test("a reserve that is sent again after its end has the same answer, and takes nothing", async () => {
  await rm.pool("replayed", { capacity: 100, refillPerSecond: 0 });
  await rm.client("replayer");
  const body = { clientId: "replayer", resources: [{ pool: "replayed", amount: 10 }] };
  for (const [key, end] of [
    ["consumed", (reservationId) => rm.post("/internal/consume", { reservationId, usage: [{ pool: "replayed", amount: 4 }] })],
    ["released", (reservationId) => rm.post("/internal/release", { reservationId })],
  ]) {
    const send = () => rm.post("/internal/reserve", body, { headers: { "idempotency-key": key } });
    const first = await send();
    ok(await end(first.body.reservationId));
    const { available } = await rm.poolNow("replayed");
    const again = await send();
    assert.deepEqual([again.status, again.body], [200, first.body], again.text);
    assert.equal(again.headers.get("idempotency-replayed"), "true");
    assert.equal((await rm.poolNow("replayed")).available, available);
  }
  assert.equal((await rm.current("replayer")).heldUsd, 0);
});

test("what was used beyond the estimate is held as soon as it is said", async () => {
  await rm.pool("beyond-hold", { capacity: 10, refillPerSecond: 0 });
  await rm.client("overspender", { monthlyBudgetUsd: 0.2 });
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "overspender", resources: amounts("beyond-hold", 5) }));
  ok(await consume(reservationId, amounts("beyond-hold", 18), { final: false }));
  await waitFor(async () => (await rm.current("overspender")).heldUsd === 0.18, "the hold");
  const refused = await rm.post("/internal/reserve", { clientId: "overspender", resources: amounts("beyond-hold", 3) });
  assert.deepEqual([refused.status, refused.body.code], [402, "budget_exceeded"]);
  ok(await release(reservationId));
  await waitFor(async () => (await rm.current("overspender")).spentUsd === 0.18, "the charge");
  assert.equal((await rm.current("overspender")).heldUsd, 0);
});
