// Kept results: when a request has that of an earlier one, when it has not, and what that saves. And requests that are the
// same and in flight at once: they run once.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
  await rm.pool("kept", { capacity: 1000, refillPerSecond: 1000, unitPriceUsd: 0.01 });
  await rm.client("keeper", { maxConcurrent: 5 });
  await rm.client("other");
  ok(await rm.put("/admin/templates/keeps", { worker: "ECHO", model: "m", resources: [{ pool: "kept", base: 4 }], cacheTtlSeconds: 600 }));
});
after(() => rm.close());

const send = (input, more = {}, options = { wait: 10 }) => rm.execute({ clientId: "keeper", templateId: "keeps", input, ...more }, options);
const calls = async (id) => (await rm.stats()).byRequest[id] ?? 0;
/** A first run, until its result is kept. */
async function first(input, more) {
  const done = ok(await send(input, more));
  assert.deepEqual([done.status, done.cached], ["succeeded", false]);
  await waitFor(async () => (await rm.env.KV.list({ prefix: "result:" })).keys.length > 0, "the result");
  return waitFor(async () => {
    const hit = ok(await send(input, more));
    return hit.cached ? { done, hit } : null;
  }, "a hit");
}

test("the same request has the kept result at once: no tokens, no slot, no cost, and its end is like any other", async () => {
  const { done, hit } = await first({ b: [1, { x: "é" }], a: 100, simulate: { usage: { kept: 3 } } });
  assert.deepEqual([hit.status, hit.result, hit.attempts], ["succeeded", done.result, 0]);
  assert.deepEqual(hit.cost, { estimatedUsd: 0, actualUsd: 0, baselineUsd: 0.03, savedUsd: 0.03 });
  assert.equal(hit.optimizations[0].strategy, "cache");
  assert.equal(hit.optimizations[0].savedUsd, 0.03);
  assert.match(hit.optimizations[0].detail, new RegExp(done.requestId));
  assert.equal(await calls(hit.requestId), 0);
  // However it is written.
  const raw = `{"clientId":"keeper","templateId":"keeps","input":{"simulate":{"usage":{"kept":3.0}},"a":1e2,"b":[1.0,{"x":"\\u00e9"}]}}`;
  const rewritten = ok(await rm.call("POST", "/api/execute", { raw }));
  assert.deepEqual([rewritten.cached, rewritten.cost.savedUsd], [true, 0.03], "200 without any Prefer");
  assert.equal((await rm.execution(hit.requestId)).cached, true);
  assert.equal(ok(await rm.get(`/api/cost/${hit.requestId}`)).savedUsd, 0.03);
  assert.equal((await rm.post(`/api/execution/${hit.requestId}/cancel`)).status, 409);
  await waitFor(async () => (await rm.current("keeper")).heldUsd === 0, "the settlement");
  const rows = async () => (await rm.env.DB.prepare("SELECT s.strategy, s.saved_nanousd AS saved, e.baseline_nanousd AS baseline, e.cost_nanousd AS cost FROM savings s JOIN usage_events e USING (event) WHERE s.event = ?").bind(hit.requestId).all()).results;
  const [row] = await waitFor(async () => ((await rows()).length > 0 ? rows() : null), "the ledger");
  assert.deepEqual(row, { strategy: "cache", saved: 30_000_000, baseline: 30_000_000, cost: 0 });
});

test("a hit needs no budget, no slot and no scheduler; a suspended client has none", async () => {
  await rm.client("spent", { monthlyBudgetUsd: 0.04, maxConcurrent: 1 });
  const spent = { clientId: "spent" };
  await first({ n: "spent" }, spent);
  await waitFor(async () => (await rm.current("spent")).spentUsd === 0.04, "the charge");
  assert.equal((await send({ n: "another" }, spent)).status, 402);
  ok(await rm.post("/admin/scheduler/stop"));
  assert.equal(ok(await send({ n: "spent" }, spent)).cached, true);
  ok(await rm.post("/admin/scheduler/start"));
  await rm.client("spent", { monthlyBudgetUsd: 0.04, status: "suspended" });
  assert.equal((await send({ n: "spent" }, spent)).status, 403);
});

