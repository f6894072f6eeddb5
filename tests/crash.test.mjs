// `kill -9` while requests are queued and running:
// 1. a service with a state of its own; a pool too small for all that comes;
// 2. executions that run, that wait and that fail first, and reservations, some of which nobody will settle;
// 3. kill -9 of the whole process group, in the middle of it; the same state started again, twice;
// 4. every request ends, none is charged twice, the account and the record in D1 add up.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, test } from "node:test";

import { init, seed } from "../scripts/database.mjs";
import { isFree, isReady, startService, stop } from "../scripts/service.mjs";
import { output, root } from "../scripts/steps.mjs";
import { answered, ok, waitFor } from "./support/harness.mjs";

const persist = mkdtempSync(join(tmpdir(), "resource-manager-"));
let service = null;
after(async () => {
  if (service) await stop(service);
  rmSync(persist, { recursive: true, force: true });
});

const tokens = { api: "dev-kam-token", internal: "dev-internal-token", admin: "dev-admin-token" };
let url;

async function start() {
  let port = 18_787;
  while (!(await isFree(port))) port += 1;
  url = `http://127.0.0.1:${port}`;
  service = startService({ port, persist, log: "ignore" });
  assert.ok(await isReady(service, url), "the service did not start");
}

async function call(method, path, body) {
  const headers = { authorization: `Bearer ${tokens[path.split("/")[1]]}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  return answered(await fetch(`${url}${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) }));
}

const tick = () => fetch(`${url}/cdn-cgi/handler/scheduled`);

const query = (sql) => {
  const wrangler = join(root, "node_modules", ".bin", "wrangler");
  const text = output(wrangler, ["d1", "execute", "DB", "--local", "--persist-to", persist, "--json", "--command", sql]);
  return JSON.parse(text)[0].results;
};

/** Changes the SQLite of an object while the service is down: the one that has this in its configuration. */
function withStore(table, name, change) {
  const files = readdirSync(persist, { recursive: true }).filter((file) => file.endsWith(".sqlite"));
  for (const file of files) {
    const db = new DatabaseSync(join(persist, file));
    try {
      const has = db.prepare("SELECT count(*) AS n FROM sqlite_master WHERE name = ?").get(table).n;
      const config = has ? db.prepare("SELECT value FROM meta WHERE key = 'config'").get()?.value : undefined;
      if (config && Object.values(JSON.parse(config)).includes(name)) return change(db);
    } finally {
      db.close();
    }
  }
  throw new Error(`no store of ${name}`);
}

before(() => {
  init(["--local", "--persist-to", persist]);
  seed(["--local", "--persist-to", persist]);
});

test("kill -9 in the middle: every request ends, none is charged twice, the ledger adds up", { timeout: 240_000 }, async () => {
  await start();
  ok(await call("PUT", "/admin/pools/crash", { unit: "u", capacity: 20, refillPerSecond: 10, unitPriceUsd: 0.01 }));
  ok(await call("PUT", "/admin/pools/crash-too", { unit: "u", capacity: 50, refillPerSecond: 50, unitPriceUsd: 0.001 }));
  ok(await call("PUT", "/admin/clients/crasher", { name: "c", tier: "standard", monthlyBudgetUsd: 100, maxConcurrent: 8 }));
  const accepted = [];
  const send = async (n) => {
    const simulate = n % 5 === 0 ? { failFirst: 1 } : { delayMs: 150 * (n % 4), usage: { crash: (n % 3) + 1 } };
    const resources = [{ pool: "crash", amount: 2 }];
    if (n % 4 === 0) resources.push({ pool: "crash-too", amount: 1 });
    const body = { clientId: "crasher", worker: "ECHO", resources, input: { simulate }, timeoutMs: 2_000 };
    // An answer that the crash cut off may or may not have been taken; the record will say.
    const answer = await call("POST", "/api/execute", body).catch(() => null);
    if (answer?.status === 202) accepted.push(answer.body.requestId);
  };
  for (let round = 0; round < 2; round += 1) {
    await Promise.all(Array.from({ length: 25 }, (_, n) => send(n)));
    await call("POST", "/internal/reserve", { clientId: "crasher", resources: [{ pool: "crash-too", amount: 5 }], ttlSeconds: 3 });
    await waitFor(async () => {
      const { running, queued } = (await call("GET", "/api/usage/crasher/current")).body;
      return running > 0 && queued > 0;
    }, "some to run while others wait");
    await stop(service, "SIGKILL");
    await start();
    await tick();
  }
  await waitFor(async () => {
    await tick();
    const { running, queued, heldUsd } = (await call("GET", "/api/usage/crasher/current")).body;
    return running === 0 && queued === 0 && heldUsd === 0;
  }, "everything to end", 180_000);
  const executions = [];
  for (const id of accepted) {
    const execution = ok(await call("GET", `/api/execution/${id}`));
    assert.ok(execution.finishedAt, `${id} is ${execution.status}`);
    executions.push(execution);
  }
  assert.ok(executions.filter(({ status }) => status === "succeeded").length > accepted.length / 2);
  const { spentUsd } = ok(await call("GET", "/api/usage/crasher/current"));
  await tick();
  await stop(service);
  const events = query("SELECT event, request_id, cost_nanousd FROM usage_events WHERE client_id = 'crasher' LIMIT 1000");
  assert.equal(new Set(events.map(({ event }) => event)).size, events.length);
  const recorded = new Map(events.map((event) => [event.request_id, event.cost_nanousd]));
  for (const { requestId, cost } of executions) {
    assert.equal(recorded.get(requestId), Math.round(cost.actualUsd * 1e9), requestId);
  }
  const total = events.reduce((sum, event) => sum + event.cost_nanousd, 0);
  assert.equal(total, Math.round(spentUsd * 1e9));
  const [period] = query("SELECT spent_nanousd, requests FROM budget_periods WHERE client_id = 'crasher' LIMIT 2");
  assert.deepEqual([period.spent_nanousd, period.requests], [total, events.length]);
  const [daily] = query("SELECT sum(cost_nanousd) AS cost, sum(requests) AS requests FROM usage_daily WHERE client_id = 'crasher'");
  assert.deepEqual([daily.cost, daily.requests], [total, events.length]);
});

