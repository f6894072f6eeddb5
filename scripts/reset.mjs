// Clears the local state: the D1 database, KV, R2 and the Durable Objects of `npm run dev`.

import { rmSync } from "node:fs";
import { join } from "node:path";

import { root, say } from "./steps.mjs";

rmSync(join(root, ".wrangler"), { recursive: true, force: true });
say("The local state is cleared; `npm run dev` begins anew.");
