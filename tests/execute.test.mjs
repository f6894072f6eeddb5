// The main job: a request goes from a client through budget, queue, pool and service binding to a worker and back.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

test("a request is run at once, answered, and charged exactly", async () => {
  await rm.pool("exact", { unitPriceUsd: 0.000000001 });
  await rm.client("exact-client", { monthlyBudgetUsd: 1 });
  const answer = await rm.execute(rm.work("exact-client", "exact", 7, { input: { text: "héllo", n: [1, null] } }), { wait: 10 });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("preference-applied"), "wait=10");
  assert.ok(answer.headers.get("x-request-id"));
  assert.equal(answer.body.status, "succeeded");
  assert.deepEqual(answer.body.result, { echo: { text: "héllo", n: [1, null] } });
  assert.deepEqual(answer.body.resources, [{ pool: "exact", estimated: 7, actual: 7 }]);
  assert.match(answer.text, /"actualUsd":0\.000000007[,}]/);
  const usage = await rm.current("exact-client");
  assert.deepEqual([usage.spentUsd, usage.heldUsd, usage.remainingUsd, usage.running], [7e-9, 0, 0.999999993, 0]);
  const bill = ok(await rm.get(`/api/cost/${answer.body.requestId}`));
  assert.deepEqual(bill.lines, [{ pool: "exact", amount: 7, unitPriceUsd: 1e-9, costUsd: 7e-9 }]);
  assert.equal(bill.settled, true);
});

test("without a wait the answer is 202 with where to look", async () => {
  const answer = await rm.execute({ clientId: "demo-standard", templateId: "echo", input: "hi" });
  assert.equal(answer.status, 202);
  assert.equal(answer.headers.get("location"), `/api/execution/${answer.body.requestId}`);
  const execution = await rm.ended(answer.body.requestId);
  assert.equal(execution.status, "succeeded");
  assert.deepEqual(execution.result, { echo: "hi" });
});

test("all four tiers reach their workers by the seeded templates", async () => {
  for (const [clientId, templateId] of [
    ["demo-enterprise", "chat-completion"],
    ["demo-premium", "summarize"],
    ["demo-standard", "send-email"],
    ["demo-basic", "send-sms"],
    ["demo-basic", "echo"],
  ]) {
    const answer = await rm.execute({ clientId, templateId, input: { to: "x" }, parameters: { maxOutputTokens: 50 } }, { wait: 10 });
    assert.equal(answer.body.status, "succeeded", answer.text);
    assert.ok(answer.body.cost.actualUsd > 0);
  }
});

test("a template's estimate follows the input and the output's limit", async () => {
  const input = "x".repeat(398);
  const answer = await rm.execute({ clientId: "demo-premium", templateId: "summarize", input, parameters: { maxOutputTokens: 11 } }, { wait: 10 });
  assert.deepEqual(answer.body.resources, [{ pool: "openai-gpt-3.5", estimated: 111, actual: 111 }]);
});

test("what the worker says it used is charged, more or less than was reserved", async () => {
  await rm.pool("usage", { capacity: 100, refillPerSecond: 0 });
  await rm.client("usage-client");
  const run = (usage) => rm.execute(rm.work("usage-client", "usage", 10, { input: { simulate: { usage } } }), { wait: 10 });
  assert.equal((await run({ usage: 4 })).body.cost.actualUsd, 0.04);
  assert.equal((await rm.poolNow("usage")).available, 96);
  assert.equal((await run({ usage: 25 })).body.cost.actualUsd, 0.25);
  assert.equal((await rm.poolNow("usage")).available, 71);
  assert.equal((await run({ usage: 0 })).body.cost.actualUsd, 0);
  assert.equal((await run({})).body.cost.actualUsd, 0.1);
  assert.equal((await rm.poolNow("usage")).available, 61);
  const { spentUsd, heldUsd } = await rm.current("usage-client");
  assert.deepEqual([spentUsd, heldUsd], [0.39, 0]);
});

test("a worker that lies about its usage is charged as reserved", async () => {
  await rm.pool("lies");
  await rm.client("lies-client");
  for (const usage of [{ lies: -5 }, { lies: "many" }, { lies: 1e300 }, { lies: null }, { nowhere: 3 }, "much", 7]) {
    const answer = await rm.execute(rm.work("lies-client", "lies", 2, { input: { simulate: { usage } } }), { wait: 10 });
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual([answer.body.status, answer.body.cost.actualUsd], ["succeeded", 0.02], answer.text);
  }
  assert.equal((await rm.current("lies-client")).heldUsd, 0);
});

