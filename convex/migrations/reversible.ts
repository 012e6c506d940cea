// A migration and its way back. `up` keeps what it overwrites, field by field, before it overwrites it;
// `down` walks what was kept and restores it. Both run in batches, each one transaction: whatever
// instant a run dies at, no document is changed without its backup, and none is restored by half.
import { Migrations } from "@convex-dev/migrations";
import { type Value, compareValues } from "convex/values";
import { components } from "../_generated/api";
import type { DataModel, Doc, Id, TableNames } from "../_generated/dataModel";
import { internalMutation, type MutationCtx } from "../_generated/server";
import schema from "../schema";

const component = new Migrations<DataModel, typeof schema>(components.migrations, {
  internalMutation,
  schema,
});

type Kept = Doc<"migrationBackups">;
type Fields = Record<string, Value | undefined>;

/**
 * `change` says which fields of a document get which values (undefined removes one), and null or
 * nothing for a document that needs none. It must be pure, and null for what it made itself.
 */
export function reversible<Table extends TableNames>(
  migration: string,
  table: Table,
  change: (document: Doc<Table>) => Partial<Doc<Table>> | null,
) {
  return {
    up: component.define({
      table,
      migrateOne: (ctx, document) =>
        naming(table, document._id, async () => {
          const after = change(document as Doc<Table>) as Fields | null;
          const fields = differences(document as unknown as Fields, after ?? {});
          if (fields.length === 0) return;
          const documentId: string = document._id;
          await ctx.db.insert("migrationBackups", { migration, table, documentId, fields });
          await ctx.db.patch(document._id as Id<TableNames>, after as Partial<Doc<TableNames>>);
        }),
    }),
    down: component.define({
      table: "migrationBackups",
      customRange: (kept) =>
        kept.withIndex("by_migration", (q) => q.eq("migration", migration)).order("asc"),
      migrateOne: (ctx, kept) => naming(table, kept.documentId, () => restore(ctx, table, kept)),
    }),
  };
}

function differences(document: Fields, after: Fields): Kept["fields"] {
  return Object.entries(after)
    .filter(([field, value]) => compareValues(document[field], value) !== 0)
    .map(([field, value]) => ({ field, before: document[field], after: value }));
}

/** Put back what was overwritten. A field that was written since keeps its newer value. */
async function restore(ctx: MutationCtx, table: TableNames, kept: Kept): Promise<void> {
  const id = ctx.db.normalizeId(table, kept.documentId);
  const document = id && ((await ctx.db.get(id)) as Fields | null);
  if (id && document) {
    const untouched = kept.fields.filter(
      ({ field, after }) => compareValues(document[field], after as Value | undefined) === 0,
    );
    const before = Object.fromEntries(untouched.map((each) => [each.field, each.before]));
    await ctx.db.patch(id, before as Partial<Doc<TableNames>>);
  }
  await ctx.db.delete(kept._id);
}

/** Have a failure name the document: "failed" alone among 10,000 helps nobody. */
async function naming(table: string, id: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new Error(`${table} ${id}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