const late = (requestId) => Array.from({ length: 40 }, (_, n) => `${requestId}~late-${n + 10}`);

// The moments between two steps that a kill hardly ever hits are made by hand, in the stores of the stopped service.
test("what a crash leaves between two steps is done after it, once", { timeout: 120_000 }, async () => {
  await start();
  ok(await call("PUT", "/admin/pools/between", { unit: "u", capacity: 20, refillPerSecond: 0, unitPriceUsd: 0.01 }));
  ok(await call("PUT", "/admin/clients/between-client", { name: "c", tier: "standard", monthlyBudgetUsd: 100 }));
  const body = { clientId: "between-client", worker: "ECHO", resources: [{ pool: "between", amount: 3 }] };
  const { requestId } = ok(await call("POST", "/api/execute", body));
  await waitFor(async () => (await call("GET", "/api/usage/between-client/current")).body.spentUsd === 0.03, "the first charge");
  await stop(service);

  const settlement = (event, cost) => {
    const line = { pool: "between", estimated: 3, actual: 3, unitPrice: 0.01, cost };
    return { event, request: requestId, client: "between-client", status: "succeeded", kind: "execution", at: Date.now(), lines: [line], cost, uncertain: false };
  };
  withStore("settlement", "between", (db) => {
    const insert = db.prepare("INSERT INTO settlement (event, body) VALUES (?, ?)");
    // The account has this one; its answer did not come.
    insert.run(requestId, JSON.stringify(settlement(requestId, 0.03)));
    // The account was never called about these: more than one event may make calls for.
    for (const event of late(requestId)) insert.run(event, JSON.stringify(settlement(event, 0.0005)));
  });
  withStore("hold", "between-client", (db) => {
    // The cost of this request was held, and its pool never heard of it.
    const { start: periodStart } = db.prepare("SELECT start FROM period ORDER BY start DESC LIMIT 1").get();
    const id = "01hzzzzzzzzzzzzzzzzzzzzzzz_between";
    const hold = { id, amount: 0.5, periodStart, heldAt: Date.now() - 100_000, slot: 0, kind: "execution", askAt: Date.now() - 10_000 };
    db.prepare("INSERT INTO hold (id, body) VALUES (?, ?)").run(id, JSON.stringify(hold));
    db.prepare("UPDATE period SET held = held + 500000000 WHERE start = ?").run(periodStart);
  });

  await start();
  const before = (await call("GET", "/api/usage/between-client/current")).body;
  assert.ok(before.heldUsd === 0.5 || before.heldUsd === 0, JSON.stringify(before));
  await waitFor(async () => {
    await tick();
    const { spentUsd, heldUsd, running } = (await call("GET", "/api/usage/between-client/current")).body;
    return spentUsd === 0.05 && heldUsd === 0 && running === 0;
  }, "the charge to be made, and the hold to go back");
  await tick();
  await stop(service);
  withStore("settlement", "between", (db) => assert.equal(db.prepare("SELECT count(*) AS n FROM settlement").get().n, 0));
  const events = query("SELECT event, cost_nanousd FROM usage_events WHERE client_id = 'between-client' ORDER BY event LIMIT 100");
  assert.deepEqual(events.map(({ event, cost_nanousd: cost }) => [event, cost]), [[requestId, 30_000_000], ...late(requestId).map((event) => [event, 500_000])]);
  const [period] = query("SELECT spent_nanousd, requests FROM budget_periods WHERE client_id = 'between-client' LIMIT 2");
  assert.deepEqual([period.spent_nanousd, period.requests], [50_000_000, 1]);
});

