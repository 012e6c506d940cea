import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = fileURLToPath(new URL(".", import.meta.url));
const functions = fileURLToPath(new URL("../../convex/", import.meta.url));

export default defineConfig({
  plugins: [
    {
      // convex/ lies outside this folder, yet takes its packages from here.
      name: "packages-of-this-folder",
      enforce: "pre",
      resolveId(source, importer) {
        const isPackage = !source.startsWith(".") && !source.startsWith("/");
        if (!isPackage || !importer?.startsWith(functions)) return null;
        return this.resolve(source, join(here, "src", "server.ts"), { skipSelf: true });
      },
    },
  ],
  test: { include: ["test/**/*.test.ts"], environment: "node", silent: "passed-only" },
});