test("what differs is not the same: client, template, model, parameters, input to the last digit", async () => {
  await first({ n: 9007199254740993n.toString(), f: 0.1 });
  const base = `"clientId":"keeper","templateId":"keeps"`;
  await rm.call("POST", "/api/execute", { raw: `{${base},"input":{"n":9007199254740993}}`, headers: { prefer: "wait=10" } });
  const near = ok(await rm.call("POST", "/api/execute", { raw: `{${base},"input":{"n":9007199254740992}}`, headers: { prefer: "wait=10" } }));
  assert.equal(near.cached, false);
  await first({ n: "isolated" });
  assert.equal(ok(await send({ n: "isolated" }, { clientId: "other" })).cached, false, "never across clients");
  assert.equal(ok(await send({ n: "isolated" }, { parameters: { maxOutputTokens: 5 } })).cached, false);
  ok(await rm.put("/admin/templates/keeps-too", { worker: "ECHO", model: "m", resources: [{ pool: "kept", base: 4 }], cacheTtlSeconds: 600 }));
  assert.equal(ok(await send({ n: "isolated" }, { templateId: "keeps-too" })).cached, false);
  const model = (name) => rm.put("/admin/templates/keeps-too", { worker: "ECHO", model: name, resources: [{ pool: "kept", base: 4 }], cacheTtlSeconds: 600 });
  await first({ n: "remodelled" }, { templateId: "keeps-too" });
  ok(await model("m2"));
  assert.equal(ok(await send({ n: "remodelled" }, { templateId: "keeps-too" })).cached, false);
});

test("callers may say no: by the request, by its level, by Cache-Control; and failures are not kept", async () => {
  await first({ n: "no" });
  for (const optimization of [{ level: "off" }, { cache: false }]) {
    assert.equal(ok(await send({ n: "no" }, { optimization })).cached, false, JSON.stringify(optimization));
  }
  for (const header of ["no-cache", "max-age=0, No-Store"]) {
    assert.equal(ok(await send({ n: "no" }, {}, { wait: 10, headers: { "cache-control": header } })).cached, false, header);
  }
  const failing = { simulate: { status: 400 } };
  assert.equal(ok(await send(failing)).status, "failed");
  const again = ok(await send(failing));
  assert.deepEqual([again.status, again.cached], ["failed", false]);
  ok(await send({ n: "unstored" }, {}, { wait: 10, headers: { "cache-control": "no-store" } }));
  assert.equal(ok(await send({ n: "unstored" })).cached, false);
});

test("nobody waits for the same request in flight from before a purge", async () => {
  for (const purged of ["clients/keeper", "templates/keeps"]) {
    const slow = { purged, simulate: { delayMs: 1_500 } };
    const before = ok(await send(slow, {}, {}));
    await waitFor(async () => (await rm.execution(before.requestId)).status === "running", "its run");
    const same = ok(await send(slow, {}, {}));
    assert.equal((await rm.call("DELETE", `/admin/cache/${purged}`)).status, 204);
    const after = ok(await send(slow));
    assert.deepEqual([after.status, after.attempts, await calls(after.requestId)], ["succeeded", 1, 1]);
    assert.equal(await calls(same.requestId), 0, "it came before");
  }
});

test("an admin purges by client and by template; what cannot be read is run again", async () => {
  const hit = async (input, more) => ok(await send(input, more)).cached;
  await first({ n: "purged" });
  assert.equal((await rm.call("DELETE", "/admin/cache/clients/keeper")).status, 204);
  assert.equal(await hit({ n: "purged" }), false);
  await waitFor(() => hit({ n: "purged" }), "a hit");
  assert.equal((await rm.call("DELETE", "/admin/cache/templates/keeps")).status, 204);
  assert.equal(await hit({ n: "purged" }), false);
  await waitFor(() => hit({ n: "purged" }), "a hit");
  const { keys } = await rm.env.KV.list({ prefix: "result:" });
  for (const { name } of keys) await rm.env.KV.put(name, "{not json");
  assert.equal(await hit({ n: "purged" }), false);
  for (const path of ["/admin/cache/clients/nobody", "/admin/cache/templates/nothing"]) assert.equal((await rm.call("DELETE", path)).status, 404);
  assert.equal((await rm.call("DELETE", "/admin/cache/clients/keeper", { token: "kam" })).status, 403);
});

