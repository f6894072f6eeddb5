// What was used and what it cost: the history from D1, bills, and executions that their pool has let go of.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  // Nothing is kept: the next tick lets go of whatever has ended.
  rm = await startHarness({ vars: { RETENTION_HOURS: "0" } });
});
after(() => rm.close());

const rows = async (sql, ...bindings) => (await rm.env.DB.prepare(sql).bind(...bindings).all()).results;
const recorded = (client, count) =>
  waitFor(async () => (await rows("SELECT event FROM usage_events WHERE client_id = ?", client)).length >= count, `${count} charges of ${client}`);

test("the history adds up by day, template, pool and model, page by page", async () => {
  await rm.pool("hist-a", { unitPriceUsd: 0.001 });
  await rm.pool("hist-b", { unitPriceUsd: 0.000000001 });
  await rm.client("hist");
  for (const [name, model] of [["hist-one", "m-1"], ["hist-two", "m-2"], ["hist-three", undefined]]) {
    ok(await rm.put(`/admin/templates/${name}`, { worker: "ECHO", model, resources: [{ pool: "hist-a", base: 2 }, { pool: "hist-b", base: 3 }] }));
    for (let n = 0; n < 2; n += 1) assert.equal((await rm.execute({ clientId: "hist", templateId: name }, { wait: 10 })).body.status, "succeeded");
  }
  ok(await rm.execute(rm.work("hist", "hist-b", 5), { wait: 10 }));
  await recorded("hist", 7);
  const today = new Date().toISOString().slice(0, 10);
  const history = async (query) => ok(await rm.get(`/api/usage/hist?${query}`));
  const byDay = await history("");
  // Six times 2 × $0.001 and 3 × $0.000000001, and once 5 × $0.000000001; as text, for no float is to be trusted here.
  assert.match((await rm.get("/api/usage/hist")).text, /"totals":{"costUsd":0\.012000023,"requests":7,"savedUsd":0}/);
  assert.deepEqual(byDay.rows, [{ day: today, costUsd: 0.012000023, requests: 7, savedUsd: 0 }]);
  assert.equal(byDay.groupBy, "day");
  assert.ok(byDay.from.endsWith("-01T00:00:00.000Z") && byDay.to > new Date().toISOString());
  const names = async (group) => (await history(`groupBy=${group}`)).rows.map((row) => [row[group], row.costUsd, row.requests]);
  assert.deepEqual(await names("template"), [["", 0.000000005, 1], ["hist-one", 0.004000006, 2], ["hist-three", 0.004000006, 2], ["hist-two", 0.004000006, 2]]);
  assert.deepEqual(await names("model"), [["", 0.004000011, 3], ["m-1", 0.004000006, 2], ["m-2", 0.004000006, 2]]);
  assert.deepEqual(await names("pool"), [["hist-a", 0.012, 6], ["hist-b", 0.000000023, 7]]);
  const seen = [];
  let cursor = "";
  for (let page = 0; page < 4; page += 1) {
    const part = await history(`groupBy=template&limit=1${cursor}`);
    assert.equal(part.rows.length, 1);
    assert.equal(part.totals.requests, 7, "totals are of all, not of the page");
    seen.push(part.rows[0].template);
    assert.equal(part.nextCursor === undefined, page === 3);
    cursor = `&cursor=${part.nextCursor}`;
    // What comes in between moves no page.
    if (page === 1) ok(await rm.execute({ clientId: "demo-basic", templateId: "echo" }, { wait: 10 }));
  }
  assert.deepEqual(seen, ["", "hist-one", "hist-three", "hist-two"]);
  assert.deepEqual((await history("from=2020-01-01&to=2020-12-31")).rows, []);
  assert.equal((await history(`from=${today}&to=${today}`)).totals.requests, 7, "a day as `to` is included");
  const other = await history("groupBy=pool&limit=1");
  for (const [query, pointer] of [
    ["from=yesterday", "from"],
    [`from=${today}&to=2020-01-01`, "from"],
    ["from=2010-01-01", "from"],
    ["groupBy=week", "groupBy"],
    ["groupby=day", "groupby"],
    ["limit=0", "limit"],
    ["limit=1001", "limit"],
    ["limit=+1", "limit"],
    ["limit=1&limit=2", "limit"],
    ["cursor=nonsense", "cursor"],
    [`groupBy=template&cursor=${other.nextCursor}`, "cursor"],
  ]) {
    const answer = await rm.get(`/api/usage/hist?${query}`);
    assert.deepEqual([answer.status, answer.body.code, answer.body.errors?.[0].pointer], [400, "invalid_request", pointer], query);
  }
  assert.equal((await rm.get("/api/usage/nobody")).status, 404);
  assert.equal((await rm.get("/api/usage/hist", { headers: { "x-client-id": "demo-basic" } })).status, 403);
});

