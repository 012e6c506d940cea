// Bundle what runs with the functions of convex/: the server, and the contract's printer.
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
