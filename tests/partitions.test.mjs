// Pools that are divided: what is reserved is lent while it idles and comes back first; what is dedicated is never lent.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
  await rm.client("gold", { tier: "premium" });
  await rm.client("silver", { tier: "standard" });
  await rm.client("bronze", { tier: "basic", monthlyBudgetUsd: 1000, maxConcurrent: 50 });
});
after(() => rm.close());

const reserve = (clientId, pool, amount) => rm.post("/internal/reserve", { clientId, resources: [{ pool, amount }], ttlSeconds: 600 });
const availability = async (pool) => ok(await rm.get("/api/resources/availability")).pools.find((seen) => seen.pool === pool);

test("a dedicated part is its owner's alone, idle or not", async () => {
  const partitions = [{ name: "gold", kind: "dedicated", clientId: "gold", percent: 30 }];
  const pool = await rm.pool("dedicated", { capacity: 100, refillPerSecond: 0, partitions });
  assert.deepEqual(pool.partitions, partitions);
  assert.equal((await reserve("bronze", "dedicated", 71)).status, 422, "never more than the rest");
  assert.equal((await reserve("bronze", "dedicated", 70)).status, 200);
  const refused = await reserve("silver", "dedicated", 1);
  assert.deepEqual([refused.status, refused.body.code], [429, "insufficient_resources"]);
  assert.equal((await reserve("gold", "dedicated", 30)).status, 200);
  assert.equal((await reserve("gold", "dedicated", 1)).status, 429);
});

test("its owner may use what is shared as well", async () => {
  await rm.pool("beyond", { capacity: 100, refillPerSecond: 0, partitions: [{ name: "gold", kind: "dedicated", clientId: "gold", percent: 30 }] });
  assert.equal((await reserve("gold", "beyond", 100)).status, 200);
});

test("a reserved part is lent while nobody of its own waits, and comes back before anybody else is served", async () => {
  const partitions = [{ name: "standards", kind: "reserved", tier: "standard", percent: 40 }];
  await rm.pool("lending", { capacity: 100, refillPerSecond: 0, partitions });
  const borrowed = ok(await reserve("bronze", "lending", 100));
  await waitFor(async () => (await availability("lending")).lent === 40, "the snapshot");
  // An enterprise's request outranks the standard one, and would take all that comes back.
  const high = ok(await rm.execute(rm.work("demo-enterprise", "lending", 90)));
  const own = ok(await rm.execute(rm.work("silver", "lending", 20)));
  const place = ok(await rm.get(`/api/queue/position/${own.requestId}`));
  assert.deepEqual([place.position, place.ahead, place.blockedBy], [2, 1, "tokens"]);
  ok(await rm.post("/internal/consume", { reservationId: borrowed.reservationId, usage: [{ pool: "lending", amount: 70 }] }));
  assert.equal((await rm.ended(own.requestId)).status, "succeeded");
  const waiting = await rm.execution(high.requestId);
  assert.equal(waiting.status, "queued", "30 came back: 20 for the share, too few for the other");
  ok(await rm.call("DELETE", `/api/queue/${high.requestId}`));
});

test("what is lent comes back for a member that has its home in another pool, too", async () => {
  const partitions = [{ name: "standards", kind: "reserved", tier: "standard", percent: 40 }];
  // The home is the pool whose refill takes longest.
  await rm.pool("lent-second", { capacity: 100, refillPerSecond: 0.001, partitions });
  await rm.pool("scarce", { capacity: 20, refillPerSecond: 0 });
  const borrowed = ok(await reserve("bronze", "lent-second", 100));
  const high = ok(await rm.execute(rm.work("demo-enterprise", "lent-second", 90)));
  const own = ok(await rm.execute({ clientId: "silver", worker: "ECHO", resources: [{ pool: "lent-second", amount: 20 }, { pool: "scarce", amount: 20 }] }));
  const place = await waitFor(async () => {
    const position = ok(await rm.get(`/api/queue/position/${own.requestId}`));
    return position.blockedBy === "secondary_pool" ? position : null;
  }, "the second pool's answer");
  assert.equal(place.pool, "scarce");
  await waitFor(async () => (await availability("lent-second")).partitions[0].wanted === 20, "the share to be wanted");
  ok(await rm.post("/internal/consume", { reservationId: borrowed.reservationId, usage: [{ pool: "lent-second", amount: 70 }] }));
  assert.equal((await rm.ended(own.requestId)).status, "succeeded");
  assert.equal((await rm.execution(high.requestId)).status, "queued", "the share was 20 of the 30 that came back");
  ok(await rm.call("DELETE", `/api/queue/${high.requestId}`));
});

test("with lend: false a reserved part is kept, and parts can be changed without losing what is there", async () => {
  const kept = [{ name: "standards", kind: "reserved", tier: "standard", percent: 40, lend: false }];
  await rm.pool("kept", { capacity: 100, refillPerSecond: 0, partitions: kept });
  assert.equal((await reserve("bronze", "kept", 60)).status, 200);
  assert.equal((await reserve("bronze", "kept", 1)).status, 429);
  await rm.pool("kept", { capacity: 100, refillPerSecond: 0 });
  assert.equal((await reserve("bronze", "kept", 40)).status, 200);
});

