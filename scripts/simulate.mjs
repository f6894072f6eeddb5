// `npm run simulate -- --seeds N` looks for histories in which an invariant of the core breaks; `npm run simulate --
// capacity …` answers what a load would meet. `-- --help` says more. Both are the simulator's own program.

import { spawnSync } from "node:child_process";

import { environment, fail, root } from "./steps.mjs";

const args = process.argv.slice(2);
const named = ["invariants", "capacity", "--help", "-h"].includes(args[0]);
const { status, signal, error } = spawnSync(
  "cargo",
  // The profile is the release profile with panics that can be caught: a failing seed is one.
  ["run", "--locked", "--profile", "simulation", "-p", "resource-manager-simulator", "--bin", "simulate", "--", ...(named ? args : ["invariants", ...args])],
  { cwd: root, stdio: "inherit", env: environment() },
);
if (error) fail(`\`cargo\` could not be started: ${error.message}`);
if (signal) fail(`The simulator was ended by ${signal}.`);
// The program's own: 0 all holds, 1 an invariant is broken, 2 the question makes no sense.
process.exit(status);
