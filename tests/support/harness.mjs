// The service, the example downstream worker and the KAM stand-in on real workerd, with D1, KV, R2 and Durable Objects of
// their own, fresh for each test file.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { createTestHarness } from "wrangler";

import { root } from "../../scripts/steps.mjs";

export const TOKENS = { kam: "test-kam-token", internal: "test-internal-token", admin: "test-admin-token" };

const secrets = { KAM_TOKEN: TOKENS.kam, INTERNAL_TOKEN: TOKENS.internal, ADMIN_TOKEN: TOKENS.admin };

/** Starts everything; `secrets` replaces the service's. */
export async function startHarness(options = {}) {
  const server = createTestHarness({
    root,
    workers: [
      { configPath: "wrangler.toml", secrets: options.secrets ?? secrets, vars: options.vars ?? {} },
      { configPath: "examples/downstream/wrangler.toml" },
      { configPath: "examples/kam/wrangler.toml", vars: { KAM_TOKEN: TOKENS.kam } },
    ],
  });
  await server.listen();
  const worker = server.getWorker("resource-manager");
  await worker.applyD1Migrations("DB");
  const env = await worker.getEnv();
  await seed(env.DB);
  return new Harness(server, worker, env);
}

/** Puts the seeds in, statement by statement. */
async function seed(db) {
  for (const file of readdirSync(join(root, "seeds")).sort()) {
    const sql = readFileSync(join(root, "seeds", file), "utf8").replace(/^--.*$/gm, "");
    for (const statement of sql.split(/;\s*$/m).map((text) => text.trim()).filter(Boolean)) {
      await db.prepare(statement).run();
    }
  }
}

export class Harness {
  constructor(server, worker, env) {
    this.server = server;
    this.worker = worker;
    this.env = env;
    this.downstream = server.getWorker("example-downstream");
    this.kam = server.getWorker("example-kam");
  }

  close() {
    return this.server.close();
  }

  /** One request. `token` is a name of TOKENS, a token itself, or null; `body` is JSON, or `raw` is sent as it is. */
  async call(method, path, { body, raw, token = tokenFor(path), headers = {} } = {}) {
    const all = new Headers(headers);
    if (token !== null) all.set("authorization", `Bearer ${TOKENS[token] ?? token}`);
    if ((body !== undefined || raw !== undefined) && !all.has("content-type")) all.set("content-type", "application/json");
    const init = { method, headers: all, body: raw ?? (body === undefined ? undefined : JSON.stringify(body)) };
    return answered(await this.worker.fetch(`http://localhost${path}`, init));
  }

  get(path, options) {
    return this.call("GET", path, options);
  }

  post(path, body, options = {}) {
    return this.call("POST", path, { body, ...options });
  }

  put(path, body, options = {}) {
    return this.call("PUT", path, { body, ...options });
  }

  /** `POST /api/execute`, waiting `wait` seconds for the end. */
  execute(body, { wait = 0, key, headers = {} } = {}) {
    const all = { ...headers };
    if (wait > 0) all.prefer = `wait=${wait}`;
    if (key !== undefined) all["idempotency-key"] = key;
    return this.post("/api/execute", body, { headers: all });
  }

  /** A pool of its own for a test: 1 000 units, refilled at 1 000 a second, a cent each, unless said otherwise. */
  async pool(name, body = {}) {
    const pool = { unit: "unit", capacity: 1000, refillPerSecond: 1000, unitPriceUsd: 0.01, ...body };
    return ok(await this.put(`/admin/pools/${name}`, pool));
  }

  /** A client of its own for a test. */
  async client(name, body = {}) {
    return ok(await this.put(`/admin/clients/${name}`, { name, tier: "standard", monthlyBudgetUsd: 1000, ...body }));
  }

  /** A request straight to the example worker. */
  work(clientId, pool, amount = 1, more = {}) {
    return { clientId, worker: "ECHO", resources: [{ pool, amount }], ...more };
  }

  async current(client) {
    return ok(await this.get(`/api/usage/${client}/current`));
  }

  async execution(id) {
    return ok(await this.get(`/api/execution/${id}`));
  }

  /** The execution once it has ended. */
  ended(id, limitMs) {
    return waitFor(async () => {
      const execution = await this.execution(id);
      return execution.finishedAt === undefined ? null : execution;
    }, `the end of ${id}`, limitMs);
  }

  /** A pool as it is in its object, not in a snapshot. */
  async poolNow(pool) {
    const check = ok(await this.post("/api/resources/check", { resources: [{ pool, amount: 1 }] }));
    return check.resources[0];
  }

  tick() {
    return this.worker.scheduled({ cron: "* * * * *", scheduledTime: new Date() });
  }

  async stats() {
    return (await this.downstream.fetch("http://localhost/stats")).json();
  }

  async resetStats() {
    await this.downstream.fetch("http://localhost/reset", { method: "POST" });
  }
}

function tokenFor(path) {
  if (path.startsWith("/internal")) return "internal";
  return path.startsWith("/admin") ? "admin" : "kam";
}

export async function answered(response) {
  const text = await response.text();
  let body = text;
  try {
    body = JSON.parse(text);
  } catch {
    // Not JSON: left as text.
  }
  return { status: response.status, headers: response.headers, body, text };
}

/** The body of an answer that must be good. */
export function ok(answer) {
  if (answer.status < 200 || answer.status > 299) throw new Error(`answered ${answer.status}: ${answer.text}`);
  return answer.body;
}

/** Asks until there is an answer: for what has no event to wait for. */
export async function waitFor(question, what, limitMs = 20_000) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const answer = await question();
    if (answer !== null && answer !== undefined && answer !== false) return answer;
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
