// What operators set: pools, clients, templates.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

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
  const template = { worker: "ECHO", model: "m", resources: [{ pool: "fine", base: 1, perInputToken: 0.5, perOutputToken: 0 }], maxAttempts: 2, timeoutMs: 500, downgradeTo: ["n"], cacheTtlSeconds: 5, batch: { maxSize: 3, windowMs: 10, isolation: "client" }, defaultUrgency: "batch" };
  assert.deepEqual(ok(await rm.put("/admin/templates/new-template", template)), { templateId: "new-template", ...template });
  assert.deepEqual(ok(await rm.get("/admin/templates/new-template")), { templateId: "new-template", ...template });
  const unsaid = { ...template, batch: { maxSize: 3, windowMs: 10, isolation: null } };
  assert.deepEqual(ok(await rm.put("/admin/templates/new-template", unsaid)).batch, template.batch, "null is what is left out");
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

test("lists are in the order of their names, page by page", async () => {
  for (const list of ["pools", "clients", "templates"]) {
    const key = { pools: "pool", clients: "clientId", templates: "templateId" }[list];
    const all = ok(await rm.get(`/admin/${list}?limit=1000`)).items.map((item) => item[key]);
    assert.deepEqual(all, [...all].sort());
    const seen = [];
    for (let cursor = ""; cursor !== undefined; ) {
      const page = ok(await rm.get(`/admin/${list}?limit=2${cursor}`));
      assert.ok(page.items.length <= 2);
      seen.push(...page.items.map((item) => item[key]));
      cursor = page.nextCursor && `&cursor=${page.nextCursor}`;
    }
    assert.deepEqual(seen, all, list);
    assert.equal((await rm.get(`/admin/${list}?limit=0`)).status, 400);
    assert.equal((await rm.get(`/admin/${list}?after=x`)).body.errors[0].pointer, "after");
  }
  const own = ok(await rm.get("/admin/clients", { headers: { "x-client-id": "demo-basic" } })).items;
  assert.deepEqual(own.map(({ clientId }) => clientId), ["demo-basic"]);
});

test("a pool or client that holds work is not deleted; without work it is, and comes back as it was left", async () => {
  const gone = (path) => rm.call("DELETE", path);
  await rm.pool("leaving", { capacity: 10, refillPerSecond: 0 });
  await rm.client("leaver", { monthlyBudgetUsd: 1 });
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "leaver", resources: [{ pool: "leaving", amount: 10 }] }));
  const waiting = ok(await rm.execute(rm.work("leaver", "leaving", 1)));
  for (const path of ["/admin/pools/leaving", "/admin/clients/leaver"]) {
    const answer = await gone(path);
    assert.deepEqual([answer.status, answer.body.code], [409, "conflict"], answer.text);
    assert.equal((await rm.get(path)).status, 200);
  }
  ok(await rm.call("DELETE", `/api/queue/${waiting.requestId}`));
  assert.equal((await gone("/admin/pools/leaving")).status, 409, "the reservation is still there");
  ok(await rm.post("/internal/consume", { reservationId, usage: [{ pool: "leaving", amount: 4 }] }));
  ok(await rm.put("/admin/templates/needs-leaving", { worker: "ECHO", resources: [{ pool: "leaving", base: 1 }] }));
  const needed = await gone("/admin/pools/leaving");
  assert.equal(needed.status, 409);
  assert.match(needed.body.detail, /needs-leaving/);
  assert.equal((await gone("/admin/templates/needs-leaving")).status, 204);
  assert.equal((await gone("/admin/templates/needs-leaving")).status, 404);
  await waitFor(async () => (await gone("/admin/clients/leaver")).status === 204, "the charges to reach the record");
  assert.equal((await gone("/admin/clients/leaver")).status, 404);
  assert.equal((await rm.execute(rm.work("leaver", "leaving"))).status, 404);
  assert.equal((await rm.get("/api/usage/leaver/current")).status, 404);
  assert.equal(ok(await rm.get("/api/usage/leaver")).totals.costUsd, 0.04, "its record stays");
  assert.equal((await gone("/admin/pools/leaving")).status, 204);
  assert.equal((await gone("/admin/pools/leaving")).status, 404);
  assert.equal((await rm.post("/api/resources/check", { resources: [{ pool: "leaving", amount: 1 }] })).status, 422);
  assert.equal((await rm.execute(rm.work("demo-basic", "leaving"))).status, 422);
  assert.equal(ok(await rm.get(`/api/cost/${waiting.requestId}`)).actualUsd, 0, "its requests can be told from the record");
  // Neither money nor tokens are to be had by deleting.
  await rm.pool("leaving", { capacity: 10, refillPerSecond: 0 });
  await rm.client("leaver", { monthlyBudgetUsd: 1 });
  assert.equal((await rm.current("leaver")).spentUsd, 0.04);
  assert.equal((await rm.poolNow("leaving")).available, 6);
  assert.equal((await rm.execute(rm.work("leaver", "leaving", 6), { wait: 10 })).body.status, "succeeded");
});

test("what a deleted client has used is charged all the same", async () => {
  await rm.pool("late", { capacity: 10, refillPerSecond: 0 });
  await rm.client("late-client");
  const input = { simulate: { delayMs: 1500, usage: { late: 3 } } };
  const { requestId } = ok(await rm.execute(rm.work("late-client", "late", 5, { input })));
  await waitFor(async () => (await rm.execution(requestId)).status === "running", "the run");
  ok(await rm.post(`/api/execution/${requestId}/cancel`));
  await waitFor(async () => (await rm.call("DELETE", "/admin/clients/late-client")).status === 204, "the deletion");
  assert.equal((await rm.execute(rm.work("late-client", "late"))).status, 404);
  await waitFor(async () => ok(await rm.get("/api/usage/late-client")).totals.costUsd === 0.03, "the late charge");
  await rm.client("late-client");
  assert.equal((await rm.current("late-client")).spentUsd, 0.03);
  await waitFor(async () => (await rm.call("DELETE", "/admin/pools/late")).status === 204, "nothing left to settle");
});

test("a client's deletion is the operator's alone, and limited to the client that is named", async () => {
  await rm.client("guarded");
  assert.equal((await rm.call("DELETE", "/admin/clients/guarded", { token: "kam" })).status, 403);
  assert.equal((await rm.call("DELETE", "/admin/clients/guarded", { headers: { "x-client-id": "demo-basic" } })).status, 403);
  assert.equal((await rm.get("/admin/clients/guarded")).status, 200);
});