// Ten minutes are made to pass in the same way.
test("a request that waits for longer than the starvation bound is promoted, and raises an alert until it starts", { timeout: 120_000 }, async () => {
  await start();
  ok(await call("PUT", "/admin/pools/starving", { unit: "u", capacity: 10, refillPerSecond: 0, unitPriceUsd: 0.01 }));
  ok(await call("PUT", "/admin/clients/starver", { name: "c", tier: "basic" }));
  const { reservationId } = ok(await call("POST", "/internal/reserve", { clientId: "starver", resources: [{ pool: "starving", amount: 10 }], ttlSeconds: 600 }));
  const { requestId } = ok(await call("POST", "/api/execute", { clientId: "starver", worker: "ECHO", resources: [{ pool: "starving", amount: 5 }] }));
  await stop(service);
  withStore("live", "starving", (db) => {
    const { body } = db.prepare("SELECT body FROM live WHERE id = ?").get(requestId);
    const request = JSON.parse(body);
    request.enqueuedAt -= 601_000;
    db.prepare("UPDATE live SET body = ? WHERE id = ?").run(JSON.stringify(request), requestId);
  });
  await start();
  const alerts = async () => ok(await call("GET", "/admin/alerts?limit=1000")).items.filter(({ kind, subject }) => kind === "request_starvation" && subject === "pool:starving");
  await tick();
  const [alert] = await waitFor(async () => ((await alerts()).length > 0 ? alerts() : null), "the alert");
  assert.deepEqual([alert.status, alert.severity], ["open", "critical"]);
  assert.equal(ok(await call("GET", `/api/queue/position/${requestId}`)).promoted, true);
  ok(await call("POST", "/internal/release", { reservationId }));
  await waitFor(async () => (await call("GET", `/api/execution/${requestId}`)).body.status === "succeeded", "its end");
  await tick();
  await waitFor(async () => (await alerts())[0].status === "resolved", "the alert's end");
  await stop(service);
});

test("what has waited for long is kept for its whole time after its end", { timeout: 120_000 }, async () => {
  await start();
  ok(await call("PUT", "/admin/pools/kept", { unit: "u", capacity: 10, refillPerSecond: 10, unitPriceUsd: 0.01 }));
  const { requestId } = ok(await call("POST", "/api/execute", { clientId: "demo-basic", worker: "ECHO", resources: [{ pool: "kept", amount: 1 }] }));
  await waitFor(async () => (await call("GET", `/api/execution/${requestId}`)).body.status === "succeeded", "its end");
  await stop(service);
  // Two that came years ago: one ended just now, the other when the retention had passed.
  const [kept, gone] = ["01a00000000000000000000001_kept", "01a00000000000000000000002_kept"];
  withStore("execution", "kept", (db) => {
    const copy = db.prepare(
      `INSERT INTO execution (id, spec, input, ended, result)
       SELECT ?, spec, input, json_set(ended, '$.end.finishedAt', CAST(? AS INTEGER)), result FROM execution WHERE id = ?`,
    );
    copy.run(kept, Date.now(), requestId);
    copy.run(gone, Date.now() - 25 * 3_600_000, requestId);
  });
  await start();
  await tick();
  await waitFor(async () => (await call("GET", `/api/execution/${gone}`)).status === 404, "the sweep");
  assert.equal((await call("GET", `/api/execution/${kept}`)).body.status, "succeeded");
  await stop(service);
});

test("under a stream of higher ranked work a basic deferred request starts within the bound", { timeout: 120_000 }, async () => {
  await start();
  ok(await call("PUT", "/admin/pools/stream", { unit: "u", capacity: 1, refillPerSecond: 0, unitPriceUsd: 0.01 }));
  ok(await call("PUT", "/admin/clients/patient", { name: "c", tier: "basic" }));
  const { reservationId } = ok(await call("POST", "/internal/reserve", { clientId: "patient", resources: [{ pool: "stream", amount: 1 }], ttlSeconds: 600 }));
  const send = async (clientId, urgency) => ok(await call("POST", "/api/execute", { clientId, worker: "ECHO", urgency, resources: [{ pool: "stream", amount: 1 }] })).requestId;
  const old = await send("patient", "deferred");
  const stream = [];
  for (let n = 0; n < 12; n += 1) stream.push(await send("demo-enterprise", "fast"));
  await stop(service);
  withStore("live", "stream", (db) => {
    const request = JSON.parse(db.prepare("SELECT body FROM live WHERE id = ?").get(old).body);
    request.enqueuedAt -= 601_000;
    db.prepare("UPDATE live SET body = ? WHERE id = ?").run(JSON.stringify(request), old);
  });
  await start();
  const place = ok(await call("GET", `/api/queue/position/${old}`));
  assert.equal(place.promoted, true);
  assert.ok(place.ahead <= 3, `one grant in four is its own, though by its score it would be the last of thirteen: ${place.ahead}`);
  ok(await call("POST", "/internal/consume", { reservationId, usage: [{ pool: "stream", amount: 1 }] }));
  ok(await call("PUT", "/admin/pools/stream", { unit: "u", capacity: 1, refillPerSecond: 4, unitPriceUsd: 0.01 }));
  const startedAt = (id) => waitFor(async () => (await call("GET", `/api/execution/${id}`)).body.finishedAt && (await call("GET", `/api/execution/${id}`)).body.startedAt, `the start of ${id}`);
  const mine = await startedAt(old);
  const before = (await Promise.all(stream.map(startedAt))).filter((at) => at < mine).length;
  assert.ok(before <= 3, `${before} grants went before it`);
  await stop(service);
});