test("a large result is kept, gzipped, and comes back whole", async () => {
  const result = "large ".repeat(20_000);
  const { hit } = await first({ n: "large", simulate: { result } });
  assert.equal(hit.result, result);
  const [stored] = hit.optimizations.filter(({ strategy }) => strategy === "compression");
  assert.ok(stored.savedBytes > 100_000, "as it is stored for this request");
  const sizes = async () => Promise.all((await rm.env.KV.list({ prefix: "result:" })).keys.map(async ({ name }) => (await rm.env.KV.get(name, "arrayBuffer")).byteLength));
  assert.ok((await sizes()).every((size) => size < 10_000), `${await sizes()}`);
  const plain = { optimization: { compress: false } };
  const { hit: unpacked } = await first({ n: "large and plain", simulate: { result } }, plain);
  assert.deepEqual([unpacked.result, unpacked.optimizations.map(({ strategy }) => strategy)], [result, ["cache"]]);
  assert.ok((await sizes()).some((size) => size > 100_000), `${await sizes()}`);
  assert.equal((await rm.execution(hit.requestId)).result, result);
});

test("a key has the answer that it had, kept or not", async () => {
  await first({ n: "keyed" });
  const keyed = () => send({ n: "keyed" }, {}, { wait: 10, key: "kept-key" });
  const [one, other] = await Promise.all([keyed(), keyed()]);
  assert.equal(ok(one).requestId, ok(other).requestId);
  assert.equal([one, other].filter((answer) => answer.headers.get("idempotency-replayed") === "true").length, 1);
  const again = ok(await send({ n: "keyed" }, {}, { key: "kept-key", wait: 0 }));
  assert.deepEqual([again.requestId, again.cached, again.result], [ok(one).requestId, true, ok(one).result], "200 without any Prefer");
  const run = { n: "run first" };
  const before = ok(await send(run, {}, { wait: 10, key: "run-key" }));
  await waitFor(async () => ok(await send(run)).cached, "a hit");
  assert.equal(ok(await send(run, {}, { wait: 10, key: "run-key" })).requestId, before.requestId);
});

test("what a hit saves is the kept result's, however that was made", async () => {
  await rm.pool("combined", { capacity: 1000, refillPerSecond: 1000, unitPriceUsd: 0.01 });
  ok(await rm.put("/admin/templates/combined", { worker: "ECHO", resources: [{ pool: "combined", base: 4 }], cacheTtlSeconds: 600, batch: { maxSize: 2, windowMs: 2_000 } }));
  const run = (input, more) => rm.execute({ clientId: "keeper", templateId: "combined", urgency: "batch", input, ...more }, { wait: 20 });
  const [one] = (await Promise.all([run({ n: 1, simulate: { batchUsage: { combined: 4 } } }), run({ n: 2 })])).map(ok);
  assert.deepEqual([one.cost.actualUsd, one.cost.baselineUsd, one.optimizations[0].strategy], [0.02, 0.04, "request_batching"]);
  const again = { urgency: "normal", optimization: { batch: false } };
  const hit = await waitFor(async () => {
    const sent = ok(await run({ n: 1, simulate: { batchUsage: { combined: 4 } } }, again));
    return sent.cached ? sent : null;
  }, "a hit");
  assert.deepEqual(hit.optimizations, [{ strategy: "cache", detail: `the result of ${one.requestId} was kept`, savedUsd: hit.cost.baselineUsd }]);
});

