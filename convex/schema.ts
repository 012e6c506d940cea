// The tables that the gateway writes. `videos` belongs to the frontend: every field but `twitchId` is
// optional, so that rows from before the gateway stay valid.
import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";
import {
  analyticsFields,
  jobFields,
  migrationBackupFields,
  schemaMigrationFields,
  videoFields,
  webhookConfigFields,
} from "./fields";

export default defineSchema({
  videos: defineTable(videoFields)
    .index("by_twitchId", ["twitchId"])
    .index("by_jobId", ["jobId"])
    .index("by_status", ["status"]),

  jobs: defineTable(jobFields)
    .index("by_jobId", ["jobId"])
    .index("by_createdAt", ["createdAt"])
    .index("by_videoId_and_createdAt", ["videoId", "createdAt"])
    .index("by_owner_and_createdAt", ["owner", "createdAt"])
    .index("by_owner_and_status_and_createdAt", ["owner", "status", "createdAt"])
    .index("by_status_and_createdAt", ["status", "createdAt"]),

  jobAnalytics: defineTable(analyticsFields)
    .index("by_jobId", ["jobId"])
    .index("by_videoId", ["videoId"])
    .index("by_status_and_finishedAt", ["status", "finishedAt"])
    .index("by_finishedAt", ["finishedAt"]),

  webhookConfigs: defineTable({ ...webhookConfigFields, deleted: v.boolean() })
    .index("by_webhookId", ["webhookId"])
    .index("by_deleted", ["deleted"])
    .index("by_owner_and_deleted", ["owner", "deleted"]),

  schemaMigrations: defineTable(schemaMigrationFields)
    .index("by_name", ["name"])
    .index("by_version", ["version"]),

  migrationBackups: defineTable(migrationBackupFields).index("by_migration", ["migration"]),
});
