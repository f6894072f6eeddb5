// Compression: large payloads are stored and forwarded gzipped, unless the caller or the worker does not want it.

import assert from "node:assert/strict";
import { gunzipSync, gzipSync } from "node:zlib";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
  await rm.pool("packed");
  await rm.client("packer");
});
after(() => rm.close());

const text = "the same again and again ".repeat(8_000);
const send = (more = {}) => rm.execute({ clientId: "packer", worker: "ECHO", resources: [{ pool: "packed", amount: 1 }], input: { text }, ...more }, { wait: 10 });
const stored = async (id) => Promise.all((await rm.env.PAYLOADS.list()).objects.filter(({ key }) => key.includes(id)).map(({ key }) => rm.env.PAYLOADS.get(key).then((object) => object.arrayBuffer())));

test("a large input is stored and forwarded gzipped, and so is a large result; the bytes saved are counted", async () => {
  await rm.resetStats();
  const done = ok(await send());
  assert.equal(done.result.echo.text, text);
  assert.equal((await rm.stats()).zipped, 1);
  const objects = await stored(done.requestId);
  assert.equal(objects.length, 2);
  for (const object of objects) {
    assert.ok(object.byteLength < 10_000, `${object.byteLength}`);
    assert.ok(gunzipSync(Buffer.from(object)).toString().includes(text));
  }
  const [{ strategy, savedUsd, savedBytes }] = done.optimizations;
  assert.deepEqual([strategy, savedUsd], ["compression", 0]);
  // The input as stored, the order as forwarded, the result as stored.
  assert.ok(savedBytes > 3 * 190_000 && savedBytes < 3 * 210_000, `${savedBytes}`);
  assert.equal((await rm.execution(done.requestId)).result.echo.text, text);
  const stats = await waitFor(async () => {
    const now = ok(await rm.get("/api/optimize/stats/packer"));
    return now.optimized > 0 ? now : null;
  }, "the ledger");
  assert.deepEqual([stats.savedUsd, stats.strategies.find((one) => one.strategy === "compression")], [0, { strategy: "compression", applied: 1, savedUsd: 0, savedBytes }]);
  assert.match((await rm.get("/metrics")).text, new RegExp(`saved_bytes_total\\{strategy="compression"\\} ${savedBytes}\n`));
});

test("a small one, and one whose caller says no, goes plain", async () => {
  await rm.resetStats();
  assert.deepEqual(ok(await send({ input: { text: "small" } })).optimizations, []);
  for (const optimization of [{ level: "off" }, { compress: false }]) {
    const done = ok(await send({ optimization }));
    assert.deepEqual([done.result.echo.text.length, done.optimizations], [text.length, []]);
    const sizes = (await stored(done.requestId)).map((object) => object.byteLength);
    assert.ok(Math.min(...sizes) > text.length, `${sizes}`);
  }
  assert.equal((await rm.stats()).zipped, 0);
});

test("a worker that takes no gzip gets it plain, within the same attempt, and is remembered", async () => {
  await rm.resetStats();
  for (let n = 1; n <= 2; n += 1) {
    const done = ok(await send({ worker: "SMS" }));
    assert.deepEqual([done.status, done.attempts, done.result.echo.text.length], ["succeeded", 1, text.length]);
  }
  assert.deepEqual([(await rm.stats()).refusedGzip, (await rm.stats()).calls], [1, 2]);
});

test("a worker that refuses what it was sent, gzipped and plain, is sent gzip all the same", async () => {
  await rm.resetStats();
  const refused = ok(await send({ input: { text, simulate: { status: 415 } } }));
  assert.deepEqual([refused.status, refused.error.code], ["failed", "worker_refused"]);
  assert.deepEqual([ok(await send()).status, (await rm.stats()).zipped], ["succeeded", 2]);
});

test("a stored payload that is spoilt fails its request, and charges nothing", async () => {
  const { requestId } = ok(await rm.execute({ clientId: "packer", worker: "ECHO", resources: [{ pool: "packed", amount: 1 }], input: { simulate: { failFirst: 1 }, text }, timeoutMs: 5_000 }));
  await waitFor(async () => (await rm.stats()).byRequest[requestId] === 1, "the first attempt");
  await rm.env.PAYLOADS.put(`input/${requestId}`, "not gzip");
  const ended = await rm.ended(requestId);
  assert.deepEqual([ended.status, ended.error.code, ended.cost.actualUsd], ["failed", "input_unreachable", 0]);
});

test("a stored result that is spoilt is lost; the rest of its execution is told", async () => {
  const { requestId, result: _, ...rest } = ok(await send());
  const [key] = (await rm.env.PAYLOADS.list({ prefix: `result/${requestId}` })).objects.map((object) => object.key);
  for (const spoilt of ["not gzip", gzipSync('{"echo":')]) {
    await rm.env.PAYLOADS.put(key, spoilt);
    assert.deepEqual(await rm.execution(requestId), { requestId, ...rest, resultLost: true });
  }
  // Stored plain, and cut off.
  const plain = ok(await send({ optimization: { compress: false } }));
  const [plainKey] = (await rm.env.PAYLOADS.list({ prefix: `result/${plain.requestId}` })).objects.map((object) => object.key);
  await rm.env.PAYLOADS.put(plainKey, '{"echo":');
  const told = await rm.execution(plain.requestId);
  assert.deepEqual([told.status, told.result, told.resultLost, told.cost], ["succeeded", undefined, true, plain.cost]);
});
