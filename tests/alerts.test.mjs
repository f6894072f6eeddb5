// Alerts: opened once a cause, resolved when it is over, and told to the webhook once a change of state.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

const SECRET = "a webhook's secret";
let rm;
let receiver;
const received = [];
let answers = () => 204;

before(async () => {
  receiver = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    received.push({ headers: request.headers, body });
    response.statusCode = answers(request);
    response.end();
  });
  receiver.listen(0, "127.0.0.1");
  await once(receiver, "listening");
  const url = `http://127.0.0.1:${receiver.address().port}/hook`;
  rm = await startHarness({ vars: { ALERT_WEBHOOK_URL: url, ALERT_WEBHOOK_SECRET: SECRET } });
});
after(async () => {
  await rm.close();
  receiver.close();
});

const list = async (status = "all") => ok(await rm.get(`/admin/alerts?status=${status}&limit=1000`)).items;
const of = (items, kind, subject) => items.filter((alert) => alert.kind === kind && alert.subject === subject);
const told = (subject) => received.map(({ body }) => JSON.parse(body)).filter(({ data }) => data.subject === subject);
const ticked = (question, what) =>
  waitFor(async () => {
    await rm.tick();
    return question();
  }, what);

test("a pool that is low opens one alert, and resolves it far above its mark", async () => {
  await rm.pool("lowish", { capacity: 100, refillPerSecond: 0 });
  await rm.client("drainer");
  const reserve = async (amount) => ok(await rm.post("/internal/reserve", { clientId: "drainer", resources: [{ pool: "lowish", amount }] })).reservationId;
  const most = await reserve(85);
  const some = await reserve(6);
  const now = () => list().then((items) => of(items, "pool_low", "pool:lowish"));
  const [alert] = await ticked(async () => ((await now()).length > 0 ? now() : null), "the alert");
  assert.deepEqual([alert.status, alert.severity], ["open", "warning"]);
  assert.match(alert.message, /9 of 100/);
  await rm.tick();
  assert.equal((await now()).length, 1, "opened once");
  ok(await rm.post("/internal/release", { reservationId: some }));
  await rm.tick();
  assert.equal((await now())[0].status, "open", "15 of 100 is above the mark, and not yet far from it");
  ok(await rm.post("/internal/release", { reservationId: most }));
  await ticked(async () => (await now())[0].status === "resolved", "its end");
  assert.ok((await now())[0].resolvedAt >= alert.openedAt);
  // Within the hour it is the same alert again.
  const again = await reserve(95);
  await ticked(async () => (await now())[0].status === "open", "the alert again");
  assert.equal((await now()).length, 1);
  ok(await rm.post("/internal/release", { reservationId: again }));
  await ticked(async () => told("pool:lowish").length === 4, "four deliveries");
  assert.deepEqual(told("pool:lowish").map(({ type, data }) => [type, data.status, data.sequence]), [
    ["alert.opened", "open", 1],
    ["alert.resolved", "resolved", 2],
    ["alert.opened", "open", 3],
    ["alert.resolved", "resolved", 4],
  ]);
});

test("a budget has marks at 80, 95 and 100 per cent; a higher budget or another month ends them", async () => {
  await rm.pool("budgeted");
  await rm.client("spender", { monthlyBudgetUsd: 1 });
  const spend = (amount) => rm.execute(rm.work("spender", "budgeted", amount), { wait: 10 });
  const open = async () => of(await list("open"), "budget_exceeded", "client:spender").map(({ threshold, severity }) => [threshold, severity]).sort();
  await spend(79);
  await spend(1);
  await waitFor(async () => (await open()).length === 1, "80 %");
  assert.deepEqual(await open(), [[80, "warning"]]);
  await spend(15);
  await waitFor(async () => (await open()).length === 2, "95 %");
  assert.deepEqual(await open(), [[80, "warning"], [95, "critical"]]);
  await spend(5);
  await waitFor(async () => (await open()).length === 3, "100 %");
  assert.equal((await spend(1)).status, 402);
  await rm.client("spender", { monthlyBudgetUsd: 1.2 });
  await waitFor(async () => (await open()).length === 1, "the end of two");
  assert.deepEqual(await open(), [[80, "warning"]]);
  // Last month's alerts are over with their month.
  await rm.env.DB.prepare("UPDATE alerts SET window_start = 0 WHERE subject = 'client:spender' AND threshold = 80").run();
  await rm.worker.evictDurableObject("ACCOUNT", { name: "spender" });
  await ticked(async () => (await list("open")).filter(({ subject }) => subject === "client:spender").every(({ openedAt }) => openedAt > "2026"), "the new month");
  const rows = (await rm.env.DB.prepare("SELECT status, window_start FROM alerts WHERE subject = 'client:spender' AND threshold = 80 ORDER BY window_start").all()).results;
  assert.deepEqual(rows.map(({ status }) => status), ["resolved", "open"]);
});

