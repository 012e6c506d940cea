// The limits of a deployment, which convex-test leaves out: they end the function and undo its writes.
import type { TestConvex } from "convex-test";
import { beforeEach, expect, test } from "vitest";
import type schema from "../../../convex/schema";
import { Backend, open } from "../src/backend.ts";
import { withTimeLimit } from "../src/limit.ts";

const MEBIBYTE = 1024 * 1024;

let convex: TestConvex<typeof schema>;

beforeEach(() => {
  convex = open();
});

const videos = () => convex.run((ctx) => ctx.db.query("videos").collect());

test("a document of more than 1 MiB is refused, and one just below is not", async () => {
  const insert = (size: number) =>
    convex.run((ctx) => ctx.db.insert("videos", { twitchId: "v", title: "x".repeat(size) }));

  await insert(MEBIBYTE - 1000);
  await expect(insert(MEBIBYTE)).rejects.toThrow("Value is too large (1.00 MiB > maximum size 1 MiB)");
  expect(await videos()).toHaveLength(1);
});

test("a patch is measured by the document that it makes", async () => {
  const half = "x".repeat(600 * 1024);
  const id = await convex.run((ctx) => ctx.db.insert("videos", { twitchId: "v", title: half }));

  const patch = convex.run((ctx) => ctx.db.patch(id, { chatUrl: half }));
  await expect(patch).rejects.toThrow("Value is too large (1.17 MiB");
  expect(await videos()).not.toHaveProperty("0.chatUrl");
});

test("an object of more than 1,024 fields is refused, however deep", async () => {
  const resultUrls = Object.fromEntries(Array.from({ length: 1025 }, (_, at) => [`f${at}`, "u"]));
  const job = { jobId: "j", incarnation: "01K", sequence: 1, status: "queued", createdAt: 1 } as const;

  const insert = convex.run((ctx) => ctx.db.insert("jobs", { ...job, resultUrls }));
  await expect(insert).rejects.toThrow("too many fields (1025 > maximum number 1024)");
});

test("a function that computes for more than a second is ended", async () => {
  const slow = withTimeLimit(() =>
    convex.run(async (ctx) => {
      await ctx.db.insert("videos", { twitchId: "v" });
      const started = process.cpuUsage();
      let spent = 0;
      while (spent < 1_050_000) {
        const used = process.cpuUsage(started);
        spent = used.user + used.system;
      }
      await ctx.db.insert("videos", { twitchId: "w" });
    }),
  );
  await expect(slow).rejects.toThrow("Function execution timed out (maximum duration: 1s)");
  expect(await videos()).toEqual([]);
});

test("a call of the server meets the limit as a function's error, and commits nothing", async () => {
  const backend = new Backend();
  const args = {
    jobId: "j",
    incarnation: "01K",
    sequence: 1,
    videoId: "v",
    currentStage: "x".repeat(MEBIBYTE),
  };
  const path = { module: "jobs", name: "updateProgress" };

  await expect(backend.call("mutation", path, args, true)).rejects.toThrow("Value is too large");
  expect(await backend.dump("jobs")).toEqual([]);
});
