// What is wrong with what a script was given is said in a sentence.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { environment, root } from "../scripts/steps.mjs";

test("a trace that cannot be replayed is refused before anything is built", () => {
  const folder = mkdtempSync(join(tmpdir(), "resource-manager-replay-"));
  const replay = (name) => spawnSync(process.execPath, [join(root, "scripts", "replay.mjs"), name], { cwd: folder, encoding: "utf8", env: environment() });
  writeFileSync(join(folder, "text.json"), "this is no JSON");
  writeFileSync(join(folder, "list.json"), "[]");
  for (const [name, wrong] of [["nope.json", /nope\.json.*cannot be read.*examples\/traces\/mixed\.json/], [".", /cannot be read/], ["text.json", /text\.json.*is not JSON/], ["list.json", /list\.json.*is not a trace.*"requests"/]]) {
    const { status, stdout, stderr } = replay(name);
    assert.deepEqual([status, stdout], [1, ""], name);
    assert.match(stderr, wrong);
    assert.doesNotMatch(stderr, /\n\s+at /);
  }
  rmSync(folder, { recursive: true });
});
