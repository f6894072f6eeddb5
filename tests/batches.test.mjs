// Requests that are combined: one call, told apart again; each with its own share, end and cancellation.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
const template = (more = {}) => ({
  worker: "ECHO", model: "m", resources: [{ pool: "batched", base: 4 }], batch: { maxSize: 3, windowMs: 2_000 }, dedupe: false, maxAttempts: 2, ...more,
});
before(async () => {
  rm = await startHarness();
  await rm.pool("batched", { capacity: 1000, refillPerSecond: 0, unitPriceUsd: 0.01 });
  await rm.client("batcher", { maxConcurrent: 10 });
  await rm.client("other", { maxConcurrent: 10 });
  ok(await rm.put("/admin/templates/batchable", template()));
});
after(() => rm.close());

const send = async (input, more = {}) => ok(await rm.execute({ clientId: "batcher", templateId: "batchable", urgency: "batch", input, ...more }));
const all = (sent) => Promise.all(sent.map(({ requestId }) => rm.ended(requestId)));
const batches = async () => (await rm.stats()).batches.map((ids) => ids.length);

test("as many as fit are one call; each has its result and its share, and the shares add up", async () => {
  await rm.resetStats();
  const sent = await Promise.all([send({ n: 1, simulate: { batchUsage: { batched: 7 } } }), send({ n: 2 }), send({ n: 3 })]);
  const ended = await all(sent);
  assert.deepEqual(ended.map(({ status, result }) => [status, result.echo.n]), [["succeeded", 1], ["succeeded", 2], ["succeeded", 3]]);
  assert.deepEqual(await batches(), [3]);
  const used = ended.map(({ resources }) => resources[0].actual);
  assert.deepEqual([used.reduce((sum, n) => sum + n), used.sort()], [7, [2, 2, 3]]);
  for (const { cost, resources, optimizations } of ended) {
    const cents = resources[0].actual;
    assert.deepEqual(cost, { estimatedUsd: 0.04, actualUsd: cents / 100, baselineUsd: 0.04, savedUsd: (4 - cents) / 100 });
    assert.deepEqual(optimizations, [{ strategy: "request_batching", detail: "one call for 3 requests", savedUsd: (4 - cents) / 100 }]);
  }
  await waitFor(async () => (await rm.current("batcher")).heldUsd === 0, "the settlements");
  assert.equal((await rm.current("batcher")).spentUsd, 0.07);
  const rows = async () => (await rm.env.DB.prepare("SELECT e.baseline_nanousd - e.cost_nanousd AS difference, s.saved_nanousd AS saved FROM usage_events e JOIN savings s USING (event) WHERE e.client_id = 'batcher'").all()).results;
  const ledger = await waitFor(async () => ((await rows()).length === 3 ? rows() : null), "the ledger");
  for (const { difference, saved } of ledger) assert.equal(difference, saved);
});

test("those that there are go when the window is over; one alone is called as ever", async () => {
  await rm.resetStats();
  const sent = await Promise.all([send({ n: 1 }), send({ n: 2 })]);
  const place = ok(await rm.get(`/api/queue/position/${sent[0].requestId}`));
  assert.equal(place.blockedBy, "batching");
  const waits = (await all(sent)).map(({ waitMs }) => waitMs);
  assert.ok(Math.max(...waits) >= 1_900, `${waits}`);
  assert.deepEqual(await batches(), [2]);
  const alone = ok(await rm.execute({ clientId: "batcher", templateId: "batchable", urgency: "batch", input: { n: 3 } }, { wait: 10 }));
  assert.deepEqual([alone.status, alone.optimizations, (await rm.stats()).byKey[alone.requestId]], ["succeeded", [], 1]);
});