test("input, cached input and output have prices of their own", async () => {
  await rm.client("parts");
  await rm.pool("parts-pool", { capacity: 1_000_000, unitPriceUsd: 0.00000125, cachedInputPriceUsd: 0.000000125, outputPriceUsd: 0.00001 });
  const input = (usage) => ({ simulate: { usage: { "parts-pool": usage } } });
  const run = (usage) => rm.execute(rm.work("parts", "parts-pool", 300_000, { input: input(usage) }), { wait: 10 });
  const { body } = await run({ amount: 262_960 + 1_744, cachedInput: 257_955, output: 1_744 });
  // 5 005 × $0.00000125 + 257 955 × $0.000000125 + 1 744 × $0.00001
  assert.equal(body.cost.actualUsd, 0.055940625);
  assert.equal(body.cost.estimatedUsd, 3, "nobody can tell what will be output, so all of it may be");
  const bill = ok(await rm.get(`/api/cost/${body.requestId}`));
  assert.deepEqual(bill.lines, [
    { pool: "parts-pool", kind: "input", amount: 5005, unitPriceUsd: 0.00000125, costUsd: 0.00625625 },
    { pool: "parts-pool", kind: "cachedInput", amount: 257955, unitPriceUsd: 0.000000125, costUsd: 0.032244375 },
    { pool: "parts-pool", kind: "output", amount: 1744, unitPriceUsd: 0.00001, costUsd: 0.01744 },
  ]);
  assert.equal(bill.priceVersion, "parts-pool@1");
  // Parts that are more than the whole cannot be read: charged as reserved.
  assert.equal((await run({ amount: 5, output: 6 })).body.cost.actualUsd, 3);
  assert.equal((await rm.current("parts")).spentUsd, 3.055940625);
  // A reservation's owner tells parts apart too.
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "parts", resources: [{ pool: "parts-pool", amount: 1000 }] }));
  const bad = await rm.post("/internal/consume", { reservationId, usage: [{ pool: "parts-pool", amount: 100, cachedInput: 90, output: 11 }] });
  assert.deepEqual([bad.status, bad.body.errors[0].pointer], [400, "/usage/0"]);
  const consumed = ok(await rm.post("/internal/consume", { reservationId, usage: [{ pool: "parts-pool", amount: 100, cachedInput: 80, output: 10 }] }));
  assert.equal(consumed.costUsd, 0.0001225);
});

