// The lanes: how long a request may wait in them, how many may, and when deferred work runs.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
  await rm.client("laner", { maxConcurrent: 50, monthlyBudgetUsd: 10_000 });
});
after(() => rm.close());

const all = async (pool, amount) => ok(await rm.post("/internal/reserve", { clientId: "laner", resources: [{ pool, amount }], ttlSeconds: 600 })).reservationId;
const put = (lane, body) => rm.put(`/admin/lanes/${lane}`, body);
const days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const clock = (offsetMinutes) => new Date(Date.now() + offsetMinutes * 60_000).toISOString().slice(11, 16);
/** A window of all days that begins and ends so many minutes from now. */
const window = (from, to) => ({ days, from: clock(from), to: clock(to) });

test("an immediate request that cannot start within its lane's limit is refused at once, and says when to come back", async () => {
  await rm.pool("hopeless", { capacity: 100, refillPerSecond: 1 });
  ok(await rm.post("/internal/consume", { reservationId: await all("hopeless", 100), usage: [{ pool: "hopeless", amount: 100 }] }));
  const before = await rm.current("laner");
  const refused = await rm.execute(rm.work("laner", "hopeless", 50, { urgency: "immediate" }));
  assert.deepEqual([refused.status, refused.body.code], [429, "insufficient_resources"], refused.text);
  assert.ok(refused.body.retryAfterMs > 15_000 && refused.body.retryAfterMs < 25_000, `${refused.body.retryAfterMs}`);
  assert.ok(Number(refused.headers.get("retry-after")) >= 15);
  assert.deepEqual(await rm.current("laner"), before, "nothing is held");
  // What fits is taken in, and other lanes wait for as long as it takes.
  assert.equal((await rm.execute(rm.work("laner", "hopeless", 10, { urgency: "immediate" }))).status, 202);
  assert.equal((await rm.execute(rm.work("laner", "hopeless", 90, { urgency: "normal" }))).status, 202);
});

test("an immediate request is refused for want of a slot, and where nothing will ever come", async () => {
  await rm.pool("slotted", { capacity: 100, refillPerSecond: 100 });
  await rm.client("single", { maxConcurrent: 1 });
  const long = rm.work("single", "slotted", 1, { timeoutMs: 240_000, input: { simulate: { delayMs: 120_000 } } });
  const { requestId } = ok(await rm.execute(long));
  await waitFor(async () => (await rm.execution(requestId)).status === "running", "the run");
  const refused = await rm.execute(rm.work("single", "slotted", 1, { urgency: "immediate" }));
  assert.deepEqual([refused.status, refused.body.code], [429, "insufficient_resources"], refused.text);
  assert.ok(refused.body.retryAfterMs > 60_000 && refused.body.retryAfterMs <= 120_000, `${refused.body.retryAfterMs}: half of its limit, while nothing is known`);
  assert.match(refused.body.detail, /later than its lane allows/);
  const waits = ok(await rm.execute(rm.work("single", "slotted", 1)));
  assert.ok(waits.estimatedWaitMs > 60_000, `${waits.estimatedWaitMs}`);
  ok(await rm.post(`/api/execution/${requestId}/cancel`));
  assert.equal((await rm.ended(waits.requestId)).status, "succeeded");

  await rm.pool("dry", { capacity: 10, refillPerSecond: 0 });
  ok(await rm.post("/internal/consume", { reservationId: await all("dry", 8), usage: [{ pool: "dry", amount: 8 }] }));
  const out = await all("dry", 1);
  const never = await rm.execute(rm.work("laner", "dry", 3, { urgency: "immediate" }));
  assert.deepEqual([never.status, never.body.code, never.body.retryAfterMs > 25_000], [429, "insufficient_resources", true], never.text);
  const may = ok(await rm.execute(rm.work("laner", "dry", 2, { urgency: "immediate" })));
  assert.equal(may.estimatedWaitMs, null);
  ok(await rm.post("/internal/release", { reservationId: out }));
  assert.equal((await rm.ended(may.requestId)).status, "succeeded");
});

