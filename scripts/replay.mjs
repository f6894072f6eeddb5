// `npm run replay`: sends a trace to the service twice, as it is and with `optimization.level` off, each time to fresh
// workerd, D1, KV, R2 and Durable Objects, and tells what each strategy saved. It fails if anything finished after its
// deadline, cost more than its client's budget, or if the savings do not add up. Another trace can be named.

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { spawnSync } from "node:child_process";

import { build } from "./build.mjs";
import { environment, fail, root, say } from "./steps.mjs";
import { setUp } from "./setup.mjs";

/** The trace, or what is wrong with it. */
function read(file) {
  const example = "examples/traces/mixed.json";
  let text;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    fail(`${file} cannot be read (${error.code}): name a trace, or none for ${example}.`);
  }
  let trace;
  try {
    trace = JSON.parse(text);
  } catch (error) {
    fail(`${file} is not JSON: ${error.message}.`);
  }
  const missing = ["pools", "clients", "templates", "requests"].filter((name) => typeof trace?.[name] !== "object" || trace[name] === null);
  if (missing.length > 0) fail(`${file} is not a trace: it has no ${missing.map((name) => `"${name}"`).join(", ")}; see ${example}.`);
  return trace;
}

const trace = read(resolve(process.argv[2] ?? join(root, "examples", "traces", "mixed.json")));

// Wrangler needs the project's own Node.
if (Number(process.versions.node.split(".")[0]) < 22) {
  setUp();
  const node = join(root, "node_modules", ".bin", "node");
  process.exit(spawnSync(node, process.argv.slice(1), { stdio: "inherit", env: environment() }).status ?? 1);
}

setUp();
build();
const { ok, startHarness } = await import("../tests/support/harness.mjs");

const strategies = ["model_downgrade", "request_batching", "cache", "compression", "off_peak"];
const problems = [];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const nanos = (usd) => Math.round(usd * 1e9);
const dollars = (n) => `$${(n / 1e9).toFixed(9)}`;
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** A window that opens so many minutes from now, as an operator would write it. */
function offPeak({ opensInMinutes, forMinutes, ...more }) {
  const clock = (minutes) => new Date(Date.now() + minutes * 60_000).toISOString().slice(11, 16);
  // A window opens with a minute: with the next but one, if the next is near.
  if (Date.now() % 60_000 > 35_000) opensInMinutes += 1;
  const days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
  return { days, from: clock(opensInMinutes), to: clock(opensInMinutes + forMinutes), ...more };
}

/** Texts that are written as a repetition. */
const written = (value) => {
  if (Array.isArray(value)) return value.map(written);
  if (value === null || typeof value !== "object") return value;
  if (value.repeat) return value.repeat[0].repeat(value.repeat[1]);
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, written(inner)]));
};

