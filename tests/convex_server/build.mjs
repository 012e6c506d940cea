// Bundle what runs with the functions of convex/: the server, and the contract's printer.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

await build({
  absWorkingDir: here,
  entryPoints: ["src/server.ts", "src/contract.ts"],
  outdir: "dist",
  bundle: true,
  platform: "node",
  target: "node20",
  format: "esm",
  sourcemap: "inline",
  sourcesContent: false,
  // convex/ lies outside this folder, yet takes its packages from here.
  nodePaths: [join(here, "node_modules")],
  logLevel: "warning",
});

// What it was built from, for tests/support/convex.py to tell a stale build: times of files say little
// in a work tree that is switched about.
const digest = createHash("sha256");
for (const folder of ["src", "../../convex"]) {
  const names = readdirSync(join(here, folder), { recursive: true }).filter((name) => /\.[tj]s$/.test(name));
  for (const name of names.map((name) => name.replaceAll("\\", "/")).sort()) {
    digest.update(`${name}\0`).update(readFileSync(join(here, folder, name)));
  }
}
writeFileSync(join(here, "dist", "sources.sha256"), digest.digest("hex"));