test("a backed-up queue, and a worker that does not answer", async () => {
  await rm.pool("backed-up", { capacity: 10, refillPerSecond: 0 });
  await rm.client("crowd", { monthlyBudgetUsd: 100_000, maxConcurrent: 2 });
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "crowd", resources: [{ pool: "backed-up", amount: 10 }] }));
  const sent = [];
  for (let batch = 0; batch < 21; batch += 1) {
    sent.push(...(await Promise.all(Array.from({ length: 50 }, () => rm.post("/api/queue/enqueue", rm.work("crowd", "backed-up"))))));
  }
  assert.ok(sent.every(({ status }) => status === 202));
  const open = async (kind, subject) => of(await list("open"), kind, subject)[0];
  await ticked(() => open("queue_backup", "pool:backed-up"), "the backup");
  assert.match((await open("queue_backup", "pool:backed-up")).message, /1050 requests/);
  for (let batch = 0; batch < 600; batch += 50) {
    await Promise.all(sent.slice(batch, batch + 50).map(({ body }) => rm.call("DELETE", `/api/queue/${body.requestId}`)));
  }
  await ticked(async () => !(await open("queue_backup", "pool:backed-up")), "its end");
  await Promise.all(sent.slice(600).map(({ body }) => rm.call("DELETE", `/api/queue/${body.requestId}`)));
  ok(await rm.post("/internal/release", { reservationId }));

  await rm.pool("timing-out");
  await rm.execute({ ...rm.work("crowd", "timing-out", 1, { input: { simulate: { hang: true } } }), timeoutMs: 50 }, { wait: 20 });
  const timeout = await ticked(() => open("worker_timeout", "worker:ECHO"), "the worker's alert");
  assert.match(timeout.message, /ECHO did not answer \d+ attempts? in time/);
  // Ten quiet minutes later.
  await rm.env.DB.prepare("UPDATE alerts SET seen_at = seen_at - 600001, opened_at = opened_at - 600001 WHERE kind = 'worker_timeout'").run();
  await ticked(async () => !(await open("worker_timeout", "worker:ECHO")), "its end");
});

test("deliveries are signed, tried again until taken, and then never again", async () => {
  const before = received.length;
  let failures = 2;
  answers = () => (failures-- > 0 ? 500 : 200);
  await rm.pool("hooked", { capacity: 100, refillPerSecond: 0 });
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "drainer", resources: [{ pool: "hooked", amount: 100 }] }));
  const due = () => rm.env.DB.prepare("UPDATE alerts SET deliver_at = unixepoch() * 1000 - 1000 WHERE deliver_at IS NOT NULL AND subject = 'pool:hooked'").run();
  await ticked(async () => {
    await due();
    return told("pool:hooked").length >= 3;
  }, "three tries");
  for (let n = 0; n < 3; n += 1) {
    await due();
    await rm.tick();
  }
  const tries = received.slice(before).filter(({ body }) => JSON.parse(body).data.subject === "pool:hooked");
  assert.equal(tries.length, 3, "two failures and one success");
  assert.equal(new Set(tries.map(({ headers }) => headers["webhook-id"])).size, 1, "one id, so that a receiver can tell");
  for (const { headers, body } of tries) {
    const signed = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
    assert.equal(headers["webhook-signature"], `v1,${createHmac("sha256", SECRET).update(signed).digest("base64")}`);
    assert.ok(Math.abs(Date.now() / 1000 - Number(headers["webhook-timestamp"])) < 300);
  }
  assert.equal(JSON.parse(tries[0].body).data.severity, "critical");
  ok(await rm.post("/internal/release", { reservationId }));
});

