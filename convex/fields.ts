// The fields that the gateway adds, in groups, so that a table which already exists spreads a group
// into its own definition instead of being replaced. Times are epoch milliseconds. `v.optional`
// refuses null: what is unknown is left out.
import { v } from "convex/values";

/** Where a job stands, whatever words its upstream uses. */
export const jobStatus = v.union(
  v.literal("queued"),
  v.literal("running"),
  v.literal("completed"),
  v.literal("failed"),
  v.literal("cancelled"),
);

/** What is known of a job: the same names in `videos` and in `jobs`. */
export const progressFields = {
  currentStage: v.optional(v.string()),
  progressPercentage: v.optional(v.number()),
  estimatedCompletionSeconds: v.optional(v.number()),
  estimatedCompletionTime: v.optional(v.number()),
  stagesCompleted: v.optional(v.number()),
  totalStages: v.optional(v.number()),

  processingStartedAt: v.optional(v.number()),
  processingCompletedAt: v.optional(v.number()),
  lastProgressUpdate: v.optional(v.number()),

  errorType: v.optional(v.string()),
  errorCode: v.optional(v.string()),
  isRetryable: v.optional(v.boolean()),
  retryCount: v.optional(v.number()),
  supportReference: v.optional(v.string()),

  webhookUrls: v.optional(v.array(v.string())),
  webhookEvents: v.optional(v.array(v.string())),
};

/** Where a video's results lie, under the names that the analysis API answers with. */
export const urlFields = {
  video_url: v.optional(v.string()),
  audio_url: v.optional(v.string()),
  waveform_url: v.optional(v.string()),
  transcript_url: v.optional(v.string()),
  transcriptWords_url: v.optional(v.string()),
  chat_url: v.optional(v.string()),
  analysis_url: v.optional(v.string()),
  highlights_url: v.optional(v.string()),
  audio_sentiment_url: v.optional(v.string()),
  chat_sentiment_url: v.optional(v.string()),
};

/** The names that older rows and older pipelines use for some of the same files. */
export const legacyUrlFields = {
  transcriptUrl: v.optional(v.string()),
  transcriptWordUrl: v.optional(v.string()),
  chatUrl: v.optional(v.string()),
  audiowaveUrl: v.optional(v.string()),
  transcriptAnalysisUrl: v.optional(v.string()),
};

/** One row a video; its progress is that of the job which owns it. */
export const videoFields = {
  twitchId: v.string(),
  title: v.optional(v.string()),
  status: v.optional(v.string()),
  ...urlFields,
  ...legacyUrlFields,
  jobId: v.optional(v.string()),
  ...progressFields,
};

/** One row a job. `incarnation` and `sequence` are those of the newest event applied. */
export const jobFields = {
  jobId: v.string(),
  incarnation: v.string(),
  sequence: v.number(),
  status: jobStatus,
  createdAt: v.number(),
  videoId: v.optional(v.string()),
  owner: v.optional(v.string()),
  resultUrls: v.optional(v.record(v.string(), v.string())),
  ...progressFields,
};

/** One row a finished job. Stages are a list, since their names are free text. */
export const analyticsFields = {
  jobId: v.string(),
  incarnation: v.string(),
  sequence: v.number(),
  status: jobStatus,
  videoId: v.optional(v.string()),
  owner: v.optional(v.string()),
  stages: v.array(v.object({ stage: v.string(), seconds: v.number() })),
  queuedSeconds: v.optional(v.number()),
  processingSeconds: v.optional(v.number()),
  totalSeconds: v.optional(v.number()),
  stagesCompleted: v.optional(v.number()),
  totalStages: v.optional(v.number()),
  retryCount: v.optional(v.number()),
  errorCount: v.optional(v.number()),
  errorType: v.optional(v.string()),
  errorCode: v.optional(v.string()),
  createdAt: v.optional(v.number()),
  finishedAt: v.optional(v.number()),
};

/** What a webhook subscribes to. Neither its secret nor its headers are ever sent here. */
export const webhookConfigFields = {
  webhookId: v.string(),
  revision: v.number(),
  owner: v.optional(v.string()),
  url: v.optional(v.string()),
  events: v.optional(v.array(v.string())),
  jobId: v.optional(v.string()),
  status: v.optional(v.union(v.literal("active"), v.literal("paused"), v.literal("disabled"))),
  disabledReason: v.optional(v.string()),
  description: v.optional(v.string()),
  filter: v.optional(v.string()),
  fields: v.optional(v.array(v.string())),
  timeoutSeconds: v.optional(v.number()),
  maxRetries: v.optional(v.number()),
  maxPerSecond: v.optional(v.number()),
  createdAt: v.optional(v.number()),
  updatedAt: v.optional(v.number()),
};

/** One row a migration that was begun; `processed` and `changed` count documents of this direction. */
export const schemaMigrationFields = {
  name: v.string(),
  version: v.number(),
  direction: v.union(v.literal("up"), v.literal("down")),
  state: v.union(v.literal("running"), v.literal("completed"), v.literal("failed")),
  processed: v.number(),
  changed: v.number(),
  startedAt: v.number(),
  finishedAt: v.optional(v.number()),
  confirmedAt: v.optional(v.number()),
  error: v.optional(v.string()),
};

/** What a migration overwrote in one document. A side that is absent stands for a field that was. */
export const migrationBackupFields = {
  migration: v.string(),
  table: v.string(),
  documentId: v.string(),
  fields: v.array(
    v.object({ field: v.string(), before: v.optional(v.any()), after: v.optional(v.any()) }),
  ),
};
