// What `gateway migrate` drives: one batch a call, so that whoever calls can die and go on later.
import { createFunctionHandle } from "convex/server";
import { ConvexError, type Infer, v } from "convex/values";
import { components } from "../_generated/api";
import type { Doc } from "../_generated/dataModel";
import { internalMutation, internalQuery, type MutationCtx, type QueryCtx } from "../_generated/server";
import { refuse, requirePageSize } from "../errors";
import { schemaMigrationFields } from "../fields";
import { type Direction, functionOf, type Migration, migrations, pathOf } from "./list";

type Row = Doc<"schemaMigrations">;

const progress = v.object({
  direction: schemaMigrationFields.direction,
  state: schemaMigrationFields.state,
  processed: v.number(),
  changed: v.number(),
  cursor: v.union(v.string(), v.null()),
  error: v.optional(v.string()),
});
type Progress = Infer<typeof progress>;

/** Every migration of the deployed code, oldest first, and what became of it. */
export const status = internalQuery({
  args: {},
  returns: v.array(
    v.object({
      name: v.string(),
      version: v.number(),
      table: v.string(),
      description: v.string(),
      run: v.union(v.object(schemaMigrationFields), v.null()),
    }),
  ),
  handler: async (ctx) =>
    Promise.all(
      migrations.map(async (migration) => ({ ...migration, run: bare(await rowOf(ctx, migration)) })),
    ),
});

/**
 * Run one batch in one transaction: `up` in the order of the versions, `down` against it. A run that
 * stopped goes on where it stood; one that is complete does nothing. `dryRun` does the same writes,
 * from `cursor` on, and undoes them: it throws a ConvexError DRY_RUN with the progress.
 * A document that cannot be migrated fails its batch alone; the answer's `error` names it.
 */
export const step = internalMutation({
  args: {
    name: v.string(),
    direction: schemaMigrationFields.direction,
    batchSize: v.number(),
    dryRun: v.boolean(),
    cursor: v.optional(v.union(v.string(), v.null())),
  },
  returns: progress,
  handler: async (ctx, args) => {
    requirePageSize(args.batchSize, "batchSize");
    const migration = find(args.name);
    const row = await rowOf(ctx, migration);
    const { direction, dryRun } = args;
    if (!dryRun || direction === "down") await checkOrder(ctx, migration, row, direction);
    if (row?.direction === direction && row.state === "completed") {
      return stop(dryRun, { ...tally(row), direction, state: "completed", cursor: null });
    }
    const isResumed = row?.direction === direction && !dryRun;
    const cursor = dryRun ? (args.cursor ?? null) : isResumed ? undefined : null;
    const before = isResumed ? tally(row) : { processed: 0, changed: 0 };
    const newest = await newestBackup(ctx, migration.name);
    const batch = await ctx.runMutation(components.migrations.lib.migrate, {
      name: pathOf(migration.name, direction),
      fnHandle: await createFunctionHandle(functionOf(migration.name, direction)),
      cursor,
      batchSize: args.batchSize,
      oneBatchOnly: true,
      dryRun: false,
    });
    const processed = batch.processed;
    const changed =
      direction === "down" ? processed : before.changed + (await backupsSince(ctx, migration.name, newest));
    const state = batch.error !== undefined ? "failed" : batch.isDone ? "completed" : "running";
    const done: Progress = { direction, state, processed, changed, cursor: batch.cursor ?? null };
    if (batch.error !== undefined) done.error = batch.error;
    if (!dryRun) await write(ctx, migration, isResumed ? row : null, row, done);
    return stop(dryRun, done);
  },
});

