// Pipelines: steps that run in order, each with its own worker and tokens, under one hold.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
const pools = ["p-first", "p-second", "p-third"];
before(async () => {
  rm = await startHarness();
  for (const pool of pools) await rm.pool(pool, { capacity: 100, refillPerSecond: pool === "p-first" ? 0.001 : 1000 });
  await rm.client("piper", { monthlyBudgetUsd: 100 });
  ok(await rm.put("/admin/templates/three", template()));
});
after(() => rm.close());

/** Three steps over three pools: 5, 3 and 2 units, a cent each. */
const template = (more = {}) => ({
  maxAttempts: 2,
  timeoutMs: 5_000,
  steps: [
    { name: "fetch", worker: "ECHO", resources: [{ pool: "p-first", base: 5 }] },
    { name: "think", worker: "OPENAI", model: "gpt-4", resources: [{ pool: "p-second", base: 3 }] },
    { worker: "EMAIL", resources: [{ pool: "p-third", base: 2 }, { pool: "p-second", base: 1 }], ...more },
  ],
});
const run = (input, options, templateId = "three") => rm.execute({ clientId: "piper", templateId, input }, options);
/** Input that makes the first step hand `next` on. */
const handing = (next) => ({ simulate: { result: next } });
const steps = (execution) => execution.steps.map(({ name, status, attempts }) => [name, status, attempts]);

const lastNeeds = [{ pool: "p-second", estimated: 1 }, { pool: "p-third", estimated: 2 }];

test("steps run in order, each handed what the one before gave, under one hold and one bill", async () => {
  await rm.resetStats();
  const before = await rm.current("piper");
  const done = ok(await run(handing({ simulate: { result: { second: true }, usage: { "p-second": 2 } } }), { wait: 20 }));
  assert.equal(done.status, "succeeded", JSON.stringify(done));
  assert.deepEqual(done.result, { echo: { second: true } });
  assert.deepEqual(steps(done), [["fetch", "succeeded", 1], ["think", "succeeded", 1], ["3", "succeeded", 1]]);
  assert.ok(done.steps[0].finishedAt <= done.steps[1].startedAt && done.steps[1].finishedAt <= done.steps[2].startedAt);
  assert.deepEqual(done.steps[1].resources, [{ pool: "p-second", estimated: 3, actual: 2 }]);
  assert.deepEqual([done.cost.estimatedUsd, done.cost.actualUsd, done.attempts], [0.11, 0.1, 3]);
  assert.deepEqual(done.resources, [
    { pool: "p-first", estimated: 5, actual: 5 },
    { pool: "p-second", estimated: 4, actual: 3 },
    { pool: "p-third", estimated: 2, actual: 2 },
  ]);
  await waitFor(async () => (await rm.current("piper")).heldUsd === 0, "the settlement");
  assert.equal((await rm.current("piper")).spentUsd, before.spentUsd + 0.1);
  const { byKey } = await rm.stats();
  assert.deepEqual(byKey, Object.fromEntries([0, 1, 2].map((step) => [`${done.requestId}/${step}`, 1])));
  const bill = ok(await rm.get(`/api/cost/${done.requestId}`));
  assert.deepEqual([bill.actualUsd, bill.lines.length, bill.settled], [0.1, 3, true]);
});

test("the whole is held at once, and a step's tokens are taken when it is due", async () => {
  const { requestId } = ok(await run({ simulate: { delayMs: 1_000 } }));
  await waitFor(async () => (await rm.execution(requestId)).status === "running", "the first step");
  assert.equal((await rm.current("piper")).heldUsd, 0.11);
  assert.equal((await rm.poolNow("p-second")).available, 100);
  assert.deepEqual(steps(await rm.execution(requestId)), [["fetch", "running", 1], ["think", "pending", 0], ["3", "pending", 0]]);
  assert.equal((await rm.ended(requestId)).status, "succeeded");
});

