// Waiting: who is next, why somebody waits, and how a wait ends.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

/** Reserves all of a pool, so that what comes after must wait; returns what to release. */
async function takeAll(client, pool, amount) {
  return ok(await rm.post("/internal/reserve", { clientId: client, resources: [{ pool, amount }], ttlSeconds: 600 })).reservationId;
}

test("who waits is let in by score, and can be told why it waits", async () => {
  await rm.pool("ordered", { capacity: 10, refillPerSecond: 0 });
  await rm.client("holder");
  const tiers = { basic: "q-basic", standard: "q-standard", premium: "q-premium", enterprise: "q-enterprise" };
  for (const [tier, client] of Object.entries(tiers)) await rm.client(client, { tier });
  const all = await takeAll("holder", "ordered", 10);
  const ids = {};
  for (const tier of Object.keys(tiers)) {
    const answer = await rm.execute(rm.work(tiers[tier], "ordered", 10));
    assert.deepEqual([answer.status, answer.body.status], [202, "queued"]);
    ids[tier] = answer.body.requestId;
  }
  const urgent = await rm.execute(rm.work("q-basic", "ordered", 10, { urgency: "immediate" }));
  const expected = [ids.enterprise, ids.premium, urgent.body.requestId, ids.standard, ids.basic];
  for (const [index, id] of expected.entries()) {
    const { body } = await rm.get(`/api/queue/position/${id}`);
    assert.deepEqual([body.position, body.ahead, body.blockedBy, body.promoted], [index + 1, index, "tokens", false]);
    const { tier, urgency, wait, fairness } = body.score;
    assert.ok(Math.abs(tier + urgency + wait + fairness - body.priority) < 1e-9);
    assert.ok(tier <= 40 && urgency <= 30 && wait <= 20 && fairness <= 10);
  }
  const status = ok(await rm.get("/api/queue/status"));
  assert.equal(status.scheduler, "running");
  assert.equal(status.pools.find(({ pool }) => pool === "ordered").depth, 5);
  assert.equal(status.lanes.find(({ urgency }) => urgency === "immediate").depth, 1);
  assert.equal(status.depth, 5);
  ok(await rm.post("/internal/release", { reservationId: all }));
  // Each takes the whole pool and uses it, so there is one grant for each refill.
  await rm.pool("ordered", { capacity: 10, refillPerSecond: 50 });
  const executions = await Promise.all(expected.map((id) => rm.ended(id)));
  assert.ok(executions.every(({ status }) => status === "succeeded"));
  const started = executions.map(({ startedAt }) => startedAt);
  assert.deepEqual(started, [...started].sort());
});

test("a client with many queued requests does not push out one with a single request", async () => {
  await rm.pool("crowded", { capacity: 10, refillPerSecond: 0 });
  for (const client of ["hog", "single"]) await rm.client(client, { maxConcurrent: 50 });
  const all = await takeAll("hog", "crowded", 10);
  const hog = [];
  for (let n = 0; n < 40; n += 1) hog.push(ok(await rm.execute(rm.work("hog", "crowded"))).requestId);
  const single = ok(await rm.execute(rm.work("single", "crowded"))).requestId;
  assert.equal(ok(await rm.get(`/api/queue/position/${single}`)).ahead, 0, "the other has had the whole pool");
  ok(await rm.post("/internal/consume", { reservationId: all, usage: [{ pool: "crowded", amount: 10 }] }));
  await rm.pool("crowded", { capacity: 10, refillPerSecond: 40 });
  const started = async (id) => (await rm.ended(id)).startedAt;
  const first = await started(single);
  const others = await Promise.all(hog.map(started));
  assert.ok(others.every((at) => at >= first), "it goes before all of them");
  assert.deepEqual(others, [...others].sort(), "and among them it is first in, first out");
});

