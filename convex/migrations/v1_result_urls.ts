// Older rows know some result files by other names. They get today's names too; the old ones stay, as
// an older web app reads them.
import type { Doc } from "../_generated/dataModel";
import { reversible } from "./reversible";

const CURRENT_NAME = {
  transcriptUrl: "transcript_url",
  transcriptWordUrl: "transcriptWords_url",
  chatUrl: "chat_url",
  audiowaveUrl: "waveform_url",
  transcriptAnalysisUrl: "analysis_url",
} as const;

export function resultUrls(video: Doc<"videos">): Partial<Doc<"videos">> {
  const added: Partial<Doc<"videos">> = {};
  for (const [legacy, current] of Object.entries(CURRENT_NAME)) {
    const url = video[legacy as keyof typeof CURRENT_NAME];
    if (url !== undefined && video[current] === undefined) added[current] = url;
  }
  return added;
}

export const { up, down } = reversible("v1_result_urls", "videos", resultUrls);
