// Estimates: from the template and the input's size, and from what its requests turned out to use.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

test("an estimate counts the input and the limit of the output, and takes nothing", async () => {
  const before = await rm.current("demo-premium");
  const ask = { clientId: "demo-premium", templateId: "chat-completion", input: "x".repeat(398), parameters: { maxOutputTokens: 400 } };
  const answer = await rm.post("/api/resources/estimate", ask);
  assert.deepEqual(answer.body, { resources: [{ pool: "openai-gpt-4", amount: 500 }], estimatedCostUsd: 0.015, confidence: 0.5 });
  const cost = ok(await rm.post("/api/cost/estimate", ask));
  assert.deepEqual(cost, {
    baselineUsd: 0.015,
    estimatedUsd: 0.015,
    savedUsd: 0,
    lines: [{ pool: "openai-gpt-4", model: "gpt-4", amount: 500, unitPriceUsd: 0.00003, costUsd: 0.015 }],
    optimizations: [],
    fitsBudget: true,
    priceVersion: "openai-gpt-4@1",
  });
  for (const path of ["/api/resources/estimate", "/api/cost/estimate"]) {
    const limit = await waitFor(async () => (await rm.post(path, ask)).headers.get("ratelimit"), "the pool's snapshot");
    assert.match(limit, /^"openai-gpt-4";r=\d+;t=\d+$/);
  }
  const named = ok(await rm.post("/api/resources/estimate", { ...ask, resources: [{ pool: "openai-gpt-4", amount: 7 }] }));
  assert.deepEqual([named.resources[0].amount, named.confidence], [7, 1]);
  await rm.client("poor", { monthlyBudgetUsd: 0.001 });
  const dear = { ...ask, clientId: "poor", optimization: { level: "off" } };
  assert.equal(ok(await rm.post("/api/cost/estimate", dear)).fitsBudget, false);
  const cheap = ok(await rm.post("/api/cost/estimate", { ...ask, clientId: "poor" }));
  assert.deepEqual([cheap.fitsBudget, cheap.baselineUsd, cheap.estimatedUsd, cheap.savedUsd], [true, 0.015, 0.00075, 0.01425]);
  assert.deepEqual(cheap.optimizations, [{ strategy: "model_downgrade", detail: "gpt-3.5 instead of gpt-4", savedUsd: 0.01425 }]);
  for (const path of ["/api/resources/estimate", "/api/cost/estimate"]) {
    assert.equal((await rm.post(path, { ...ask, clientId: "nobody" })).status, 404);
    assert.equal((await rm.post(path, { ...ask, templateId: "nothing" })).status, 404);
    assert.equal((await rm.post(path, { ...ask, inputs: 1 })).body.errors[0].pointer, "/inputs");
    assert.equal((await rm.post(path, ask, { headers: { "x-client-id": "demo-basic" } })).status, 403);
  }
  assert.deepEqual(await rm.current("demo-premium"), before);
});

test("an estimate is never more than the pool can grant", async () => {
  await rm.pool("small", { capacity: 50 });
  ok(await rm.put("/admin/templates/too-much", { worker: "ECHO", resources: [{ pool: "small", perInputToken: 1, perOutputToken: 1 }] }));
  const ask = { clientId: "demo-enterprise", templateId: "too-much", input: "x".repeat(10_000) };
  assert.equal(ok(await rm.post("/api/resources/estimate", ask)).resources[0].amount, 50);
  assert.equal((await rm.execute(ask, { wait: 10 })).body.status, "succeeded");
});

test("the factor of a template is learnt from what was used, and its accuracy is a metric", async () => {
  await rm.pool("taught", { capacity: 1_000_000, unitPriceUsd: 0.000001 });
  await rm.client("teacher");
  ok(await rm.put("/admin/templates/taught", { worker: "ECHO", resources: [{ pool: "taught", base: 1000 }] }));
  const ask = { clientId: "teacher", templateId: "taught" };
  const estimate = async () => ok(await rm.post("/api/resources/estimate", ask));
  assert.deepEqual(await estimate(), { resources: [{ pool: "taught", amount: 1000 }], estimatedCostUsd: 0.001, confidence: 0.9 });
  const run = (used) => rm.execute({ ...ask, input: { simulate: used === undefined ? {} : { usage: { taught: used } } } }, { wait: 10 });
  // Those that report nothing, are charged as reserved, or name their amount teach nothing.
  for (let n = 0; n < 10; n += 1) await run(undefined);
  for (let n = 0; n < 5; n += 1) ok(await rm.execute({ ...ask, resources: [{ pool: "taught", amount: 9 }], input: { simulate: { usage: { taught: 9 } } } }, { wait: 10 }));
  // Three in four use 240, one in four 400: the mean is 280, and would be too small for a quarter of them.
  for (let n = 0; n < 32; n += 1) await run(n % 4 === 3 ? 400 : 240);
  await waitFor(async () => {
    await rm.tick();
    return (await estimate()).resources[0].amount === 400;
  }, "the factor");
  const learnt = await estimate();
  assert.equal(learnt.estimatedCostUsd, 0.0004);
  assert.ok(learnt.confidence > 0.5 && learnt.confidence < 1, String(learnt.confidence));
  const { text } = await rm.get("/metrics");
  const value = (line) => Number(new RegExp(`^${line.replace(/[{}"]/g, "\\$&")} (.+)$`, "m").exec(text)?.[1]);
  assert.equal(value('resource_manager_estimate_factor_ratio{pool="taught",template="taught"}'), 0.4);
  assert.equal(value('resource_manager_estimates_total{covered="true",pool="taught",template="taught"}'), 32);
  // 24 × 760/1000 + 8 × 600/1000
  assert.equal(value('resource_manager_estimate_error_ratio_total{pool="taught",template="taught"}'), 23.04);
  assert.equal((await rm.env.DB.prepare("SELECT count(*) AS n FROM estimate_feed").first()).n, 0);
  // What is held follows, and what is used beyond it is charged all the same.
  const { body } = await run(500);
  assert.deepEqual([body.cost.estimatedUsd, body.cost.actualUsd], [0.0004, 0.0005]);
  ok(await rm.call("DELETE", "/admin/templates/taught"));
  ok(await rm.put("/admin/templates/taught", { worker: "ECHO", resources: [{ pool: "taught", base: 1000 }] }));
  assert.equal((await estimate()).resources[0].amount, 1000, "another template of that name starts afresh");
});
