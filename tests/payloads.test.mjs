// Large inputs and results: in R2 while their request is kept, and nowhere after.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness({ vars: { RETENTION_HOURS: "0" } });
});
after(() => rm.close());

const keys = async () => (await rm.env.PAYLOADS.list()).objects.map(({ key }) => key);
const about = (id, all) => all.filter((key) => key.includes(id));
const text = (length, seed = 7) => Array.from({ length }, (_, n) => String.fromCharCode(33 + ((n * seed) % 90))).join("").replace(/["\\]/g, "~");

test("small ones stay with their request, large ones are in R2, and both come back whole", async () => {
  await rm.pool("payloads");
  await rm.client("payloads-client");
  for (const [length, stored] of [[100, 0], [65_000, 0], [70_000, 2]]) {
    const input = text(length);
    for (const wait of [10, 0]) {
      const answer = ok(await rm.execute(rm.work("payloads-client", "payloads", 1, { input }), { wait }));
      const execution = wait > 0 ? answer : await rm.ended(answer.requestId);
      assert.equal(execution.result.echo, input);
      assert.equal(execution.storedResult, undefined);
      assert.deepEqual((await rm.execution(answer.requestId)).result.echo, input);
      assert.equal(about(answer.requestId, await keys()).length, stored, `${length} bytes`);
    }
  }
});

test("ten mebibytes go round trip, waiting or not, and more is refused", async () => {
  await rm.client("large-client");
  const send = (length, wait) => {
    const body = { clientId: "large-client", worker: "ECHO", resources: [{ pool: "payloads", amount: 1 }], timeoutMs: 20_000, input: "" };
    const raw = JSON.stringify(body).replace('"input":""', `"input":"${"y".repeat(length - JSON.stringify(body).length)}"`);
    assert.equal(raw.length, length);
    return rm.call("POST", "/api/execute", { raw, headers: wait > 0 ? { prefer: `wait=${wait}` } : {} });
  };
  const limit = 10 * 1024 * 1024;
  const waited = await send(limit, 30);
  assert.equal(waited.status, 200, waited.text.slice(0, 300));
  assert.equal(waited.body.result.echo.length > limit - 300, true);
  const later = await send(limit, 0);
  assert.equal(later.status, 202);
  const ended = await rm.ended(later.body.requestId);
  assert.equal(ended.status, "succeeded");
  assert.equal(ended.result.echo.length, waited.body.result.echo.length);
  const refused = await send(limit + 1, 0);
  assert.deepEqual([refused.status, refused.body.code], [413, "payload_too_large"]);
  assert.equal((await rm.current("large-client")).heldUsd, 0);
});

test("a refused request stores nothing", async () => {
  const before = (await keys()).length;
  await rm.client("no-money", { monthlyBudgetUsd: 0 });
  assert.equal((await rm.execute(rm.work("no-money", "payloads", 1, { input: text(100_000) }))).status, 402);
  assert.equal((await keys()).length, before);
  // One that is refused after its input was stored.
  await rm.pool("no-queue", { queueCap: 0 });
  const refused = await rm.execute(rm.work("large-client", "no-queue", 1, { input: text(100_000) }));
  assert.deepEqual([refused.status, refused.body.code], [429, "queue_full"], refused.text);
  assert.equal((await keys()).length, before);
});

test("a large input survives retries, and a large result is not confused with an earlier attempt's", async () => {
  await rm.client("retried");
  ok(await rm.put("/admin/templates/retried", { worker: "ECHO", resources: [{ pool: "payloads", base: 1 }], maxAttempts: 3 }));
  const input = { simulate: { failFirst: 1 }, text: text(80_000) };
  const { requestId } = ok(await rm.execute({ clientId: "retried", templateId: "retried", input }));
  const execution = await rm.ended(requestId);
  assert.deepEqual([execution.status, execution.attempts, execution.result.echo.text.length], ["succeeded", 2, 80_000]);
});

test("they end with the retention period; what a crash left behind is found by its age", async () => {
  await rm.client("swept");
  const { body } = await rm.execute(rm.work("swept", "payloads", 1, { input: text(70_000) }), { wait: 10 });
  await rm.pool("payloads-full", { capacity: 5, refillPerSecond: 0 });
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "swept", resources: [{ pool: "payloads-full", amount: 5 }] }));
  const waiting = ok(await rm.execute(rm.work("swept", "payloads-full", 5, { input: text(70_000) })));
  await rm.env.PAYLOADS.put("input/01aaaaaaaaaaaaaaaaaaaaaaaa_payloads", "left behind");
  await waitFor(async () => {
    await rm.tick();
    const all = await keys();
    return about(body.requestId, all).length === 0 && !all.some((key) => key.includes("01aaaaaaa"));
  }, "the sweep");
  const kept = await rm.execution(body.requestId);
  assert.deepEqual([kept.status, kept.result, kept.resultExpired], ["succeeded", undefined, true]);
  assert.equal(about(waiting.requestId, await keys()).length, 1, "what has not ended keeps its input");
  ok(await rm.post("/internal/release", { reservationId }));
  assert.equal((await rm.ended(waiting.requestId)).result.echo.length, 70_000);
});