test("nobody is combined who does not want it, in another lane, or of another client", async () => {
  await rm.resetStats();
  const off = (optimization) => send({}, { optimization });
  const sent = [await off({ level: "off" }), await off({ batch: false }), await send({}, { urgency: "normal" })];
  await all(sent);
  assert.deepEqual(await batches(), []);
  const asked = () => send({}, { urgency: "normal", optimization: { batch: true } });
  await all(await Promise.all([asked(), asked(), asked()]));
  assert.deepEqual(await batches(), [3], "it was asked for by name");
  await rm.resetStats();
  await all(await Promise.all([send({}), send({}), send({}, { clientId: "other" })]));
  assert.deepEqual(await batches(), [2]);
  ok(await rm.put("/admin/templates/batchable", template({ batch: { maxSize: 3, windowMs: 2_000, isolation: "shared" } })));
  await rm.resetStats();
  await all(await Promise.all([send({}), send({}), send({}, { clientId: "other" })]));
  assert.deepEqual(await batches(), [3]);
  ok(await rm.put("/admin/templates/batchable", template()));
});

test("one bad item does not fail the rest, and a common failure is tried again", async () => {
  await rm.resetStats();
  const [good, bad, other] = await Promise.all([send({ n: 1 }), send({ simulate: { status: 422 } }), send({ n: 3 })]);
  const ended = await all([good, bad, other]);
  assert.deepEqual(ended.map(({ status }) => status), ["succeeded", "failed", "succeeded"]);
  assert.deepEqual([ended[1].error.code, ended[1].cost.actualUsd, ended[1].cost.savedUsd], ["worker_refused", 0, 0]);
  // One that spoils the whole call: each is tried by itself.
  await rm.resetStats();
  const spoilt = await all(await Promise.all([send({ n: 1 }), send({ simulate: { batchStatus: 400, status: 400 } }), send({ n: 3 })]));
  assert.deepEqual(spoilt.map(({ status }) => status), ["succeeded", "failed", "succeeded"]);
  const { batches: called, byRequest } = await rm.stats();
  assert.deepEqual([called.length, Object.values(byRequest)], [1, [2, 2, 2]]);
  await waitFor(async () => (await rm.current("batcher")).heldUsd === 0, "the settlements");
});

test("one of them can be cancelled, before and while they run", async () => {
  await rm.resetStats();
  const early = await send({ n: 0 });
  assert.equal(ok(await rm.call("DELETE", `/api/queue/${early.requestId}`)).status, "cancelled");
  const sent = await Promise.all([send({ n: 1, simulate: { delayMs: 1_500, batchUsage: { batched: 6 } } }), send({ n: 2 }), send({ n: 3 })]);
  await waitFor(async () => (await rm.execution(sent[1].requestId)).status === "running", "the run");
  assert.equal(ok(await rm.post(`/api/execution/${sent[1].requestId}/cancel`)).status, "cancelled");
  const ended = await all(sent);
  assert.deepEqual(ended.map(({ status }) => status), ["succeeded", "cancelled", "succeeded"]);
  await waitFor(async () => (await rm.current("batcher")).heldUsd === 0, "the settlements");
  const bills = await Promise.all(sent.map(async ({ requestId }) => ok(await rm.get(`/api/cost/${requestId}`)).actualUsd));
  assert.deepEqual(bills, [0.02, 0.02, 0.02], "what was used for it is charged");
  assert.deepEqual(await batches(), [3]);
});

test("a deadline is kept, and a batch larger than the client's slots goes in parts", async () => {
  await rm.client("narrow", { maxConcurrent: 2 });
  await rm.resetStats();
  const soon = await send({}, { clientId: "narrow", deadline: new Date(Date.now() + 1_500).toISOString(), timeoutMs: 1_000 });
  assert.equal((await rm.ended(soon.requestId)).status, "succeeded");
  const ended = await all(await Promise.all([1, 2, 3].map((n) => send({ n }, { clientId: "narrow" }))));
  assert.deepEqual(ended.map(({ status }) => status), ["succeeded", "succeeded", "succeeded"]);
  assert.deepEqual(await batches(), [2]);
});