/** Forget what an applied migration kept, a batch a call; then it cannot be rolled back any more. */
export const confirm = internalMutation({
  args: { name: v.string(), batchSize: v.number() },
  returns: v.object({ forgotten: v.number(), isDone: v.boolean() }),
  handler: async (ctx, { name, batchSize }) => {
    requirePageSize(batchSize, "batchSize");
    const row = await rowOf(ctx, find(name));
    if (row?.direction !== "up" || row.state !== "completed") {
      refuse("NOT_APPLIED", `${name} is not applied, so there is nothing to confirm`);
    }
    // Marked first: half of what was kept cannot bring all of it back.
    if (row.confirmedAt === undefined) await ctx.db.patch(row._id, { confirmedAt: Date.now() });
    const kept = await ctx.db
      .query("migrationBackups")
      .withIndex("by_migration", (q) => q.eq("migration", name))
      .take(batchSize);
    for (const each of kept) await ctx.db.delete(each._id);
    return { forgotten: kept.length, isDone: kept.length < batchSize };
  },
});

function find(name: string): Migration {
  const known = migrations.map((each) => each.name).join(", ");
  return (
    migrations.find((each) => each.name === name) ??
    refuse("UNKNOWN_MIGRATION", `there is no migration ${name}; known: ${known}`)
  );
}

function rowOf(ctx: QueryCtx, migration: Migration): Promise<Row | null> {
  return ctx.db
    .query("schemaMigrations")
    .withIndex("by_name", (q) => q.eq("name", migration.name))
    .first();
}

function bare(row: Row | null) {
  if (row === null) return null;
  const { _id, _creationTime, ...fields } = row;
  return fields;
}

const tally = ({ processed, changed }: Row) => ({ processed, changed });

const isApplied = (row: Row | null): boolean => row?.direction === "up" && row.state === "completed";

async function checkOrder(
  ctx: QueryCtx,
  migration: Migration,
  row: Row | null,
  direction: Direction,
): Promise<void> {
  if (direction === "down") {
    if (row === null) refuse("NOT_APPLIED", `${migration.name} was never applied`);
    if (row.confirmedAt !== undefined && row.direction === "up") {
      refuse("CONFIRMED", `${migration.name} was confirmed: what it overwrote is gone`);
    }
  }
  for (const other of migrations) {
    const isEarlier = other.version < migration.version;
    const otherRow = await rowOf(ctx, other);
    if (direction === "up" && isEarlier && !isApplied(otherRow)) {
      refuse("OUT_OF_ORDER", `${other.name} comes before ${migration.name}, and is not applied`);
    }
    const isDown = otherRow === null || (otherRow.direction === "down" && otherRow.state === "completed");
    if (direction === "down" && other.version > migration.version && !isDown) {
      refuse("OUT_OF_ORDER", `${other.name} came after ${migration.name}: roll that back first`);
    }
  }
}

async function newestBackup(ctx: QueryCtx, migration: string): Promise<number> {
  const newest = await ctx.db
    .query("migrationBackups")
    .withIndex("by_migration", (q) => q.eq("migration", migration))
    .order("desc")
    .first();
  return newest?._creationTime ?? -1;
}

async function backupsSince(ctx: QueryCtx, migration: string, time: number): Promise<number> {
  const made = await ctx.db
    .query("migrationBackups")
    .withIndex("by_migration", (q) => q.eq("migration", migration).gt("_creationTime", time))
    .collect();
  return made.length;
}

async function write(
  ctx: MutationCtx,
  { name, version }: Migration,
  resumed: Row | null,
  known: Row | null,
  { cursor: _, ...done }: Progress,
): Promise<void> {
  const startedAt = resumed?.startedAt ?? Date.now();
  const finishedAt = done.state === "completed" ? Date.now() : undefined;
  const row = { name, version, startedAt, finishedAt, ...done };
  if (known === null) await ctx.db.insert("schemaMigrations", row);
  else await ctx.db.replace(known._id, row);
}

/** A dry run ends in an error, which undoes the transaction. */
function stop(dryRun: boolean, done: Progress): Progress {
  if (dryRun) throw new ConvexError({ code: "DRY_RUN", progress: done });
  return done;
}
