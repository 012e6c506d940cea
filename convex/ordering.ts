// Which of two things is newer. A reply can be lost after its commit, and a retry may arrive late:
// every write is compared by these rules before it is applied.
import type { Infer } from "convex/values";
import type { jobStatus } from "./fields";

export type JobStatus = Infer<typeof jobStatus>;

export interface Position {
  incarnation: string;
  sequence: number;
}

/** The gateway whose store is younger knows better; within one store, the later event does. */
export function isNewer(candidate: Position, known: Position): boolean {
  if (candidate.incarnation !== known.incarnation) {
    return candidate.incarnation > known.incarnation;
  }
  return candidate.sequence > known.sequence;
}

export function isTerminal(status: JobStatus): boolean {
  return status !== "queued" && status !== "running";
}

/** Two jobs of one video created in the same millisecond are told apart by id, so that both orders agree. */
export function isYounger(
  job: { createdAt: number; jobId: string },
  other: { createdAt: number; jobId: string },
): boolean {
  if (job.createdAt !== other.createdAt) return job.createdAt > other.createdAt;
  return job.jobId > other.jobId;
}