test("a full group whose pool is short of tokens is one call once they are there, if that is soon", async () => {
  // There are tokens for one of the three. Those for the others are there in four seconds, or in forty.
  for (const [name, refillPerSecond, sizes] of [["soon-there", 2, [3]], ["late-there", 0.2, []]]) {
    await rm.pool(name, { capacity: 12, refillPerSecond, unitPriceUsd: 0.01 });
    ok(await rm.put(`/admin/templates/${name}`, template({ resources: [{ pool: name, base: 4 }], batch: { maxSize: 3, windowMs: 8_000 } })));
    ok(await rm.post("/internal/reserve", { clientId: "other", resources: [{ pool: name, amount: 8 }] }));
    await rm.resetStats();
    const sent = await Promise.all([1, 2, 3].map((n) => send({ n }, { templateId: name })));
    if (sizes.length > 0) {
      const blocked = await Promise.all(sent.map(async ({ requestId }) => ok(await rm.get(`/api/queue/position/${requestId}`)).blockedBy));
      assert.deepEqual(blocked.sort(), ["batching", "tokens", "tokens"]);
      assert.ok((await all(sent)).every(({ status }) => status === "succeeded"));
    } else {
      await waitFor(async () => (await rm.stats()).calls === 1, "the first by itself");
      for (const { requestId } of sent) await rm.post(`/api/execution/${requestId}/cancel`);
    }
    assert.deepEqual(await batches(), sizes, name);
  }
});

test("those whose deadlines are near are combined in time for them", async () => {
  ok(await rm.put("/admin/templates/patient", template({ timeoutMs: 1_000, batch: { maxSize: 3, windowMs: 20_000 } })));
  const within = (ms) => ({ templateId: "patient", ...(ms && { deadline: new Date(Date.now() + ms).toISOString() }) });
  for (const deadlines of [[8_000, 8_000], [8_000, null], [null, 8_000]]) {
    await rm.resetStats();
    const sent = [];
    for (const [n, ms] of deadlines.entries()) sent.push(await send({ n }, within(ms)));
    assert.deepEqual((await all(sent)).map(({ status }) => status), ["succeeded", "succeeded"]);
    assert.deepEqual(await batches(), [2], `${deadlines}`);
  }
});

test("what a bad item used is nobody else's, whatever it says that it is worth", async () => {
  const shared = { maxSize: 3, windowMs: 2_000, isolation: "shared" };
  ok(await rm.put("/admin/templates/shared", template({ batch: shared })));
  const of = (clientId, input, more) => send(input, { clientId, templateId: "shared", ...more });
  const used = async (sent) => (await all(await Promise.all(sent))).map(({ status, resources }) => [status, resources[0].actual]);
  const bad = { simulate: { status: 400, batchUsage: { batched: 120 } } };
  assert.deepEqual(await used([of("batcher", { n: 1 }), of("other", bad), of("batcher", { n: 2 })]), [["succeeded", 40], ["failed", 0], ["succeeded", 40]]);
  const told = { simulate: { status: 400, usage: { batched: 100 }, batchUsage: { batched: 108 } } };
  assert.deepEqual(await used([of("batcher", { n: 1 }), of("other", told), of("batcher", { n: 2 })]), [["succeeded", 4], ["failed", 0], ["succeeded", 4]]);
  await rm.resetStats();
  const light = { resources: [{ pool: "batched", amount: 1 }] };
  const heavy = { simulate: { batchUsage: { batched: 8 } } };
  assert.deepEqual(await used([of("batcher", heavy), of("batcher", { n: 2 }), of("other", { n: 3 }, light)]), [["succeeded", 4], ["succeeded", 4], ["succeeded", 1]]);
  assert.deepEqual(await batches(), [2], "who names its own amounts is called by itself");
});

test("one with a short limit has a call of its own, and a worker that fails all is asked for each", async () => {
  await rm.resetStats();
  const [short, ...others] = await Promise.all([send({}, { timeoutMs: 60_000 }), send({ n: 1 }), send({ n: 2 }), send({ n: 3 })]);
  assert.deepEqual((await all([short, ...others])).map(({ status }) => status), Array(4).fill("succeeded"));
  assert.deepEqual(await batches(), [3]);
  await rm.resetStats();
  const failing = await all(await Promise.all([send({ simulate: { batchStatus: 500 } }), send({ n: 1 }), send({ n: 2 })]));
  assert.deepEqual(failing.map(({ status, attempts }) => [status, attempts]), Array(3).fill(["succeeded", 2]), "each is tried again by itself");
});

