// What must hold however many callers come at once.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

const times = (n, what) => Promise.all(Array.from({ length: n }, (_, index) => what(index)));
const count = (answers, status) => answers.filter((answer) => answer.status === status).length;

test("1,000 concurrent enqueues of $0.10 on a $5.00 budget admit exactly 50", async () => {
  await rm.pool("dime", { capacity: 1_000_000, refillPerSecond: 0, unitPriceUsd: 0.1 });
  await rm.client("five-dollars", { tier: "basic", monthlyBudgetUsd: 5 });
  ok(await rm.post("/admin/scheduler/stop"));
  const answers = await times(1_000, () => rm.post("/api/queue/enqueue", rm.work("five-dollars", "dime", 1)));
  assert.equal(count(answers, 202), 50);
  assert.equal(count(answers, 402), 950);
  const refused = answers.find((answer) => answer.status === 402);
  assert.equal(refused.body.code, "budget_exceeded");
  assert.ok(Number(refused.headers.get("retry-after")) > 0);
  const held = await rm.current("five-dollars");
  assert.deepEqual([held.heldUsd, held.spentUsd, held.remainingUsd, held.queued], [5, 0, 0, 50]);
  ok(await rm.post("/admin/scheduler/start"));
  await waitFor(async () => (await rm.current("five-dollars")).queued === 0 && (await rm.current("five-dollars")).running === 0, "all to run", 60_000);
  const spent = await rm.current("five-dollars");
  assert.deepEqual([spent.heldUsd, spent.spentUsd, spent.remainingUsd], [0, 5, 0]);
});

test("400 concurrent reserves of 1 on a bucket of 100 never exceed capacity and refill", async () => {
  await rm.client("reserver");
  await rm.pool("hundred", { capacity: 100, refillPerSecond: 0 });
  const reserve = (pool) => rm.post("/internal/reserve", { clientId: "reserver", resources: [{ pool, amount: 1 }] });
  const still = await times(400, () => reserve("hundred"));
  assert.equal(count(still, 200), 100);
  assert.equal(count(still, 429), 300);
  await rm.pool("hundred-refilled", { capacity: 100, refillPerSecond: 20 });
  const began = Date.now();
  const moving = await times(400, () => reserve("hundred-refilled"));
  const seconds = (Date.now() - began) / 1000;
  const granted = count(moving, 200);
  assert.ok(granted >= 100 && granted <= 100 + 20 * seconds, `${granted} in ${seconds} s`);
  assert.equal(granted + count(moving, 429), 400);
  const held = await rm.current("reserver");
  assert.equal(Math.round(held.heldUsd * 100), 100 + granted);
});

test("50 concurrent sends with one idempotency key make one request", async () => {
  await rm.resetStats();
  await rm.pool("once");
  await rm.client("once-client");
  const body = rm.work("once-client", "once", 3, { input: { simulate: { delayMs: 50 } } });
  const answers = await times(50, () => rm.execute(body, { key: "order-1", wait: 10 }));
  assert.equal(new Set(answers.map((answer) => answer.body.requestId)).size, 1);
  assert.equal(answers.filter((answer) => answer.headers.get("idempotency-replayed") === "true").length, 49);
  assert.ok(answers.every((answer) => answer.status === 200 && answer.body.status === "succeeded"));
  assert.equal((await rm.stats()).calls, 1);
  assert.equal((await rm.current("once-client")).spentUsd, 0.03);
  const other = await rm.execute({ ...body, input: "another" }, { key: "order-1" });
  assert.deepEqual([other.status, other.body.code], [422, "idempotency_mismatch"]);
  const again = await rm.execute(body, { key: "order-1", wait: 5 });
  assert.deepEqual([again.status, again.body.requestId], [200, answers[0].body.requestId]);
});

test("a basic client never runs 6, and all of its requests are run", async () => {
  await rm.resetStats();
  await rm.pool("wide");
  await rm.pool("wide-too");
  await rm.client("basic-client", { tier: "basic", monthlyBudgetUsd: 10 });
  const answers = await times(40, (n) =>
    rm.execute(rm.work("basic-client", n % 2 ? "wide" : "wide-too", 1, { input: { simulate: { delayMs: 40 } } })),
  );
  assert.equal(count(answers, 202), 40);
  for (const answer of answers) assert.equal((await rm.ended(answer.body.requestId, 60_000)).status, "succeeded");
  const { maxRunning } = (await rm.stats()).byClient["basic-client"];
  assert.ok(maxRunning <= 5, `${maxRunning} at once`);
  assert.ok(maxRunning >= 4, `only ${maxRunning} at once: slots lie idle`);
  const { running, queued, heldUsd } = await rm.current("basic-client");
  assert.deepEqual([running, queued, heldUsd], [0, 0, 0]);
});

