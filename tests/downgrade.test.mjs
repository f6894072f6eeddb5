// Cheaper models: when one is taken, when it is not, and that the price is then that of the model which bills.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
const template = (more = {}) => ({
  worker: "ECHO", model: "large", resources: [{ pool: "large", base: 10 }], downgradeTo: ["medium", "small"], ...more,
});
before(async () => {
  rm = await startHarness();
  await rm.pool("large", { models: ["large"], unitPriceUsd: 0.1 });
  await rm.pool("medium", { models: ["medium"], unitPriceUsd: 0.02 });
  await rm.pool("small", { models: ["small"], unitPriceUsd: 0.003 });
  await rm.client("saver");
  ok(await rm.put("/admin/templates/chain", template()));
});
after(() => rm.close());

const send = (more = {}, options = { wait: 10 }) => rm.execute({ clientId: "saver", templateId: "chain", ...more }, options);
const aggressive = { optimization: { level: "aggressive" } };
const savings = async (client) =>
  (await rm.env.DB.prepare("SELECT s.strategy, s.saved_nanousd AS saved, e.baseline_nanousd - e.cost_nanousd AS difference FROM savings s JOIN usage_events e USING (event) WHERE s.client_id = ? ORDER BY s.at").bind(client).all()).results;

test("at the standard level a request within reach keeps its model", async () => {
  const done = ok(await send());
  assert.deepEqual([done.resources, done.cost, done.optimizations], [
    [{ pool: "large", estimated: 10, actual: 10 }], { estimatedUsd: 1, actualUsd: 1, baselineUsd: 1, savedUsd: 0 }, []]);
});

test("an aggressive one takes the cheapest of the chain, and is billed, told and recorded by that", async () => {
  const estimate = ok(await rm.post("/api/cost/estimate", { clientId: "saver", templateId: "chain", ...aggressive }));
  assert.deepEqual([estimate.baselineUsd, estimate.estimatedUsd, estimate.savedUsd, estimate.lines[0].model], [1, 0.03, 0.97, "small"]);
  const done = ok(await send({ ...aggressive, input: { simulate: { usage: { small: 7 } } } }));
  assert.deepEqual(done.resources, [{ pool: "small", estimated: 10, actual: 7 }]);
  // Seven units would have cost 70 cents.
  assert.deepEqual(done.cost, { estimatedUsd: 0.03, actualUsd: 0.021, baselineUsd: 0.7, savedUsd: 0.679 });
  assert.deepEqual(done.optimizations, [{ strategy: "model_downgrade", detail: "small instead of large", savedUsd: 0.679 }]);
  assert.equal((await rm.stats()).models[done.requestId], "small", "its worker is told the model");
  const bill = ok(await rm.get(`/api/cost/${done.requestId}`));
  assert.deepEqual([bill.baselineUsd, bill.savedUsd, bill.lines[0].model, bill.lines[0].unitPriceUsd], [0.7, 0.679, "small", 0.003]);
  const [row] = await waitFor(async () => {
    const rows = await savings("saver");
    return rows.length > 0 ? rows : null;
  }, "the ledger");
  assert.deepEqual(row, { strategy: "model_downgrade", saved: 679_000_000, difference: 679_000_000 });
  const stats = ok(await rm.get("/api/optimize/stats/saver"));
  assert.deepEqual([stats.optimized, stats.savedUsd, stats.strategies[0]], [1, 0.679, { strategy: "model_downgrade", applied: 1, savedUsd: 0.679, savedBytes: 0 }]);
  const { text } = await rm.get("/metrics");
  assert.match(text, /resource_manager_optimization_savings_usd_total\{strategy="model_downgrade"\} 0\.679\n/);
  assert.match(text, /resource_manager_optimizations_total\{strategy="model_downgrade"\} 1\n/);
});

