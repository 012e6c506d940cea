// The pipeline once wrote the name of its stage as a video's status. Status becomes one of the five
// words that jobs have, the stage goes to `currentStage`, so that one index finds what is running.
// Words that are not the pipeline's are the web app's own, and stay.
import type { Doc } from "../_generated/dataModel";
import { reversible } from "./reversible";

const STATUS_OF_STAGE: Record<string, string> = {
  Queued: "queued",
  Downloading: "running",
  "Generating waveform": "running",
  Transcribing: "running",
  "Fetching chat": "running",
  Analyzing: "running",
  "Finding highlights": "running",
  Completed: "completed",
  Failed: "failed",
};

export function videoStatus(video: Doc<"videos">): Partial<Doc<"videos">> | null {
  const stage = video.status ?? "";
  const status = Object.hasOwn(STATUS_OF_STAGE, stage) ? STATUS_OF_STAGE[stage] : undefined;
  if (status === undefined) return null;
  return video.currentStage === undefined ? { status, currentStage: stage } : { status };
}

export const { up, down } = reversible("v3_video_status", "videos", videoStatus);
