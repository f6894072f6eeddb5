// Nothing that a caller sends makes a 5xx, and every refusal names what is wrong and takes nothing.

import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { after, before, test } from "node:test";

import { startHarness } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

const good = { clientId: "demo-basic", templateId: "echo" };
const direct = { clientId: "demo-basic", worker: "ECHO", resources: [{ pool: "database-d1", amount: 1 }] };

async function refused(method, path, body, pointer, status = 400, code = "invalid_request") {
  const answer = await rm.call(method, path, typeof body === "string" ? { raw: body } : { body });
  const what = `${method} ${path} ${typeof body === "string" ? body : JSON.stringify(body)}`.slice(0, 200);
  assert.deepEqual([answer.status, answer.body.code], [status, code], `${what}: ${answer.text}`);
  assert.equal(answer.headers.get("content-type"), "application/problem+json");
  for (const field of ["type", "title", "detail", "requestId"]) assert.ok(answer.body[field], `${what}: ${field}`);
  assert.equal(answer.body.status, status);
  if (pointer !== undefined) assert.equal(answer.body.errors?.[0]?.pointer, pointer, `${what}: ${answer.text}`);
  return answer;
}

test("a body that is not as it should be is refused by its field", async () => {
  const before = await rm.current("demo-basic");
  for (const path of ["/api/execute", "/api/queue/enqueue"]) {
    for (const [body, pointer] of [
      ["", ""],
      ["{", ""],
      ["null", ""],
      ["[]", ""],
      ['["demo-basic","echo"]', ""],
      ["42", ""],
      ["{} {}", undefined],
      [`${"[".repeat(10_000)}`, ""],
      [{}, "/clientId"],
      [{ ...good, input: 1, inputs: 2 }, "/inputs"],
      [{ ...good, clientId: 5 }, "/clientId"],
      [{ ...good, clientId: "" }, "/clientId"],
      [{ ...good, clientId: "../admin" }, "/clientId"],
      [{ ...good, clientId: "x".repeat(65) }, "/clientId"],
      [{ ...good, templateId: "a/b" }, "/templateId"],
      [{ clientId: "demo-basic" }, "/templateId"],
      [{ ...good, worker: "ECHO" }, "/worker"],
      [{ ...good, urgency: "now" }, "/urgency"],
      [{ ...good, deadline: "tomorrow" }, "/deadline"],
      [{ ...good, deadline: "2020-01-01T00:00:00.000Z" }, "/deadline"],
      [{ ...good, timeoutMs: 0 }, "/timeoutMs"],
      [{ ...good, timeoutMs: -1 }, "/timeoutMs"],
      [{ ...good, timeoutMs: 1.5 }, "/timeoutMs"],
      [{ ...good, timeoutMs: 1e12 }, "/timeoutMs"],
      [{ ...good, parameters: [] }, "/parameters"],
      [{ ...good, parameters: { maxOutputTokens: -1 } }, "/parameters/maxOutputTokens"],
      [{ ...good, optimization: { level: "extreme" } }, "/optimization/level"],
      [{ ...good, optimization: { cach: true } }, "/optimization/cach"],
      [{ ...good, resources: {} }, "/resources"],
      [{ ...good, resources: [] }, "/resources"],
      [{ ...direct, worker: "NOBODY" }, "/worker"],
      [{ ...direct, worker: "SELF" }, "/worker"],
      [{ ...direct, worker: "DB" }, "/worker"],
      [{ ...direct, worker: "KAM_TOKEN" }, "/worker"],
      [{ ...direct, worker: "echo" }, "/worker"],
      [{ clientId: "demo-basic", worker: "ECHO" }, "/resources"],
      [{ ...direct, resources: [["database-d1", 1]] }, "/resources/0"],
      [{ ...direct, resources: [{ pool: "database-d1" }] }, "/resources/0/amount"],
      [{ ...direct, resources: [{ pool: "database-d1", amount: 0 }] }, "/resources/0/amount"],
      [{ ...direct, resources: [{ pool: "database-d1", amount: -1 }] }, "/resources/0/amount"],
      [{ ...direct, resources: [{ pool: "database-d1", amount: 1.5 }] }, "/resources/0/amount"],
      [{ ...direct, resources: [{ pool: "database-d1", amount: 1e300 }] }, "/resources/0/amount"],
      [{ ...direct, resources: [{ pool: "database-d1", amount: 18446744073709551615 }] }, "/resources/0/amount"],
      [{ ...direct, resources: [{ pool: "a", amount: 1 }, { pool: "a", amount: 1 }] }, "/resources/1/pool"],
      [{ ...direct, resources: Array.from({ length: 9 }, (_, n) => ({ pool: `p${n}`, amount: 1 })) }, "/resources"],
    ]) {
      await refused("POST", path, body, pointer);
    }
  }
  assert.deepEqual(await rm.current("demo-basic"), before);
});

