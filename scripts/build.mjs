// Builds a Worker of this workspace with worker-build. `node scripts/build.mjs [folder]`; wrangler calls it too. When
// nothing has changed since the last build it does nothing.

import { rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { environment, hashOf, isMain, output, readIfThere, root, run, say } from "./steps.mjs";
import { buildTools, setUp } from "./setup.mjs";

const exe = process.platform === "win32" ? ".exe" : "";

/** Builds the Worker in `folder`. */
export function build(folder = root) {
  const inputs = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "src", "openapi.json", "core/Cargo.toml", "core/src"].map((path) => join(root, path));
  if (folder !== root) inputs.push(join(folder, "Cargo.toml"), join(folder, "src"));
  const key = hashOf(inputs, [buildTools(), output("rustc", ["--version"]) ?? ""]);
  const stamp = join(folder, "build", ".built");
  if (readIfThere(stamp) === key) return;
  say(`Building the Worker in ${folder === root ? "." : folder.slice(root.length + 1)} (a minute or two when it is built for the first time) …`);
  // A build that is broken off must not pass for the one before it.
  rmSync(stamp, { force: true });
  const before = Date.now();
  const bin = buildTools();
  run(join(bin, `worker-build${exe}`), ["--release"], {
    cwd: folder,
    env: environment({
      WASM_BINDGEN_BIN: join(bin, `wasm-bindgen${exe}`),
      WASM_OPT_BIN: join(root, "node_modules", ".bin", "wasm-opt"),
      ESBUILD_BIN: join(root, "node_modules", ".bin", "esbuild"),
    }),
  });
  writeFileSync(stamp, key);
  say(`Built in ${((Date.now() - before) / 1000).toFixed(0)} s.`);
}

if (isMain(import.meta.url)) {
  setUp();
  build(process.argv[2] ? resolve(process.argv[2]) : root);
}