test("an immediate request is refused for what another pool has not got in time", async () => {
  await rm.pool("home", { capacity: 100, refillPerSecond: 0.5 });
  await rm.pool("second", { capacity: 100, refillPerSecond: 1 });
  ok(await rm.post("/internal/consume", { reservationId: await all("second", 100), usage: [{ pool: "second", amount: 100 }] }));
  const resources = [{ pool: "second", amount: 60 }, { pool: "home", amount: 60 }];
  const send = (more) => rm.execute({ clientId: "laner", worker: "ECHO", resources, ...more });
  const before = await rm.current("laner");
  const refused = await send({ urgency: "immediate" });
  assert.deepEqual([refused.status, refused.body.code], [429, "insufficient_resources"], refused.text);
  assert.match(refused.body.detail, /`second`/);
  assert.ok(refused.body.retryAfterMs > 20_000 && refused.body.retryAfterMs <= 35_000, `${refused.body.retryAfterMs}`);
  assert.equal((await rm.current("laner")).heldUsd, before.heldUsd, "nothing is held");
  // Another lane waits, and says for how long.
  const { requestId } = ok(await send({}));
  const place = await waitFor(async () => {
    const position = ok(await rm.get(`/api/queue/position/${requestId}`));
    return position.blockedBy === "secondary_pool" ? position : null;
  }, "the second pool's answer");
  const inMs = Date.parse(place.estimatedStartAt) - Date.now();
  assert.ok(inMs > 20_000 && inMs < 61_000, `${inMs}`);
  ok(await rm.call("DELETE", `/api/queue/${requestId}`));
});

test("those that wait for the same second pool are before an immediate request too", async () => {
  await rm.pool("busy-home", { capacity: 1000, refillPerSecond: 1 });
  await rm.pool("busy-second", { capacity: 100, refillPerSecond: 1 });
  ok(await rm.post("/internal/consume", { reservationId: await all("busy-second", 100), usage: [{ pool: "busy-second", amount: 100 }] }));
  const resources = [{ pool: "busy-home", amount: 20 }, { pool: "busy-second", amount: 10 }];
  const places = [];
  const send = async () => {
    const answer = await rm.execute({ clientId: "laner", worker: "ECHO", resources, urgency: "immediate" });
    if (answer.status === 429) return answer.body.retryAfterMs;
    const { requestId, estimatedWaitMs } = ok(answer);
    assert.equal(estimatedWaitMs, null, "the second pool has not answered yet");
    places.push(requestId);
    await waitFor(async () => ok(await rm.get(`/api/queue/position/${requestId}`)).blockedBy === "secondary_pool", "its answer");
    return 0;
  };
  const answers = [];
  for (let n = 0; n < 6; n += 1) answers.push(await send());
  // Ten a request and one a second: the third is done within half a minute at best, and no fourth one.
  assert.ok(places.length >= 2 && places.length <= 4 && answers.at(-1) > 0, `${answers}`);
  const ahead = await Promise.all(places.map(async (id) => ok(await rm.get(`/api/queue/position/${id}`)).ahead));
  assert.deepEqual(ahead, places.map((_, index) => index));
  for (const id of places) ok(await rm.call("DELETE", `/api/queue/${id}`));
});

test("an immediate request that has waited for its lane's limit expires", async () => {
  await rm.pool("impatient", { capacity: 10, refillPerSecond: 0 });
  await all("impatient", 10);
  ok(await put("immediate", { points: 30, maxWaitMs: 700 }));
  const { requestId } = ok(await rm.execute(rm.work("laner", "impatient", 5, { urgency: "immediate" })));
  const ended = await rm.ended(requestId);
  assert.deepEqual([ended.status, ended.error.code], ["expired", "expired"]);
  assert.match(ended.error.message, /lane/);
  assert.ok(ended.waitMs >= 700);
  ok(await put("immediate", { points: 30, maxWaitMs: 30_000 }));
});

test("a lane takes no more than its cap into one pool's queue", async () => {
  await rm.pool("narrow", { capacity: 10, refillPerSecond: 0 });
  const held = await all("narrow", 10);
  ok(await put("batch", { points: 7, queueCap: 2 }));
  const send = (urgency) => rm.execute(rm.work("laner", "narrow", 5, { urgency }));
  const sent = [await send("batch"), await send("batch"), await send("batch"), await send("normal")];
  assert.deepEqual(sent.map(({ status }) => status), [202, 202, 429, 202]);
  assert.equal(sent[2].body.code, "queue_full");
  ok(await put("batch", { points: 7 }));
  ok(await rm.post("/internal/release", { reservationId: held }));
});

