// `npm run lint`: the format, and clippy with warnings as errors, natively and for WebAssembly.

import { run } from "./steps.mjs";
import { setUp } from "./setup.mjs";

setUp();
run("cargo", ["fmt", "--all", "--check"]);
run("cargo", ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]);
// The simulator is a program of its own and never part of a Worker.
run("cargo", ["clippy", "--workspace", "--exclude", "resource-manager-simulator", "--locked", "--target", "wasm32-unknown-unknown", "--", "-D", "warnings"]);
