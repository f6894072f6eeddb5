// What could be cheaper: of one request, and of what a client has made; and what is recommended, with its evidence.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
const days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const clock = (offsetMinutes) => new Date(Date.now() + offsetMinutes * 60_000).toISOString().slice(11, 16);
before(async () => {
  rm = await startHarness();
  await rm.pool("dear", { models: ["dear"], unitPriceUsd: 0.1, offPeak: { days, from: clock(120), to: clock(180), discountPercent: 50 } });
  await rm.pool("cheap", { models: ["cheap"], unitPriceUsd: 0.01 });
  await rm.client("asker");
  ok(await rm.put("/admin/templates/open", { worker: "ECHO", model: "dear", resources: [{ pool: "dear", base: 10 }], downgradeTo: ["cheap"], cacheTtlSeconds: 600, batch: { maxSize: 5, windowMs: 100 }, dedupe: false }));
  ok(await rm.put("/admin/templates/fixed", { worker: "ECHO", model: "dear", resources: [{ pool: "dear", base: 10 }] }));
});
after(() => rm.close());

const analyze = async (body) => {
  const { opportunities, ...rest } = ok(await rm.post("/api/optimize/analyze", body));
  return { ...rest, ...Object.fromEntries(opportunities.map(({ strategy, ...one }) => [strategy, one])) };
};

test("of a request: each strategy says whether, why, how much, and what would have to change", async () => {
  const before = await rm.current("asker");
  const open = await analyze({ clientId: "asker", templateId: "open", input: 1 });
  assert.deepEqual([open.model_downgrade.applicable, open.model_downgrade.savedUsd], [true, 0.9]);
  assert.match(open.model_downgrade.change, /aggressive.*cheap instead of dear/);
  // Each by itself; together they are the better of the two, for the cheap pool costs the same at any time.
  assert.deepEqual([open.off_peak.applicable, open.off_peak.savedUsd, open.baselineUsd, open.optimizedUsd], [true, 0.5, 1, 0.1]);
  assert.deepEqual([open.request_batching.applicable, open.request_batching.savedUsd, open.cache.applicable], [true, 0, false]);
  assert.deepEqual([open.compression.applicable, open.compression.change], [false, null]);
  const off = await analyze({ clientId: "asker", templateId: "open", optimization: { level: "off" } });
  for (const strategy of ["model_downgrade", "request_batching", "cache", "compression", "off_peak"]) assert.equal(off[strategy].applicable, false, strategy);
  assert.deepEqual([off.baselineUsd, off.optimizedUsd], [1, 1]);
  const long = await analyze({ clientId: "asker", templateId: "fixed", input: "x".repeat(100_000) });
  assert.deepEqual([long.compression.applicable, long.model_downgrade.applicable], [true, false]);
  const longest = await analyze({ clientId: "asker", templateId: "open", input: "x".repeat(6_000_000), urgency: "batch" });
  assert.deepEqual([longest.request_batching.applicable, longest.request_batching.change], [false, null]);
  assert.deepEqual(await rm.current("asker"), before, "it takes nothing");
});

test("of a history: what would have paid on it adds up, and is recommended with its evidence", async () => {
  const level = { optimization: { level: "off" } };
  const send = (templateId, input, more = {}) => rm.execute({ clientId: "asker", templateId, input, ...level, ...more }, { wait: 10 });
  // Twice the same and once another: 1 + 1 + 1 dollar; the last in the lane of batches, outside the window.
  for (const input of ["a", "a", "b"]) assert.equal(ok(await send("open", input)).cost.actualUsd, 1);
  ok(await send("fixed", "c", { urgency: "batch" }));
  await waitFor(async () => ok(await rm.get("/api/optimize/stats/asker")).requests === 4, "the record");
  const all = await analyze({ clientId: "asker" });
  assert.deepEqual([all.cache.savedUsd, all.model_downgrade.savedUsd, all.off_peak.savedUsd], [1, 1.8, 0.5]);
  assert.deepEqual([all.baselineUsd, all.optimizedUsd], [4, 0.7]);
  assert.equal(all.request_batching.applicable, false, "no common call has saved anything yet");
  const { recommendations } = ok(await rm.get("/api/optimize/recommendations/asker"));
  assert.deepEqual(recommendations.map(({ strategy, estimatedMonthlySavingUsd }) => [strategy, estimatedMonthlySavingUsd]), [["model_downgrade", 1.8], ["cache", 1], ["off_peak", 0.5]]);
  const today = new Date().toISOString().slice(0, 10);
  assert.match(recommendations[0].evidence, new RegExp(`^2 requests from ${today} to ${today} would have cost \\$1.8 less: 2 of \`open\`$`));
  // Days are whole ones, as for the other routes.
  assert.deepEqual(await analyze({ clientId: "asker", from: today, to: today }), all);
  assert.equal((await analyze({ clientId: "asker", from: "2026-01-01", to: "2026-01-31" })).baselineUsd, 0);
  for (const [span, pointer] of [[{ from: "2026-02-30" }, "/from"], [{ to: 5 }, "/to"], [{ from: "2026-02-02", to: "2026-02-01" }, "/from"]]) {
    const refused = await rm.post("/api/optimize/analyze", { clientId: "asker", ...span });
    assert.deepEqual([refused.status, refused.body.errors[0].pointer], [400, pointer]);
  }
  // What was done is not recommended again.
  await rm.client("thrifty");
  ok(await rm.execute({ clientId: "thrifty", templateId: "open", input: "z", optimization: { level: "aggressive" } }, { wait: 10 }));
  await waitFor(async () => ok(await rm.get("/api/optimize/stats/thrifty")).requests === 1, "the record");
  assert.deepEqual(ok(await rm.get("/api/optimize/recommendations/thrifty")).recommendations, []);
});

