// What the gateway reports of jobs. All of it is internal: callers prove themselves by a deploy key.
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { type Infer, v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { internalMutation, internalQuery, type MutationCtx, type QueryCtx } from "./_generated/server";
import { refuse, requireCount, requireName, requirePageSize } from "./errors";
import { analyticsFields, jobFields, jobStatus, progressFields, urlFields } from "./fields";
import { isNewer, isTerminal, isYounger } from "./ordering";

/** `sequence` is the one in the database afterwards; `applied` is false for what was not newer. */
const verdict = v.object({ applied: v.boolean(), sequence: v.number() });
const jobRow = v.object({ ...jobFields, _id: v.id("jobs"), _creationTime: v.number() });
type JobFields = Infer<ReturnType<typeof v.object<typeof jobFields>>>;

const progressArgs = {
  jobId: v.string(),
  incarnation: v.string(),
  sequence: v.number(),
  ...progressFields,
  status: v.optional(jobStatus),
  stage: v.optional(v.string()),
  videoId: v.optional(v.string()),
  owner: v.optional(v.string()),
  createdAt: v.optional(v.number()),
  resultUrls: v.optional(v.record(v.string(), v.string())),
};
type Progress = Infer<ReturnType<typeof v.object<typeof progressArgs>>>;

/**
 * Write one event's view of a job to `jobs`, and to `videos` while the job is its video's newest.
 * A field left out keeps its value within an incarnation; a newer incarnation starts the row afresh.
 */
export const updateProgress = internalMutation({
  args: progressArgs,
  returns: verdict,
  handler: async (ctx, args) => {
    checkProgress(args);
    const known = await findJob(ctx, args.jobId);
    if (known !== null && !isApplicable(args, known)) {
      return { applied: false, sequence: known.sequence };
    }
    const job = merge(known, args, Date.now());
    if (known === null) await ctx.db.insert("jobs", job);
    else await ctx.db.replace(known._id, job);
    if (job.videoId !== undefined) await writeVideo(ctx, job.videoId, job);
    return { applied: true, sequence: job.sequence };
  },
});

/** Keep a finished job's timings: once, whatever number of times it is told. */
export const trackAnalytics = internalMutation({
  args: analyticsFields,
  returns: verdict,
  handler: async (ctx, args) => {
    checkPosition(args);
    if (!isTerminal(args.status)) {
      refuse("INVALID_ARGUMENT", `analytics are kept of finished jobs, and this one is ${args.status}`);
    }
    const known = await ctx.db
      .query("jobAnalytics")
      .withIndex("by_jobId", (q) => q.eq("jobId", args.jobId))
      .first();
    if (known === null) {
      await ctx.db.insert("jobAnalytics", args);
    } else if (args.incarnation > known.incarnation) {
      await ctx.db.replace(known._id, args);
    } else {
      return { applied: false, sequence: known.sequence };
    }
    return { applied: true, sequence: args.sequence };
  },
});

/** One job, or null. */
export const get = internalQuery({
  args: { jobId: v.string() },
  returns: v.union(jobRow, v.null()),
  handler: (ctx, args) => findJob(ctx, args.jobId),
});

/**
 * Jobs, youngest first: all of them, or those that fit every argument given. `from` (included) and
 * `to` (excluded) are of `createdAt`. A page may be short before the last one; `isDone` marks that.
 */
export const history = internalQuery({
  args: {
    jobId: v.optional(v.string()),
    videoId: v.optional(v.string()),
    owner: v.optional(v.string()),
    status: v.optional(jobStatus),
    from: v.optional(v.number()),
    to: v.optional(v.number()),
    paginationOpts: paginationOptsValidator,
  },
  returns: paginationResultValidator(jobRow),
  handler: async (ctx, args) => {
    requirePageSize(args.paginationOpts.numItems);
    return await select(ctx, args)
      .filter((q) =>
        q.and(
          ...(args.videoId === undefined ? [] : [q.eq(q.field("videoId"), args.videoId)]),
          ...(args.owner === undefined ? [] : [q.eq(q.field("owner"), args.owner)]),
          ...(args.status === undefined ? [] : [q.eq(q.field("status"), args.status)]),
          q.gte(q.field("createdAt"), earliest(args)),
          q.lt(q.field("createdAt"), latest(args)),
        ),
      )
      .paginate(args.paginationOpts);
  },
});

interface Selection {
  jobId?: string;
  videoId?: string;
  owner?: string;
  status?: Infer<typeof jobStatus>;
  from?: number;
  to?: number;
}

const earliest = (wanted: Selection): number => wanted.from ?? Number.MIN_SAFE_INTEGER;
const latest = (wanted: Selection): number => wanted.to ?? Number.MAX_SAFE_INTEGER;

/** The narrowest index that fits; the caller filters by the rest, of which one job or video has few. */
function select(ctx: QueryCtx, wanted: Selection) {
  const { jobId, videoId, owner, status } = wanted;
  const [from, to] = [earliest(wanted), latest(wanted)];
  const jobs = ctx.db.query("jobs");
  if (jobId !== undefined) {
    return jobs.withIndex("by_jobId", (q) => q.eq("jobId", jobId)).order("desc");
  }
  if (videoId !== undefined) {
    return jobs
      .withIndex("by_videoId_and_createdAt", (q) =>
        q.eq("videoId", videoId).gte("createdAt", from).lt("createdAt", to),
      )
      .order("desc");
  }
  if (owner !== undefined && status !== undefined) {
    return jobs
      .withIndex("by_owner_and_status_and_createdAt", (q) =>
        q.eq("owner", owner).eq("status", status).gte("createdAt", from).lt("createdAt", to),
      )
      .order("desc");
  }
  if (owner !== undefined) {
    return jobs
      .withIndex("by_owner_and_createdAt", (q) =>
        q.eq("owner", owner).gte("createdAt", from).lt("createdAt", to),
      )
      .order("desc");
  }
  if (status !== undefined) {
    return jobs
      .withIndex("by_status_and_createdAt", (q) =>
        q.eq("status", status).gte("createdAt", from).lt("createdAt", to),
      )
      .order("desc");
  }
  return jobs
    .withIndex("by_createdAt", (q) => q.gte("createdAt", from).lt("createdAt", to))
    .order("desc");
}

function findJob(ctx: QueryCtx, jobId: string): Promise<Doc<"jobs"> | null> {
  return ctx.db
    .query("jobs")
    .withIndex("by_jobId", (q) => q.eq("jobId", jobId))
    .first();
}

function checkPosition(args: { jobId: string; incarnation: string; sequence: number }): void {
  requireName("jobId", args.jobId);
  requireName("incarnation", args.incarnation);
  requireCount("sequence", args.sequence);
}

function checkProgress(args: Progress): void {
  checkPosition(args);
  if (args.videoId !== undefined) requireName("videoId", args.videoId);
  const percentage = args.progressPercentage;
  if (percentage !== undefined && !(percentage >= 0 && percentage <= 100)) {
    refuse("INVALID_ARGUMENT", `progressPercentage must lie within 0 and 100, not be ${percentage}`);
  }
}

/** What ended stays as it ended, unless a gateway with a younger store says otherwise. */
function isApplicable(args: Progress, known: Doc<"jobs">): boolean {
  if (!isNewer(args, known)) return false;
  const restarted = args.incarnation !== known.incarnation;
  return restarted || !isTerminal(known.status) || args.status === known.status;
}

function merge(known: Doc<"jobs"> | null, args: Progress, now: number): JobFields {
  const { stage, ...given } = args;
  const { _id, _creationTime, ...previous } = known ?? { _id: null, _creationTime: null };
  const restarted = known !== null && known.incarnation !== args.incarnation;
  const kept = restarted
    ? { createdAt: known.createdAt, videoId: known.videoId, owner: known.owner }
    : previous;
  const job: JobFields = {
    status: "queued",
    createdAt: args.processingStartedAt ?? now,
    ...kept,
    ...given,
    lastProgressUpdate: args.lastProgressUpdate ?? now,
  };
  const currentStage = args.currentStage ?? stage;
  if (currentStage !== undefined) job.currentStage = currentStage;
  if (isTerminal(job.status)) {
    // What is over has no estimate left but the one given with its end.
    job.estimatedCompletionSeconds = args.estimatedCompletionSeconds;
    job.estimatedCompletionTime = args.estimatedCompletionTime;
  }
  return job;
}

/** Let the video's row mirror `job`, unless a younger job owns it. */
async function writeVideo(ctx: MutationCtx, twitchId: string, job: JobFields): Promise<void> {
  const mirrored = mirror(job);
  const video = await ctx.db
    .query("videos")
    .withIndex("by_twitchId", (q) => q.eq("twitchId", twitchId))
    .first();
  if (video === null) {
    await ctx.db.insert("videos", { twitchId, ...mirrored });
    return;
  }
  if (video.jobId !== undefined && video.jobId !== job.jobId) {
    const owner = await findJob(ctx, video.jobId);
    if (owner !== null && isYounger(owner, job)) return;
  }
  await ctx.db.patch(video._id, mirrored);
}

/** Every progress field is named, so that a former job's leave the row; URLs stay until replaced. */
function mirror(job: JobFields) {
  const progress = Object.fromEntries(
    Object.keys(progressFields).map((name) => [name, job[name as keyof typeof progressFields]]),
  );
  const urls = Object.fromEntries(
    Object.entries(job.resultUrls ?? {}).filter(([name]) => name in urlFields),
  );
  return { ...progress, ...urls, jobId: job.jobId, status: job.status };
}