test("the same requests in flight at once run once, and each ends on its own", async () => {
  await rm.resetStats();
  const input = { n: "twins", simulate: { delayMs: 1_500, usage: { kept: 2 } } };
  const sent = (await Promise.all(Array.from({ length: 4 }, () => send(input, {}, {})))).map(ok);
  const cancelled = sent[3].requestId;
  await waitFor(async () => (await Promise.all(sent.map(({ requestId }) => rm.execution(requestId)))).every(({ status }) => status === "running"), "the run");
  const leads = (await Promise.all(sent.map(async ({ requestId }) => [requestId, await calls(requestId)]))).find(([, n]) => n === 1)[0];
  const follower = sent.map(({ requestId }) => requestId).find((id) => id !== leads);
  assert.equal(ok(await rm.post(`/api/execution/${follower}/cancel`)).status, "cancelled");
  const ended = await Promise.all(sent.map(({ requestId }) => rm.ended(requestId)));
  assert.deepEqual(ended.map(({ status }) => status).sort(), ["cancelled", "succeeded", "succeeded", "succeeded"]);
  assert.equal(Object.values((await rm.stats()).byRequest).reduce((sum, n) => sum + n, 0), 1);
  for (const one of ended.filter(({ status, requestId }) => status === "succeeded" && requestId !== leads)) {
    assert.deepEqual(one.result, ended.find(({ requestId }) => requestId === leads).result);
    assert.deepEqual(one.cost, { estimatedUsd: 0.04, actualUsd: 0, baselineUsd: 0.02, savedUsd: 0.02 });
    assert.equal(one.optimizations[0].strategy, "request_batching");
  }
  assert.ok(cancelled);
  await waitFor(async () => (await rm.current("keeper")).heldUsd === 0, "the settlements");
});

test("one that nobody may wait for keeps no others from sharing a run", async () => {
  const days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
  const clock = (offsetMinutes) => new Date(Date.now() + offsetMinutes * 60_000).toISOString().slice(11, 16);
  ok(await rm.put("/admin/templates/later", { worker: "ECHO", resources: [{ pool: "kept", base: 1 }], dedupe: true, offPeak: { days, from: clock(120), to: clock(180) } }));
  await rm.resetStats();
  const run = (more) => rm.execute({ clientId: "keeper", templateId: "later", input: { simulate: { delayMs: 300 } }, ...more });
  const deferred = ok(await run({ urgency: "deferred" }));
  const crowd = await Promise.all(Array.from({ length: 15 }, () => run()));
  for (const sent of crowd) assert.equal((await rm.ended(ok(sent).requestId)).status, "succeeded");
  const patient = await rm.ended(deferred.requestId);
  assert.deepEqual([patient.status, patient.cost.actualUsd], ["succeeded", 0], "it has the result of those that go before it");
  assert.equal((await rm.stats()).calls, 1);
});

test("the same request is waited for by those only that would wait as long for themselves", async () => {
  const days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
  const clock = (offsetMinutes) => new Date(Date.now() + offsetMinutes * 60_000).toISOString().slice(11, 16);
  const template = { worker: "ECHO", resources: [{ pool: "kept", base: 1 }], timeoutMs: 2_000, dedupe: true };
  const offPeak = { days, from: clock(120), to: clock(180) };
  ok(await rm.put("/admin/templates/windowed", { ...template, offPeak }));
  const send = (templateId, more) => rm.execute({ clientId: "keeper", templateId, input: "same", ...more });
  const patient = ok(await send("windowed", { urgency: "deferred" }));
  const deadline = new Date(Date.now() + 66_000).toISOString();
  const hurried = ok(await send("windowed", { urgency: "deferred", deadline }));
  const position = ok(await rm.call("GET", `/api/queue/position/${hurried.requestId}`));
  assert.ok(Date.parse(position.estimatedStartAt) < Date.parse(deadline), `it starts in time: ${position.estimatedStartAt}`);
  ok(await rm.put("/admin/templates/gathering", { ...template, batch: { maxSize: 5, windowMs: 60_000 } }));
  const parked = ok(await send("gathering", { urgency: "batch" }));
  const plain = ok(await send("gathering", { optimization: { level: "standard" } }));
  assert.equal((await rm.ended(plain.requestId)).status, "succeeded", "nobody waits for a minute who does not want to");
  const shared = await rm.ended(parked.requestId);
  assert.deepEqual([shared.status, shared.cost.actualUsd], ["succeeded", 0], "and the one that would has the result");
  assert.equal((await rm.ended(hurried.requestId)).status, "succeeded");
  assert.equal((await rm.ended(patient.requestId)).cost.actualUsd, 0);
});