test("a cheaper model with one price for any use is compared with what the parts would have cost", async () => {
  await rm.client("parted");
  await rm.pool("by-parts", { capacity: 1000, models: ["by-parts"], unitPriceUsd: 0.00003, outputPriceUsd: 0.00006 });
  await rm.pool("flat", { capacity: 1000, models: ["flat"], unitPriceUsd: 0.000001 });
  ok(await rm.put("/admin/templates/parted", { worker: "ECHO", model: "by-parts", resources: [{ pool: "by-parts", base: 10, perOutputToken: 1 }], downgradeTo: ["flat"] }));
  const body = (level, usage) => ({ clientId: "parted", templateId: "parted", parameters: { maxOutputTokens: 10 }, input: { level, ...(usage && { simulate: { usage } }) }, optimization: { level } });
  for (const level of ["off", "aggressive"]) assert.equal(ok(await rm.post("/api/cost/estimate", body(level))).baselineUsd, 0.0009, level);
  assert.equal(ok(await rm.execute(body("off"), { wait: 10 })).cost.baselineUsd, 0.0009);
  for (const usage of [undefined, { flat: 20 }, { flat: { amount: 20, output: 10 } }]) {
    const { cost } = ok(await rm.execute(body("aggressive", usage), { wait: 10 }));
    assert.deepEqual(cost, { estimatedUsd: 0.00002, actualUsd: 0.00002, baselineUsd: 0.0009, savedUsd: 0.00088 }, JSON.stringify(usage));
  }
});

test("a quality floor, a caller's no and the level off are kept to", async () => {
  ok(await rm.put("/admin/templates/floored", template({ qualityFloor: "medium" })));
  assert.equal(ok(await send({ templateId: "floored", ...aggressive })).cost.actualUsd, 0.2);
  for (const optimization of [{ level: "off" }, { level: "aggressive", downgrade: false }, { level: "off", downgrade: true }]) {
    assert.equal(ok(await send({ optimization })).cost.actualUsd, 1, JSON.stringify(optimization));
  }
  const refused = await rm.put("/admin/templates/odd", template({ qualityFloor: "huge" }));
  assert.deepEqual([refused.status, refused.body.errors[0].pointer], [400, "/qualityFloor"]);
});

test("a floor that cannot do allows none below it", async () => {
  await rm.pool("tight", { capacity: 5, models: ["roomless"], unitPriceUsd: 0.05 });
  ok(await rm.put("/admin/templates/roomless", template({ downgradeTo: ["roomless", "small"], qualityFloor: "roomless" })));
  const done = ok(await send({ templateId: "roomless", ...aggressive }));
  assert.deepEqual([done.resources[0].pool, done.cost.actualUsd], ["large", 1]);
});

test("a model that costs less at all times but those of the dear one's window is not cheaper", async () => {
  const days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
  const offPeak = { days, from: "00:00", to: "00:00", discountPercent: 90 };
  await rm.pool("nightly", { models: ["night"], unitPriceUsd: 0.1, offPeak });
  const nightly = { model: "night", resources: [{ pool: "nightly", base: 10 }] };
  ok(await rm.put("/admin/templates/nightly", template({ ...nightly, downgradeTo: ["medium"] })));
  const own = ok(await send({ templateId: "nightly", ...aggressive }));
  assert.deepEqual([own.resources[0].pool, own.cost.actualUsd, own.cost.baselineUsd], ["nightly", 0.1, 0.1]);
  ok(await rm.put("/admin/templates/nightly", template({ ...nightly, downgradeTo: ["medium", "small"] })));
  const cheaper = ok(await send({ templateId: "nightly", ...aggressive }));
  assert.deepEqual([cheaper.resources[0].pool, cheaper.cost.actualUsd, cheaper.cost.baselineUsd, cheaper.cost.savedUsd], ["small", 0.03, 0.1, 0.07]);
});