test("lanes are listed and set; what makes no sense is refused", async () => {
  const { items } = ok(await rm.get("/admin/lanes"));
  assert.deepEqual(items.map(({ urgency, points }) => [urgency, points]), [["immediate", 30], ["fast", 22], ["normal", 15], ["batch", 7], ["deferred", 0]]);
  assert.equal(items[0].maxWaitMs, 30_000);
  for (const [body, pointer] of [[{ points: 31 }, "/points"], [{ points: 1, maxWaitMs: 0 }, "/maxWaitMs"], [{ points: 1, queueCap: -1 }, "/queueCap"], [{ points: 1, cap: 1 }, "/cap"]]) {
    const answer = await put("fast", body);
    assert.deepEqual([answer.status, answer.body.errors?.[0].pointer], [400, pointer], answer.text);
  }
  assert.equal((await put("slow", { points: 1 })).status, 404);
});

test("deferred work waits for its window, and nobody else does", async () => {
  await rm.pool("nightly", { capacity: 100, refillPerSecond: 100, offPeak: window(120, 180) });
  const deferred = ok(await rm.execute(rm.work("laner", "nightly", 5, { urgency: "deferred" })));
  const place = ok(await rm.get(`/api/queue/position/${deferred.requestId}`));
  assert.equal(place.blockedBy, "off_peak");
  const opensIn = (Date.parse(place.estimatedStartAt) - Date.now()) / 60_000;
  assert.ok(opensIn > 117 && opensIn <= 120, `${opensIn} minutes`);
  assert.equal(ok(await rm.execute(rm.work("laner", "nightly", 5), { wait: 10 })).status, "succeeded");
  assert.equal((await rm.execution(deferred.requestId)).status, "queued");
  // The window is changed, and is now.
  await rm.pool("nightly", { capacity: 100, refillPerSecond: 100, offPeak: window(-60, 60) });
  assert.equal((await rm.ended(deferred.requestId)).status, "succeeded");
});

test("a deadline forces deferred work out of its window", async () => {
  await rm.pool("forced", { capacity: 100, refillPerSecond: 100, offPeak: window(120, 180) });
  const deadline = (ms) => new Date(Date.now() + ms).toISOString();
  const work = (ms, timeoutMs) => rm.work("laner", "forced", 5, { urgency: "deferred", deadline: deadline(ms), timeoutMs });
  const soon = ok(await rm.execute(work(30_000, 5_000), { wait: 10 }));
  assert.equal(soon.status, "succeeded", "there is no time to wait");
  const later = ok(await rm.execute(work(67_000, 5_000)));
  assert.equal(ok(await rm.get(`/api/queue/position/${later.requestId}`)).blockedBy, "off_peak");
  const done = await rm.ended(later.requestId);
  assert.equal(done.status, "succeeded");
  assert.ok(done.waitMs >= 1_000, `${done.waitMs} ms`);
});

test("windows that make no sense are refused where they are wrong", async () => {
  for (const [offPeak, pointer] of [
    [{ days: [], from: "22:00", to: "06:00" }, "/offPeak/days"],
    [{ days: ["monday"], from: "22:00", to: "06:00" }, "/offPeak/days/0"],
    [{ days, from: "24:00", to: "06:00" }, "/offPeak"],
    [{ days, from: "9:00", to: "06:00" }, "/offPeak"],
    [{ days, from: "+1:00", to: "06:00" }, "/offPeak"],
    [{ days, from: "22:00", to: "06:00", timeZone: "Mars/Olympus" }, "/offPeak/timeZone"],
  ]) {
    const answer = await rm.put("/admin/pools/odd-window", { unit: "u", capacity: 1, refillPerSecond: 1, unitPriceUsd: 0, offPeak });
    assert.deepEqual([answer.status, answer.body.errors?.[0].pointer], [400, pointer], answer.text);
  }
});

test("how well starts are foretold is a metric", async () => {
  await rm.pool("foretold", { capacity: 10, refillPerSecond: 10 });
  ok(await rm.post("/internal/consume", { reservationId: await all("foretold", 10), usage: [{ pool: "foretold", amount: 10 }] }));
  const { requestId, estimatedWaitMs } = ok(await rm.execute(rm.work("laner", "foretold", 5)));
  assert.ok(estimatedWaitMs > 0 && estimatedWaitMs <= 500, `${estimatedWaitMs}`);
  await rm.ended(requestId);
  const { text } = await waitFor(async () => {
    const answer = await rm.get("/metrics");
    return /start_estimates_total\{late="(true|false)",pool="foretold"\} 1/.test(answer.text) ? answer : null;
  }, "the count");
  const error = Number(text.match(/start_estimate_error_seconds_total\{pool="foretold"\} (\S+)/)[1]);
  assert.ok(error >= 0 && error < 5, `${error} s`);
});
