// `npm run lint`: the format, and clippy with warnings as errors, natively and for WebAssembly.

import { run } from "./steps.mjs";
import { setUp } from "./setup.mjs";

setUp();
run("cargo", ["fmt", "--all", "--check"]);
run("cargo", ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]);
run("cargo", ["clippy", "--workspace", "--locked", "--target", "wasm32-unknown-unknown", "--", "-D", "warnings"]);
