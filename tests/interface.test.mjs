// The interface describes itself: what /openapi.json says is there, is guarded as it says, and takes no other method.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { root } from "../scripts/steps.mjs";
import { ok, startHarness, waitFor } from "./support/harness.mjs";

let rm;
before(async () => {
  rm = await startHarness();
});
after(() => rm.close());

const METHODS = ["get", "put", "post", "delete", "patch"];
const examples = { requestId: "01m85jda95jevgwq9he4bpqxny_database-d1", clientId: "nobody", pool: "nothing", templateId: "nothing" };
const filled = (path) => path.replace(/\{(\w+)\}/g, (_, name) => examples[name]);

async function described() {
  const answer = await rm.get("/openapi.json", { token: null });
  assert.deepEqual([answer.status, answer.headers.get("content-type")], [200, "application/json"]);
  return answer.body;
}

test("the description is that of the repository, and open to all", async () => {
  assert.deepEqual(await described(), JSON.parse(readFileSync(join(root, "openapi.json"), "utf8")));
});

test("each operation is there, opened by the tokens that its description names, and takes no other method", async () => {
  const { paths } = await described();
  assert.ok(Object.keys(paths).length > 30);
  for (const [path, operations] of Object.entries(paths)) {
    for (const method of METHODS) {
      const call = (token) => rm.call(method.toUpperCase(), filled(path), { token });
      const operation = operations[method];
      const what = `${method} ${path}`;
      if (operation === undefined) {
        const refused = await call("admin");
        assert.deepEqual([refused.status, refused.body.code], [405, "method_not_allowed"], what);
        const allow = refused.headers.get("allow").split(", ").map((one) => one.toLowerCase());
        assert.ok(METHODS.filter((one) => operations[one]).every((one) => allow.includes(one)), `${what}: ${allow}`);
        continue;
      }
      const opens = (operation.security ?? []).flatMap((one) => Object.keys(one));
      if (opens.length === 0) {
        assert.equal((await call(null)).status, 200, what);
        continue;
      }
      const none = await call(null);
      assert.deepEqual([none.status, none.body.code, none.headers.get("www-authenticate")], [401, "unauthorized", "Bearer"], what);
      assert.equal((await call("a-guess")).status, 401, what);
      for (const token of ["kam", "internal", "admin"]) {
        const answer = await call(token);
        assert.equal(answer.status === 403, !opens.includes(token), `${what} with ${token}: ${answer.status}`);
        if (opens.includes(token)) assert.ok(operation.responses[answer.status], `${what} answers ${answer.status}, which is not described`);
      }
    }
  }
  const answer = await rm.worker.fetch("http://localhost/health", { method: "OPTIONS" });
  assert.equal(answer.status, 405);
  // The scheduler's switch was among them.
  ok(await rm.post("/admin/scheduler/start"));
});

test("the page at /docs loads its own files and nothing else", async () => {
  const page = await rm.get("/docs", { token: null });
  assert.deepEqual([page.status, page.headers.get("content-type")], [200, "text/html; charset=utf-8"]);
  assert.match(page.headers.get("content-security-policy"), /default-src 'none'/);
  const files = [...page.text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, file]) => file);
  assert.deepEqual(files, ["/docs/page.css", "/docs/page.js", "/openapi.json", "/openapi.json"]);
  for (const file of files) assert.equal((await rm.get(file, { token: null })).status, 200, file);
  assert.equal((await rm.get("/docs/secrets.js", { token: null })).status, 404);
});

test("where nothing can be saved, nothing is promised", async () => {
  await rm.pool("plain", { unitPriceUsd: 0.01 });
  await rm.client("plain-client");
  const request = rm.work("plain-client", "plain", 5);
  const strategies = ["model_downgrade", "request_batching", "cache", "compression", "off_peak"];
  const analysis = ok(await rm.post("/api/optimize/analyze", request));
  assert.deepEqual([analysis.baselineUsd, analysis.optimizedUsd], [0.05, 0.05]);
  assert.deepEqual(analysis.opportunities.map(({ strategy }) => strategy), strategies);
  assert.ok(analysis.opportunities.every(({ applicable, savedUsd, change, reason }) => applicable === false && savedUsd === 0 && change === null && reason));
  ok(await rm.execute(request, { wait: 10 }));
  await waitFor(async () => ok(await rm.get("/api/optimize/stats/plain-client")).requests === 1, "the record");
  const history = ok(await rm.post("/api/optimize/analyze", { clientId: "plain-client" }));
  assert.deepEqual([history.baselineUsd, history.optimizedUsd], [0.05, 0.05]);
  const stats = ok(await rm.get("/api/optimize/stats/plain-client"));
  assert.deepEqual([stats.requests, stats.optimized, stats.baselineUsd, stats.actualUsd, stats.savedUsd], [1, 0, 0.05, 0.05, 0]);
  assert.deepEqual(stats.strategies, strategies.map((strategy) => ({ strategy, applied: 0, savedUsd: 0, savedBytes: 0 })));
  assert.ok(stats.period.start < stats.period.end);
  assert.deepEqual(ok(await rm.get("/api/optimize/recommendations/plain-client")), { recommendations: [] });
  for (const path of ["/api/optimize/stats/nobody", "/api/optimize/recommendations/nobody"]) assert.equal((await rm.get(path)).status, 404);
  assert.equal((await rm.post("/api/optimize/analyze", { clientId: "nobody" })).status, 404);
  assert.equal((await rm.post("/api/optimize/analyze", { clientId: "plain-client", form: "x" })).body.errors[0].pointer, "/form");
  assert.equal((await rm.post("/api/optimize/analyze", { clientId: "plain-client", from: "2026-02-01T00:00:00Z", to: "2026-01-01T00:00:00Z" })).status, 400);
  const limited = { headers: { "x-client-id": "demo-basic" } };
  assert.equal((await rm.post("/api/optimize/analyze", { clientId: "plain-client" }, limited)).status, 403);
  assert.equal((await rm.get("/api/optimize/stats/plain-client", limited)).status, 403);
});