test("80 that can all start at once do, however many events that takes", async () => {
  await rm.resetStats();
  await rm.pool("burst");
  await rm.client("burster", { maxConcurrent: 100 });
  ok(await rm.post("/admin/scheduler/stop"));
  const body = rm.work("burster", "burst", 1);
  const answers = await times(80, () => rm.execute(body));
  ok(await rm.post("/admin/scheduler/start"));
  for (const answer of answers) {
    const execution = await rm.ended(answer.body.requestId);
    assert.deepEqual([execution.status, execution.attempts], ["succeeded", 1]);
  }
  assert.equal((await rm.stats()).calls, 80);
});

test("a request that waits for a slot does not hold back another client's", async () => {
  await rm.pool("shared");
  await rm.client("greedy", { maxConcurrent: 1 });
  await rm.client("modest");
  const slow = await rm.execute(rm.work("greedy", "shared", 1, { input: { simulate: { hang: true } }, timeoutMs: 60_000 }));
  await waitFor(async () => (await rm.execution(slow.body.requestId)).status === "running", "the slot to be taken");
  // Not immediate ones: those that would wait for more than one run are refused at once.
  const waiting = await times(5, () => rm.execute(rm.work("greedy", "shared", 1, { urgency: "fast" })));
  for (const answer of waiting) assert.equal(answer.status, 202, answer.text);
  const position = await waitFor(async () => {
    const { body } = await rm.get(`/api/queue/position/${waiting[0].body.requestId}`);
    return body.blockedBy === "concurrency" ? body : null;
  }, "the slot to be missed");
  assert.equal(position.pool, "shared");
  const other = await rm.execute(rm.work("modest", "shared", 1, { urgency: "deferred" }), { wait: 10 });
  assert.equal(other.body.status, "succeeded");
  ok(await rm.post(`/api/execution/${slow.body.requestId}/cancel`));
  for (const answer of waiting) assert.equal((await rm.ended(answer.body.requestId)).status, "succeeded");
});

test("a client without slots is told so at once where it cannot wait, and waits for them else", async () => {
  await rm.pool("slotless");
  await rm.client("no-slots", { maxConcurrent: 0 });
  const urgent = await rm.execute(rm.work("no-slots", "slotless", 1, { urgency: "immediate" }));
  assert.deepEqual([urgent.status, urgent.body.code], [429, "insufficient_resources"]);
  const { requestId } = ok(await rm.execute(rm.work("no-slots", "slotless", 1)));
  const position = await waitFor(async () => {
    const { body } = await rm.get(`/api/queue/position/${requestId}`);
    return body.blockedBy === "concurrency" ? body : null;
  }, "the slot to be missed");
  assert.equal(position.estimatedStartAt, null, "that is not a matter of time");
  assert.deepEqual([(await rm.current("no-slots")).heldUsd, (await rm.poolNow("slotless")).available], [0.01, 1000]);
  await rm.client("no-slots", { maxConcurrent: 1 });
  assert.equal((await rm.ended(requestId)).status, "succeeded");
});

test("100 requests over two pools, in both orders, are all run, and leave nothing behind", async () => {
  await rm.pool("left", { capacity: 20, refillPerSecond: 100 });
  await rm.pool("right", { capacity: 20, refillPerSecond: 120 });
  await rm.client("two-pools", { maxConcurrent: 50 });
  const answers = await times(100, (n) => {
    const resources = [{ pool: "left", amount: n % 3 ? 1 : 2 }, { pool: "right", amount: n % 3 ? 2 : 1 }];
    return rm.execute({ clientId: "two-pools", worker: "ECHO", resources: n % 2 ? resources : resources.reverse() });
  });
  let spent = 0;
  for (const answer of answers) {
    const execution = await rm.ended(answer.body.requestId, 60_000);
    assert.equal(execution.status, "succeeded");
    spent += Math.round(execution.cost.actualUsd * 100);
  }
  const { running, heldUsd, spentUsd } = await rm.current("two-pools");
  assert.deepEqual([running, heldUsd, Math.round(spentUsd * 100)], [0, 0, spent]);
  for (const pool of ["left", "right"]) {
    await waitFor(async () => (await rm.poolNow(pool)).available === 20, `${pool} to be full again`);
  }
});