const recorded = (client, n) => waitFor(async () => ok(await rm.get(`/api/optimize/stats/${client}`)).requests === n, "the record");
const recommended = async (client) => ok(await rm.get(`/api/optimize/recommendations/${client}`)).recommendations;

test("what waiting is worth is what the window that it waits for is worth, if its deadline is not before that", async () => {
  const deadline = new Date(Date.now() + 30_000).toISOString();
  const hurried = await analyze({ clientId: "asker", templateId: "fixed", deadline });
  assert.deepEqual([hurried.off_peak.applicable, hurried.off_peak.savedUsd, hurried.optimizedUsd], [false, 0, 1]);
  assert.match(hurried.off_peak.reason, /deadline/);
  const elsewhen = { offPeak: { days, from: clock(300), to: clock(360) } };
  ok(await rm.put("/admin/templates/elsewhen", { worker: "ECHO", model: "dear", resources: [{ pool: "dear", base: 10 }], ...elsewhen }));
  const other = await analyze({ clientId: "asker", templateId: "elsewhen", urgency: "deferred" });
  assert.deepEqual([other.off_peak.applicable, other.optimizedUsd], [false, 1]);
  await rm.client("hurried");
  const send = (more) => rm.execute({ clientId: "hurried", urgency: "batch", ...more }, { wait: 10 });
  ok(await send({ templateId: "fixed", deadline: new Date(Date.now() + 40_000).toISOString() }));
  ok(await send({ templateId: "elsewhen" }));
  await recorded("hurried", 2);
  assert.deepEqual(await recommended("hurried"), []);
  // By the amounts of the caller, without a template.
  ok(await rm.execute({ ...rm.work("hurried", "dear", 10), urgency: "batch" }, { wait: 10 }));
  await recorded("hurried", 3);
  assert.match((await recommended("hurried"))[0].evidence, /would have cost \$0.5 less: 1 without a template$/);
});

test("only those are recommended to be combined that came together, and by what calls have saved", async () => {
  const shared = (more) => ({ worker: "ECHO", model: "cheap", resources: [{ pool: "cheap", base: 10 }], batch: { maxSize: 5, windowMs: 100 }, ...more });
  ok(await rm.put("/admin/templates/shared", shared()));
  await rm.client("lonely");
  const send = (input, more) => rm.execute({ clientId: "lonely", templateId: "shared", input, ...more });
  // Two that are the same: the one has the other's result.
  const same = await Promise.all([send({ simulate: { delayMs: 1_000 } }), send({ simulate: { delayMs: 1_000 } })]);
  for (const sent of same) assert.equal((await rm.ended(ok(sent).requestId)).status, "succeeded");
  for (const input of [1, 2, 3]) await rm.ended(ok(await send(input)).requestId);
  await recorded("lonely", 5);
  assert.deepEqual(await recommended("lonely"), []);
});

test("a common call is worth what such calls have saved, of those too that they saved nothing of", async () => {
  ok(await rm.put("/admin/templates/together", { worker: "ECHO", model: "cheap", resources: [{ pool: "cheap", base: 10 }], batch: { maxSize: 2, windowMs: 2_000 }, dedupe: false }));
  await rm.client("sociable", { maxConcurrent: 5 });
  const pair = (used, more) =>
    Promise.all([1, 2].map((n) => rm.execute({ clientId: "sociable", templateId: "together", urgency: "batch", input: { n, used, simulate: { batchUsage: { cheap: used } } }, ...more }, { wait: 10 })));
  for (const [used, saved] of [[10, 0.05], [20, 0], [20, 0], [20, 0]]) {
    for (const sent of await pair(used)) assert.deepEqual([ok(sent).cost.savedUsd, sent.body.optimizations[0].strategy], [saved, "request_batching"]);
  }
  for (const sent of await pair(0, { urgency: "normal" })) assert.equal(ok(sent).cost.actualUsd, 0.1);
  await recorded("sociable", 10);
  // Ten cents of eighty were saved: 12.5 % of the twenty of these two.
  const { request_batching: told } = await analyze({ clientId: "sociable" });
  assert.deepEqual([told.applicable, told.savedUsd], [true, 0.025]);
});