test("what is not there is not found; what can never fit is refused for good", async () => {
  await refused("POST", "/api/execute", { ...good, templateId: "no-such-template" }, undefined, 404, "not_found");
  await refused("POST", "/api/execute", { ...good, clientId: "no-such-client" }, undefined, 404, "not_found");
  await refused("GET", "/api/usage/no-such-client/current", undefined, undefined, 404, "not_found");
  await refused("GET", "/api/execution/nonsense", undefined, undefined, 404, "not_found");
  await refused("GET", "/api/execution/01m85jda95jevgwq9he4bpqxny_no-such-pool", undefined, undefined, 404, "not_found");
  await refused("GET", "/api/cost/01m85jda95jevgwq9he4bpqxny_database-d1", undefined, undefined, 404, "not_found");
  await refused("GET", "/api/queue/position/01m85jda95jevgwq9he4bpqxny_database-d1", undefined, undefined, 404, "not_found");
  await refused("POST", "/api/execution/01m85jda95jevgwq9he4bpqxny_database-d1/cancel", undefined, undefined, 404, "not_found");
  await refused("GET", "/nowhere", undefined, undefined, 404, "not_found");
  await refused("GET", "/api/%ff", undefined, undefined, 404, "not_found");
  const large = { ...direct, resources: [{ pool: "database-d1", amount: 3001 }] };
  await refused("POST", "/api/execute", large, "/resources/0/amount", 422, "unsatisfiable");
  const unpriced = { resources: [{ pool: "no-such-pool", amount: 1 }] };
  await refused("POST", "/api/execute", { ...direct, ...unpriced }, "/resources/0/pool", 422, "unsatisfiable");
  await refused("POST", "/internal/reserve", { clientId: "demo-basic", ...unpriced }, "/resources/0/pool", 422, "unsatisfiable");
  const notAllowed = await refused("GET", "/api/execute", undefined, undefined, 405, "method_not_allowed");
  assert.equal(notAllowed.headers.get("allow"), "POST");
});

test("bodies that are too large or not JSON are refused", async () => {
  const long = JSON.stringify({ ...good, input: "x".repeat(11 * 1024 * 1024) });
  await refused("POST", "/api/execute", long, undefined, 413, "payload_too_large");
  const answer = await rm.call("POST", "/api/execute", { raw: "clientId=a", headers: { "content-type": "application/x-www-form-urlencoded" } });
  assert.deepEqual([answer.status, answer.body.code], [415, "unsupported_media_type"]);
  const packed = await rm.call("POST", "/api/execute", { raw: gzipSync(JSON.stringify(good)), headers: { "content-encoding": "gzip" } });
  assert.deepEqual([packed.status, packed.body.code], [415, "unsupported_media_type"]);
  const bytes = await rm.call("POST", "/api/execute", { raw: new Uint8Array([123, 255, 254]) });
  assert.equal(bytes.status, 400);
});

test("headers that are not as they should be are refused or ignored, as their standards say", async () => {
  const key = await rm.execute(good, { key: "x".repeat(256) });
  assert.deepEqual([key.status, key.body.errors[0].pointer], [400, "Idempotency-Key"]);
  assert.equal((await rm.execute(good, { headers: { "x-client-id": "a b" } })).status, 400);
  for (const prefer of ["wait", "wait=", "wait=-1", "wait=99999999999", "respond-async", "wait=1.5", ";;;,,,="]) {
    assert.equal((await rm.execute(good, { headers: { prefer } })).status, 202, prefer);
  }
  assert.equal((await rm.execute(good, { headers: { prefer: 'respond-async, wait="5"', traceparent: "zz-xx" } })).status, 200);
});