test("what a step took beyond its estimate is held at once: the budget is not spent twice", async () => {
  await rm.client("spender", { monthlyBudgetUsd: 1 });
  await rm.pool("p-dear");
  ok(await rm.put("/admin/templates/dear", { steps: [
    { worker: "ECHO", resources: [{ pool: "p-dear", base: 5 }] }, { worker: "ECHO", resources: [{ pool: "p-dear", base: 6 }] },
  ] }));
  const send = (input) => rm.execute({ clientId: "spender", templateId: "dear", input });
  const { requestId } = ok(await send({ simulate: { usage: { "p-dear": 95 }, result: { simulate: { delayMs: 3_000 } } } }));
  await waitFor(async () => (await rm.execution(requestId)).steps[1].status === "running", "the second step");
  assert.equal((await rm.current("spender")).heldUsd, 1.01, "95 cents, and what the rest may cost");
  const refused = await send({});
  assert.deepEqual([refused.status, refused.body.code], [402, "budget_exceeded"], refused.text);
  ok(await rm.post(`/api/execution/${requestId}/cancel`));
});

test("a step that fails is tried again alone; one that fails for good ends it, and what was done is charged", async () => {
  await rm.resetStats();
  const retried = ok(await run(handing({ simulate: { failFirst: 1 } }), { wait: 20 }));
  assert.deepEqual(steps(retried), [["fetch", "succeeded", 1], ["think", "succeeded", 2], ["3", "succeeded", 1]]);
  const before = (await rm.current("piper")).spentUsd;
  const failed = ok(await run(handing({ simulate: { status: 400 } }), { wait: 20 }));
  assert.deepEqual([failed.status, failed.error.code], ["failed", "worker_refused"]);
  assert.deepEqual(steps(failed), [["fetch", "succeeded", 1], ["think", "failed", 1], ["3", "skipped", 0]]);
  assert.deepEqual(failed.steps[2].resources, lastNeeds);
  await waitFor(async () => (await rm.current("piper")).heldUsd === 0, "the settlement");
  assert.equal(Math.round(((await rm.current("piper")).spentUsd - before) * 100), 5, "the first step's five cents");
  const { byKey } = await rm.stats();
  assert.equal(byKey[`${retried.requestId}/0`], 1, "what was done is not done again");
  assert.equal(byKey[`${retried.requestId}/1`], 2);
});

test("cancelling stops inside a step and between steps", async () => {
  await rm.resetStats();
  const inside = ok(await run({ simulate: { delayMs: 800 } }));
  await waitFor(async () => (await rm.execution(inside.requestId)).status === "running", "the first step");
  const cancelled = ok(await rm.post(`/api/execution/${inside.requestId}/cancel`));
  assert.deepEqual(steps(cancelled), [["fetch", "cancelled", 1], ["think", "skipped", 0], ["3", "skipped", 0]]);
  const reported = await waitFor(async () => {
    const execution = await rm.execution(inside.requestId);
    return execution.cost.actualUsd === undefined ? null : execution;
  }, "what the cancelled run used");
  assert.deepEqual(reported.steps.slice(1).map(({ resources }) => resources), [[{ pool: "p-second", estimated: 3 }], lastNeeds]);
  // Between two steps: the second waits for tokens that somebody else has.
  await rm.pool("p-second", { capacity: 100, refillPerSecond: 0.01 });
  const all = ok(await rm.post("/internal/reserve", { clientId: "demo-standard", resources: [{ pool: "p-second", amount: 98 }] }));
  const between = ok(await run(1));
  await waitFor(async () => (await rm.execution(between.requestId)).steps[0].status === "succeeded", "the first step");
  const place = await waitFor(async () => {
    const { body } = await rm.get(`/api/queue/position/${between.requestId}`);
    return body.blockedBy === "secondary_pool" ? body : null;
  }, "the second step to wait");
  assert.equal(place.pool, "p-first", "its home keeps it");
  const stopped = ok(await rm.call("DELETE", `/api/queue/${between.requestId}`));
  assert.deepEqual(steps(stopped), [["fetch", "succeeded", 1], ["think", "cancelled", 0], ["3", "skipped", 0]]);
  ok(await rm.post("/internal/release", { reservationId: all.reservationId }));
  await waitFor(async () => (await rm.current("piper")).heldUsd === 0, "everything to go back");
  const { byKey } = await rm.stats();
  assert.deepEqual(Object.keys(byKey).sort(), [`${inside.requestId}/0`, `${between.requestId}/0`].sort());
  await rm.pool("p-second", { capacity: 100, refillPerSecond: 1000 });
});

