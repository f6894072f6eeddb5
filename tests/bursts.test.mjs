// Many requests of a chain at the same moment: what is chosen for each knows of the others.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
  await rm.client("crowd", { maxConcurrent: 100, monthlyBudgetUsd: 100_000 });
});
after(() => rm.close());

/** A chain of pools with these capacities and refills, each serving the model of its name, the dear one first. */
async function chain(name, ...pools) {
  const names = pools.map((_, index) => `${name}-${index}`);
  for (const [index, [capacity, refillPerSecond]] of pools.entries()) {
    await rm.pool(names[index], { models: [names[index]], capacity, refillPerSecond, unitPriceUsd: index === 0 ? 0.1 : 0.01 / index });
  }
  const [model, ...downgradeTo] = names;
  ok(await rm.put(`/admin/templates/${name}`, { worker: "ECHO", model, resources: [{ pool: model, base: 100 }], downgradeTo }));
}

const burst = (n, templateId, more, options = { wait: 10 }) =>
  Promise.all(Array.from({ length: n }, () => rm.execute({ clientId: "crowd", templateId, ...more }, options)));
const homes = (executions) => executions.reduce((all, { requestId }) => {
  const home = requestId.slice(requestId.indexOf("_") + 1);
  return { ...all, [home]: (all[home] ?? 0) + 1 };
}, {});
const settled = async (spent) => {
  const now = await waitFor(async () => {
    const current = await rm.current("crowd");
    return current.heldUsd === 0 && current.running === 0 ? current : null;
  }, "the settlements");
  assert.equal(now.spentUsd, spent);
  return spent;
};
let spent = 0;

test("aggressive ones that come at once go to the cheap pool as long as that has them in time", async () => {
  const hurried = { deadline: () => ({ deadline: new Date(Date.now() + 12_000).toISOString() }), immediate: () => ({ urgency: "immediate" }) };
  for (const [name, more] of Object.entries(hurried)) {
    await chain(name, [100_000, 1_000], [300, 1]);
    const done = (await burst(20, name, { ...more(), optimization: { level: "aggressive" } })).map(ok);
    assert.deepEqual(homes(done), { [`${name}-0`]: 17, [`${name}-1`]: 3 }, name);
    assert.deepEqual(new Set(done.map(({ status }) => status)), new Set(["succeeded"]));
    for (const { requestId, resources } of done) assert.ok(requestId.endsWith(`_${resources[0].pool}`));
    spent = await settled(spent + 17 * 10 + 3);
  }
});

test("at the standard level none waits for the dear pool that the cheap one has at once", async () => {
  await chain("waits", [1_000, 10], [1_000, 1_000]);
  const done = (await burst(30, "waits")).map(ok);
  assert.deepEqual(homes(done), { "waits-0": 10, "waits-1": 20 });
  for (const { status, cost, optimizations, requestId } of done) {
    const cheap = requestId.endsWith("_waits-1");
    assert.deepEqual([status, cost.actualUsd, optimizations.length], ["succeeded", cheap ? 1 : 10, cheap ? 1 : 0]);
  }
  spent = await settled(spent + 10 * 10 + 20);
});

test("the next of the chain is gone on with, and none waits for a cheap pool that it would not for the dear one", async () => {
  await chain("three", [1_000, 10], [300, 1], [100_000, 1_000]);
  const done = (await burst(30, "three")).map(ok);
  assert.deepEqual(homes(done), { "three-0": 10, "three-1": 3, "three-2": 17 });
  spent = await settled(spent + 10 * 10 + 3 + 17 * 0.5);
  await chain("both", [1_000, 50], [100, 1]);
  const sent = (await burst(16, "both", {}, {})).map(ok);
  assert.deepEqual(homes(sent), { "both-0": 15, "both-1": 1 });
  for (const { requestId } of sent) assert.equal((await rm.ended(requestId)).status, "succeeded");
  spent = await settled(spent + 15 * 10 + 1);
});

test("one that goes on is still one: the same key has one request, one hold and one end", async () => {
  await chain("keyed", [1_000, 10], [100_000, 1_000]);
  const keys = Array.from({ length: 15 }, (_, n) => `keyed-${n}`);
  const keyed = (key) => rm.execute({ clientId: "crowd", templateId: "keyed" }, { wait: 10, key });
  const answers = await Promise.all(keys.flatMap((key) => [keyed(key), keyed(key), keyed(key)]));
  const ids = answers.map((answer) => ok(answer).requestId);
  keys.forEach((key, n) => assert.equal(new Set(ids.slice(n * 3, n * 3 + 3)).size, 1, key));
  assert.equal(new Set(ids).size, 15);
  assert.equal(answers.filter((answer) => answer.headers.get("idempotency-replayed") === null).length, 15);
  assert.deepEqual(new Set(answers.map(({ body }) => body.status)), new Set(["succeeded"]));
  const byKey = homes(answers.filter((_, n) => n % 3 === 0).map(ok));
  assert.deepEqual(byKey, { "keyed-0": 10, "keyed-1": 5 });
  assert.equal(ok(await keyed(keys[14])).requestId, ids[14 * 3]);
  spent = await settled(spent + 10 * 10 + 5);
});
