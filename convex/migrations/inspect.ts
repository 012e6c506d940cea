// What is deployed, for `gateway migrate check` and `validate`: the schema, the functions that the
// gateway calls, and the documents themselves.
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import type { TableNames } from "../_generated/dataModel";
import { internalQuery } from "../_generated/server";
import { refuse, requirePageSize } from "../errors";
import * as jobs from "../jobs";
import schema from "../schema";
import * as webhooks from "../webhooks";

/** A registered function says its validators as JSON text; the public types leave that out. */
interface Described {
  isMutation?: boolean;
  exportArgs(): string;
  exportReturns(): string;
}

const CALLED = {
  "jobs:updateProgress": jobs.updateProgress,
  "jobs:trackAnalytics": jobs.trackAnalytics,
  "jobs:history": jobs.history,
  "webhooks:storeConfig": webhooks.storeConfig,
};

/** The schema and the validators of the functions, as the JSON texts that a deployment works with. */
export function describe() {
  return {
    schema: (schema as unknown as { export(): string }).export(),
    functions: Object.entries(CALLED).map(([path, registered]) => {
      const described = registered as unknown as Described;
      return {
        path,
        kind: described.isMutation ? ("mutation" as const) : ("query" as const),
        args: described.exportArgs(),
        returns: described.exportReturns(),
      };
    }),
  };
}

/** What is deployed here. */
export const contract = internalQuery({
  args: {},
  returns: v.object({
    schema: v.string(),
    functions: v.array(
      v.object({
        path: v.string(),
        kind: v.union(v.literal("query"), v.literal("mutation")),
        args: v.string(),
        returns: v.string(),
      }),
    ),
  }),
  handler: () => Promise.resolve(describe()),
});

/** A page of a table's documents, whole, oldest first. */
export const documents = internalQuery({
  args: { table: v.string(), paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(v.any()),
  handler: async (ctx, { table, paginationOpts }) => {
    requirePageSize(paginationOpts.numItems);
    return await ctx.db.query(known(table)).paginate(paginationOpts);
  },
});

/**
 * How many documents a page of a table has: summed up over the pages, how many there are. With
 * `migration`, of the backups those that it keeps.
 */
export const count = internalQuery({
  args: {
    table: v.string(),
    migration: v.optional(v.string()),
    paginationOpts: paginationOptsValidator,
  },
  returns: v.object({ number: v.number(), isDone: v.boolean(), continueCursor: v.string() }),
  handler: async (ctx, { table, migration, paginationOpts }) => {
    requirePageSize(paginationOpts.numItems);
    const documents =
      migration === undefined
        ? ctx.db.query(known(table))
        : ctx.db
            .query("migrationBackups")
            .withIndex("by_migration", (q) => q.eq("migration", migration));
    const { page, isDone, continueCursor } = await documents.paginate(paginationOpts);
    return { number: page.length, isDone, continueCursor };
  },
});

function known(table: string): TableNames {
  if (!Object.hasOwn(schema.tables, table)) {
    refuse("UNKNOWN_TABLE", `the deployed schema has no table ${table}`);
  }
  return table as TableNames;
}