test("a large result of a step is handed on", async () => {
  const large = "x".repeat(100_000);
  const done = ok(await run(handing({ large }), { wait: 20 }));
  assert.equal(done.result.echo.echo.large, large);
});

test("a pipeline that makes no sense is refused where it is wrong", async () => {
  const put = (body) => rm.put("/admin/templates/nonsense", body);
  const step = { worker: "ECHO", resources: [{ pool: "p-first", base: 1 }] };
  for (const [body, pointer] of [
    [{ worker: "ECHO", resources: [{ pool: "p-first" }], steps: [step] }, "/worker"],
    [{ resources: [{ pool: "p-first" }], steps: [step] }, "/resources"],
    [{ steps: [] }, "/worker"],
    [{ steps: [step, { ...step, worker: "NOBODY" }] }, "/steps/1/worker"],
    [{ steps: [step, { ...step, resources: [{ pool: "nowhere" }] }] }, "/steps/1/resources/0/pool"],
    [{ steps: [{ ...step, timeoutMs: 0 }] }, "/steps/0/timeoutMs"],
    [{ steps: Array.from({ length: 17 }, () => step) }, "/steps"],
  ]) {
    const answer = await put(body);
    assert.deepEqual([answer.status, answer.body.errors?.[0].pointer], [400, pointer], answer.text);
  }
  const own = await rm.execute({ clientId: "piper", templateId: "three", resources: [{ pool: "p-first", amount: 1 }] });
  assert.deepEqual([own.status, own.body.errors?.[0].pointer], [400, "/resources"]);
  const used = await rm.call("DELETE", "/admin/pools/p-third");
  assert.deepEqual([used.status, used.body.code], [409, "conflict"], "a step needs it");
});

test("a pipeline of one step shows how that ended", async () => {
  ok(await rm.put("/admin/templates/one-step", { maxAttempts: 1, steps: template().steps.slice(0, 1) }));
  const done = ok(await run({}, { wait: 10 }, "one-step"));
  assert.deepEqual(steps(done), [["fetch", "succeeded", 1]]);
  assert.deepEqual(done.steps[0].resources, [{ pool: "p-first", estimated: 5, actual: 5 }]);
  assert.ok(done.steps[0].startedAt <= done.steps[0].finishedAt);
  const failed = ok(await run({ simulate: { status: 400 } }, { wait: 10 }, "one-step"));
  assert.deepEqual([failed.status, steps(failed)], ["failed", [["fetch", "failed", 1]]]);
  const { requestId } = ok(await run({ simulate: { delayMs: 2_000, usage: { "p-first": 2 } } }, {}, "one-step"));
  await waitFor(async () => (await rm.execution(requestId)).steps[0].status === "running", "the step");
  const cancelled = ok(await rm.post(`/api/execution/${requestId}/cancel`));
  assert.deepEqual(steps(cancelled), [["fetch", "cancelled", 1]]);
  const settled = await waitFor(async () => {
    const execution = await rm.execution(requestId);
    return execution.cost.actualUsd === undefined ? null : execution;
  }, "the bill");
  assert.deepEqual(settled.steps[0].resources, [{ pool: "p-first", estimated: 5, actual: 2 }]);
});

test("a pipeline that has a kept result, or that of another one, has run none of its steps", async () => {
  ok(await rm.put("/admin/templates/kept-steps", { cacheTtlSeconds: 60, steps: template().steps.slice(0, 2) }));
  const first = ok(await run("the same", { wait: 10 }, "kept-steps"));
  assert.deepEqual(steps(first), [["fetch", "succeeded", 1], ["think", "succeeded", 1]]);
  const second = await waitFor(async () => {
    const answer = ok(await run("the same", { wait: 10 }, "kept-steps"));
    return answer.cached ? answer : null;
  }, "the kept result");
  assert.deepEqual([second.status, steps(second)], ["succeeded", [["fetch", "skipped", 0], ["think", "skipped", 0]]]);
});
