"""What a completed analysis yields: addresses of files, and figures."""

from __future__ import annotations

from typing import Any


def source_urls(video_id: str) -> dict[str, Any]:
    """The addresses that a creation promises."""
    sources = f"gs://klipstream-vods-raw/{video_id}"
    transcripts = f"gs://klipstream-transcripts/{video_id}"
    analysis = f"gs://klipstream-analysis/{video_id}"
    return {
        "video_url": f"{sources}/video.mp4",
        "audio_url": f"{sources}/audio.mp3",
        "waveform_url": f"{sources}/waveform.json",
        "transcript_url": f"{transcripts}/segments.csv",
        "transcriptWords_url": f"{transcripts}/words.csv",
        "chat_url": f"gs://klipstream-chatlogs/{video_id}/chat.csv",
        "analysis_url": f"{analysis}/audio/audio_{video_id}_sentiment.csv",
    }


_FIGURES: dict[str, Any] = {
    "video_duration_seconds": None,
    "transcript_word_count": None,
    "highlights_count": 3,
    "sentiment_score": None,
    "processing_time_seconds": 12.5,
    "file_sizes": None,
}


def stream_results(video_id: str) -> dict[str, Any]:
    """The results in the `completed` event of a stream, the only ones with addresses."""
    analysis = f"gs://klipstream-analysis/{video_id}"
    return (
        source_urls(video_id)
        | {
            "highlights_url": f"{analysis}/audio/audio_{video_id}_highlights.csv",
            "audio_sentiment_url": f"{analysis}/audio/audio_{video_id}_sentiment.csv",
            "chat_sentiment_url": f"{analysis}/chat/{video_id}_chat_sentiment.csv",
            "integrated_analysis_url": f"{analysis}/integrated_{video_id}.json",
        }
        | _FIGURES
    )


def detail_results() -> dict[str, Any]:
    """The results in the details, which the API never tells the addresses."""
    names = [*source_urls(""), "highlights_url", "audio_sentiment_url", "chat_sentiment_url"]
    absent = ("transcription_method_used", "transcription_cost_estimate", "gpu_used")
    return dict.fromkeys(names) | _FIGURES | dict.fromkeys(absent)