test("bad bodies of /internal are refused by their field", async () => {
  const reserve = { clientId: "demo-basic", resources: [{ pool: "kv-storage", amount: 1 }] };
  for (const [body, pointer] of [
    [{}, "/clientId"],
    [{ clientId: "demo-basic" }, "/resources"],
    [{ ...reserve, resources: [] }, "/resources"],
    [{ ...reserve, ttlSeconds: 0 }, "/ttlSeconds"],
    [{ ...reserve, ttlSeconds: 99_999 }, "/ttlSeconds"],
    [{ ...reserve, ttl: 5 }, "/ttl"],
    [{ ...reserve, requestId: "" }, "/requestId"],
  ]) {
    await refused("POST", "/internal/reserve", body, pointer);
  }
  const reservationId = "01m85jda95jevgwq9he4bpqxny_kv-storage";
  await refused("POST", "/internal/consume", { reservationId: "nonsense", usage: [] }, "/reservationId");
  await refused("POST", "/internal/consume", { reservationId, usage: [{ pool: "kv-storage", amount: -1 }] }, "/usage/0/amount");
  await refused("POST", "/internal/consume", { reservationId, usage: [] }, undefined, 404, "not_found");
  await refused("POST", "/internal/release", { reservationId }, undefined, 404, "not_found");
  await refused("POST", "/internal/release", {}, "/reservationId");
});

test("bad bodies of /admin are refused by their field, and change nothing", async () => {
  const pool = { unit: "u", capacity: 10, refillPerSecond: 1, unitPriceUsd: 0.01 };
  for (const [body, pointer] of [
    [{}, "/unit"],
    [{ ...pool, unit: "" }, "/unit"],
    [{ ...pool, capacity: 0 }, "/capacity"],
    [{ ...pool, capacity: -1 }, "/capacity"],
    [{ ...pool, capacity: 0.5 }, "/capacity"],
    [{ ...pool, capacity: 1e300 }, "/capacity"],
    [{ ...pool, refillPerSecond: -1 }, "/refillPerSecond"],
    [{ ...pool, refillPerSecond: 0.0000001 }, "/refillPerSecond"],
    [{ ...pool, unitPriceUsd: -0.01 }, "/unitPriceUsd"],
    [{ ...pool, unitPriceUsd: "free" }, "/unitPriceUsd"],
    [{ ...pool, unitPriceUsd: 0.0000000001 }, "/unitPriceUsd"],
    [{ ...pool, lowWaterPercent: 101 }, "/lowWaterPercent"],
    [{ ...pool, lowWaterPercent: 1000 }, "/lowWaterPercent"],
    [{ ...pool, queueCap: -1 }, "/queueCap"],
    [{ ...pool, windowCap: "yes" }, "/windowCap"],
    [{ ...pool, windowcap: true }, "/windowcap"],
  ]) {
    await refused("PUT", "/admin/pools/bad-pool", body, pointer);
  }
  await refused("GET", "/admin/pools/bad-pool", undefined, undefined, 404, "not_found");
  await refused("PUT", "/admin/pools/Bad_Pool", pool, "pool");
  const client = { name: "A", tier: "basic" };
  for (const [body, pointer] of [
    [{ ...client, tier: "gold" }, "/tier"],
    [{ ...client, tier: "enterprise" }, "/monthlyBudgetUsd"],
    [{ ...client, monthlyBudgetUsd: -1 }, "/monthlyBudgetUsd"],
    [{ ...client, maxConcurrent: -1 }, "/maxConcurrent"],
    [{ ...client, status: "asleep" }, "/status"],
    [{ ...client, timeZone: "Mars/Olympus" }, "/timeZone"],
    [{ ...client, name: "" }, "/name"],
  ]) {
    await refused("PUT", "/admin/clients/bad-client", body, pointer);
  }
  await refused("GET", "/admin/clients/bad-client", undefined, undefined, 404, "not_found");
  const template = { worker: "ECHO", resources: [{ pool: "database-d1", base: 1 }] };
  for (const [body, pointer] of [
    [{ ...template, worker: "NOBODY" }, "/worker"],
    [{ ...template, worker: "SELF" }, "/worker"],
    [{ ...template, resources: [] }, "/resources"],
    [{ ...template, resources: [{ pool: "no-such-pool" }] }, "/resources/0/pool"],
    [{ ...template, resources: [{ pool: "database-d1", perInputTokens: 1 }] }, "/resources/0/perInputTokens"],
    [{ ...template, maxAttempts: 0 }, "/maxAttempts"],
    [{ ...template, timeoutMs: 0 }, "/timeoutMs"],
    [{ ...template, batch: { maxSize: 0, windowMs: 1 } }, "/batch"],
    [{ ...template, defaultUrgency: "soon" }, "/defaultUrgency"],
  ]) {
    await refused("PUT", "/admin/templates/bad-template", body, pointer);
  }
  await refused("GET", "/admin/templates/bad-template", undefined, undefined, 404, "not_found");
});
