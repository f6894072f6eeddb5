// What the downstream can bear: busy workers slow their pool down, failing ones are left alone.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
  await rm.client("presser", { maxConcurrent: 50 });
});
after(() => rm.close());

const simulate = (what) => ({ input: { simulate: what } });
const seen = async (pool) => ok(await rm.get("/api/resources/availability")).pools.find((view) => view.pool === pool);
const metric = async (name, pool) => {
  const { text } = await rm.get("/metrics");
  return Number(text.match(new RegExp(`^${name}\\{pool="${pool}"\\} (\\S+)$`, "m"))?.[1]);
};

test("a busy worker halves its pool's rate, and the rate comes back in steps", async () => {
  await rm.pool("busy", { capacity: 100, refillPerSecond: 40 });
  assert.equal((await seen("busy")).effectiveRefillPerSecond, 40);
  const pressed = await rm.execute(rm.work("presser", "busy", 1, simulate({ status: 429 })), { wait: 5 });
  // Each of its attempts halves it.
  await rm.ended(pressed.body.requestId);
  const slowed = await waitFor(async () => {
    const view = await seen("busy");
    return view.effectiveRefillPerSecond < 40 ? view : null;
  }, "the slower rate");
  assert.equal(slowed.refillPerSecond, 40);
  assert.ok(slowed.effectiveRefillPerSecond <= 20 && slowed.effectiveRefillPerSecond >= 2, `${slowed.effectiveRefillPerSecond}`);
  assert.ok((await metric("resource_manager_pool_refill_rate_ratio", "busy")) <= 0.55);
  // Somebody waits: the pool wakes itself up to ease.
  const all = ok(await rm.post("/internal/reserve", { clientId: "presser", resources: [{ pool: "busy", amount: Math.floor(slowed.available) }] }));
  await waitFor(async () => {
    await rm.execute(rm.work("presser", "busy", 1));
    return (await seen("busy")).effectiveRefillPerSecond > slowed.effectiveRefillPerSecond;
  }, "a step back");
  ok(await rm.post("/internal/release", { reservationId: all.reservationId }));
});

test("what a worker says is left counts, and nothing is granted before its limit is reset", async () => {
  await rm.pool("limited", { capacity: 100, refillPerSecond: 0 });
  ok(await rm.execute(rm.work("presser", "limited", 1, simulate({ limits: { limited: { remaining: 7 } } })), { wait: 5 }));
  assert.equal((await rm.poolNow("limited")).available, 7);
  ok(await rm.execute(rm.work("presser", "limited", 1, simulate({ limits: { limited: { remaining: 50 } } })), { wait: 5 }));
  assert.equal((await rm.poolNow("limited")).available, 6, "never more than there was");
  ok(await rm.execute(rm.work("presser", "limited", 1, simulate({ limits: { limited: { remaining: 0, resetSeconds: 60 } } })), { wait: 5 }));
  const view = await waitFor(async () => {
    const view = await seen("limited");
    return view.pausedUntil ? view : null;
  }, "the pause");
  assert.ok(Date.parse(view.pausedUntil) - Date.now() > 50_000);
});

test("what is left of a limit may be a part of a unit, or less than nothing", async () => {
  await rm.pool("parts", { capacity: 100, refillPerSecond: 0 });
  const say = async (limit) => {
    ok(await rm.execute(rm.work("presser", "parts", 1, simulate({ limits: { parts: limit } })), { wait: 5 }));
    return (await rm.poolNow("parts")).available;
  };
  assert.equal(await say({ remaining: 7.5, resetSeconds: 0.5 }), 7, "whole units are told");
  assert.equal(await say({ remaining: -3 }), 0);
});

test("what a worker says of its limit slows the pool to the rate that tells, and the rate comes back", async () => {
  await rm.pool("told", { capacity: 100, refillPerSecond: 100 });
  ok(await rm.execute(rm.work("presser", "told", 1, simulate({ limits: { told: { remaining: 3, resetSeconds: 10 } } })), { wait: 5 }));
  const slowed = await waitFor(async () => {
    const view = await seen("told");
    return view.effectiveRefillPerSecond < 100 ? view : null;
  }, "the slower rate");
  // 97 in the nine seconds that are left at least.
  assert.ok(Math.abs(slowed.effectiveRefillPerSecond - 10.7) < 0.2, `${slowed.effectiveRefillPerSecond}`);
  await waitFor(async () => {
    await rm.execute(rm.work("presser", "told", 1));
    return (await seen("told")).effectiveRefillPerSecond > slowed.effectiveRefillPerSecond;
  }, "a step back");
});

