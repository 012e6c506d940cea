// Which webhooks exist, for the web app to show. Signing secrets never leave the gateway.
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import { internalMutation, internalQuery } from "./_generated/server";
import { refuse, requireCount, requireName, requirePageSize } from "./errors";
import { webhookConfigFields } from "./fields";

const configRow = v.object({
  ...webhookConfigFields,
  deleted: v.boolean(),
  _id: v.id("webhookConfigs"),
  _creationTime: v.number(),
});

/**
 * Keep a webhook's newest revision, whole. A deletion leaves a tombstone, so that a revision which
 * arrives late cannot bring the webhook back.
 */
export const storeConfig = internalMutation({
  args: { ...webhookConfigFields, deleted: v.optional(v.boolean()) },
  returns: v.object({ applied: v.boolean(), revision: v.number() }),
  handler: async (ctx, args) => {
    requireName("webhookId", args.webhookId);
    requireCount("revision", args.revision);
    const deleted = args.deleted ?? false;
    if (!deleted && (args.url === undefined || args.events === undefined)) {
      refuse("INVALID_ARGUMENT", "a webhook that is not deleted has a url and events");
    }
    const known = await ctx.db
      .query("webhookConfigs")
      .withIndex("by_webhookId", (q) => q.eq("webhookId", args.webhookId))
      .first();
    if (known !== null && (known.deleted || args.revision <= known.revision)) {
      return { applied: false, revision: known.revision };
    }
    const { webhookId, revision, updatedAt } = args;
    const owner = args.owner ?? known?.owner;
    const config = deleted
      ? { webhookId, revision, owner, updatedAt, deleted }
      : { ...args, owner, deleted };
    if (known === null) await ctx.db.insert("webhookConfigs", config);
    else await ctx.db.replace(known._id, config);
    return { applied: true, revision };
  },
});

/** Webhooks that are not deleted, youngest first: one owner's, or everyone's. */
export const list = internalQuery({
  args: { owner: v.optional(v.string()), paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(configRow),
  handler: async (ctx, { owner, paginationOpts }) => {
    requirePageSize(paginationOpts.numItems);
    const configs = ctx.db.query("webhookConfigs");
    const wanted =
      owner === undefined
        ? configs.withIndex("by_deleted", (q) => q.eq("deleted", false))
        : configs.withIndex("by_owner_and_deleted", (q) => q.eq("owner", owner).eq("deleted", false));
    return await wanted.order("desc").paginate(paginationOpts);
  },
});
