// `npm run tail`: the logs of the deployed service. `-- --env staging` for staging's.

import { join } from "node:path";

import { root, run } from "./steps.mjs";
import { setUp } from "./setup.mjs";

const options = process.argv.slice(2);
setUp();
run(join(root, "node_modules", ".bin", "wrangler"), ["tail", ...(options.includes("--env") ? [] : ["--env", "production"]), ...options]);
