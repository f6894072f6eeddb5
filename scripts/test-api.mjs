// `npm run test:api`: tries the service against its own description with schemathesis, all checks on, on a fresh local
// database. What follows goes to schemathesis: `npm run test:api -- --max-examples 500 --seed 7`.

import { existsSync, mkdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";

import { build } from "./build.mjs";
import { init, seed } from "./database.mjs";
import { isReady, startService, stop } from "./service.mjs";
import { setUp } from "./setup.mjs";
import { environment, fail, hashOf, output, root, run, say, start, toolsDir } from "./steps.mjs";

const home = join(root, "tests", "api");
const tokens = { KAM_TOKEN: "dev-kam-token", INTERNAL_TOKEN: "dev-internal-token", ADMIN_TOKEN: "dev-admin-token" };

/** Python packages of this project alone, at pinned versions. */
function python() {
  const command = ["python3", "python"].find((name) => output(name, ["-c", "import sys, venv; assert sys.version_info >= (3, 10)"]) !== null);
  if (!command) fail("Python is missing: install Python 3.10 or newer with venv (on Debian and Ubuntu: the packages python3 and python3-venv).");
  const folder = join(toolsDir, `python-${hashOf([join(home, "requirements.txt")], [output(command, ["--version"]) ?? ""])}`);
  const bin = join(folder, process.platform === "win32" ? "Scripts" : "bin");
  if (!existsSync(join(folder, ".installed"))) {
    say("Python packages for schemathesis (a minute) …");
    rmSync(folder, { recursive: true, force: true });
    run(command, ["-m", "venv", folder]);
    run(join(bin, "python"), ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", join(home, "requirements.txt")]);
    mkdirSync(join(folder, ".installed"));
  }
  return bin;
}

/** A port that nobody listens on. */
function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

setUp();
build();
const bin = python();
const persist = join(toolsDir, "api-state");
rmSync(persist, { recursive: true, force: true });
init(["--persist-to", persist]);
seed(["--persist-to", persist]);
const port = await freePort();
const url = `http://127.0.0.1:${port}`;
const service = startService({ port, persist, log: "ignore" });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => stop(service).then(() => process.exit(1)));
let code = 1;
try {
  if (!(await isReady(service, url))) fail("The service did not start.");
  const checked = start(
    join(bin, "schemathesis"),
    // prettier-ignore
    ["--config-file", "schemathesis.toml", "run", `${url}/openapi.json`, "--checks", "all", "--warnings", "off",
      "--continue-on-failure", "--request-timeout", "70", "--max-examples", "30", ...process.argv.slice(2)],
    { cwd: home, stdio: "inherit", env: environment({ ...tokens, SCHEMATHESIS_HOOKS: "hooks", PYTHONPATH: home, PYTHONDONTWRITEBYTECODE: "1" }) },
  );
  code = await new Promise((resolve) => checked.on("close", resolve));
} finally {
  await stop(service);
}
process.exit(code);