test("a crowd of the same runs once, though its run has to be tried again", async () => {
  await rm.resetStats();
  const input = { n: "crowd", simulate: { delayMs: 500, failFirst: 1 } };
  const sent = (await Promise.all(Array.from({ length: 60 }, () => send(input, {}, {})))).map(ok);
  const ended = await Promise.all(sent.map(({ requestId }) => rm.ended(requestId)));
  assert.deepEqual([...new Set(ended.map(({ status }) => status))], ["succeeded"]);
  assert.equal(ended.filter(({ cost }) => cost.actualUsd > 0).length, 1, "one has paid");
  assert.equal((await rm.stats()).calls, 2);
  await waitFor(async () => (await rm.current("keeper")).heldUsd === 0, "the settlements");
});

test("when the one that runs fails, the next is run", async () => {
  await rm.resetStats();
  const input = { n: "failing twins", simulate: { delayMs: 500, status: 400 } };
  const sent = (await Promise.all([send(input, {}, {}), send(input, {}, {})])).map(ok);
  const ended = await Promise.all(sent.map(({ requestId }) => rm.ended(requestId)));
  assert.deepEqual(ended.map(({ status, cost }) => [status, cost.actualUsd]), [["failed", 0], ["failed", 0]]);
  assert.equal((await rm.stats()).calls, 2);
  ok(await rm.put("/admin/templates/alone", { worker: "ECHO", resources: [{ pool: "kept", base: 1 }], cacheTtlSeconds: 600, dedupe: false }));
  await rm.resetStats();
  const alone = { simulate: { delayMs: 500 } };
  const both = (await Promise.all([0, 1].map(() => send(alone, { templateId: "alone" }, {})))).map(ok);
  await Promise.all(both.map(({ requestId }) => rm.ended(requestId)));
  assert.equal((await rm.stats()).calls, 2, "where the template says so");
});

test("a client or template that is made anew has nothing of the one before it", async () => {
  await rm.client("reborn");
  const template = { worker: "ECHO", resources: [{ pool: "kept", base: 1 }], cacheTtlSeconds: 600 };
  ok(await rm.put("/admin/templates/reborn", template));
  const again = { clientId: "reborn", templateId: "reborn" };
  await first({ n: "reborn" }, again);
  await waitFor(async () => (await rm.call("DELETE", "/admin/clients/reborn")).status === 204, "the deletion");
  await rm.client("reborn");
  assert.equal(ok(await send({ n: "reborn" }, again)).cached, false);
  await waitFor(async () => ok(await send({ n: "reborn" }, again)).cached, "a hit");
  ok(await rm.call("DELETE", "/admin/templates/reborn"));
  ok(await rm.put("/admin/templates/reborn", template));
  assert.equal(ok(await send({ n: "reborn" }, again)).cached, false);
});

