// `npm run bench`: reserve + consume, and execute on `echo` with `Prefer: wait`, each against bench/floor, which makes the
// same hops and decides nothing. Both run on Miniflare, without a proxy in front, in turns within one run; what counts is
// the ratio. The operations of one execution are counted by proxies around the objects, in a run of their own.

import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { spawnSync } from "node:child_process";

import { build } from "./build.mjs";
import { environment, root, say } from "./steps.mjs";
import { setUp } from "./setup.mjs";

// Wrangler's Miniflare needs the project's own Node.
if (Number(process.versions.node.split(".")[0]) < 22) {
  setUp();
  const node = join(root, "node_modules", ".bin", "node");
  process.exit(spawnSync(node, process.argv.slice(1), { stdio: "inherit", env: environment() }).status ?? 1);
}

setUp();
build();
build(join(root, "bench", "floor"));
const { Miniflare, convertV4MiniflareOptions } = await import("miniflare");
// The requests' log is not what is measured here.
const handleRuntimeStdio = (stdout, stderr) => (stdout.resume(), stderr.resume());
const miniflareOf = (workers) => new Miniflare(convertV4MiniflareOptions({ host: "127.0.0.1", port: 0, cf: false, handleRuntimeStdio, workers }));

const SECONDS = Number(process.env.BENCH_SECONDS ?? 4);
// Objects write to disk; a disk that waits for each write would be what is measured. Where there is a folder in memory,
// Miniflare keeps its temporary state there.
if (existsSync("/dev/shm") && !process.env.TMPDIR) process.env.TMPDIR = "/dev/shm";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 3);
const CONCURRENCY = 16;

const modulesIn = (folder, entry) => {
  const wasm = readdirSync(folder).filter((name) => name.endsWith(".wasm"));
  return [
    { type: "ESModule", path: join(folder, entry) },
    ...(entry === "index.js" ? [] : [{ type: "ESModule", path: join(folder, "index.js") }]),
    ...wasm.map((name) => ({ type: "CompiledWasm", path: join(folder, name) })),
  ];
};
const downstream = {
  name: "downstream",
  compatibilityDate: "2025-11-01",
  modules: [{ type: "ESModule", path: join(root, "examples", "downstream", "index.js") }],
};
const common = { compatibilityDate: "2025-11-01" };

async function startService(folder, entry) {
  const bindings = { KAM_TOKEN: "k", INTERNAL_TOKEN: "i", ADMIN_TOKEN: "a", RETENTION_HOURS: "24" };
  const services = { SELF: "service", ECHO: "downstream", OPENAI: "downstream", EMAIL: "downstream", SMS: "downstream" };
  const objects = { POOL: { className: "ResourcePool", useSQLite: true }, ACCOUNT: { className: "ClientAccount", useSQLite: true } };
  const service = {
    ...common, name: "service", modulesRoot: folder, modules: modulesIn(folder, entry), bindings,
    serviceBindings: services, durableObjects: objects, d1Databases: ["DB"], kvNamespaces: ["KV"], r2Buckets: ["PAYLOADS"],
  };
  const miniflare = miniflareOf([service, downstream]);
  const url = await miniflare.ready;
  const db = await miniflare.getD1Database("DB", "service");
  for (const folder of ["schema", "seeds"]) {
    for (const file of readdirSync(join(root, folder)).sort()) {
      const sql = readFileSync(join(root, folder, file), "utf8").replace(/^\s*--.*$/gm, "");
      for (const statement of sql.split(/;\s*$(?!\s*(?:INSERT|END))/m).map((text) => text.trim()).filter(Boolean)) {
        await db.prepare(statement).run();
      }
    }
  }
  return { miniflare, url };
}

async function startFloor() {
  const folder = join(root, "bench", "floor", "build");
  const objects = { POOL: { className: "Row", useSQLite: true }, ACCOUNT: { className: "Row", useSQLite: true } };
  const floor = { ...common, name: "floor", modulesRoot: folder, modules: modulesIn(folder, "index.js"), serviceBindings: { ECHO: "downstream" }, durableObjects: objects };
  const miniflare = miniflareOf([floor, downstream]);
  return { miniflare, url: await miniflare.ready };
}

const agent = new Agent({ keepAlive: true, maxSockets: CONCURRENCY });

