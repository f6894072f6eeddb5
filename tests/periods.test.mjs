// Budgets: calendar months where the client is.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ok, startHarness } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

/** What the clocks of a zone show at a moment. */
const clocks = (zone, at) => {
  const format = new Intl.DateTimeFormat("en-CA", { timeZone: zone, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const parts = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, value]));
  return `${parts.year}-${parts.month}-${parts.day} ${parts.hour}:${parts.minute}:${parts.second}`;
};

test("a month begins and ends at the client's midnight", async () => {
  for (const zone of ["UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Australia/Lord_Howe"]) {
    const id = `zone-${zone.replace(/\W/g, "-")}`;
    await rm.client(id, { timeZone: zone });
    const { period } = await rm.current(id);
    const now = clocks(zone, new Date());
    const [year, month] = now.split("-").map(Number);
    const next = month === 12 ? `${year + 1}-01` : `${year}-${String(month + 1).padStart(2, "0")}`;
    assert.equal(clocks(zone, new Date(period.start)), `${now.slice(0, 7)}-01 00:00:00`, zone);
    assert.equal(clocks(zone, new Date(period.end)), `${next}-01 00:00:00`, zone);
  }
  for (const timeZone of ["Mars/Olympus", "", "+01:00", "Europe/berlin nonsense", "x".repeat(100)]) {
    const answer = await rm.put("/admin/clients/zone-bad", { name: "A", tier: "basic", timeZone });
    assert.deepEqual([answer.status, answer.body.errors?.[0].pointer], [400, "/timeZone"], timeZone);
  }
});

test("a changed time zone, budget or tier takes effect at once and resets nothing", async () => {
  await rm.pool("mid-month");
  await rm.client("mover", { monthlyBudgetUsd: 0.1 });
  ok(await rm.execute(rm.work("mover", "mid-month", 4), { wait: 10 }));
  const waiting = ok(await rm.execute(rm.work("mover", "mid-month", 1000)).then((answer) => (answer.status === 402 ? { status: 200, body: answer.body } : answer)));
  assert.equal(waiting.code, "budget_exceeded");
  for (const timeZone of ["Europe/Berlin", "America/New_York", "UTC"]) {
    await rm.client("mover", { monthlyBudgetUsd: 0.1, timeZone });
    assert.equal((await rm.current("mover")).spentUsd, 0.04, timeZone);
  }
  await rm.client("mover", { monthlyBudgetUsd: 0.05 });
  assert.equal((await rm.execute(rm.work("mover", "mid-month", 2))).status, 402);
  await rm.client("mover", { monthlyBudgetUsd: 0.03 });
  const less = await rm.current("mover");
  assert.deepEqual([less.spentUsd, less.budgetUsd, less.remainingUsd], [0.04, 0.03, 0]);
  // Without a budget of its own it has its tier's.
  ok(await rm.put("/admin/clients/mover", { name: "mover", tier: "premium" }));
  const premium = await rm.current("mover");
  assert.deepEqual([premium.budgetUsd, premium.spentUsd, premium.maxConcurrent], [500, 0.04, 50]);
  assert.equal((await rm.execute(rm.work("mover", "mid-month", 2), { wait: 10 })).body.status, "succeeded");
});
