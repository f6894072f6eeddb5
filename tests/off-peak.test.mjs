// Off-peak: deferred work waits for the window of its template or its pool, which may be cheaper; what that saves, and what
// it must not do.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
  await rm.client("sleeper", { maxConcurrent: 50 });
});
after(() => rm.close());

const days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const clock = (offsetMinutes) => new Date(Date.now() + offsetMinutes * 60_000).toISOString().slice(11, 16);
const window = (from, to, more = {}) => ({ days, from: clock(from), to: clock(to), ...more });
const pool = (name, offPeak) => rm.pool(name, { capacity: 100, refillPerSecond: 100, unitPriceUsd: 0.01, ...(offPeak && { offPeak }) });
const send = async (name, more = {}, options) => ok(await rm.execute(rm.work("sleeper", name, 5, { urgency: "deferred", ...more }), options));
const blockedBy = async ({ requestId }) => ok(await rm.get(`/api/queue/position/${requestId}`)).blockedBy;

test("what waited for a cheaper window costs less, and that is the saving", async () => {
  await pool("night", window(120, 180, { discountPercent: 40 }));
  const deferred = await send("night");
  assert.equal(await blockedBy(deferred), "off_peak");
  assert.equal(deferred.estimatedCostUsd, 0.05, "the full price is held: it may be forced out");
  const estimate = async (more) => ok(await rm.post("/api/cost/estimate", rm.work("sleeper", "night", 5, { urgency: "deferred", ...more })));
  const expected = await estimate({});
  assert.deepEqual([expected.estimatedUsd, expected.savedUsd, expected.lines[0].discountPercent], [0.05, 0, undefined]);
  const detail = "it waits for its window: 40 % less is charged there, the full price is held";
  assert.deepEqual(expected.optimizations, [{ strategy: "off_peak", detail, savedUsd: 0 }]);
  for (const more of [{ urgency: "normal" }, { optimization: { offPeak: false } }, { deadline: new Date(Date.now() + 120_000).toISOString() }]) {
    assert.deepEqual((await estimate(more)).optimizations, [], JSON.stringify(more));
  }
  const now = await send("night", { urgency: "normal" }, { wait: 10 });
  assert.deepEqual(now.cost, { estimatedUsd: 0.05, actualUsd: 0.05, baselineUsd: 0.05, savedUsd: 0 });
  await pool("night", window(-60, 60, { discountPercent: 40 }));
  const ended = await rm.ended(deferred.requestId);
  // Its price was that of when it came: the windows that were known then have not begun.
  assert.deepEqual([ended.status, ended.cost.actualUsd], ["succeeded", 0.05]);
  const opened = (await estimate({ urgency: "normal" })).optimizations;
  assert.deepEqual(opened, [{ strategy: "off_peak", detail: "its window is open: 40 % less of `night` is charged in it, the full price is held", savedUsd: 0 }]);
  const inWindow = await send("night", { urgency: "normal" }, { wait: 10 });
  assert.deepEqual(inWindow.cost, { estimatedUsd: 0.05, actualUsd: 0.03, baselineUsd: 0.03, savedUsd: 0 }, "it would not have cost more");
  assert.deepEqual(inWindow.optimizations, []);
  const line = { pool: "night", amount: 5, unitPriceUsd: 0.01, discountPercent: 40, costUsd: 0.03 };
  assert.deepEqual(ok(await rm.get(`/api/cost/${inWindow.requestId}`)).lines, [line]);
});

test("a saving is made by those who come before the window and run in it", async () => {
  // The window opens with the next full minute.
  await pool("soon", window(1, 61, { discountPercent: 40 }));
  const deferred = await send("soon");
  const ended = await rm.ended(deferred.requestId, 75_000);
  assert.deepEqual(ended.cost, { estimatedUsd: 0.05, actualUsd: 0.03, baselineUsd: 0.05, savedUsd: 0.02 });
  assert.deepEqual(ended.optimizations, [{ strategy: "off_peak", detail: "it waited for its window", savedUsd: 0.02 }]);
  const rows = async () => (await rm.env.DB.prepare("SELECT strategy, saved_nanousd AS saved FROM savings WHERE event = ?").bind(deferred.requestId).all()).results;
  const ledger = await waitFor(async () => ((await rows()).length > 0 ? rows() : null), "the ledger");
  assert.deepEqual(ledger, [{ strategy: "off_peak", saved: 20_000_000 }]);
});

test("who does not want to wait does not, and batches wait only where it is asked for", async () => {
  await pool("later", window(120, 180));
  for (const optimization of [{ level: "off" }, { offPeak: false }]) {
    assert.equal((await send("later", { optimization }, { wait: 10 })).status, "succeeded", JSON.stringify(optimization));
  }
  assert.equal((await send("later", { urgency: "batch" }, { wait: 10 })).status, "succeeded");
  const asked = await send("later", { urgency: "batch", optimization: { offPeak: true } });
  assert.equal(await blockedBy(asked), "off_peak");
  ok(await rm.call("DELETE", `/api/queue/${asked.requestId}`));
});

