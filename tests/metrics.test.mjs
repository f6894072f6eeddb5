// What operators look at: /status, /metrics, the request log, and the headers that every answer has.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { after, before, test } from "node:test";

import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

const metrics = async (options) => {
  const answer = await rm.get("/metrics", options);
  assert.equal(answer.status, 200, answer.text);
  return answer;
};

/** The samples of the text format, by name and labels. */
function parse(text) {
  const families = new Map();
  const samples = new Map();
  let current;
  for (const line of text.trimEnd().split("\n")) {
    const help = /^# HELP (\S+) (.+)$/.exec(line);
    const type = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line);
    if (help) {
      assert.ok(!families.has(help[1]), `${help[1]} twice`);
      families.set(help[1], {});
    } else if (type) {
      families.get(type[1]).type = type[2];
      current = type[1];
    } else {
      const sample = /^([a-z_]+)(\{.*\})? (-?\d+(?:\.\d+)?)$/.exec(line);
      assert.ok(sample, `not a sample: ${line}`);
      assert.ok(sample[1] === current || ["_bucket", "_sum", "_count"].some((end) => sample[1] === current + end), line);
      const key = sample[1] + (sample[2] ?? "");
      assert.ok(!samples.has(key), `${key} twice`);
      samples.set(key, Number(sample[3]));
    }
  }
  return { families, samples };
}

