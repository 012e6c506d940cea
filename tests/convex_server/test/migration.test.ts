// Migrations on the real component: up, down, crashes in between, and what was written meanwhile.
import type { TestConvex } from "convex-test";
import { makeFunctionReference } from "convex/server";
import { ConvexError, type Value } from "convex/values";
import { beforeEach, describe, expect, test } from "vitest";
import { errorCount } from "../../../convex/migrations/v2_error_counts";
import { resultUrls } from "../../../convex/migrations/v1_result_urls";
import { videoStatus } from "../../../convex/migrations/v3_video_status";
import type schema from "../../../convex/schema";
import { open } from "../src/backend.ts";

const FIRST = "v1_result_urls";
const LAST = "v3_video_status";

let convex: TestConvex<typeof schema>;

beforeEach(() => {
  convex = open();
});

type Progress = { state: string; processed: number; changed: number; error?: string };

function step(name: string, direction: string, extra: Record<string, Value> = {}) {
  const reference = makeFunctionReference<"mutation">("migrations/control:step");
  const args = { name, direction, batchSize: 2, dryRun: false, ...extra };
  return convex.mutation(reference, args) as Promise<Progress>;
}

async function complete(name: string, direction: string): Promise<Progress> {
  for (;;) {
    const progress = await step(name, direction);
    if (progress.state !== "running") return progress;
  }
}

async function applyAll(): Promise<void> {
  for (const name of [FIRST, "v2_error_counts", LAST]) await complete(name, "up");
}

function confirm(name: string) {
  const reference = makeFunctionReference<"mutation">("migrations/control:confirm");
  return convex.mutation(reference, { name, batchSize: 2 });
}

async function rows(table: "videos" | "migrationBackups" | "jobAnalytics") {
  const found = await convex.run((ctx) => ctx.db.query(table).collect());
  return found.map(({ _id, _creationTime, ...fields }) => fields);
}

async function addVideos(...videos: Record<string, string>[]): Promise<void> {
  await convex.run(async (ctx) => {
    for (const [at, video] of videos.entries()) {
      await ctx.db.insert("videos", { twitchId: `v${at}`, ...video });
    }
  });
}

async function codeOf(failing: Promise<unknown>): Promise<unknown> {
  const error = await failing.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ConvexError);
  return ((error as ConvexError<Value>).data as { code: string }).code;
}

describe("up", () => {
  test("gives legacy URLs their new names beside the old ones", async () => {
    await addVideos({ transcriptUrl: "a" }, { chatUrl: "b", chat_url: "newer" }, {});

    expect(await complete(FIRST, "up")).toMatchObject({ state: "completed", processed: 3, changed: 1 });
    expect(await rows("videos")).toEqual([
      { twitchId: "v0", transcriptUrl: "a", transcript_url: "a" },
      { twitchId: "v1", chatUrl: "b", chat_url: "newer" },
      { twitchId: "v2" },
    ]);
  });

  test("does one batch a call and goes on where it stood", async () => {
    await addVideos({ chatUrl: "a" }, { chatUrl: "b" }, { chatUrl: "c" });

    expect(await step(FIRST, "up")).toMatchObject({ state: "running", processed: 2, changed: 2 });
    expect((await rows("videos"))[2]).not.toHaveProperty("chat_url");
    expect(await complete(FIRST, "up")).toMatchObject({ state: "completed", processed: 3, changed: 3 });
  });

  test("does nothing when it is complete", async () => {
    await addVideos({ chatUrl: "a" });
    await complete(FIRST, "up");

    expect(await step(FIRST, "up")).toMatchObject({ state: "completed", processed: 1, changed: 1 });
    expect(await rows("migrationBackups")).toHaveLength(1);
  });

  test("comes in the order of the versions", async () => {
    expect(await codeOf(step(LAST, "up"))).toBe("OUT_OF_ORDER");
  });

  test("of no known name is refused", async () => {
    expect(await codeOf(step("v0_nothing", "up"))).toBe("UNKNOWN_MIGRATION");
  });

  test("that a document fails undoes its batch alone, names it, and resumes once it is mended", async () => {
    await addVideos({ chatUrl: "a" }, { chatUrl: "b" }, { chatUrl: "c" });
    await step(FIRST, "up");
    const id = await convex.run(async (ctx) => {
      const [, , third] = await ctx.db.query("videos").collect();
      // 1,000 bytes under the limit: the copy does not fit.
      await ctx.db.patch(third!._id, { title: "x".repeat(1024 * 1024 - 1000), chatUrl: "y".repeat(700) });
      return third!._id;
    });

    const failed = await step(FIRST, "up");
    expect(failed).toMatchObject({ state: "failed", processed: 2 });
    expect(failed.error).toContain(`videos ${id}: Value is too large`);
    expect(await rows("migrationBackups")).toHaveLength(2);

    await convex.run((ctx) => ctx.db.patch(id, { title: "short" }));
    expect(await complete(FIRST, "up")).toMatchObject({ state: "completed", processed: 3, changed: 3 });
  });
});