test("who wants nothing to be kept is not recommended to keep results", async () => {
  ok(await rm.put("/admin/templates/keeping", { worker: "ECHO", model: "cheap", resources: [{ pool: "cheap", base: 10 }], cacheTtlSeconds: 60 }));
  await rm.client("private");
  const send = () => rm.execute({ clientId: "private", templateId: "keeping", input: "a secret" }, { wait: 10, headers: { "cache-control": "no-store" } });
  for (const sent of [await send(), await send()]) assert.equal(ok(sent).cached, false);
  await recorded("private", 2);
  assert.deepEqual(await recommended("private"), []);
});

test("who wants no kept result is not recommended that results be kept, whatever the template says", async () => {
  await rm.client("fresh");
  const send = (more, control) => rm.execute({ clientId: "fresh", templateId: "fixed", input: "the latest", ...more }, { wait: 10, headers: { "cache-control": control } });
  const refusing = { templateId: "keeping", optimization: { cache: false } };
  for (const [more, control] of [[{}, "no-cache"], [refusing, "no-store"], [{ optimization: { level: "off" } }, "no-cache"]]) {
    for (let n = 0; n < 2; n += 1) assert.equal(ok(await send(more, control)).cached, false);
  }
  await waitFor(async () => ok(await rm.get("/api/optimize/stats/fresh")).requests === 6, "the record");
  const { recommendations } = ok(await rm.get("/api/optimize/recommendations/fresh"));
  assert.deepEqual(recommendations.filter((one) => one.strategy === "cache"), []);
  assert.equal((await analyze({ clientId: "fresh" })).cache.applicable, false);
});

test("a cheaper model that has no room is not recommended, nor a result that was not there yet", async () => {
  await rm.pool("small-room", { capacity: 5, models: ["roomless"], unitPriceUsd: 0.01 });
  ok(await rm.put("/admin/templates/roomless", { worker: "ECHO", model: "dear", resources: [{ pool: "dear", base: 10 }], downgradeTo: ["roomless"], dedupe: false }));
  await rm.client("cramped", { maxConcurrent: 5 });
  const send = (input) => rm.execute({ clientId: "cramped", templateId: "roomless", input, optimization: { level: "aggressive" } });
  const at_once = await Promise.all([1, 2, 3].map(() => send({ simulate: { delayMs: 1_000 } })));
  for (const sent of at_once) assert.equal((await rm.ended(ok(sent).requestId)).cost.actualUsd, 1);
  await recorded("cramped", 3);
  assert.deepEqual(await recommended("cramped"), []);
});

test("a model that takes more for the same is not recommended, whatever its price", async () => {
  for (const [client, used, saved] of [["wasteful", 300, []], ["frugal", 50, [["model_downgrade", 1]]]]) {
    await rm.client(client);
    const send = (level, input) => rm.execute({ clientId: client, templateId: "open", input, optimization: { level, cache: false } }, { wait: 10 });
    const cheap = ok(await send("aggressive", { n: 0, simulate: { usage: { cheap: used } } }));
    assert.deepEqual([cheap.resources[0].pool, cheap.cost.actualUsd], ["cheap", used / 100]);
    for (const n of [1, 2]) assert.equal(ok(await send("off", { n })).cost.actualUsd, 1);
    await recorded(client, 3);
    const found = (await recommended(client)).filter(({ strategy }) => strategy === "model_downgrade");
    assert.deepEqual(found.map(({ strategy, estimatedMonthlySavingUsd }) => [strategy, estimatedMonthlySavingUsd]), saved);
    const { model_downgrade: told } = await analyze({ clientId: client });
    assert.deepEqual([told.applicable, told.savedUsd], [saved.length > 0, saved[0]?.[1] ?? 0]);
  }
});

test("what a request was made for already is not recommended for it", async () => {
  await rm.client("thorough", { maxConcurrent: 5 });
  const soon = (ms) => new Date(Date.now() + ms).toISOString();
  // The cheap model's pool has nothing in time; results are kept, and new ones were asked for.
  await rm.pool("empty-room", { capacity: 10, refillPerSecond: 0.1, models: ["empty-room"], unitPriceUsd: 0.01 });
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "asker", resources: [{ pool: "empty-room", amount: 10 }] }));
  ok(await rm.post("/internal/consume", { reservationId, usage: [{ pool: "empty-room", amount: 10 }] }));
  ok(await rm.put("/admin/templates/tried", { worker: "ECHO", model: "dear", resources: [{ pool: "dear", base: 10 }], downgradeTo: ["empty-room"], cacheTtlSeconds: 600 }));
  const send = (more, options) => rm.execute({ clientId: "thorough", templateId: "tried", input: 1, ...more }, { wait: 20, ...options });
  const aggressive = { optimization: { level: "aggressive" }, deadline: soon(20_000) };
  for (let n = 0; n < 3; n += 1) assert.equal(ok(await send(aggressive, { headers: { "cache-control": "no-cache" } })).cost.actualUsd, 1);
  // It waits for its window, and its deadline does not let it.
  const patient = { templateId: "fixed", urgency: "batch", input: 2, optimization: { offPeak: true }, deadline: soon(60_500) };
  assert.equal(ok(await send(patient)).cost.actualUsd, 1);
  await recorded("thorough", 4);
  assert.deepEqual(await recommended("thorough"), []);
});