test("an aggressive one does not go where it would be refused, or kept beyond its deadline", async () => {
  await rm.pool("dry", { capacity: 10, refillPerSecond: 0.1, models: ["dry"], unitPriceUsd: 0.001, queueCap: 1 });
  ok(await rm.put("/admin/templates/dry", template({ downgradeTo: ["dry"] })));
  const fill = { reservationId: ok(await rm.post("/internal/reserve", { clientId: "saver", resources: [{ pool: "dry", amount: 10 }] })).reservationId };
  ok(await rm.post("/internal/consume", { ...fill, usage: [{ pool: "dry", amount: 10 }] }));
  const hurried = ok(await send({ templateId: "dry", ...aggressive, deadline: new Date(Date.now() + 20_000).toISOString() }));
  assert.deepEqual([hurried.status, hurried.resources[0].pool, hurried.cost.actualUsd], ["succeeded", "large", 1]);
  const patient = ok(await send({ templateId: "dry", ...aggressive }, {}));
  assert.match(patient.requestId, /_dry$/, "it is cheaper, and it has the time");
  const crowded = ok(await send({ templateId: "dry", ...aggressive }));
  assert.deepEqual([crowded.status, crowded.resources[0].pool], ["succeeded", "large"], "its queue is full");
  ok(await rm.call("DELETE", `/api/queue/${patient.requestId}`));
});

test("a budget that has not got the dear model's cost has that of the first that fits", async () => {
  await rm.client("poor", { monthlyBudgetUsd: 0.5 });
  const poor = { clientId: "poor" };
  const done = ok(await send(poor));
  assert.deepEqual([done.resources[0].pool, done.cost.actualUsd, done.cost.baselineUsd], ["medium", 0.2, 1]);
  assert.equal(done.optimizations[0].detail, "medium instead of large");
  const off = await send({ ...poor, optimization: { level: "off" } });
  assert.deepEqual([off.status, off.body.code], [402, "budget_exceeded"]);
  await waitFor(async () => (await rm.current("poor")).spentUsd === 0.2, "the charge");
  assert.equal(ok(await send(poor)).cost.actualUsd, 0.2);
  await waitFor(async () => (await rm.current("poor")).spentUsd === 0.4, "the charge");
  assert.equal(ok(await send(poor)).resources[0].pool, "small", "medium does not fit any more");
  // The same key has the same answer, whatever fits by now.
  const keyed = () => send(poor, { wait: 10, key: "one" });
  const [one, other] = [ok(await keyed()), ok(await keyed())];
  assert.deepEqual([one.requestId, one.resources[0].pool], [other.requestId, "small"]);
});

test("a request that would wait much longer for the dear pool goes to the cheap one", async () => {
  await rm.pool("slow", { models: ["slow"], capacity: 100, refillPerSecond: 1, unitPriceUsd: 0.1 });
  ok(await rm.put("/admin/templates/queued", template({ model: "slow", resources: [{ pool: "slow", base: 50 }] })));
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "saver", resources: [{ pool: "slow", amount: 100 }] }));
  ok(await rm.post("/internal/consume", { reservationId, usage: [{ pool: "slow", amount: 100 }] }));
  const done = ok(await send({ templateId: "queued" }));
  assert.deepEqual([done.status, done.resources[0].pool, done.optimizations[0].strategy], ["succeeded", "medium", "model_downgrade"]);
  const stays = ok(await send({ templateId: "queued", optimization: { downgrade: false } }, {}));
  assert.equal(stays.status, "queued");
  ok(await rm.call("DELETE", `/api/queue/${stays.requestId}`));
  // Within the margin it waits.
  await rm.pool("slow", { models: ["slow"], capacity: 100, refillPerSecond: 20, unitPriceUsd: 0.1 });
  assert.equal(ok(await send({ templateId: "queued" })).resources[0].pool, "slow");
});

test("one that goes to a cheaper model for the wait goes to a still cheaper one for its budget, and is told so before", async () => {
  await rm.pool("parched", { models: ["parched"], capacity: 100, refillPerSecond: 1, unitPriceUsd: 0.1 });
  ok(await rm.put("/admin/templates/parched", template({ model: "parched", resources: [{ pool: "parched", base: 50 }] })));
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "saver", resources: [{ pool: "parched", amount: 100 }] }));
  ok(await rm.post("/internal/consume", { reservationId, usage: [{ pool: "parched", amount: 100 }] }));
  await rm.client("short", { monthlyBudgetUsd: 0.2 });
  for (const [clientId, pool, cost, detail] of [["saver", "medium", 1, "medium instead of parched"], ["short", "small", 0.15, "small instead of parched"]]) {
    const body = { clientId, templateId: "parched" };
    const estimate = ok(await rm.post("/api/cost/estimate", body));
    assert.deepEqual([estimate.lines[0].pool, estimate.estimatedUsd, estimate.baselineUsd, estimate.fitsBudget], [pool, cost, 5, true]);
    const { opportunities } = ok(await rm.post("/api/optimize/analyze", body));
    const downgrade = opportunities.find((one) => one.strategy === "model_downgrade");
    assert.deepEqual([downgrade.applicable, downgrade.change], [true, `none: ${detail} is what it gets`]);
    const done = ok(await send({ clientId, templateId: "parched" }));
    assert.deepEqual([done.status, done.resources[0].pool, done.cost.actualUsd, done.optimizations[0].detail], ["succeeded", pool, cost, detail]);
  }
});