test("the metrics are as Prometheus has them, and true", async (t) => {
  await rm.pool("measured", { capacity: 100, refillPerSecond: 0, unitPriceUsd: 0.01 });
  await rm.client("measured-client");
  ok(await rm.put("/admin/templates/measured", { worker: "ECHO", model: "m", resources: [{ pool: "measured", base: 2 }] }));
  const run = (input, urgency) => rm.execute({ clientId: "measured-client", templateId: "measured", input, urgency }, { wait: 10 });
  await run({}, "fast");
  await run({}, "fast");
  await run({ simulate: { status: 400 } }, "batch");
  const { reservationId } = ok(await rm.post("/internal/reserve", { clientId: "measured-client", resources: [{ pool: "measured", amount: 91 }] }));
  const waiting = ok(await rm.execute({ ...rm.work("measured-client", "measured", 20), urgency: "deferred" }));
  await waitFor(async () => (await rm.env.DB.prepare("SELECT count(*) AS n FROM usage_events WHERE client_id = 'measured-client'").first()).n >= 3, "the record");
  await rm.tick();
  const answer = await metrics();
  assert.equal(answer.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  const { families, samples } = parse(answer.text);
  const promtool = spawnSync("promtool", ["check", "metrics"], { input: answer.text, encoding: "utf8" });
  // Debian's package `prometheus` has it; the runner of all checks installs that.
  if (promtool.error) t.diagnostic("promtool is not installed: its own rules were not checked");
  else assert.deepEqual([promtool.status, promtool.stdout, promtool.stderr], [0, "", ""]);
  const pool = (name) => samples.get(`resource_manager_pool_${name}{pool="measured"}`);
  assert.deepEqual(["capacity_units", "available_units", "reserved_units", "utilization_ratio", "queued_requests", "running_requests"].map(pool), [100, 5, 91, 0.95, 1, 0]);
  assert.equal(samples.get('resource_manager_queue_depth_requests{lane="deferred"}'), 1);
  assert.equal(samples.get('resource_manager_requests_total{lane="fast",status="succeeded"}'), 2);
  assert.equal(samples.get('resource_manager_requests_total{lane="batch",status="failed"}'), 1);
  assert.equal(samples.get('resource_manager_template_cost_usd_total{model="m",template="measured"}'), 0.04);
  assert.equal(samples.get('resource_manager_template_requests_total{model="m",succeeded="false",template="measured"}'), 1);
  assert.equal(samples.get('resource_manager_client_month_cost_usd{client="measured-client"}'), 0.04);
  assert.equal(samples.get('resource_manager_open_alerts{kind="pool_low"}'), 1);
  assert.equal(samples.get('resource_manager_optimization_savings_usd_total{strategy="cache"}'), 0);
  const buckets = [...samples].filter(([key]) => key.startsWith('resource_manager_queue_wait_seconds_bucket{lane="fast"'));
  assert.equal(buckets.length, 13);
  const inOrder = buckets.map(([, value]) => value);
  assert.deepEqual(inOrder, [...inOrder].sort((a, b) => a - b), "buckets are cumulative");
  assert.equal(inOrder.at(-1), samples.get('resource_manager_queue_wait_seconds_count{lane="fast"}'));
  for (const [name, { type }] of families) {
    // As `promtool check metrics` has it: counters end on _total and nothing else does; units are whole words.
    assert.equal(name.endsWith("_total"), type === "counter", name);
    assert.doesNotMatch(name, /_(ms|milliseconds|percent|nanousd)(_|$)/);
  }
  const json = (await metrics({ headers: { accept: "application/json" } })).body;
  assert.deepEqual(json.metrics.map(({ name }) => name), [...families.keys()]);
  const queued = json.metrics.find(({ name }) => name === "resource_manager_pool_queued_requests");
  assert.deepEqual([queued.type, queued.samples.find(({ labels }) => labels.pool === "measured").value], ["gauge", 1]);
  const limited = parse((await metrics({ headers: { "x-client-id": "demo-basic" } })).text);
  assert.ok(![...limited.samples.keys()].some((key) => key.includes("measured-client")), "costs of others are not shown");

  const status = ok(await rm.get("/status"));
  assert.equal(status.scheduler, "running");
  assert.ok(status.lastTickAt <= status.asOf);
  assert.deepEqual([status.queue.depth, status.pools.find(({ pool: name }) => name === "measured").available], [1, 5]);
  assert.ok(status.alerts.some(({ kind, subject }) => kind === "pool_low" && subject === "pool:measured"));
  for (const token of ["kam", "internal", "admin"]) {
    assert.equal((await rm.get("/status", { token })).status, 200);
    assert.equal((await rm.get("/metrics", { token })).status, 200);
  }
  assert.equal((await rm.get("/metrics", { token: null })).status, 401);
  assert.equal((await rm.get("/status", { token: "wrong" })).status, 401);
  ok(await rm.post("/internal/release", { reservationId }));
  await rm.ended(waiting.requestId);
});

test("what was charged and what was saved are the baseline together, however many templates there are", async () => {
  await rm.pool("shared-out", { capacity: 1000, unitPriceUsd: 0.01 });
  await rm.client("spender");
  ok(await rm.put("/admin/templates/kept", { worker: "ECHO", model: "m", resources: [{ pool: "shared-out", base: 3 }], cacheTtlSeconds: 600 }));
  const kept = () => rm.execute({ clientId: "spender", templateId: "kept", input: 1 }, { wait: 10 });
  ok(await kept());
  assert.equal(ok(await kept()).cached, true);
  const charged = async () => (await rm.env.DB.prepare("SELECT count(*) AS n FROM usage_events WHERE client_id = 'spender'").first()).n;
  await waitFor(async () => (await charged()) === 2, "the record");
  // More pairs than have series of their own.
  const others = JSON.stringify(Array.from({ length: 60 }, (_, n) => n));
  await rm.env.DB.prepare("INSERT INTO template_totals SELECT 'other-' || value, 'm', 1, 1, 1000000000, 1000000000 FROM json_each(?)").bind(others).run();
  const { samples } = parse((await metrics()).text);
  const of = (name) => [...samples].filter(([key]) => key.startsWith(`${name}{`)).map(([, value]) => value);
  const add = (values) => Math.round(values.reduce((all, value) => all + value, 0) * 1e9);
  assert.equal(of("resource_manager_template_cost_usd_total").length, 50);
  const cost = Math.round(samples.get("resource_manager_cost_usd_total") * 1e9);
  const { recorded, baseline } = await rm.env.DB.prepare("SELECT sum(cost_nanousd) AS recorded, sum(baseline_nanousd) AS baseline FROM usage_events").first();
  assert.equal(cost, recorded + 60e9);
  assert.equal(cost + add(of("resource_manager_optimization_savings_usd_total")), baseline + 60e9);
  await rm.env.DB.prepare("DELETE FROM template_totals WHERE template_id LIKE 'other-%'").run();
});

test("an answer about one pool says what that pool allows and has left", async () => {
  await rm.pool("limited", { capacity: 120, refillPerSecond: 2 });
  await rm.pool("capped", { capacity: 30, refillPerSecond: 0, windowCap: true });
  await rm.client("limited-client");
  const limits = (answer) => [answer.headers.get("ratelimit-policy"), answer.headers.get("ratelimit")];
  const done = await rm.execute(rm.work("limited-client", "limited", 20), { wait: 10 });
  assert.equal(limits(done)[0], '"limited";q=120;w=60');
  assert.match(limits(done)[1], /^"limited";r=1[01]\d;t=\d+$/);
  const id = done.body.requestId;
  for (const answer of [
    await rm.get(`/api/execution/${id}`),
    await rm.get(`/api/cost/${id}`),
    await rm.post(`/api/execution/${id}/cancel`),
    await rm.post("/api/resources/check", { resources: [{ pool: "limited", amount: 1 }] }),
    await rm.execute(rm.work("limited-client", "limited", 1)),
  ]) {
    assert.equal(limits(answer)[0], '"limited";q=120;w=60', answer.text);
  }
  const reserved = await rm.post("/internal/reserve", { clientId: "limited-client", resources: [{ pool: "capped", amount: 30 }] });
  assert.deepEqual(limits(reserved), ['"capped";q=30;w=60', '"capped";r=0']);
  const refused = await rm.post("/internal/reserve", { clientId: "limited-client", resources: [{ pool: "capped", amount: 1 }] });
  assert.equal(refused.status, 429);
  assert.ok(Number(refused.headers.get("retry-after")) >= 1);
  assert.deepEqual(limits(refused), ['"capped";q=30;w=60', '"capped";r=0']);
  assert.deepEqual(limits(await rm.get("/api/queue/status")), [null, null]);
  const two = await rm.post("/api/resources/check", { resources: [{ pool: "limited", amount: 1 }, { pool: "capped", amount: 1 }] });
  assert.deepEqual(limits(two), [null, null]);
});

test("a trace is passed on, and a request is one line of the log, without inputs or tokens", async () => {
  await rm.pool("traced");
  await rm.client("traced-client");
  const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  const traceparent = `00-${trace}-00f067aa0ba902b7-01`;
  const before = rm.server.getLogs().length;
  const secret = "a-very-secret-input";
  const { body, headers } = await rm.execute(rm.work("traced-client", "traced", 1, { input: { secret } }), { wait: 10, headers: { traceparent, "x-request-id": "request-of-the-test" } });
  assert.equal(headers.get("x-request-id"), "request-of-the-test");
  const seen = (await rm.stats()).traceparents[body.requestId];
  assert.match(seen, new RegExp(`^00-${trace}-[0-9a-f]{16}-01$`));
  assert.notEqual(seen, traceparent, "with a span of its own");
  await rm.execute({ clientId: "traced-client", templateId: "echo", inputs: secret });
  const lines = await waitFor(() => {
    const text = rm.server.getLogs().slice(before).map((entry) => (typeof entry === "string" ? entry : (entry.message ?? JSON.stringify(entry)))).join("\n");
    const found = [...text.matchAll(/\{"level".*\}/g)].map(([line]) => JSON.parse(line)).filter(({ event }) => event === "request");
    return found.filter(({ path }) => path === "/api/execute").length >= 2 ? { text, found } : null;
  }, "the log");
  const [good, bad] = lines.found.filter(({ path }) => path === "/api/execute");
  assert.deepEqual([good.requestId, good.method, good.status, good.client, good.traceId], ["request-of-the-test", "POST", 200, "traced-client", trace]);
  assert.ok(good.durationMs >= 0);
  assert.deepEqual([bad.status, bad.code, bad.detail], [400, "invalid_request", undefined]);
  assert.ok(!lines.text.includes(secret) && !lines.text.includes("test-kam-token"));
});
