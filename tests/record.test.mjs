// What is kept beside the objects: the record in D1, the snapshots in KV; and the tick that looks after both.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

const rows = async (sql, ...bindings) => (await rm.env.DB.prepare(sql).bind(...bindings).all()).results;

test("each charge reaches D1 once, and the roll-ups follow", async () => {
  await rm.pool("recorded");
  await rm.client("recorded-client");
  const { body } = await rm.execute(rm.work("recorded-client", "recorded", 4), { wait: 10 });
  const [event] = await waitFor(async () => {
    const found = await rows("SELECT * FROM usage_events WHERE client_id = ?", "recorded-client");
    return found.length > 0 ? found : null;
  }, "the charge in D1");
  assert.deepEqual(
    [event.event, event.request_id, event.kind, event.status, event.worker, event.cost_nanousd, event.uncertain],
    [body.requestId, body.requestId, "execution", "succeeded", "ECHO", 40_000_000, 0],
  );
  const [line, ...others] = JSON.parse(event.lines);
  assert.deepEqual(others, []);
  assert.deepEqual([line.pool, line.estimatedMicros, line.actualMicros, line.unitPriceNanoUsd, line.costNanoUsd, line.priceVersion], ["recorded", 4_000_000, 4_000_000, 10_000_000, 40_000_000, "recorded@1"]);
  // The same again, as after a lost answer of D1, changes nothing.
  const columns = Object.keys(event);
  const insert = `INSERT INTO usage_events (${columns}) VALUES (${columns.map(() => "?")}) ON CONFLICT (event) DO NOTHING`;
  await rm.env.DB.prepare(insert).bind(...Object.values(event)).run();
  const [daily] = await rows("SELECT * FROM usage_daily WHERE client_id = ?", "recorded-client");
  assert.deepEqual([daily.requests, daily.cost_nanousd], [1, 40_000_000]);
  const [period] = await rows("SELECT * FROM budget_periods WHERE client_id = ?", "recorded-client");
  assert.deepEqual([period.requests, period.spent_nanousd], [1, 40_000_000]);
});

test("a D1 that is out of reach stops reports, not requests, and gets the charges later", async () => {
  await rm.pool("without-d1");
  await rm.client("without-d1-client");
  await rm.execute(rm.work("without-d1-client", "without-d1", 1), { wait: 10 });
  await rm.env.DB.prepare("ALTER TABLE usage_events RENAME TO usage_events_away").run();
  const sent = [];
  for (let n = 0; n < 3; n += 1) {
    const { body } = await rm.execute(rm.work("without-d1-client", "without-d1", 1), { wait: 10 });
    assert.equal(body.status, "succeeded");
    sent.push(body.requestId);
  }
  await rm.tick();
  await rm.env.DB.prepare("ALTER TABLE usage_events_away RENAME TO usage_events").run();
  await rm.tick();
  await waitFor(async () => (await rows("SELECT event FROM usage_events WHERE client_id = ?", "without-d1-client")).length === 4, "all charges");
  const found = (await rows("SELECT event FROM usage_events WHERE client_id = ?", "without-d1-client")).map(({ event }) => event);
  assert.ok(sent.every((id) => found.includes(id)));
});

test("availability is read from snapshots that follow the pool", async () => {
  await rm.pool("seen", { capacity: 100, refillPerSecond: 0 });
  await rm.client("seen-client");
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "seen-client", resources: [{ pool: "seen", amount: 95 }] }));
  const seen = async (status) => {
    const { pools } = ok(await rm.get("/api/resources/availability"));
    const pool = pools.find((one) => one.pool === "seen");
    return pool?.status === status ? pool : null;
  };
  const low = await waitFor(() => seen("low"), "the snapshot");
  assert.deepEqual([low.available, low.reserved, low.utilization], [5, 95, 0.95]);
  ok(await rm.post("/internal/release", { reservationId }));
  assert.equal((await waitFor(() => seen("ok"), "the next snapshot")).reserved, 0);
});

test("an object that was evicted goes on where it was", async () => {
  await rm.pool("evicted", { capacity: 10, refillPerSecond: 0 });
  await rm.client("evicted-client");
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "evicted-client", resources: [{ pool: "evicted", amount: 9 }] }));
  const { requestId } = ok(await rm.execute(rm.work("evicted-client", "evicted", 5)));
  const before = await rm.current("evicted-client");
  await rm.worker.evictDurableObject("POOL", { name: "evicted" });
  await rm.worker.evictDurableObject("ACCOUNT", { name: "evicted-client" });
  assert.deepEqual(await rm.current("evicted-client"), before);
  assert.equal((await rm.execution(requestId)).status, "queued");
  assert.equal((await rm.poolNow("evicted")).available, 1);
  ok(await rm.post("/internal/release", { reservationId }));
  assert.equal((await rm.ended(requestId)).status, "succeeded");
});

test("the tick is seen by /health", async () => {
  await rm.tick();
  const { body, status } = await rm.get("/health", { token: null });
  assert.equal(status, 200);
  assert.deepEqual(body.checks.map(({ name, status: state }) => [name, state]), [
    ["d1", "ok"],
    ["kv", "ok"],
    ["r2", "ok"],
    ["durable_objects", "ok"],
    ["scheduler", "ok"],
  ]);
});