test("a receiver that was out of reach while an alert opened and was over is told of both, in order", async () => {
  answers = () => 500;
  await rm.pool("unheard", { capacity: 100, refillPerSecond: 0 });
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "drainer", resources: [{ pool: "unheard", amount: 100 }] }));
  const state = async () => of(await list(), "pool_low", "pool:unheard")[0]?.status;
  await ticked(async () => (await state()) === "open", "the alert");
  ok(await rm.post("/internal/release", { reservationId }));
  await ticked(async () => (await state()) === "resolved", "its end");
  const before = received.length;
  answers = () => 200;
  await rm.env.DB.prepare("UPDATE alerts SET deliver_at = unixepoch() * 1000 - 1000 WHERE subject = 'pool:unheard'").run();
  await ticked(async () => told("pool:unheard").some(({ type }) => type === "alert.resolved") && received.length > before + 1, "both");
  const said = received.slice(before).map(({ body }) => JSON.parse(body)).filter(({ data }) => data.subject === "pool:unheard");
  assert.deepEqual(said.map(({ type, data }) => [type, data.status, data.sequence]), [["alert.opened", "open", 1], ["alert.resolved", "resolved", 2]]);
});

test("what is long over is forgotten, and what nobody was there to be told of is not told later", async () => {
  const insert = "INSERT INTO alerts (kind, subject, threshold, window_start, status, severity, message, opened_at, resolved_at, sequence, deliver_at) VALUES ('pool_low', ?, 0, 0, 'resolved', 'warning', 'old', ?, ?, 2, ?)";
  const days = (n) => Date.now() - n * 86_400_000;
  await rm.env.DB.prepare(insert).bind("pool:long-ago", days(100), days(91), null).run();
  await rm.env.DB.prepare(insert).bind("pool:some-time-ago", days(3), days(2), days(2)).run();
  await ticked(async () => of(await list(), "pool_low", "pool:long-ago").length === 0, "the sweep");
  assert.equal(of(await list(), "pool_low", "pool:some-time-ago").length, 1);
  assert.deepEqual(told("pool:some-time-ago"), []);
});

test("alerts are listed by state, page by page, to the operator alone", async () => {
  const all = await list();
  assert.ok(all.length >= 5);
  assert.deepEqual(all.map(({ alertId }) => alertId), all.map(({ alertId }) => alertId).sort((a, b) => b - a), "the newest first");
  const [open, resolved] = [await list("open"), await list("resolved")];
  assert.equal(open.length + resolved.length, all.length);
  const first = ok(await rm.get("/admin/alerts?limit=2"));
  const second = ok(await rm.get(`/admin/alerts?limit=2&cursor=${first.nextCursor}`));
  assert.deepEqual([...first.items, ...second.items], all.slice(0, 4));
  assert.equal((await rm.get("/admin/alerts?status=closed")).status, 400);
  assert.equal((await rm.get("/admin/alerts", { token: "kam" })).status, 403);
  // Limited to a client, nothing is told of another.
  const limited = ok(await rm.get("/admin/alerts?limit=100", { headers: { "x-client-id": "crowd" } })).items;
  assert.ok(limited.length > 0 && limited.every(({ subject }) => !subject.startsWith("client:") || subject === "client:crowd"));
});

test("what is about a pool or client that is not there any more is over, and any unknown pool is one cause", async () => {
  const insert = "INSERT INTO alerts (kind, subject, threshold, window_start, status, severity, message, opened_at) VALUES (?, ?, 0, 0, 'open', 'warning', 'orphan', ?)";
  await rm.env.DB.prepare(insert).bind("pool_low", "pool:gone", Date.now()).run();
  await rm.env.DB.prepare(insert).bind("budget_exceeded", "client:gone", Date.now()).run();
  await ticked(async () => (await list("open")).every(({ subject }) => !subject.endsWith(":gone")), "their end");
  for (const pool of ["nowhere", "elsewhere"]) assert.equal((await rm.execute(rm.work("crowd", pool))).status, 422);
  await waitFor(async () => of(await list("open"), "unknown_price", "pools:unknown").length === 1, "the alert");
  assert.equal((await list("open")).filter(({ subject }) => subject.includes("where")).length, 0);
});