test("a request starts when its tokens are there, not at the next tick", async () => {
  await rm.pool("slow", { capacity: 100, refillPerSecond: 50 });
  await rm.client("slow-client");
  const all = await takeAll("slow-client", "slow", 100);
  ok(await rm.post("/internal/consume", { reservationId: all, usage: [{ pool: "slow", amount: 100 }] }));
  const answer = await rm.execute(rm.work("slow-client", "slow", 50), { wait: 20 });
  assert.equal(answer.body.status, "succeeded");
  assert.ok(answer.body.waitMs >= 800 && answer.body.waitMs < 10_000, `${answer.body.waitMs} ms`);
});

test("a waiting request is cancelled, once, and everything goes back", async () => {
  await rm.pool("cancelled", { capacity: 10, refillPerSecond: 0 });
  await rm.client("canceller");
  await takeAll("canceller", "cancelled", 10);
  const { requestId } = ok(await rm.execute(rm.work("canceller", "cancelled", 5)));
  const before = await rm.current("canceller");
  assert.deepEqual([before.heldUsd, before.queued], [0.15, 1]);
  const first = ok(await rm.call("DELETE", `/api/queue/${requestId}`));
  assert.equal(first.status, "cancelled");
  const second = ok(await rm.call("DELETE", `/api/queue/${requestId}`));
  assert.deepEqual(second, first);
  assert.deepEqual(ok(await rm.post(`/api/execution/${requestId}/cancel`)), first);
  const after = await rm.current("canceller");
  assert.deepEqual([after.heldUsd, after.queued, after.spentUsd], [0.1, 0, 0]);
  assert.equal((await rm.get(`/api/queue/position/${requestId}`)).status, 404);
});

test("a running request is cancelled by the one route and not by the other; its cost stays held until its run is over", async () => {
  await rm.pool("running", { capacity: 10, refillPerSecond: 0 });
  await rm.client("runner");
  const simulate = { delayMs: 600, usage: { running: 3 } };
  const { requestId } = ok(await rm.execute(rm.work("runner", "running", 5, { input: { simulate } })));
  await waitFor(async () => (await rm.execution(requestId)).status === "running", "the run");
  const refused = await rm.call("DELETE", `/api/queue/${requestId}`);
  assert.deepEqual([refused.status, refused.body.code], [409, "conflict"]);
  const cancelled = ok(await rm.post(`/api/execution/${requestId}/cancel`));
  assert.equal(cancelled.status, "cancelled");
  assert.equal(cancelled.cost.actualUsd, undefined, "its worker is still at it");
  const bill = () => rm.get(`/api/cost/${requestId}`).then(ok);
  assert.deepEqual([(await bill()).settled, (await bill()).actualUsd], [false, undefined]);
  const now = await rm.current("runner");
  assert.deepEqual([now.heldUsd, now.spentUsd, now.queued], [0.05, 0, 0]);
  await waitFor(async () => (await rm.current("runner")).running === 0, "the slot");
  assert.equal((await rm.poolNow("running")).available, 10);
  await waitFor(async () => (await rm.current("runner")).spentUsd === 0.03, "the charge");
  const after = await rm.current("runner");
  assert.deepEqual([after.heldUsd, after.running], [0, 0]);
  assert.deepEqual([(await bill()).settled, (await bill()).actualUsd], [true, 0.03]);
  assert.equal((await rm.poolNow("running")).available, 7);
  const execution = await rm.execution(requestId);
  assert.deepEqual([execution.status, execution.cost.actualUsd, execution.finishedAt], ["cancelled", 0.03, cancelled.finishedAt]);
});