test("a worker that keeps failing is left alone; what waits keeps its attempts, and goes when a probe succeeds", async () => {
  await rm.pool("broken", { capacity: 1000, refillPerSecond: 1000 });
  ok(await rm.put("/admin/templates/once", { worker: "SMS", maxAttempts: 1, resources: [{ pool: "broken", base: 1 }] }));
  const send = (input, options) => rm.execute({ clientId: "presser", templateId: "once", input }, options);
  for (let n = 0; n < 5; n += 1) assert.equal(ok(await send({ simulate: { status: 500 } }, { wait: 5 })).status, "failed");
  await rm.resetStats();
  const opened = Date.now();
  const waiting = ok(await send(1));
  const place = ok(await rm.get(`/api/queue/position/${waiting.requestId}`));
  assert.equal(place.blockedBy, "worker_unavailable");
  const wait = Date.parse(place.estimatedStartAt) - opened;
  assert.ok(wait > 5_000 && wait < 11_000, `${wait} ms`);
  const view = await waitFor(async () => ((await seen("broken")).workers.length > 0 ? seen("broken") : null), "the snapshot");
  assert.deepEqual([view.workers[0].worker, view.workers[0].circuit], ["SMS", "open"]);
  assert.equal(await metric("resource_manager_pool_open_circuits", "broken"), 1);
  // Another worker's requests in the same pool are not held up.
  assert.equal(ok(await rm.execute(rm.work("presser", "broken"), { wait: 5 })).status, "succeeded");
  const more = ok(await send(2));
  assert.equal((await rm.stats()).byClient.presser.maxRunning, 1, "only the other worker was called");
  for (const { requestId } of [waiting, more]) {
    const done = await rm.ended(requestId, 30_000);
    assert.deepEqual([done.status, done.attempts], ["succeeded", 1]);
    assert.ok(Date.parse(done.startedAt) - opened > 5_000);
  }
  await waitFor(async () => (await seen("broken")).workers.length === 0, "the circuit to close");
});

test("requests that fail whatever the worker does do not keep it from those that have not failed", async () => {
  await rm.pool("poisoned", { capacity: 1000, refillPerSecond: 1000 });
  await rm.client("poisoner", { tier: "enterprise" });
  await rm.client("poisoned", { tier: "basic" });
  ok(await rm.put("/admin/templates/poison", { worker: "EMAIL", maxAttempts: 5, resources: [{ pool: "poisoned", base: 1 }] }));
  const send = async (clientId, input) => ok(await rm.execute({ clientId, templateId: "poison", input })).requestId;
  for (let n = 0; n < 5; n += 1) await send("poisoner", { simulate: { status: 500 }, n });
  await waitFor(async () => (await seen("poisoned")).workers.some((worker) => worker.circuit === "open"), "the circuit to open", 15_000);
  const good = await send("poisoned", 1);
  assert.equal(ok(await rm.get(`/api/queue/position/${good}`)).blockedBy, "worker_unavailable");
  const done = await rm.ended(good, 30_000);
  assert.deepEqual([done.status, done.attempts], ["succeeded", 1]);
});

test("a step does not run by a worker that its pool leaves alone, be the pipeline's home another one", async () => {
  await rm.pool("scarce", { capacity: 1000, refillPerSecond: 0.001 });
  await rm.pool("failing", { capacity: 1000, refillPerSecond: 1000 });
  ok(await rm.put("/admin/templates/fails", { worker: "EMAIL", maxAttempts: 1, resources: [{ pool: "failing", base: 1 }] }));
  ok(await rm.put("/admin/templates/two-steps", { maxAttempts: 2, steps: [
    { worker: "ECHO", resources: [{ pool: "scarce", base: 5 }] },
    { worker: "EMAIL", resources: [{ pool: "failing", base: 1 }] },
  ] }));
  const send = (templateId, input, options) => rm.execute({ clientId: "presser", templateId, input }, options);
  for (let n = 0; n < 5; n += 1) assert.equal(ok(await send("fails", { simulate: { status: 500 }, n }, { wait: 5 })).status, "failed");
  const opened = Date.now();
  const { requestId } = ok(await send("two-steps", 1));
  await waitFor(async () => (await rm.execution(requestId)).steps[0].status === "succeeded", "the first step");
  await waitFor(async () => ok(await rm.get(`/api/queue/position/${requestId}`)).blockedBy === "worker_unavailable", "the reason");
  assert.equal((await rm.execution(requestId)).steps[1].attempts, 0);
  const done = await rm.ended(requestId, 30_000);
  assert.deepEqual([done.status, ...done.steps.map((step) => step.attempts)], ["succeeded", 1, 1]);
  assert.ok(Date.parse(done.steps[1].startedAt) - opened > 5_000);
  await waitFor(async () => (await seen("failing")).workers.length === 0, "the circuit to close");
});
