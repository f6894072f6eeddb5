// The service and the example workers under `wrangler dev`, as a process that can be started and ended.

import { createServer } from "node:net";
import { join } from "node:path";

import { environment, hashOf, readIfThere, root, start } from "./steps.mjs";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { init, seed } from "./database.mjs";

const service = ["wrangler.toml", "examples/downstream/wrangler.toml"];
const kam = ["examples/kam/wrangler.toml"];

/** Whether a port of this machine can be listened on. */
export function isFree(port) {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}

/** Brings the local database up to date, unless it is: wrangler takes seconds to find that out. */
export function prepareDatabase() {
  const state = join(root, ".wrangler", "state");
  const stamp = join(state, "database");
  const key = hashOf([join(root, "schema"), join(root, "seeds")]);
  if (existsSync(state) && readIfThere(stamp) === key) return;
  init();
  seed();
  mkdirSync(state, { recursive: true });
  writeFileSync(stamp, key);
}

/** Starts the service and the example downstream worker. `persist` is the folder of the state. */
export function startService({ port, persist, log = "inherit" }) {
  return startWrangler(service, { port, persist, log });
}

/** Starts the KAM stand-in: wrangler shows only one worker of a process to the outside. It finds the service's process by
 * the registry that both share. */
export function startKam({ port, log = "inherit" }) {
  return startWrangler(kam, { port, log });
}

/** Starts wrangler in a process group of its own. */
function startWrangler(configs, { port, persist, log }) {
  const wrangler = join(root, "node_modules", ".bin", "wrangler");
  const args = ["dev", ...configs.flatMap((config) => ["-c", config]), "--ip", "127.0.0.1", "--port", String(port)];
  args.push("--test-scheduled", "--show-interactive-dev-session=false", "--inspector-port", "0");
  if (persist) args.push("--persist-to", persist);
  return start(wrangler, args, {
    detached: true,
    stdio: ["ignore", log, log],
    env: environment({ CI: "true", NO_COLOR: "1" }),
  });
}

/** Ends the whole process group, and waits until it is gone. */
export function stop(service, signal = "SIGTERM") {
  return new Promise((resolve) => {
    const hasEnded = service.exitCode !== null || service.signalCode !== null;
    service.once("exit", () => resolve());
    try {
      // Those that it started may outlive it.
      process.kill(-service.pid, signal);
    } catch {
      resolve();
    }
    if (hasEnded) return resolve();
    // A group that does not end when asked is ended.
    setTimeout(() => {
      try {
        process.kill(-service.pid, "SIGKILL");
      } catch {
        resolve();
      }
    }, 5_000).unref();
  });
}

/** Waits until the process answers well; false if it ended before. */
export async function isReady(service, url, isWell = (response) => response.ok) {
  for (;;) {
    if (service.exitCode !== null || service.signalCode !== null) return false;
    try {
      const response = await fetch(`${url}/health`, { signal: AbortSignal.timeout(2_000) });
      if (isWell(response)) return true;
    } catch {
      // Not yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Fires the scheduler's tick once a minute, as Cloudflare does in production. */
export function tickEveryMinute(url) {
  const tick = () => fetch(`${url}/cdn-cgi/handler/scheduled`).catch(() => {});
  tick();
  return setInterval(tick, 60_000);
}
