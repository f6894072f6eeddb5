// The D1 database: `node scripts/database.mjs init|seed [--remote] [--env NAME]`. Local by default. Both can be repeated:
// a migration is applied once, and seeding again changes nothing.

import { readdirSync } from "node:fs";
import { join } from "node:path";

import { fail, isMain, root, run } from "./steps.mjs";
import { setUp } from "./setup.mjs";

const wrangler = join(root, "node_modules", ".bin", "wrangler");

const place = (options) => (options.includes("--remote") || options.includes("--local") ? options : ["--local", ...options]);

/** Applies the migrations of schema/. */
export function init(options = []) {
  run(wrangler, ["d1", "migrations", "apply", "DB", ...place(options)], { stdio: ["ignore", "inherit", "inherit"] });
}

/** Puts the default data of seeds/ in. */
export function seed(options = []) {
  for (const file of readdirSync(join(root, "seeds")).filter((name) => name.endsWith(".sql")).sort()) {
    run(wrangler, ["d1", "execute", "DB", "--yes", "--file", join("seeds", file), ...place(options)], {
      stdio: ["ignore", "inherit", "inherit"],
    });
  }
}

if (isMain(import.meta.url)) {
  const [what, ...options] = process.argv.slice(2);
  if (what !== "init" && what !== "seed") fail("Use: node scripts/database.mjs init|seed [--remote] [--env NAME]");
  setUp();
  if (what === "init") init(options);
  else seed(options);
}