function send(url, method, path, token, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const options = { method, agent, headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers } };
    const call = request(new URL(path, url), options, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => (text += chunk));
      response.on("end", () => {
        if (response.statusCode !== 200) reject(new Error(`${path} answered ${response.statusCode}: ${text}`));
        else resolve(JSON.parse(text));
      });
    });
    call.on("error", reject);
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** Does a thing over and over, so many at once, for so long; the times of all, in milliseconds. */
async function load(thing, seconds) {
  const times = [];
  const until = performance.now() + seconds * 1000;
  const one = async () => {
    while (performance.now() < until) {
      const began = performance.now();
      await thing();
      times.push(performance.now() - began);
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, one));
  return { perSecond: times.length / seconds, times };
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
const median = (values) => quantile([...values].sort((a, b) => a - b), 0.5);

/** Both in turns; the ratio is taken round by round. */
async function compare(name, ours, floors) {
  const rounds = [];
  await load(ours, 1);
  await load(floors, 1);
  for (let round = 0; round < ROUNDS; round += 1) rounds.push([await load(ours, SECONDS), await load(floors, SECONDS)]);
  const row = (label, index) => {
    const times = rounds.flatMap((round) => round[index].times).sort((a, b) => a - b);
    const rate = median(rounds.map((round) => round[index].perSecond));
    say(`  ${label.padEnd(8)} ${rate.toFixed(0).padStart(5)}/s   p50 ${quantile(times, 0.5).toFixed(1).padStart(6)} ms   p99 ${quantile(times, 0.99).toFixed(1).padStart(6)} ms`);
  };
  say(`\n${name} (${CONCURRENCY} at once, ${ROUNDS} rounds of ${SECONDS} s each, in turns)`);
  row("service", 0);
  row("floor", 1);
  const ratios = rounds.map(([a, b]) => a.perSecond / b.perSecond);
  say(`  ratio    ${median(ratios).toFixed(2)} (rounds: ${ratios.map((ratio) => ratio.toFixed(2)).join(", ")})`);
}

const pool = { unit: "u", capacity: 100_000_000, refillPerSecond: 1_000_000, unitPriceUsd: 0.000001 };
const client = { name: "bench", tier: "enterprise", monthlyBudgetUsd: 1_000_000, maxConcurrent: 1000 };
const execute = (url) => () =>
  send(url, "POST", "/api/execute", "k", { clientId: "bench", templateId: "echo", input: { n: 1 } }, { prefer: "wait=10" }).then((body) => {
    if (body.status !== "succeeded") throw new Error(JSON.stringify(body));
  });
const reserveAndConsume = (url) => async () => {
  const { reservationId } = await send(url, "POST", "/internal/reserve", "i", { clientId: "bench", resources: [{ pool: "database-d1", amount: 1 }] });
  await send(url, "POST", "/internal/consume", "i", { reservationId, usage: [{ pool: "database-d1", amount: 1 }] });
};

/** Without a wait the pool has the run started; nobody asks for the end, which would be a call of its own. */
const executeLater = (url) => async () => {
  await fetch(new URL("/api/execute", url), {
    method: "POST",
    headers: { authorization: "Bearer k", "content-type": "application/json" },
    body: JSON.stringify({ clientId: "bench", templateId: "echo", input: { n: 1 } }),
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
};
const overTwoPools = (url) => () => {
  const resources = [{ pool: "database-d1", amount: 1 }, { pool: "kv-storage", amount: 1 }];
  return send(url, "POST", "/api/execute", "k", { clientId: "bench", worker: "ECHO", resources }, { prefer: "wait=10" });
};

async function prepare(url) {
  await send(url, "PUT", "/admin/pools/database-d1", "a", pool);
  await send(url, "PUT", "/admin/clients/bench", "a", client);
}

async function count(url, name, thing, n = 200) {
  await thing();
  await send(url, "GET", "/counted", "a");
  for (let index = 0; index < n; index += 1) await thing();
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  const counts = await send(url, "GET", "/counted", "a");
  const each = Object.entries(counts).map(([what, sum]) => `${what} ${(sum / n).toFixed(2)}`);
  say(`  ${name}: ${each.join(", ")}`);
}

const floor = await startFloor();
const service = await startService(join(root, "build"), "index.js");
await prepare(service.url);
const atFloor = (path) => () => send(floor.url, "POST", path, "", {});
await compare("execute on echo, waiting for the end", execute(service.url), atFloor("/execute"));
await compare("reserve + consume", reserveAndConsume(service.url), async () => {
  await atFloor("/reserve")();
  await atFloor("/consume")();
});
await service.miniflare.dispose();
await floor.miniflare.dispose();

const counting = join(root, "bench", "build");
rmSync(counting, { recursive: true, force: true });
mkdirSync(counting, { recursive: true });
for (const name of readdirSync(join(root, "build")).filter((file) => /\.(js|wasm)$/.test(file))) {
  cpSync(join(root, "build", name), join(counting, name));
}
cpSync(join(root, "bench", "counting.mjs"), join(counting, "counting.mjs"));
const counted = await startService(counting, "counting.mjs");
await prepare(counted.url);
say("\nOperations of one, one after the other, what the outbox does within two seconds included:");
await count(counted.url, "execute          ", execute(counted.url));
await count(counted.url, "reserve + consume", reserveAndConsume(counted.url));
await count(counted.url, "execute, 202     ", executeLater(counted.url));
await count(counted.url, "over two pools   ", overTwoPools(counted.url));
await counted.miniflare.dispose();
agent.destroy();
process.exit(0);