test("a pool may leave its price to the model; a price that nobody knows refuses, and raises an alert", async () => {
  await rm.client("modelled");
  const pool = { unit: "token", capacity: 1_000_000, refillPerSecond: 0 };
  assert.equal(ok(await rm.put("/admin/pools/modelled-pool", pool)).unitPriceUsd, undefined);
  await rm.env.DB.prepare("INSERT INTO model_prices (model, input_nanousd, cached_input_nanousd, output_nanousd, version) VALUES ('test-model', 1250, 125, 10000, 'test-table-7') ON CONFLICT DO NOTHING").run();
  const template = { worker: "ECHO", resources: [{ pool: "modelled-pool", perInputToken: 1, perOutputToken: 1 }] };
  ok(await rm.put("/admin/templates/known-model", { ...template, model: "test-model" }));
  ok(await rm.put("/admin/templates/unknown-model", { ...template, model: "no-such-model" }));
  const parameters = { maxOutputTokens: 100 };
  const ask = { clientId: "modelled", templateId: "known-model", input: "x".repeat(398), parameters };
  const estimate = ok(await rm.post("/api/cost/estimate", ask));
  assert.deepEqual(estimate.lines, [
    { pool: "modelled-pool", model: "test-model", kind: "input", amount: 100, unitPriceUsd: 0.00000125, costUsd: 0.000125 },
    { pool: "modelled-pool", model: "test-model", kind: "output", amount: 100, unitPriceUsd: 0.00001, costUsd: 0.001 },
  ]);
  assert.deepEqual([estimate.estimatedUsd, estimate.baselineUsd, estimate.savedUsd, estimate.fitsBudget, estimate.priceVersion], [0.001125, 0.001125, 0, true, "test-table-7"]);
  const done = await rm.execute({ ...ask, input: { simulate: { usage: { "modelled-pool": { amount: 150, cachedInput: 60, output: 50 } } } } }, { wait: 10 });
  assert.equal(done.body.cost.actualUsd, 0.0005575);
  const before = await rm.current("modelled");
  for (const [path, body] of [
    ["/api/execute", { clientId: "modelled", templateId: "unknown-model", parameters }],
    ["/api/cost/estimate", { clientId: "modelled", templateId: "unknown-model", parameters }],
    ["/api/execute", { clientId: "modelled", worker: "ECHO", resources: [{ pool: "modelled-pool", amount: 1 }] }],
  ]) {
    const answer = await rm.post(path, body);
    assert.deepEqual([answer.status, answer.body.code, answer.body.errors[0].pointer], [422, "unsatisfiable", "/resources/0/pool"], answer.text);
  }
  assert.deepEqual(await rm.current("modelled"), before);
  const alerts = await waitFor(async () => {
    const { items } = ok(await rm.get("/admin/alerts?status=open"));
    const found = items.filter(({ kind }) => kind === "unknown_price").map(({ subject }) => subject);
    return found.length >= 2 ? found.sort() : null;
  }, "the alerts");
  assert.deepEqual(alerts, ["model:no-such-model", "pool:modelled-pool"]);
  // An operator's price ends it.
  ok(await rm.put("/admin/pools/modelled-pool", { ...pool, unitPriceUsd: 0.01 }));
  const priced = ok(await rm.post("/api/cost/estimate", { clientId: "modelled", templateId: "unknown-model", parameters }));
  assert.deepEqual(priced.lines.map(({ unitPriceUsd }) => unitPriceUsd), [0.01]);
  assert.equal(priced.priceVersion, "modelled-pool@2");
});

test("a hold covers cached input that is dearer, and a price's name is never that of another price", async () => {
  const dear = { unit: "token", capacity: 1000, refillPerSecond: 1000, unitPriceUsd: 0.001, cachedInputPriceUsd: 1 };
  ok(await rm.put("/admin/pools/dear-cache", dear));
  await rm.client("dear-client", { monthlyBudgetUsd: 1 });
  assert.equal((await rm.execute(rm.work("dear-client", "dear-cache", 10))).status, 402);
  const versions = [];
  for (const unitPriceUsd of [0.1, 0.2, 0.3]) {
    ok(await rm.put("/admin/pools/versioned", { unit: "u", capacity: 10, refillPerSecond: 10, unitPriceUsd }));
    versions.push(ok(await rm.post("/api/cost/estimate", rm.work("dear-client", "versioned"))).priceVersion);
    if (unitPriceUsd === 0.2) assert.equal((await rm.call("DELETE", "/admin/pools/versioned")).status, 204);
  }
  assert.deepEqual(versions, ["versioned@1", "versioned@2", "versioned@3"]);
});

