// `npm test`: set-up, build, the native tests of the core and the Worker, and the tests on real workerd. Ends by counting.

import { readdirSync, writeFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";

import { build } from "./build.mjs";
import { environment, fail, root, say, start, toolsDir } from "./steps.mjs";
import { setUp } from "./setup.mjs";

/** Runs a command, shows what it prints, and gives it back. */
function runAndRead(command, args) {
  return new Promise((resolve) => {
    const child = start(command, args, { stdio: ["ignore", "pipe", "inherit"], env: environment({ NO_COLOR: "1", CI: "true" }) });
    let text = "";
    child.stdout.on("data", (chunk) => {
      text += chunk;
      process.stdout.write(chunk);
    });
    child.on("error", (error) => fail(`\`${command}\` could not be started: ${error.message}`));
    child.on("close", (code) => resolve({ code, text }));
  });
}

const sum = (text, pattern) => [...text.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0);

const began = Date.now();
setUp();
build();

say("\nNative tests …");
const native = await runAndRead("cargo", ["test", "--workspace", "--locked"]);

say("\nTests on workerd …");
const only = process.argv.slice(2);
const files = readdirSync(join(root, "tests")).filter((name) => name.endsWith(".test.mjs")).sort();
const chosen = files.filter((name) => only.length === 0 || only.some((part) => name.includes(part)));
const node = join(root, "node_modules", ".bin", "node");
const workerd = await runAndRead(node, [
  "--test",
  "--test-concurrency=1",
  "--test-reporter=spec",
  ...chosen.map((name) => join("tests", name)),
]);

const passed = sum(native.text, /test result: \w+\. (\d+) passed/g) + sum(workerd.text, /^ℹ pass (\d+)/gm);
const failed =
  sum(native.text, /test result: \w+\. \d+ passed; (\d+) failed/g) + sum(workerd.text, /^ℹ (?:fail|cancelled) (\d+)/gm);
const good = native.code === 0 && workerd.code === 0;
mkdirSync(toolsDir, { recursive: true });
writeFileSync(join(toolsDir, "tests.json"), JSON.stringify({ passed, failed: good ? failed : Math.max(failed, 1) }));
say(`\nIn ${((Date.now() - began) / 1000).toFixed(0)} s:`);
say(`${passed} passed, ${good ? failed : Math.max(failed, 1)} failed`);
process.exit(good ? 0 : 1);
