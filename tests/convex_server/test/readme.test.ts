// The samples of convex/README.md run: the query against a job, the component as far as it compiles.
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { convexTest } from "convex-test";
import { makeFunctionReference } from "convex/server";
import { build, transform } from "esbuild";
import { expect, test } from "vitest";
import schema from "../../../convex/schema";
import { modules } from "../src/modules.ts";

const convexFolder = fileURLToPath(new URL("../../../convex/", import.meta.url));
const readme = readFileSync(join(convexFolder, "README.md"), "utf8");

function sample(language: string): string {
  const found = [...readme.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\`$`, "gm"))];
  expect(found).toHaveLength(1);
  return found[0]![1]!;
}

async function watchModule(): Promise<Record<string, unknown>> {
  const outfile = join(mkdtempSync(join(tmpdir(), "convex-readme-")), "watch.mjs");
  await build({
    stdin: { contents: sample("ts"), loader: "ts", resolveDir: convexFolder },
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    nodePaths: [fileURLToPath(new URL("../node_modules", import.meta.url))],
  });
  return await import(pathToFileURL(outfile).href);
}

test("the query shows a job's progress, and null before it is known", async () => {
  const watch = await watchModule();
  const convex = convexTest({ schema, modules: { ...modules, "./watch.ts": async () => watch } });
  const job = makeFunctionReference<"query">("watch:job");
  expect(await convex.query(job, { jobId: "j1" })).toBeNull();

  await convex.mutation(makeFunctionReference<"mutation">("jobs:updateProgress"), {
    jobId: "j1",
    incarnation: "01K",
    sequence: 2,
    status: "running",
    currentStage: "Transcribing",
    progressPercentage: 42,
  });
  expect(await convex.query(job, { jobId: "j1" })).toEqual({
    status: "running",
    stage: "Transcribing",
    percentage: 42,
  });
});

test("the component compiles, and reads the query above", async () => {
  const component = sample("tsx");
  const { code } = await transform(component, { loader: "tsx", jsx: "automatic" });
  expect(code).toContain("useQuery(api.watch.job, { jobId })");
  // What it draws are fields that the query returns.
  for (const [, field] of component.matchAll(/job\.(\w+)/g)) {
    expect(field === "job" || sample("ts").includes(`${field}: `)).toBe(true);
  }
});
