// `errorCount` was not kept from the first. A job ends with at most one error, and failing is one.
import type { Doc } from "../_generated/dataModel";
import { reversible } from "./reversible";

export function errorCount(row: Doc<"jobAnalytics">): Partial<Doc<"jobAnalytics">> | null {
  if (row.errorCount !== undefined) return null;
  const failed = row.status === "failed" || row.errorType !== undefined || row.errorCode !== undefined;
  return { errorCount: failed ? 1 : 0 };
}

export const { up, down } = reversible("v2_error_counts", "jobAnalytics", errorCount);
