// What the scripts share: paths, steps that say what they do, and commands that show their progress.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const toolsDir = join(root, ".tools");

/** Whether a module is the script that was started. Node names modules by their real path, and the script as it was called. */
export const isMain = (url) => Boolean(process.argv[1]) && fileURLToPath(url) === realpathSync(process.argv[1]);

/** The environment of every command: the project's own Node first, and nothing written outside the project's folder. */
export function environment(extra = {}) {
  const bin = join(root, "node_modules", ".bin");
  return {
    ...process.env,
    PATH: `${bin}${delimiter}${process.env.PATH ?? ""}`,
    WRANGLER_SEND_METRICS: "false",
    WRANGLER_LOG_PATH: join(toolsDir, "logs"),
    WRANGLER_REGISTRY_PATH: join(toolsDir, "registry"),
    XDG_CONFIG_HOME: join(toolsDir, "config"),
    ...extra,
  };
}

export function say(text) {
  console.log(text);
}

/** Ends the script with one clear sentence. */
export function fail(sentence) {
  console.error(`\n${sentence}`);
  process.exit(1);
}

/** Runs a command to its end and shows what it prints. */
export function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit", env: environment(), ...options });
  if (error) fail(`\`${command}\` could not be started: ${error.message}`);
  if (status !== 0) fail(`\`${[command, ...args].join(" ")}\` failed (exit code ${status}).`);
}

/** Starts a command in the background. */
export function start(command, args, options = {}) {
  return spawn(command, args, { cwd: root, env: environment(), ...options });
}

/** What a command prints, or null if it cannot be run. */
export function output(command, args) {
  const result = spawnSync(command, args, { cwd: root, encoding: "utf8", env: environment() });
  return result.status === 0 ? result.stdout.trim() : null;
}

/** A hash over files and folders, in a fixed order, and any texts beside them. */
export function hashOf(paths, texts = []) {
  const hash = createHash("sha256");
  const add = (path) => {
    if (!existsSync(path)) return;
    if (statSync(path).isDirectory()) {
      for (const name of readdirSync(path).sort()) {
        if (name !== "target" && name !== "build" && name !== "node_modules") add(join(path, name));
      }
    } else {
      hash.update(`${relative(root, path)}\0`).update(readFileSync(path)).update("\0");
    }
  };
  paths.forEach(add);
  texts.forEach((text) => hash.update(`${text}\0`));
  return hash.digest("hex").slice(0, 16);
}

export function readIfThere(path) {
  return existsSync(path) ? readFileSync(path, "utf8") : null;
}