test("running and cancelling in a loop spends no more than the budget has", async () => {
  await rm.pool("looped", { capacity: 100, refillPerSecond: 0, unitPriceUsd: 0.09 });
  await rm.client("looper", { monthlyBudgetUsd: 1, maxConcurrent: 1 });
  const statuses = [];
  for (let n = 0; n < 5; n += 1) {
    const answer = await rm.execute(rm.work("looper", "looped", 10, { input: { simulate: { delayMs: 1_500 } } }));
    statuses.push(answer.status);
    if (answer.status === 202) ok(await rm.post(`/api/execution/${answer.body.requestId}/cancel`));
  }
  assert.deepEqual(statuses, [202, 402, 402, 402, 402]);
  await waitFor(async () => (await rm.current("looper")).heldUsd === 0, "the end of the run");
  const { spentUsd, running } = await rm.current("looper");
  assert.deepEqual([spentUsd, running, (await rm.poolNow("looped")).available], [0.9, 0, 90]);
});

test("a finished request cannot be cancelled", async () => {
  const { body } = await rm.execute({ clientId: "demo-basic", templateId: "echo" }, { wait: 10 });
  for (const [method, path] of [["POST", `/api/execution/${body.requestId}/cancel`], ["DELETE", `/api/queue/${body.requestId}`]]) {
    const answer = await rm.call(method, path);
    assert.deepEqual([answer.status, answer.body.code], [409, "conflict"]);
  }
  assert.equal((await rm.execution(body.requestId)).status, "succeeded");
});

test("a queue at its cap refuses, with a time to come back, and takes nothing", async () => {
  await rm.pool("short", { capacity: 10, refillPerSecond: 0, queueCap: 2 });
  await rm.client("crowd");
  await takeAll("crowd", "short", 10);
  const send = () => rm.execute(rm.work("crowd", "short", 1), { key: "same-key" });
  ok(await rm.execute(rm.work("crowd", "short", 1)));
  const second = ok(await rm.execute(rm.work("crowd", "short", 1)));
  const before = await rm.current("crowd");
  const third = await send();
  assert.deepEqual([third.status, third.body.code], [429, "queue_full"]);
  assert.ok(third.body.retryAfterMs > 0 && Number(third.headers.get("retry-after")) > 0);
  assert.deepEqual(await rm.current("crowd"), before);
  ok(await rm.call("DELETE", `/api/queue/${second.requestId}`));
  const retried = await send();
  assert.equal(retried.status, 202, "the key of a refused request can be used again");
});

test("a burst that comes free at once goes to those of higher rank, however many of one client they are", async () => {
  await rm.pool("burst", { capacity: 40, refillPerSecond: 0 });
  for (const [client, tier] of [["burst-holder", "standard"], ["burst-first", "enterprise"], ["burst-last", "basic"]]) await rm.client(client, { tier, maxConcurrent: 100 });
  const first = await takeAll("burst-holder", "burst", 20);
  const rest = await takeAll("burst-holder", "burst", 20);
  const send = async (client, urgency) => ok(await rm.execute(rm.work(client, "burst", 1, { urgency }))).requestId;
  const low = await send("burst-last", "deferred");
  const high = [];
  for (let n = 0; n < 30; n += 1) high.push(await send("burst-first", "fast"));
  ok(await rm.post("/internal/release", { reservationId: first }));
  for (const id of high.slice(0, 20)) assert.equal((await rm.ended(id)).status, "succeeded");
  for (const id of [low, ...high.slice(20)]) assert.equal((await rm.execution(id)).startedAt, undefined);
  ok(await rm.post("/internal/release", { reservationId: rest }));
  for (const id of [low, ...high]) assert.equal((await rm.ended(id)).status, "succeeded");
});