test("availability tells the parts", async () => {
  await rm.pool("told", { capacity: 200, refillPerSecond: 0, partitions: [
    { name: "a", kind: "reserved", tier: "standard", percent: 25 },
    { name: "b", kind: "dedicated", clientId: "gold", percent: 10 },
  ] });
  assert.equal((await reserve("silver", "told", 30)).status, 200);
  const seen = await waitFor(async () => {
    const pool = await availability("told");
    return pool.available === 170 ? pool : null;
  }, "the snapshot");
  assert.deepEqual(seen.partitions, [
    { name: "a", capacity: 50, available: 20, refillPerSecond: 0, wanted: 0, claimed: 0, lends: true },
    { name: "b", capacity: 20, available: 20, refillPerSecond: 0, wanted: 0, claimed: 20, lends: false },
  ]);
  assert.deepEqual([seen.lent, seen.effectiveRefillPerSecond, seen.workers], [0, 0, []]);
});

test("parts that make no sense are refused where they are wrong", async () => {
  const part = { name: "a", kind: "reserved", tier: "standard", percent: 60 };
  const put = (partitions) => rm.put("/admin/pools/nonsense", { unit: "u", capacity: 10, refillPerSecond: 1, unitPriceUsd: 0, partitions });
  for (const [partitions, pointer] of [
    [[part, { ...part, name: "b", tier: "basic" }], "/partitions"],
    [[part, { ...part, name: "b", percent: 10 }], "/partitions/1/tier"],
    [[part, { ...part, tier: "basic", percent: 10 }], "/partitions/1/name"],
    [[{ ...part, percent: 0 }], "/partitions/0/percent"],
    [[{ ...part, clientId: "gold" }], "/partitions/0/tier"],
    [[{ name: "a", kind: "reserved", percent: 1 }], "/partitions/0/tier"],
    [[{ ...part, kind: "dedicated", lend: true }], "/partitions/0/lend"],
    [[{ ...part, kind: "borrowed" }], "/partitions/0/kind"],
    [[{ ...part, lends: true }], "/partitions/0/lends"],
  ]) {
    const answer = await put(partitions);
    assert.deepEqual([answer.status, answer.body.errors?.[0].pointer], [400, pointer], answer.text);
  }
});

test("what is dedicated to others is out of reach in every pool of a request, in every step, and nothing is held", async () => {
  const partitions = [{ name: "gold", kind: "dedicated", clientId: "gold", percent: 60 }];
  await rm.pool("second-set", { capacity: 100, refillPerSecond: 1000, partitions });
  await rm.pool("first-set", { capacity: 10, refillPerSecond: 0.01 });
  const resources = [{ pool: "first-set", amount: 1 }, { pool: "second-set", amount: 41 }];
  const before = await rm.current("bronze");
  const refused = await rm.execute({ clientId: "bronze", worker: "ECHO", resources });
  assert.deepEqual([refused.status, refused.body.code], [422, "unsatisfiable"], refused.text);
  assert.match(refused.body.detail, /`second-set`.*40.*dedicated/);
  assert.equal((await rm.post("/internal/reserve", { clientId: "bronze", resources })).status, 422);
  ok(await rm.put("/admin/templates/late-step", { steps: [
    { worker: "ECHO", resources: [{ pool: "first-set", base: 1 }] },
    { worker: "ECHO", resources: [{ pool: "second-set", base: 41 }] },
  ] }));
  assert.equal((await rm.execute({ clientId: "bronze", templateId: "late-step" })).status, 422);
  assert.equal((await rm.post("/api/cost/estimate", { clientId: "bronze", templateId: "late-step" })).status, 422);
  await waitFor(async () => (await rm.current("bronze")).heldUsd === before.heldUsd, "what was held");
  assert.equal((await rm.poolNow("first-set")).available, 10);
  assert.equal(ok(await rm.execute({ clientId: "gold", worker: "ECHO", resources }, { wait: 10 })).status, "succeeded");
});

test("a check for a client knows its part", async () => {
  await rm.pool("checked", { capacity: 100, refillPerSecond: 1, partitions: [{ name: "gold", kind: "dedicated", clientId: "gold", percent: 60 }] });
  const check = async (clientId, amount) => ok(await rm.post("/api/resources/check", { clientId, resources: [{ pool: "checked", amount }] }));
  assert.deepEqual(await check("bronze", 41), { available: false, waitMs: null, resources: [{ pool: "checked", requested: 41, available: 100, satisfiable: false, waitMs: null }] });
  assert.equal((await check("bronze", 40)).available, true);
  assert.equal((await check("gold", 100)).available, true);
  ok(await rm.post("/internal/consume", { reservationId: ok(await reserve("bronze", "checked", 40)).reservationId, usage: [{ pool: "checked", amount: 40 }] }));
  const drained = await check("bronze", 4);
  assert.ok(!drained.available && drained.waitMs > 3_000 && drained.waitMs <= 4_100, `${drained.waitMs}: the set aside 60 are not there for it`);
  assert.equal((await check("gold", 60)).waitMs, 0);
  const nobody = await rm.post("/api/resources/check", { clientId: "nobody", resources: [{ pool: "checked", amount: 1 }] });
  assert.deepEqual([nobody.status, nobody.body.code], [404, "not_found"]);
});
