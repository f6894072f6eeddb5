// `npm run prices`: writes seeds/0002_model_prices.sql from the crate `genai-prices`, at the version that
// tools/prices/Cargo.toml pins. Prices are those of today, or of a date given as YYYY-MM-DD.

import { closeSync, mkdirSync, openSync, renameSync } from "node:fs";
import { join } from "node:path";

import { fail, root, run, say, toolsDir } from "./steps.mjs";

const date = process.argv[2] ?? new Date().toISOString().slice(0, 10);
if (!/^\d{4}-\d{2}-\d{2}$/.test(date)) fail(`"${date}" is not a date: use YYYY-MM-DD.`);

const seed = join("seeds", "0002_model_prices.sql");
// A run that fails must not leave half a seed.
const draft = join(toolsDir, "model_prices.sql");
mkdirSync(toolsDir, { recursive: true });
const out = openSync(draft, "w");
run(
  "cargo",
  ["run", "--locked", "--release", "--manifest-path", join("tools", "prices", "Cargo.toml"), "--target-dir", join(".tools", "prices-target"), "--", date],
  { stdio: ["ignore", out, "inherit"] },
);
closeSync(out);
renameSync(draft, join(root, seed));
say(`${seed} is written.`);
