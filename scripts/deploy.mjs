// `npm run deploy` (production) and `npm run deploy:staging`. What follows `--` is passed on, such as `--dry-run`.

import { join } from "node:path";

import { root, run } from "./steps.mjs";
import { setUp } from "./setup.mjs";

const [environment, ...options] = process.argv.slice(2);
setUp();
run(join(root, "node_modules", ".bin", "wrangler"), ["deploy", "--env", environment, ...options]);
