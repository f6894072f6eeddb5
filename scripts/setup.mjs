// All set-up, step by step. A step that is already done is skipped. Nothing is installed outside this folder, but for
// the WebAssembly target of the Rust toolchain, and only package registries are reached.

import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { environment, fail, hashOf, isMain, output, readIfThere, root, run, say, toolsDir } from "./steps.mjs";

const WASM = "wasm32-unknown-unknown";
const exe = process.platform === "win32" ? ".exe" : "";
const npm = process.platform === "win32" ? "npm.cmd" : "npm";

/** Where this version of the build tools is. The key is what they are made from, and with what. */
export function buildTools() {
  const parts = ["Cargo.toml", "Cargo.lock", "src", "offline"].map((name) => join(root, "tools", name));
  const key = hashOf(parts, [output("rustc", ["--version"]) ?? ""]);
  return join(toolsDir, `bin-${key}`);
}

function checkPrerequisites() {
  const major = Number(process.versions.node.split(".")[0]);
  if (major < 20) fail(`Node ${process.versions.node} is too old: install Node 20 or newer.`);
  if (!output(npm, ["--version"])) fail("npm is missing: install Node 20 or newer together with npm.");
  if (!output("cargo", ["--version"])) fail("Rust is missing: install it with rustup (the stable toolchain).");
  if (!output("rustup", ["--version"])) {
    fail("rustup is missing: install Rust with rustup, which this set-up needs for the WebAssembly target.");
  }
  // Rust calls it by this name, whichever compiler it is.
  if (process.platform !== "win32" && !output("cc", ["--version"])) {
    fail("A C linker, `cc`, is missing: install gcc or clang (on Debian and Ubuntu: the package build-essential).");
  }
}

const steps = [
  {
    name: "npm packages",
    takes: "half a minute",
    isDone: () => readIfThere(join(root, "node_modules", ".installed")) === hashOf([join(root, "package-lock.json")]),
    do() {
      // `npm ci` refuses a lock file without an entry for each platform of each optional package; not every registry has
      // them all. `--no-save` leaves the lock file as it is: npm 10 and 11 do not write it alike.
      run(npm, ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]);
      if (!output(join(root, "node_modules", ".bin", "node"), ["--version"])) {
        fail("npm ran no install scripts, and the package `node` needs its own: run `npm rebuild node --ignore-scripts=false`.");
      }
      writeFileSync(join(root, "node_modules", ".installed"), hashOf([join(root, "package-lock.json")]));
    },
  },
  {
    name: `Rust target ${WASM}`,
    takes: "a few seconds",
    isDone: () => (output("rustup", ["target", "list", "--installed"]) ?? "").split(/\s+/).includes(WASM),
    do: () => run("rustup", ["target", "add", WASM]),
  },
  {
    name: "build tools (worker-build, wasm-bindgen)",
    takes: "a minute on two cores",
    isDone: () => existsSync(join(buildTools(), `worker-build${exe}`)) && existsSync(join(buildTools(), `wasm-bindgen${exe}`)),
    do() {
      const target = join(toolsDir, "target");
      run(
        "cargo",
        ["build", "--locked", "--target-dir", target, "-p", "worker-build", "-p", "build-tools", "--bin", "worker-build", "--bin", "wasm-bindgen"],
        { cwd: join(root, "tools") },
      );
      for (const old of readdirSync(toolsDir).filter((name) => name.startsWith("bin-"))) {
        rmSync(join(toolsDir, old), { recursive: true });
      }
      const bin = buildTools();
      mkdirSync(bin, { recursive: true });
      for (const tool of ["wasm-bindgen", "worker-build"]) {
        cpSync(join(target, "debug", `${tool}${exe}`), join(bin, `${tool}${exe}`));
      }
      rmSync(target, { recursive: true });
    },
  },
  {
    name: "local tokens (.dev.vars)",
    takes: "no time",
    isDone: () => existsSync(join(root, ".dev.vars")),
    do() {
      const tokens = ["KAM_TOKEN=dev-kam-token", "INTERNAL_TOKEN=dev-internal-token", "ADMIN_TOKEN=dev-admin-token"];
      writeFileSync(join(root, ".dev.vars"), `# For local development only.\n${tokens.join("\n")}\n`);
    },
  },
];

/** Does what is left to do. */
export function setUp() {
  checkPrerequisites();
  mkdirSync(toolsDir, { recursive: true });
  const open = steps.filter((step) => !step.isDone());
  if (open.length === 0) return;
  say("Set-up; on a fresh machine this and the first build take two to four minutes on two cores:");
  for (const step of steps) {
    if (step.isDone()) {
      say(`  done before: ${step.name}`);
      continue;
    }
    say(`  ${step.name} (${step.takes}) …`);
    const before = Date.now();
    step.do();
    if (!step.isDone()) fail(`The step "${step.name}" ran, and is still not done: see what it printed above.`);
    say(`  ${step.name}: done in ${((Date.now() - before) / 1000).toFixed(0)} s`);
  }
}

if (isMain(import.meta.url)) {
  process.env.PATH = environment().PATH;
  setUp();
  say("Set-up is complete.");
}
