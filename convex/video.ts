// Stand-ins for two functions that the web app has today, public there and therefore here. A gateway
// configured with these paths writes to them instead of, or besides, `jobs:updateProgress`.
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { mutation, type MutationCtx } from "./_generated/server";
import { refuse } from "./errors";
import { legacyUrlFields, urlFields } from "./fields";

const outcome = v.object({ status: v.literal("success"), videoId: v.id("videos") });

/** Set the status of a video that exists; the words are the caller's. */
export const updateStatusByTwitchId = mutation({
  args: { twitchId: v.string(), status: v.string() },
  returns: outcome,
  handler: async (ctx, { twitchId, status }) => {
    const video = await findVideo(ctx, twitchId);
    await ctx.db.patch(video._id, { status });
    return { status: "success" as const, videoId: video._id };
  },
});

/** Set some of the URLs of a video that exists; the others keep their values. */
export const updateUrls = mutation({
  args: { twitchId: v.string(), urls: v.object({ ...urlFields, ...legacyUrlFields }) },
  returns: outcome,
  handler: async (ctx, { twitchId, urls }) => {
    const video = await findVideo(ctx, twitchId);
    await ctx.db.patch(video._id, urls);
    return { status: "success" as const, videoId: video._id };
  },
});

async function findVideo(ctx: MutationCtx, twitchId: string): Promise<Doc<"videos">> {
  const video = await ctx.db
    .query("videos")
    .withIndex("by_twitchId", (q) => q.eq("twitchId", twitchId))
    .first();
  return video ?? refuse("VIDEO_NOT_FOUND", `no video has the Twitch id ${twitchId}`);
}
