// What is sent again with its key has the answer that it had, whatever has changed since.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
  await rm.client("repeater");
});
after(() => rm.close());

test("a deadline that has passed, a template or a pool that is gone change no answer", async () => {
  await rm.pool("replayed");
  const deadline = new Date(Date.now() + 3_000).toISOString();
  const soon = rm.work("repeater", "replayed", 1, { input: "soon", deadline });
  const first = ok(await rm.execute(soon, { wait: 10, key: "deadline" }));
  await new Promise((resolve) => setTimeout(resolve, Date.parse(deadline) - Date.now() + 10));
  const again = await rm.execute(soon, { wait: 10, key: "deadline" });
  assert.deepEqual([again.status, again.body, again.headers.get("idempotency-replayed")], [200, first, "true"], again.text);
  assert.equal((await rm.execute(soon, { key: "another" })).status, 400, "without that key it is refused");
  const other = await rm.execute({ ...soon, input: "other" }, { key: "deadline" });
  assert.deepEqual([other.status, other.body.code], [422, "idempotency_mismatch"]);

  ok(await rm.put("/admin/templates/short-lived", { worker: "ECHO", resources: [{ pool: "replayed", base: 1 }] }));
  const templated = { clientId: "repeater", templateId: "short-lived", input: 1 };
  const done = ok(await rm.execute(templated, { wait: 10, key: "template" }));
  assert.equal((await rm.call("DELETE", "/admin/templates/short-lived")).status, 204);
  const repeated = await rm.execute(templated, { wait: 10, key: "template" });
  assert.deepEqual([repeated.status, repeated.body], [200, done], repeated.text);
});

test("a reservation is the same although its pool is too small by now", async () => {
  await rm.pool("shrinking", { capacity: 100 });
  const reserve = (amount) =>
    rm.post("/internal/reserve", { clientId: "repeater", resources: [{ pool: "shrinking", amount }] }, { headers: { "idempotency-key": "reserve" } });
  const first = ok(await reserve(50));
  await rm.pool("shrinking", { capacity: 10 });
  const again = await reserve(50);
  assert.deepEqual([again.status, again.body], [200, first], again.text);
  assert.equal((await reserve(5)).body.code, "idempotency_mismatch");
});

/** The fingerprint of a body's text. */
function fingerprint(text) {
  const mask = (1n << 128n) - 1n;
  let hash = 0x6c62272e07bb014262b821756295c58dn;
  for (const byte of new TextEncoder().encode(text)) hash = ((hash ^ BigInt(byte)) * 0x0000000001000000000000000000013bn) & mask;
  return hash.toString(16).padStart(32, "0");
}

test("one whose key is that of a request which has not reached its pool is told to come again", async () => {
  await rm.pool("never-reached");
  const work = rm.work("repeater", "never-reached", 1);
  // As if a Worker had held for it, at another price, and gone.
  const hold = {
    id: "01hzzzzzzzzzzzzzzzzzzzzzzz_never-reached",
    amount: 0.001,
    kind: "execution",
    idempotency: { key: "execute:gone", fingerprint: fingerprint(JSON.stringify(work)) },
  };
  const account = rm.env.ACCOUNT.get(rm.env.ACCOUNT.idFromName("repeater"));
  const init = { method: "POST", headers: { "x-object-name": "repeater" }, body: JSON.stringify(hold) };
  assert.equal((await account.fetch("https://object/hold", init)).status, 200);
  const early = await rm.execute(work, { key: "gone" });
  assert.deepEqual([early.status, early.body.code], [503, "unavailable"], early.text);
  assert.ok(early.headers.has("retry-after"));
});