test("a model of the same price is taken for the wait, and not for nothing", async () => {
  await rm.pool("even-dry", { models: ["even-dry"], capacity: 100, refillPerSecond: 1, unitPriceUsd: 0.1 });
  await rm.pool("even", { models: ["even"], unitPriceUsd: 0.1 });
  ok(await rm.put("/admin/templates/evens", template({ model: "even-dry", resources: [{ pool: "even-dry", base: 50 }], downgradeTo: ["even"] })));
  assert.equal(ok(await send({ templateId: "evens", ...aggressive })).resources[0].pool, "even-dry");
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "saver", resources: [{ pool: "even-dry", amount: 50 }] }));
  ok(await rm.post("/internal/consume", { reservationId, usage: [{ pool: "even-dry", amount: 50 }] }));
  const done = ok(await send({ templateId: "evens" }));
  assert.deepEqual([done.resources[0].pool, done.cost], ["even", { estimatedUsd: 5, actualUsd: 5, baselineUsd: 5, savedUsd: 0 }]);
  assert.deepEqual(done.optimizations, [{ strategy: "model_downgrade", detail: "even instead of even-dry", savedUsd: 0 }]);
});

test("what would cost more, has no known price or no room is never taken", async () => {
  await rm.pool("tiny", { models: ["tiny"], capacity: 5, unitPriceUsd: 0.001 });
  await rm.pool("gold", { models: ["gold"], unitPriceUsd: 0.01, outputPriceUsd: 9 });
  await rm.pool("by-table", { models: ["unpriced"], unitPriceUsd: undefined });
  ok(await rm.put("/admin/templates/traps", template({ downgradeTo: ["tiny", "gold", "unpriced", "nowhere"] })));
  const done = ok(await send({ templateId: "traps", ...aggressive }));
  assert.deepEqual([done.resources[0].pool, done.optimizations], ["large", []]);
});

test("a model that fails bills nothing, and saves nothing", async () => {
  const failed = ok(await send({ ...aggressive, input: { simulate: { status: 400 } } }));
  assert.deepEqual([failed.status, failed.cost.actualUsd, failed.cost.baselineUsd, failed.cost.savedUsd], ["failed", 0, 0, 0]);
});

test("a token is not a call: each demand goes to a pool that counts the same, and no two to one", async () => {
  const pools = { "l-tokens": ["two-large", "token", 0.01], "l-calls": ["two-large", "call", 0.1], "s-tokens": ["two-small", "token", 0.001], "s-calls": ["two-small", "call", 0] };
  for (const [name, [model, unit, unitPriceUsd]] of Object.entries(pools)) await rm.pool(name, { models: [model], unit, unitPriceUsd });
  const two = { worker: "ECHO", model: "two-large", resources: [{ pool: "l-tokens", base: 50 }, { pool: "l-calls", base: 1 }], downgradeTo: ["two-small"] };
  ok(await rm.put("/admin/templates/two-pools", two));
  const done = ok(await send({ templateId: "two-pools", ...aggressive }));
  assert.deepEqual(done.resources.map(({ pool, actual }) => [pool, actual]).sort(), [["s-calls", 1], ["s-tokens", 50]]);
  assert.deepEqual([done.cost.actualUsd, done.cost.baselineUsd], [0.05, 0.6]);
  ok(await rm.call("DELETE", "/admin/pools/s-tokens"));
  const stays = ok(await send({ templateId: "two-pools", ...aggressive }));
  assert.equal(stays.cost.actualUsd, 0.6, "there is no pool for its tokens");
});
