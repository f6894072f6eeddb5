// What operators set: pools, clients, templates.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

test("the seeded pools, clients and templates are there", async () => {
  const pools = ok(await rm.get("/admin/pools")).items.map(({ pool }) => pool);
  assert.deepEqual(pools, ["database-d1", "email-sendgrid", "kv-storage", "openai-gpt-3.5", "openai-gpt-4", "sms-twilio"]);
  const clients = ok(await rm.get("/admin/clients")).items.map(({ clientId, tier }) => [clientId, tier]);
  assert.deepEqual(clients, [["demo-basic", "basic"], ["demo-enterprise", "enterprise"], ["demo-premium", "premium"], ["demo-standard", "standard"]]);
  const templates = ok(await rm.get("/admin/templates")).items.map(({ templateId }) => templateId);
  assert.deepEqual(templates, ["chat-completion", "echo", "send-email", "send-sms", "summarize"]);
  const availability = ok(await rm.get("/api/resources/availability"));
  for (const pool of availability.pools) {
    assert.deepEqual([pool.available, pool.reserved, pool.utilization, pool.status], [pool.capacity, 0, 0, "ok"], pool.pool);
  }
});

test("what is put is stored, with what was left out filled in, and putting it again changes nothing", async () => {
  const pool = { unit: "call", capacity: 2.5, refillPerSecond: 0.000001, unitPriceUsd: 1e-9 };
  const stored = { pool: "fine", ...pool, lowWaterPercent: 10, queueCap: 10000, windowCap: false, partitions: [] };
  assert.deepEqual(ok(await rm.put("/admin/pools/fine", pool)), stored);
  assert.deepEqual(ok(await rm.get("/admin/pools/fine")), stored);
  const client = { name: "A", tier: "premium" };
  const filled = { clientId: "new-client", ...client, monthlyBudgetUsd: 500, maxConcurrent: 50, timeZone: "UTC", status: "active" };
  assert.deepEqual(ok(await rm.put("/admin/clients/new-client", client)), filled);
  assert.deepEqual(ok(await rm.put("/admin/clients/new-client", filled_body(filled))), filled);
  const template = { worker: "ECHO", model: "m", resources: [{ pool: "fine", base: 1, perInputToken: 0.5, perOutputToken: 0 }], maxAttempts: 2, timeoutMs: 500, downgradeTo: ["n"], cacheTtlSeconds: 5, batch: { maxSize: 3, windowMs: 10 }, defaultUrgency: "batch" };
  assert.deepEqual(ok(await rm.put("/admin/templates/new-template", template)), { templateId: "new-template", ...template });
  assert.deepEqual(ok(await rm.get("/admin/templates/new-template")), { templateId: "new-template", ...template });
});

function filled_body({ clientId: _, ...body }) {
  return body;
}

test("a put never resets a level, a balance or a queue", async () => {
  await rm.pool("steady", { capacity: 10, refillPerSecond: 0 });
  await rm.client("steady-client", { monthlyBudgetUsd: 1 });
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "steady-client", resources: [{ pool: "steady", amount: 4 }] }));
  const waiting = ok(await rm.execute(rm.work("steady-client", "steady", 8)));
  await rm.pool("steady", { capacity: 10, refillPerSecond: 0 });
  await rm.pool("steady", { capacity: 20, refillPerSecond: 0 });
  assert.equal((await rm.poolNow("steady")).available, 6);
  await rm.client("steady-client", { monthlyBudgetUsd: 1 });
  await rm.client("steady-client", { monthlyBudgetUsd: 2 });
  const current = await rm.current("steady-client");
  assert.deepEqual([current.budgetUsd, current.heldUsd, current.queued], [2, 0.12, 1]);
  assert.equal((await rm.execution(waiting.requestId)).status, "queued");
  ok(await rm.post("/internal/release", { reservationId }));
  assert.equal((await rm.ended(waiting.requestId)).status, "succeeded");
});

test("a changed budget and a suspension take effect at once", async () => {
  await rm.pool("at-once");
  await rm.client("changing", { monthlyBudgetUsd: 0.01 });
  const send = () => rm.execute(rm.work("changing", "at-once", 2), { wait: 5 });
  assert.equal((await send()).status, 402);
  await rm.client("changing", { monthlyBudgetUsd: 1 });
  assert.equal((await send()).status, 200);
  await rm.client("changing", { monthlyBudgetUsd: 1, status: "suspended" });
  const suspended = await send();
  assert.deepEqual([suspended.status, suspended.body.code], [403, "forbidden"]);
  await rm.client("changing", { monthlyBudgetUsd: 1 });
  assert.equal((await send()).status, 200);
});

test("a pool made smaller than a waiting request ends it, with the reason", async () => {
  await rm.pool("shrinking", { capacity: 10, refillPerSecond: 0 });
  await rm.client("large");
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "large", resources: [{ pool: "shrinking", amount: 10 }] }));
  const { requestId } = ok(await rm.execute(rm.work("large", "shrinking", 8)));
  await rm.pool("shrinking", { capacity: 5, refillPerSecond: 0 });
  const execution = await rm.ended(requestId);
  assert.deepEqual([execution.status, execution.error.code], ["failed", "unsatisfiable"]);
  ok(await rm.post("/internal/release", { reservationId }));
});