test("sums beyond what can be counted exactly are told as that much, and take nothing else down", async () => {
  await rm.pool("enormous", { capacity: 1_000_000, refillPerSecond: 1, unitPriceUsd: 9 });
  ok(await rm.put("/admin/templates/enormous", { worker: "ECHO", resources: [{ pool: "enormous", base: 1 }] }));
  const clients = ["whale-1", "whale-2"];
  for (const client of clients) {
    await rm.client(client, { monthlyBudgetUsd: 9_000_000 });
    const execution = ok(await rm.execute({ clientId: client, templateId: "enormous", input: { simulate: { usage: { enormous: 900_000 } } } }, { wait: 10 }));
    assert.equal(execution.cost.actualUsd, 8_100_000);
  }
  // A second one, whose hold the first has left no room for: more than there is was really used.
  await rm.env.DB.prepare("UPDATE usage_daily SET cost_nanousd = 9223372036854775807 WHERE client_id = 'whale-1'").run();
  await waitFor(async () => (await rm.env.DB.prepare("SELECT count(*) AS n FROM usage_events WHERE client_id GLOB 'whale-*'").first()).n === 2, "the record");
  const metrics = await rm.get("/metrics");
  assert.equal(metrics.status, 200, metrics.text.slice(0, 300));
  assert.match(metrics.text, /template_cost_usd_total\{model="",template="enormous"\} 9007199\.254740991/);
  for (const path of ["/api/usage/whale-1", "/api/usage/whale-1?groupBy=template", "/api/optimize/stats/whale-2"]) {
    assert.equal((await rm.get(path)).status, 200, path);
  }
  assert.equal((await rm.get("/api/usage/whale-2?to=9999-12-31")).status, 400, "a year of five digits is no RFC 3339");
});

test("an execution and its bill can be told after the pool has let go of them", async () => {
  await rm.pool("archive");
  await rm.client("archived");
  const send = () => rm.execute(rm.work("archived", "archive", 4, { input: "gone" }), { wait: 10, key: "once" });
  const good = (await send()).body;
  const bad = (await rm.execute(rm.work("archived", "archive", 1, { input: { simulate: { status: 400 } } }), { wait: 10 })).body;
  await rm.pool("archive-full", { capacity: 5, refillPerSecond: 0 });
  ok(await rm.post("/internal/reserve", { clientId: "archived", resources: [{ pool: "archive-full", amount: 5 }] }));
  const waiting = ok(await rm.execute(rm.work("archived", "archive-full", 5)));
  const bill = ok(await rm.get(`/api/cost/${good.requestId}`));
  await recorded("archived", 2);
  await rm.tick();
  await rm.tick();
  const { result, ...kept } = good;
  assert.deepEqual(result, { echo: "gone" });
  assert.deepEqual(await rm.execution(good.requestId), { ...kept, resultExpired: true });
  assert.deepEqual(await rm.execution(bad.requestId), { ...bad, resultExpired: true });
  const again = await send();
  assert.deepEqual([again.status, again.body], [200, { ...kept, resultExpired: true }], "sent again with its key it is not run again");
  assert.equal(again.headers.get("idempotency-replayed"), "true");
  assert.deepEqual(ok(await rm.get(`/api/cost/${good.requestId}`)), bill);
  assert.equal((await rm.post(`/api/execution/${good.requestId}/cancel`)).status, 409);
  assert.equal((await rm.call("DELETE", `/api/queue/${good.requestId}`)).status, 409);
  assert.equal((await rm.get(`/api/execution/${good.requestId}`, { headers: { "x-client-id": "demo-basic" } })).status, 403);
  assert.equal((await rm.get(`/api/cost/${good.requestId}`, { headers: { "x-client-id": "demo-basic" } })).status, 403);
  assert.notEqual((await rm.execution(waiting.requestId)).resultExpired, true, "what has not ended is kept");
  // Cancelled again after that: still the same state.
  ok(await rm.post(`/api/execution/${waiting.requestId}/cancel`));
  await recorded("archived", 3);
  await rm.tick();
  assert.equal(ok(await rm.post(`/api/execution/${waiting.requestId}/cancel`)).status, "cancelled");
});