test("a result by the model that the budget or the queue leaves is used too", async () => {
  await rm.pool("large-kept", { models: ["large-kept"], unitPriceUsd: 0.1 });
  await rm.pool("small-kept", { models: ["small-kept"], unitPriceUsd: 0.001 });
  ok(await rm.put("/admin/templates/chained", { worker: "ECHO", model: "large-kept", resources: [{ pool: "large-kept", base: 10 }], downgradeTo: ["small-kept"], cacheTtlSeconds: 600 }));
  await rm.client("thin", { monthlyBudgetUsd: 0.025 });
  const again = () => send({ n: "thin" }, { clientId: "thin", templateId: "chained" });
  const one = ok(await again());
  assert.deepEqual([one.cached, one.resources[0].pool], [false, "small-kept"]);
  const hit = await waitFor(async () => {
    const answer = await again();
    return answer.status === 200 && answer.body.cached ? answer.body : null;
  }, "a hit");
  assert.equal(hit.cost.actualUsd, 0);
  assert.equal((await rm.call("DELETE", "/admin/cache/clients/thin")).status, 204);
  const body = { clientId: "thin", templateId: "chained", input: { n: "thin" } };
  const estimate = ok(await rm.post("/api/cost/estimate", body));
  assert.deepEqual([estimate.estimatedUsd, estimate.fitsBudget], [0.01, true], "what was purged is not counted on");
  assert.equal(ok(await rm.post("/api/optimize/analyze", body)).opportunities.find(({ strategy }) => strategy === "cache").applicable, false);
  const anew = ok(await again());
  assert.deepEqual([anew.cached, anew.cost.actualUsd], [false, 0.01], "what was purged is run again");
  assert.ok((await rm.current("thin")).spentUsd <= 0.025);
});

test("an aggressive request has what is kept of its template's own model, which is free, before it is run by a cheaper one", async () => {
  await rm.pool("free-dear", { models: ["free-dear"], unitPriceUsd: 0.01 });
  await rm.pool("free-cheap", { models: ["free-cheap"], unitPriceUsd: 0.001 });
  ok(await rm.put("/admin/templates/free", { worker: "ECHO", model: "free-dear", resources: [{ pool: "free-dear", base: 10 }], downgradeTo: ["free-cheap"], cacheTtlSeconds: 600 }));
  await rm.client("freed", { monthlyBudgetUsd: 0.1 });
  const body = (input, level) => ({ clientId: "freed", templateId: "free", input, optimization: { level } });
  const run = (input, level) => rm.execute(body(input, level), { wait: 10 });
  const downgrade = async (input, level) => ok(await rm.post("/api/optimize/analyze", body(input, level)));
  // All that the budget has.
  const dear = ok(await run("own", "standard"));
  assert.deepEqual([dear.cached, dear.resources[0].pool], [false, "free-dear"]);
  await waitFor(async () => ok(await run("own", "standard")).cached, "a hit");
  await waitFor(async () => (await rm.current("freed")).remainingUsd === 0, "the charge");
  for (const level of ["standard", "aggressive"]) {
    const hit = ok(await run("own", level));
    assert.deepEqual([hit.cached, hit.resources[0].pool, hit.cost.actualUsd, hit.result], [true, "free-dear", 0, dear.result], level);
    const estimate = ok(await rm.post("/api/cost/estimate", body("own", level)));
    assert.deepEqual([estimate.baselineUsd, estimate.estimatedUsd, estimate.fitsBudget], [0.1, 0, true], level);
    const { opportunities, optimizedUsd } = await downgrade("own", level);
    assert.deepEqual(opportunities.filter(({ savedUsd }) => savedUsd > 0).map(({ strategy, savedUsd }) => [strategy, savedUsd]), [["cache", 0.1]], level);
    assert.equal(optimizedUsd, 0);
  }
});