test("no worker is called more often than its requests may be tried, by a common call or by its own", async () => {
  for (const [simulate, status] of [[{ delayMs: 4_000 }, "timed_out"], [{ batchStatus: 500 }, "failed"], [{ batchStatus: 429 }, "failed"]]) {
    ok(await rm.put("/admin/templates/once", template({ maxAttempts: 1, timeoutMs: 2_000, batch: { maxSize: 2, windowMs: 2_000 } })));
    await rm.resetStats();
    const sent = await Promise.all([send({ simulate }, { templateId: "once" }), send({ n: 2 }, { templateId: "once" })]);
    assert.deepEqual((await all(sent)).map((one) => [one.status, one.attempts]), Array(2).fill([status, 1]));
    assert.deepEqual(Object.values((await rm.stats()).byRequest), [1, 1]);
  }
});

test("a hand-over that proves nothing changes nothing", async () => {
  const { requestId } = await send({ simulate: { delayMs: 500 } }, { urgency: "normal", optimization: { batch: false } });
  const answers = await Promise.all(Array.from({ length: 20 }, () => rm.call("POST", "/run", { token: null, body: { id: requestId, grant: 1, secret: "0".repeat(32) } })));
  assert.ok(answers.every(({ status }) => status === 404));
  const ended = await rm.ended(requestId);
  assert.deepEqual([ended.status, ended.attempts], ["succeeded", 1]);
});

test("in a window that nobody waited for, a call saves what it would have cost there", async () => {
  const days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
  await rm.pool("cheap-now", { capacity: 1000, unitPriceUsd: 0.1, offPeak: { days, from: "00:00", to: "00:00", discountPercent: 90 } });
  ok(await rm.put("/admin/templates/cheap-now", template({ resources: [{ pool: "cheap-now", base: 10 }] })));
  const of = (input) => send(input, { templateId: "cheap-now" });
  const ended = await all(await Promise.all([of({ simulate: { batchUsage: { "cheap-now": 3 } } }), of({}), of({})]));
  for (const { cost } of ended) assert.deepEqual([cost.actualUsd, cost.baselineUsd, cost.savedUsd], [0.01, 0.1, 0.09]);
});

test("a common call takes no more than one request may have, and those that have much go with others that do", async () => {
  const megabytes = (n) => "x".repeat(n * 1_048_576);
  ok(await rm.put("/admin/templates/long", template({ timeoutMs: 60_000, batch: { maxSize: 4, windowMs: 2_000 } })));
  const long = (text, result) => send({ text, simulate: { result } }, { templateId: "long" });
  for (const [each, sizes] of [[6, []], [3, [2, 2]]]) {
    await rm.resetStats();
    const ended = await all(await Promise.all([1, 2, 3, 4].map(() => long(megabytes(each), each))));
    for (const { status, attempts, result } of ended) assert.deepEqual([status, attempts, result], ["succeeded", 1, each]);
    assert.deepEqual([await batches(), Object.values((await rm.stats()).byRequest)], [sizes, [1, 1, 1, 1]]);
  }
  await rm.resetStats();
  const mixed = await all(await Promise.all([long(megabytes(6), 1), long("a", 2), long("b", 3), long("c", 4)]));
  assert.deepEqual([mixed.map(({ result }) => result), await batches()], [[1, 2, 3, 4], [3]]);
});

test("the answer of a common call may be as long as those of two, and one that is longer has each tried by itself", async () => {
  ok(await rm.put("/admin/templates/talkative", template({ timeoutMs: 60_000, batch: { maxSize: 4, windowMs: 2_000 } })));
  const talk = (repeat) => send({ simulate: { repeat } }, { templateId: "talkative" });
  for (const [each, runs] of [[5, 1], [6, 2]]) {
    await rm.resetStats();
    const ended = await all(await Promise.all([1, 2, 3, 4].map(() => talk(each * 1_048_576))));
    for (const { status, attempts, result } of ended) assert.deepEqual([status, attempts, result.length], ["succeeded", 1, each * 1_048_576]);
    assert.deepEqual([await batches(), Object.values((await rm.stats()).byRequest)], [[4], Array(4).fill(runs)]);
  }
});
