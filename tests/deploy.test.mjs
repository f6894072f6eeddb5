// The configuration of both deployments is one that wrangler takes.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { output, root } from "../scripts/steps.mjs";

for (const environment of ["production", "staging"]) {
  test(`wrangler deploy --dry-run passes for ${environment}, with every binding`, () => {
    const outdir = mkdtempSync(join(tmpdir(), "resource-manager-deploy-"));
    const wrangler = join(root, "node_modules", ".bin", "wrangler");
    const text = output(wrangler, ["deploy", "--dry-run", "--env", environment, "--outdir", outdir]);
    rmSync(outdir, { recursive: true });
    assert.ok(text, "wrangler refused the configuration");
    for (const binding of ["POOL", "ACCOUNT", "DB", "KV", "PAYLOADS", "SELF", "ECHO", "OPENAI", "EMAIL", "SMS", "RETENTION_HOURS"]) {
      assert.match(text, new RegExp(`env\\.${binding}\\b`), binding);
    }
  });
}
