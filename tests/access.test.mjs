// Who may do what, and what is said to whom.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { TOKENS, ok, startHarness } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness({
    secrets: { KAM_TOKEN: `${TOKENS.kam}, next-kam-token`, INTERNAL_TOKEN: TOKENS.internal, ADMIN_TOKEN: TOKENS.admin },
  });
});
after(() => rm.close());

test("two tokens are valid at once while one is rotated", async () => {
  assert.equal((await rm.get("/api/queue/status", { token: "next-kam-token" })).status, 200);
  assert.equal((await rm.get("/api/queue/status", { token: `${TOKENS.kam}, next-kam-token` })).status, 401);
});

test("X-Client-Id limits a request to one client, in the body, the path and behind an id", async () => {
  const own = { "x-client-id": "demo-basic" };
  const other = { "x-client-id": "demo-premium" };
  const body = { clientId: "demo-basic", templateId: "echo" };
  const { requestId } = ok(await rm.execute(body, { headers: own }));
  assert.equal((await rm.execute(body, { headers: other })).status, 403);
  assert.equal((await rm.post("/api/queue/enqueue", body, { headers: other })).status, 403);
  const reserve = { clientId: "demo-basic", resources: [{ pool: "kv-storage", amount: 1 }] };
  assert.equal((await rm.post("/internal/reserve", reserve, { headers: other })).status, 403);
  const { reservationId } = ok(await rm.post("/internal/reserve", reserve, { headers: own }));
  const consume = { reservationId, usage: [{ pool: "kv-storage", amount: 1 }] };
  assert.equal((await rm.post("/internal/consume", consume, { headers: other })).status, 403);
  assert.equal((await rm.post("/internal/release", { reservationId }, { headers: other })).status, 403);
  await rm.ended(requestId);
  for (const [method, path] of [
    ["GET", "/api/usage/demo-basic/current"],
    ["GET", `/api/execution/${requestId}`],
    ["GET", `/api/cost/${requestId}`],
    ["POST", `/api/execution/${requestId}/cancel`],
    ["DELETE", `/api/queue/${requestId}`],
  ]) {
    const answer = await rm.call(method, path, { headers: other });
    assert.deepEqual([answer.status, answer.body.code], [403, "forbidden"], `${method} ${path}`);
  }
  assert.equal((await rm.get(`/api/execution/${requestId}`, { headers: own })).status, 200);
  const check = { clientId: "demo-basic", resources: [{ pool: "kv-storage", amount: 1 }] };
  assert.equal((await rm.post("/api/resources/check", check, { headers: other })).status, 403);
});

test("limited to a client, the operator's token changes nothing that clients share", async () => {
  const headers = { "x-client-id": "demo-basic" };
  for (const [method, path, body] of [
    ["POST", "/admin/scheduler/stop"],
    ["PUT", "/admin/pools/limited", { unit: "u", capacity: 1, refillPerSecond: 1, unitPriceUsd: 0 }],
    ["DELETE", "/admin/pools/sms-twilio"],
    ["PUT", "/admin/lanes/fast", { points: 1 }],
    ["PUT", "/admin/templates/limited", { worker: "ECHO", resources: [{ pool: "kv-storage", base: 1 }] }],
  ]) {
    const answer = await rm.call(method, path, { body, headers });
    assert.deepEqual([answer.status, answer.body.code], [403, "forbidden"], path);
  }
  assert.equal(ok(await rm.get("/api/queue/status")).scheduler, "running");
});

test("the open routes say nothing about clients, and a run cannot be started from outside", async () => {
  for (const path of ["/", "/health"]) {
    const answer = await rm.get(path, { token: null });
    assert.equal(answer.status, 200);
    assert.doesNotMatch(answer.text, /demo-/);
  }
  const { requestId } = ok(await rm.execute({ clientId: "demo-basic", templateId: "echo", input: { simulate: { delayMs: 300 } } }));
  for (const body of [{ id: requestId, grant: 1, secret: "0".repeat(32) }, { id: requestId, grant: 1, secret: "" }, {}, []]) {
    assert.equal((await rm.call("POST", "/run", { body, token: null })).status, 404);
  }
  const execution = await rm.ended(requestId);
  assert.deepEqual([execution.status, execution.attempts], ["succeeded", 1]);
});

test("without its secret a route is closed, and says so", async () => {
  const closed = await startHarness({ secrets: { KAM_TOKEN: "", INTERNAL_TOKEN: "", ADMIN_TOKEN: TOKENS.admin } });
  try {
    const internal = await closed.post("/internal/release", {}, { token: "" });
    assert.deepEqual([internal.status, internal.body.code], [503, "not_configured"]);
    assert.equal((await closed.post("/api/execute", {}, { token: "kam" })).body.code, "not_configured");
    assert.equal((await closed.get("/api/queue/status", { token: "admin" })).status, 200);
    assert.equal((await closed.get("/health", { token: null })).status, 200);
  } finally {
    await closed.close();
  }
});