async function replay(name, change) {
  say(`\n${name}: ${trace.requests.length} requests …`);
  const rm = await startHarness();
  for (const [pool, body] of Object.entries(trace.pools)) {
    ok(await rm.put(`/admin/pools/${pool}`, { ...body, ...(body.offPeak && { offPeak: offPeak(body.offPeak) }) }));
  }
  for (const [client, body] of Object.entries(trace.clients)) ok(await rm.put(`/admin/clients/${client}`, body));
  for (const [template, body] of Object.entries(trace.templates)) ok(await rm.put(`/admin/templates/${template}`, body));
  let over = true;
  const budgets = async () => {
    for (const client of Object.keys(trace.clients)) {
      const { budgetUsd, spentUsd, heldUsd } = await rm.current(client);
      if (nanos(spentUsd) + nanos(heldUsd) > nanos(budgetUsd)) problems.push(`${name}: ${client} is over its budget`);
    }
  };
  const watch = (async () => {
    while (over) await Promise.all([budgets(), sleep(250)]);
  })();
  const began = Date.now();
  const one = async ({ atMs, deadlineInMs, ...body }) => {
    await sleep(Math.max(began + atMs - Date.now(), 0));
    const deadline = deadlineInMs && new Date(Date.now() + deadlineInMs).toISOString();
    const answer = await rm.execute(change({ ...body, input: written(body.input), ...(deadline && { deadline }) }));
    if (answer.status > 299) {
      problems.push(`${name}: a request of ${body.clientId} at ${atMs} ms was refused: ${answer.text}`);
      return null;
    }
    const ended = answer.body.finishedAt ? answer.body : await rm.ended(answer.body.requestId, 180_000);
    if (ended.status !== "succeeded") problems.push(`${name}: ${ended.requestId} is ${ended.status}: ${ended.error?.message}`);
    if (deadline && ended.finishedAt > deadline) problems.push(`${name}: ${ended.requestId} finished after its deadline`);
    return ended;
  };
  const ended = (await Promise.all(trace.requests.map(one))).filter(Boolean);
  const settled = async () => (await Promise.all(Object.keys(trace.clients).map((client) => rm.current(client)))).every(({ heldUsd }) => heldUsd === 0);
  while (!(await settled())) await sleep(50);
  over = false;
  await watch;
  const recorded = async () => (await rm.env.DB.prepare("SELECT count(*) AS n FROM usage_events").first()).n;
  while ((await recorded()) < ended.length) await sleep(50);
  const ledger = (await rm.env.DB.prepare("SELECT strategy, count(*) AS applied, sum(saved_nanousd) AS saved, sum(saved_bytes) AS bytes FROM savings GROUP BY strategy").all()).results;
  const totals = await rm.env.DB.prepare("SELECT sum(cost_nanousd) AS cost, sum(baseline_nanousd) AS baseline FROM usage_events").first();
  const unequal = await rm.env.DB.prepare(
    "SELECT count(*) AS n FROM usage_events e WHERE e.baseline_nanousd - e.cost_nanousd <> (SELECT coalesce(sum(saved_nanousd), 0) FROM savings s WHERE s.event = e.event)",
  ).first();
  if (unequal.n > 0) problems.push(`${name}: the savings of ${unequal.n} requests do not add up`);
  const { calls } = await rm.stats();
  const last = Math.max(...ended.map(({ finishedAt }) => Date.parse(finishedAt))) - began;
  await rm.close();
  return { ...totals, ledger, calls, last, ended };
}

const off = await replay("With the level off", (body) => ({ ...body, optimization: { level: "off" } }));
const on = await replay("As it is", (body) => body);

const columns = (cells) => cells.map((cell, index) => (index === 0 ? String(cell).padEnd(18) : String(cell).padStart(18))).join("");
say(`\n${columns(["strategy", "requests", "saved", "bytes saved"])}`);
for (const strategy of strategies) {
  const { applied, saved, bytes } = on.ledger.find((row) => row.strategy === strategy) ?? { applied: 0, saved: 0, bytes: 0 };
  say(columns([strategy, applied, dollars(saved), bytes]));
}
const saved = sum(on.ledger.map((row) => row.saved));
say(columns(["any of them", on.ended.filter(({ optimizations }) => optimizations.length > 0).length, dollars(saved), sum(on.ledger.map((row) => row.bytes))]));
say(`\nlevel off  ${dollars(off.cost)}, ${off.calls} calls of workers, done after ${(off.last / 1000).toFixed(1)} s`);
say(`as it is   ${dollars(on.cost)}, ${on.calls} calls of workers, done after ${(on.last / 1000).toFixed(1)} s`);
const share = ((off.cost - on.cost) / off.cost) * 100;
say(`saved      ${dollars(off.cost - on.cost)} (${share.toFixed(1)} %); by the ledger ${dollars(on.baseline)} − ${dollars(on.cost)} = ${dollars(saved)}`);
if (on.baseline - on.cost !== saved) problems.push("the ledger does not add up");
if (on.baseline !== off.cost) problems.push(`what it would have cost is not what it cost with the level off: ${dollars(on.baseline)} and ${dollars(off.cost)}`);
if (problems.length > 0) fail(`\n${problems.join("\n")}`);
say("\nNothing finished after its deadline, nobody was over budget, and every saving adds up.");
