// What the contract promises of a request, the queue and problems, row by row, where no other file has it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

test("a body with every field that there is, is taken", async () => {
  const body = {
    clientId: "demo-premium",
    templateId: "chat-completion",
    resources: [{ pool: "openai-gpt-4", amount: 800 }],
    input: {},
    parameters: { maxOutputTokens: 400, temperature: 0.5 },
    urgency: "normal",
    deadline: new Date(Date.now() + 60_000).toISOString(),
    timeoutMs: 30_000,
    optimization: { level: "standard", downgrade: true, batch: true, cache: true, compress: true, offPeak: true },
  };
  const { body: execution, status } = await rm.execute(body, { wait: 10 });
  assert.equal(status, 200);
  assert.deepEqual(
    [execution.status, execution.cached, execution.urgency, execution.attempts, execution.optimizations],
    ["succeeded", false, "normal", 1, []],
  );
  assert.deepEqual(execution.cost, { estimatedUsd: 0.024, actualUsd: 0.024, baselineUsd: 0.024, savedUsd: 0 });
  for (const field of ["createdAt", "startedAt", "finishedAt"]) assert.match(execution[field], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.ok(execution.waitMs >= 0 && execution.runMs >= 0);
  for (const level of ["off", "standard", "aggressive"]) assert.equal((await rm.post("/api/cost/estimate", { ...body, optimization: { level } })).status, 200);
  for (const urgency of ["immediate", "fast", "normal", "batch", "deferred"]) {
    const queued = await rm.post("/api/queue/enqueue", { clientId: "demo-premium", templateId: "echo", urgency }, { headers: { prefer: "wait=10" } });
    assert.deepEqual([queued.status, queued.body.urgency], [202, urgency], "enqueue is always 202");
    assert.equal(queued.headers.get("location"), `/api/execution/${queued.body.requestId}`);
    for (const field of ["requestId", "status", "priority", "position", "estimatedWaitMs", "estimatedCostUsd", "optimizations"]) assert.ok(field in queued.body, field);
    await rm.ended(queued.body.requestId);
  }
});

test("the queue tells lanes and pools apart, how long the oldest waits, and when the next is granted", async () => {
  await rm.pool("waits", { capacity: 10, refillPerSecond: 0.1 });
  await rm.client("waiter");
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "waiter", resources: [{ pool: "waits", amount: 10 }] }));
  const ids = [];
  for (const urgency of ["batch", "fast", "fast"]) ids.push(ok(await rm.execute({ ...rm.work("waiter", "waits", 5), urgency })).requestId);
  const status = ok(await rm.get("/api/queue/status"));
  const lanes = Object.fromEntries(status.lanes.map(({ urgency, depth }) => [urgency, depth]));
  assert.deepEqual(lanes, { immediate: 0, fast: 2, normal: 0, batch: 1, deferred: 0 });
  const pool = status.pools.find((one) => one.pool === "waits");
  assert.deepEqual([status.depth, pool.depth, pool.running, status.scheduler], [3, 3, 0, "running"]);
  assert.ok(pool.oldestWaitMs >= 0 && status.oldestWaitMs >= pool.oldestWaitMs);
  assert.ok(pool.nextGrantMs > 30_000 && pool.nextGrantMs <= 50_000, "5 units at a tenth a second");
  const positions = await Promise.all(ids.map(async (id) => ok(await rm.get(`/api/queue/position/${id}`))));
  assert.deepEqual(positions.map(({ position, ahead, blockedBy }) => [position, ahead, blockedBy]), [[3, 2, "tokens"], [1, 0, "tokens"], [2, 1, "tokens"]]);
  for (const { priority, score, pool: home, estimatedStartAt } of positions) {
    assert.equal(home, "waits");
    assert.ok(Math.abs(priority - (score.tier + score.urgency + score.wait + score.fairness)) < 0.001);
    assert.ok(Date.parse(estimatedStartAt) > Date.now());
  }
  for (const id of ids) ok(await rm.call("DELETE", `/api/queue/${id}`));
  ok(await rm.post("/internal/release", { reservationId }));
});

test("what blocks a request is named: another pool, a retry", async () => {
  await rm.pool("home", { capacity: 10, refillPerSecond: 0.001 });
  await rm.pool("second", { capacity: 10, refillPerSecond: 1000 });
  await rm.client("blocked");
  ok(await rm.put("/admin/templates/blocked", { worker: "ECHO", resources: [{ pool: "second", base: 1 }], maxAttempts: 5 }));
  ok(await rm.put("/admin/pools/second", { unit: "unit", capacity: 10, refillPerSecond: 0.01, unitPriceUsd: 0.01 }));
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "blocked", resources: [{ pool: "second", amount: 10 }] }));
  const resources = [{ pool: "home", amount: 5 }, { pool: "second", amount: 1 }];
  const { requestId } = ok(await rm.execute({ clientId: "blocked", worker: "ECHO", resources }));
  const blockedBy = async (id, reason) => {
    await waitFor(async () => {
      const { status, body } = await rm.get(`/api/queue/position/${id}`);
      return status === 200 && body.blockedBy === reason;
    }, reason);
  };
  await blockedBy(requestId, "secondary_pool");
  ok(await rm.post("/internal/release", { reservationId }));
  assert.equal((await rm.ended(requestId)).status, "succeeded");
  const retried = ok(await rm.execute({ clientId: "blocked", templateId: "blocked", input: { simulate: { failFirst: 1 } } }));
  await blockedBy(retried.requestId, "retry_backoff");
  assert.equal((await rm.ended(retried.requestId)).attempts, 2);
});

test("a store that is out of reach is a 503 that says when to come again, and nothing of what is inside", async () => {
  const { requestId } = (await rm.execute({ clientId: "demo-basic", templateId: "echo" }, { wait: 10 })).body;
  await rm.env.DB.prepare("ALTER TABLE usage_daily RENAME TO usage_daily_away").run();
  const answer = await rm.get("/api/usage/demo-basic");
  await rm.env.DB.prepare("ALTER TABLE usage_daily_away RENAME TO usage_daily").run();
  assert.deepEqual([answer.status, answer.body.code], [503, "unavailable"]);
  assert.equal(answer.headers.get("retry-after"), "1");
  assert.doesNotMatch(answer.text, /usage_daily|D1|SQL/);
  assert.equal(ok(await rm.get(`/api/cost/${requestId}`)).settled, true);
});

test("a body that is too long is refused before it is read whole", async () => {
  const chunk = new TextEncoder().encode("x".repeat(1024 * 1024));
  const headers = { authorization: "Bearer test-kam-token", "content-type": "application/json" };
  // Who goes on sending may see the connection closed before it sees the answer, so this is asked until it is seen.
  const response = await waitFor(async () => {
    let pulled = 0;
    const body = new ReadableStream({
      pull(controller) {
        pulled += 1;
        controller.enqueue(chunk);
        if (pulled === 200) controller.close();
      },
    });
    const init = { method: "POST", headers, body, duplex: "half" };
    const answer = await rm.worker.fetch("http://localhost/api/execute", init).catch(() => null);
    assert.ok(pulled < 100, `${pulled} MiB were read`);
    return answer;
  }, "an answer");
  assert.equal(response.status, 413);
});