describe("down", () => {
  test("restores every document to what it was", async () => {
    await addVideos({ transcriptUrl: "a" }, { status: "Transcribing" }, { status: "archived" });
    const before = await rows("videos");
    await applyAll();
    expect((await rows("videos"))[1]).toMatchObject({ status: "running", currentStage: "Transcribing" });

    for (const name of [LAST, "v2_error_counts", FIRST]) {
      expect(await complete(name, "down")).toMatchObject({ state: "completed" });
    }
    expect(await rows("videos")).toEqual(before);
    expect(await rows("migrationBackups")).toEqual([]);
  });

  test("leaves what was written since as it is", async () => {
    await addVideos({ status: "Queued" }, { status: "Failed" });
    await applyAll();
    await convex.run(async (ctx) => {
      const [first] = await ctx.db.query("videos").collect();
      await ctx.db.patch(first!._id, { status: "completed" });
    });
    await complete(LAST, "down");

    expect(await rows("videos")).toEqual([
      { twitchId: "v0", status: "completed" },
      { twitchId: "v1", status: "Failed" },
    ]);
  });

  test("passes over a document that was deleted since", async () => {
    await addVideos({ chatUrl: "a" });
    await complete(FIRST, "up");
    await convex.run(async (ctx) => {
      const [only] = await ctx.db.query("videos").collect();
      await ctx.db.delete(only!._id);
    });

    expect(await complete(FIRST, "down")).toMatchObject({ state: "completed", processed: 1 });
    expect(await rows("migrationBackups")).toEqual([]);
  });

  test("may begin half way up, and up again half way down", async () => {
    const videos = [0, 1, 2, 3, 4].map((at) => ({ chatUrl: `c${at}` }));
    await addVideos(...videos);
    const before = await rows("videos");
    await step(FIRST, "up");
    await step(FIRST, "up");
    await step(FIRST, "down");

    expect(await complete(FIRST, "up")).toMatchObject({ state: "completed", processed: 5 });
    expect((await rows("videos")).every((video) => "chat_url" in video)).toBe(true);
    await complete(FIRST, "down");
    expect(await rows("videos")).toEqual(before);
  });

  test("of what was never applied is refused", async () => {
    expect(await codeOf(step(FIRST, "down"))).toBe("NOT_APPLIED");
  });

  test("comes against the order of the versions", async () => {
    await applyAll();
    expect(await codeOf(step(FIRST, "down"))).toBe("OUT_OF_ORDER");
  });
});

describe("dry run", () => {
  test("says what would be done, and does none of it", async () => {
    await addVideos({ chatUrl: "a" }, {}, { chatUrl: "c" });
    const before = await rows("videos");

    const stopped = (await step(FIRST, "up", { dryRun: true }).catch((error: unknown) => error)) as
      ConvexError<{ code: string; progress: Progress & { cursor: string } }>;
    const { code, progress } = stopped.data;
    expect([code, progress.processed, progress.changed, progress.state]).toEqual([
      "DRY_RUN",
      2,
      1,
      "running",
    ]);
    const next = (await step(FIRST, "up", { dryRun: true, cursor: progress.cursor }).catch(
      (error: unknown) => error,
    )) as typeof stopped;
    expect(next.data.progress).toMatchObject({ processed: 1, changed: 1 });

    expect(await rows("videos")).toEqual(before);
    expect(await rows("migrationBackups")).toEqual([]);
    expect(await complete(FIRST, "up")).toMatchObject({ processed: 3, changed: 2 });
  });
});

describe("confirming", () => {
  test("forgets what was kept, and ends the way back", async () => {
    await addVideos({ chatUrl: "a" }, { chatUrl: "b" }, { chatUrl: "c" });
    await complete(FIRST, "up");

    expect(await confirm(FIRST)).toEqual({ forgotten: 2, isDone: false });
    expect(await codeOf(step(FIRST, "down"))).toBe("CONFIRMED");
    expect(await confirm(FIRST)).toEqual({ forgotten: 1, isDone: true });
    expect(await rows("migrationBackups")).toEqual([]);
  });

  test("needs a migration that is applied", async () => {
    await addVideos({ chatUrl: "a" }, { chatUrl: "b" }, { chatUrl: "c" });
    await step(FIRST, "up");
    expect(await codeOf(confirm(FIRST))).toBe("NOT_APPLIED");
  });
});

// What a migration makes of a document is no work for itself: a run that is repeated changes nothing.
test.each([
  [resultUrls({ twitchId: "v", chatUrl: "a" } as never), resultUrls],
  [videoStatus({ twitchId: "v", status: "Analyzing" } as never), videoStatus],
  [errorCount({ status: "failed", stages: [] } as never), errorCount],
])("change %j is none the second time", (made, change) => {
  expect(made).not.toEqual({});
  const again = change({ chatUrl: "a", stages: [], ...made } as never) ?? {};
  expect(again).toEqual({});
});

test.each([
  ["failed", undefined, 1],
  ["completed", undefined, 0],
  ["cancelled", "E", 1],
])("an end as %s with error %s counts %i errors", (status, errorCode, expected) => {
  expect(errorCount({ status, errorCode } as never)).toEqual({ errorCount: expected });
});