test("a result of the cheaper model alone is used by either level, and told before, with nothing left of the budget", async () => {
  await rm.pool("only-dear", { models: ["only-dear"], unitPriceUsd: 0.01 });
  await rm.pool("only-cheap", { models: ["only-cheap"], unitPriceUsd: 0.001 });
  ok(await rm.put("/admin/templates/only-cheap", { worker: "ECHO", model: "only-dear", resources: [{ pool: "only-dear", base: 10 }], downgradeTo: ["only-cheap"], cacheTtlSeconds: 600 }));
  await rm.client("penniless", { monthlyBudgetUsd: 0.01 });
  const body = (level) => ({ clientId: "penniless", templateId: "only-cheap", input: "x", optimization: { level } });
  const run = (level) => rm.execute(body(level), { wait: 10 });
  assert.equal(ok(await run("aggressive")).resources[0].pool, "only-cheap");
  await waitFor(async () => (await rm.current("penniless")).remainingUsd === 0, "the charge");
  for (const level of ["standard", "aggressive"]) {
    const hit = await waitFor(async () => ((await run(level)).body.cached ? ok(await run(level)) : null), "a hit");
    assert.deepEqual([hit.resources[0].pool, hit.cost.actualUsd], ["only-cheap", 0], level);
    const estimate = ok(await rm.post("/api/cost/estimate", body(level)));
    assert.deepEqual([estimate.baselineUsd, estimate.estimatedUsd, estimate.savedUsd, estimate.fitsBudget], [0.1, 0, 0.1, true], level);
    const { opportunities, optimizedUsd } = ok(await rm.post("/api/optimize/analyze", body(level)));
    const kept = opportunities.find(({ strategy }) => strategy === "cache");
    assert.deepEqual([kept.applicable, optimizedUsd], [true, 0], level);
    assert.equal(opportunities.find(({ strategy }) => strategy === "model_downgrade").change, "none: only-cheap instead of only-dear is what it gets");
  }
  const anew = { ...body("standard"), input: "another" };
  const dear = ok(await rm.post("/api/cost/estimate", anew));
  assert.deepEqual([dear.estimatedUsd, dear.fitsBudget, dear.lines[0].pool], [0.1, false, "only-dear"]);
  assert.equal((await rm.execute(anew)).status, 402);
});

test("an estimate knows of a kept result, and of a caller that does not want it", async () => {
  const { done } = await first({ n: "estimated" });
  const body = { clientId: "keeper", templateId: "keeps", input: { n: "estimated" } };
  const cost = ok(await rm.post("/api/cost/estimate", body));
  assert.deepEqual([cost.baselineUsd, cost.estimatedUsd, cost.savedUsd, cost.lines, cost.fitsBudget], [0.04, 0, 0.04, [], true]);
  assert.deepEqual(cost.optimizations, [{ strategy: "cache", detail: `the result of ${done.requestId} was kept`, savedUsd: 0.04 }]);
  const needed = ok(await rm.post("/api/resources/estimate", body));
  assert.deepEqual(needed, { resources: [], estimatedCostUsd: 0, confidence: 1 });
  for (const [more, headers] of [[{ optimization: { cache: false } }, {}], [{}, { "cache-control": "no-cache" }]]) {
    const run = ok(await rm.call("POST", "/api/cost/estimate", { body: { ...body, ...more }, headers }));
    assert.deepEqual([run.estimatedUsd, run.savedUsd, run.lines.length], [0.04, 0, 1]);
  }
});

test("who names other amounts would have paid for those: it is another request", async () => {
  const named = { resources: [{ pool: "kept", amount: 90 }] };
  const { hit } = await first("amounts", named);
  assert.equal(hit.cost.baselineUsd, 0.9);
  const own = ok(await send("amounts"));
  assert.deepEqual([own.cached, own.cost.baselineUsd], [false, 0.04]);
});

test("in a window of its pool, too, it is told that a kept result used nothing", async () => {
  const days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
  await rm.pool("always-cheap", { offPeak: { days, from: "00:00", to: "00:00", discountPercent: 50 } });
  await rm.client("frugal");
  ok(await rm.put("/admin/templates/always-cheap", { worker: "ECHO", resources: [{ pool: "always-cheap", base: 5 }], cacheTtlSeconds: 60 }));
  const send = () => rm.execute({ clientId: "frugal", templateId: "always-cheap", input: 1 }, { wait: 10 });
  ok(await send());
  const hit = await waitFor(async () => {
    const { body } = await send();
    return body.cached ? body : null;
  }, "the kept result");
  assert.deepEqual(hit.resources, [{ pool: "always-cheap", estimated: 5, actual: 0 }]);
  assert.deepEqual((await rm.execution(hit.requestId)).resources, hit.resources);
});