test("rank is kept at a second pool too, wherever its requests have their homes", async () => {
  await rm.pool("rank-second", { capacity: 20, refillPerSecond: 0.001 });
  for (const home of ["rank-high", "rank-low"]) await rm.pool(home, { capacity: 20, refillPerSecond: 0 });
  for (const [client, tier] of [["rank-holder", "standard"], ["rank-first", "enterprise"], ["rank-last", "basic"]]) await rm.client(client, { tier, maxConcurrent: 100 });
  const first = await takeAll("rank-holder", "rank-second", 10);
  const rest = await takeAll("rank-holder", "rank-second", 10);
  const send = async (clientId, home) => ok(await rm.execute({ clientId, worker: "ECHO", resources: [{ pool: home, amount: 1 }, { pool: "rank-second", amount: 1 }] })).requestId;
  const [low, high] = [[], []];
  for (let n = 0; n < 5; n += 1) low.push(await send("rank-last", "rank-low"));
  for (let n = 0; n < 10; n += 1) high.push(await send("rank-first", "rank-high"));
  for (const id of [...low, ...high]) await waitFor(async () => ok(await rm.get(`/api/queue/position/${id}`)).blockedBy === "secondary_pool", "its second pool's answer");
  ok(await rm.post("/internal/release", { reservationId: first }));
  for (const id of high) assert.equal((await rm.ended(id)).status, "succeeded");
  for (const id of low) assert.equal((await rm.execution(id)).startedAt, undefined);
  ok(await rm.post("/internal/release", { reservationId: rest }));
  for (const id of low) assert.equal((await rm.ended(id)).status, "succeeded");
});

test("a request that waits for one pool holds back nobody in its home, and in another one that it needs", async () => {
  for (const pool of ["wait-home", "wait-second", "wait-third"]) await rm.pool(pool, { capacity: 10, refillPerSecond: 0 });
  for (const [client, tier] of [["wait-holder", "standard"], ["wait-high", "enterprise"], ["wait-low", "basic"]]) await rm.client(client, { tier, maxConcurrent: 100 });
  const taken = await takeAll("wait-holder", "wait-third", 10);
  const resources = [{ pool: "wait-home", amount: 10 }, { pool: "wait-second", amount: 10 }, { pool: "wait-third", amount: 1 }];
  const high = ok(await rm.execute({ clientId: "wait-high", worker: "ECHO", resources })).requestId;
  await waitFor(async () => ok(await rm.get(`/api/queue/position/${high}`)).blockedBy === "secondary_pool", "the third pool's answer");
  for (const pool of ["wait-home", "wait-second"]) {
    const low = ok(await rm.execute(rm.work("wait-low", pool, 10), { wait: 5 }));
    assert.equal(low.status, "succeeded", pool);
    await rm.pool(pool, { capacity: 10, refillPerSecond: 1000 });
  }
  assert.equal((await rm.execution(high)).startedAt, undefined);
  ok(await rm.post("/internal/release", { reservationId: taken }));
  assert.equal((await rm.ended(high)).status, "succeeded");
});

test("a stopped scheduler grants nothing, says so, and goes on where it was", async () => {
  await rm.pool("halted");
  await rm.client("patient");
  assert.deepEqual(ok(await rm.post("/admin/scheduler/stop")), { scheduler: "stopped" });
  const { requestId, status } = ok(await rm.execute(rm.work("patient", "halted", 1)));
  assert.equal(status, "queued");
  assert.equal((await rm.get(`/api/queue/position/${requestId}`)).body.blockedBy, "scheduler_stopped");
  assert.equal(ok(await rm.get("/api/queue/status")).scheduler, "stopped");
  const reserve = await rm.post("/internal/reserve", { clientId: "patient", resources: [{ pool: "halted", amount: 1 }] });
  assert.deepEqual([reserve.status, reserve.body.code], [429, "insufficient_resources"]);
  ok(await rm.post("/admin/scheduler/start"));
  assert.equal((await rm.ended(requestId)).status, "succeeded");
});

test("a window cap holds a minute's grants to the capacity", async () => {
  await rm.pool("capped", { capacity: 10, refillPerSecond: 1000, windowCap: true });
  await rm.client("burster");
  const reserve = () => rm.post("/internal/reserve", { clientId: "burster", resources: [{ pool: "capped", amount: 5 }] });
  ok(await reserve());
  ok(await reserve());
  const third = await reserve();
  assert.equal(third.status, 429);
  assert.ok(third.body.retryAfterMs > 50_000 && third.body.retryAfterMs <= 61_000, third.text);
});
