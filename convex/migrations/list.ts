// Every migration, oldest first; its version is its place. What was released never changes here.
import type { MigrationFunctionReference } from "@convex-dev/migrations";
import { makeFunctionReference } from "convex/server";
import type { TableNames } from "../_generated/dataModel";

export type Direction = "up" | "down";

export interface Migration {
  name: string;
  version: number;
  table: TableNames;
  description: string;
}

export const migrations: readonly Migration[] = (
  [
    ["v1_result_urls", "videos", "result URLs under their old names get today's names too"],
    ["v2_error_counts", "jobAnalytics", "analytics from before errorCount get one"],
    ["v3_video_status", "videos", "a stage in a video's status becomes a status and a stage"],
  ] as const
).map(([name, table, description], place) => ({ name, version: place + 1, table, description }));

/** `migrations/v1_result_urls:up`, which is also the component's name for this direction's progress. */
export function pathOf(name: string, direction: Direction): string {
  return `migrations/${name}:${direction}`;
}

export function functionOf(name: string, direction: Direction): MigrationFunctionReference {
  return makeFunctionReference<"mutation">(
    pathOf(name, direction),
  ) as unknown as MigrationFunctionReference;
}
