// `npm run dev`: the service on PORT (8787) with the example downstream worker, and the KAM stand-in on the port after it.
// The local database is seeded. The state survives restarts; `npm run reset` clears it.

import { build } from "./build.mjs";
import { fail, isMain, say } from "./steps.mjs";
import { isFree, isReady, prepareDatabase, startKam, startService, stop, tickEveryMinute } from "./service.mjs";
import { setUp } from "./setup.mjs";

/** Sets everything up, starts the service, and ends it when this process is asked to end. */
export async function dev({ log = "inherit" } = {}) {
  const began = Date.now();
  const port = Number(process.env.PORT ?? 8787);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) fail(`PORT=${process.env.PORT} is not a port.`);
  if (!(await isFree(port))) fail(`Port ${port} is taken: end what listens there, or choose another with PORT=….`);
  setUp();
  build();
  prepareDatabase();
  const url = `http://127.0.0.1:${port}`;
  const service = startService({ port, log });
  const kamUrl = (await isFree(port + 1)) ? `http://127.0.0.1:${port + 1}` : null;
  const kam = kamUrl === null ? null : startKam({ port: port + 1, log: "ignore" });
  let ending = false;
  const end = async (code) => {
    if (ending) return;
    ending = true;
    await Promise.all([stop(service), kam ? stop(kam) : null]);
    process.exit(code);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => end(0));
  // npm passes a signal to its shell only, which ends without a word to this process: nobody would end the service then.
  const parent = process.ppid;
  if (process.env.npm_lifecycle_event) setInterval(() => process.ppid !== parent && end(0), 500).unref();
  service.once("exit", async (code) => {
    if (ending) return;
    await Promise.all([stop(service), kam ? stop(kam) : null]);
    fail(`wrangler ended by itself (exit code ${code}); see what it printed above.`);
  });
  if (!(await isReady(service, url))) fail("The service did not start.");
  if (kam && !(await isReady(kam, kamUrl, () => true))) fail("The KAM stand-in did not start.");
  const timer = tickEveryMinute(url);
  say(`\nReady at ${url} after ${((Date.now() - began) / 1000).toFixed(1)} s.`);
  say(kamUrl ? `The KAM stand-in is at ${kamUrl}.` : `Port ${port + 1} is taken, so the KAM stand-in is not started.`);
  return { url, kamUrl, end: (code = 0) => (clearInterval(timer), end(code)) };
}

if (isMain(import.meta.url)) {
  await dev();
  say("Tokens: dev-kam-token (/api), dev-internal-token (/internal), dev-admin-token (/admin). Ctrl-C ends it.");
}