test("a template's window goes before its pool's", async () => {
  await pool("day", window(-60, 60));
  const template = (offPeak) => ({ worker: "ECHO", resources: [{ pool: "day", base: 5 }], ...(offPeak && { offPeak }) });
  ok(await rm.put("/admin/templates/nightly", template(window(120, 180))));
  const deferred = ok(await rm.execute({ clientId: "sleeper", templateId: "nightly", urgency: "deferred" }));
  assert.equal(await blockedBy(deferred), "off_peak");
  assert.equal((await send("day", {}, { wait: 10 })).status, "succeeded", "the pool's own is open");
  ok(await rm.put("/admin/templates/nightly", template(window(-60, 60))));
  assert.equal((await rm.ended(deferred.requestId)).status, "succeeded");
  const refused = await rm.put("/admin/templates/nightly", template(window(-60, 60, { discountPercent: 5 })));
  assert.deepEqual([refused.status, refused.body.errors[0].pointer], [400, "/offPeak/discountPercent"]);
});

test("a deadline forces it out in time for its run, as long as runs take, at the full price", async () => {
  await pool("tight", window(120, 180, { discountPercent: 40 }));
  // The worker is known to be quick: its limit of ten minutes does not count.
  for (let n = 0; n < 3; n += 1) await send("tight", { urgency: "normal" }, { wait: 10 });
  const work = (ms) => send("tight", { timeoutMs: 600_000, deadline: new Date(Date.now() + ms).toISOString() });
  const waits = await work(120_000);
  assert.equal(await blockedBy(waits), "off_peak", "there is a minute left");
  const forced = await rm.ended((await work(62_500)).requestId);
  assert.deepEqual([forced.status, forced.cost.actualUsd, forced.cost.savedUsd, forced.optimizations], ["succeeded", 0.05, 0, []]);
  assert.ok(forced.finishedAt < new Date(Date.parse(forced.createdAt) + 62_500).toISOString());
  ok(await rm.call("DELETE", `/api/queue/${waits.requestId}`));
});

test("it is forced out by how long runs of its template take, not those of its worker's other work", async () => {
  await pool("both", window(120, 180));
  for (const name of ["quick-work", "slow-work"]) ok(await rm.put(`/admin/templates/${name}`, { worker: "ECHO", timeoutMs: 600_000, resources: [{ pool: "both", base: 1 }] }));
  const run = (templateId, more, options) => rm.execute({ clientId: "sleeper", templateId, ...more }, options);
  // After a first run, thrice as long is what hardly any takes: twelve seconds, and next to none.
  for (const [name, delayMs] of [["slow-work", 4_000], ["quick-work", 0]]) ok(await run(name, { input: { simulate: { delayMs } } }, { wait: 20 }));
  const late = { urgency: "deferred", deadline: new Date(Date.now() + 70_000).toISOString(), input: 1 };
  const quick = ok(await run("quick-work", late));
  assert.equal(await blockedBy(quick), "off_peak");
  assert.equal(ok(await run("slow-work", late, { wait: 20 })).status, "succeeded", "it has no time to lose");
  ok(await rm.call("DELETE", `/api/queue/${quick.requestId}`));
});

test("a model that costs less at times does so where a pool leaves its price to it, and deferred work waits for that", async () => {
  const model = (name, from, to) =>
    rm.env.DB.prepare("INSERT INTO model_prices (model, input_nanousd, cached_input_nanousd, output_nanousd, off_peak, version) VALUES (?, 1000, NULL, 1000, ?, 'test')")
      .bind(name, JSON.stringify({ discountPercent: 40, windows: [{ from: clock(from), to: clock(to) }] })).run();
  await model("cheap-later", 120, 180);
  await model("cheap-now", -60, 60);
  await rm.pool("by-model", { capacity: 100, refillPerSecond: 100, unitPriceUsd: undefined });
  for (const name of ["cheap-later", "cheap-now"]) ok(await rm.put(`/admin/templates/${name}`, { worker: "ECHO", model: name, resources: [{ pool: "by-model", base: 5 }] }));
  const run = (templateId, more, options) => rm.execute({ clientId: "sleeper", templateId, ...more }, options);
  assert.equal(ok(await run("cheap-later", {}, { wait: 10 })).cost.actualUsd, 0.000005);
  const now = ok(await run("cheap-now", {}, { wait: 10 }));
  assert.equal(now.cost.actualUsd, 0.000003);
  const bill = ok(await rm.get(`/api/cost/${now.requestId}`));
  assert.deepEqual([bill.actualUsd, bill.lines.reduce((sum, line) => sum + line.costUsd, 0)], [0.000003, 0.000003]);
  const deferred = ok(await run("cheap-later", { urgency: "deferred" }));
  assert.equal(await blockedBy(deferred), "off_peak");
  assert.equal(ok(await run("cheap-now", { urgency: "deferred" }, { wait: 10 })).cost.savedUsd, 0, "it came in the window");
  ok(await rm.call("DELETE", `/api/queue/${deferred.requestId}`));
});