test("the downstream worker sees the request as it was sent, and the trace goes on", async () => {
  const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const answer = await rm.execute(rm.work("demo-standard", "database-d1", 1, { input: null }), { wait: 10, headers: { traceparent } });
  assert.equal(answer.body.result.echo, null);
});

test("failures end as they should, cost nothing and give everything back", async () => {
  await rm.pool("failing", { capacity: 50, refillPerSecond: 0 });
  await rm.client("failing-client");
  const run = (simulate, more = {}) => rm.execute(rm.work("failing-client", "failing", 5, { input: { simulate }, ...more }), { wait: 20 });
  const refused = await run({ status: 404 });
  assert.deepEqual([refused.body.status, refused.body.attempts, refused.body.error.code], ["failed", 1, "worker_refused"]);
  const broken = await run({ status: 500 });
  assert.deepEqual([broken.body.status, broken.body.attempts, broken.body.error.code], ["failed", 3, "worker_failed"]);
  const garbage = await run({ garbage: true });
  assert.deepEqual([garbage.body.status, garbage.body.error.code], ["failed", "invalid_worker_response"]);
  const mended = await run({ failFirst: 2 });
  assert.deepEqual([mended.body.status, mended.body.attempts, mended.body.cost.actualUsd], ["succeeded", 3, 0.05]);
  const { spentUsd, heldUsd, running } = await rm.current("failing-client");
  assert.deepEqual([spentUsd, heldUsd, running], [0.05, 0, 0]);
  assert.equal((await rm.poolNow("failing")).available, 45);
});

test("a worker that hangs ends by the time limit, every attempt with the same key", async () => {
  await rm.resetStats();
  await rm.pool("hanging", { capacity: 50, refillPerSecond: 0 });
  await rm.client("hanging-client");
  const answer = await rm.execute(rm.work("hanging-client", "hanging", 5, { input: { simulate: { hang: true } }, timeoutMs: 200 }), { wait: 30 });
  assert.deepEqual([answer.body.status, answer.body.attempts], ["timed_out", 3]);
  assert.equal((await rm.stats()).byRequest[answer.body.requestId], 3);
  assert.equal((await rm.current("hanging-client")).heldUsd, 0);
  assert.equal((await rm.poolNow("hanging")).available, 50);
});

test("a request that is not finished by its deadline expires", async () => {
  await rm.pool("late", { capacity: 10, refillPerSecond: 0 });
  await rm.client("late-client");
  const deadline = new Date(Date.now() + 400).toISOString();
  const running = await rm.execute(rm.work("late-client", "late", 1, { input: { simulate: { hang: true } }, deadline }), { wait: 20 });
  assert.deepEqual([running.body.status, running.body.error.code], ["expired", "expired"], running.text);
  const blocked = ok(await rm.post("/internal/reserve", { clientId: "late-client", resources: [{ pool: "late", amount: 10 }] }));
  const queued = await rm.execute(rm.work("late-client", "late", 5, { deadline: new Date(Date.now() + 300).toISOString() }), { wait: 20 });
  assert.equal(queued.body.status, "expired", queued.text);
  ok(await rm.post("/internal/release", { reservationId: blocked.reservationId }));
  const { heldUsd, running: runs, queued: waits } = await rm.current("late-client");
  assert.deepEqual([heldUsd, runs, waits], [0, 0, 0]);
});

test("a busy worker's Retry-After pauses the pool, and the request is tried again", async () => {
  await rm.pool("busy");
  await rm.client("busy-client");
  const busy = ok(await rm.execute(rm.work("busy-client", "busy", 1, { input: { simulate: { status: 429, retryAfterSeconds: 1 } } })));
  const next = await rm.execute(rm.work("busy-client", "busy", 1), { wait: 0 });
  const first = await rm.ended(busy.requestId);
  assert.equal(first.status, "failed");
  assert.ok(first.attempts === 3 && Date.parse(first.finishedAt) - Date.parse(first.createdAt) >= 2_000, JSON.stringify(first));
  assert.equal((await rm.ended(next.body.requestId)).status, "succeeded");
});

test("KAM calls the service for an authenticated client", async () => {
  const execute = (key) =>
    rm.kam.fetch("http://localhost/execute", {
      method: "POST",
      headers: { "x-api-key": key, "content-type": "application/json", prefer: "wait=10" },
      body: JSON.stringify({ templateId: "echo", input: 5, clientId: "demo-basic" }),
    });
  const answer = await (await execute("key-premium")).json();
  assert.deepEqual([answer.clientId, answer.status], ["demo-premium", "succeeded"]);
  assert.equal((await execute("nobody")).status, 401);
});
