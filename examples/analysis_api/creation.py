"""Reading a creation request, with the complaints that FastAPI and pydantic would make."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TWITCH = re.compile(r"https://www\.twitch\.tv/videos/([0-9]+)")
_CALLBACK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/]+\S*")
_METHODS = ("auto", "parakeet", "deepgram", "hybrid")
_SWITCHES = ("enable_gpu", "enable_fallback", "cost_optimization")
_NOT_A_MODEL = "Input should be a valid dictionary or object to extract fields from"


@dataclass(frozen=True)
class Creation:
    """What a client asks for. `transcription_config` is complete, its defaults filled in."""

    url: str
    transcription_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def video_id(self) -> str | None:
        """The id in the URL, or None where it is not the URL of a Twitch recording."""
        found = _TWITCH.fullmatch(self.url)
        return found[1] if found else None


class InvalidCreationError(Exception):
    """A body that does not validate. `errors` is the list that the 422 shows."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


def read_creation(body: bytes, content_type: str) -> Creation:
    """The creation in `body`; raises InvalidCreationError where the API would answer 422."""
    document = _document(body, content_type)
    if not isinstance(document, dict):
        raise InvalidCreationError(
            [_complaint("model_attributes_type", ["body"], _NOT_A_MODEL, document)]
        )
    errors = [*_url_errors(document), *_callback_errors(document), *_config_errors(document)]
    if errors:
        raise InvalidCreationError(errors)
    config = {"method": "auto"} | dict.fromkeys(_SWITCHES, True)
    asked = document.get("transcription_config") or {}
    return Creation(document["url"], config | {k: v for k, v in asked.items() if k in config})


def _complaint(kind: str, place: list[Any], message: str, found: Any) -> dict[str, Any]:
    return {"type": kind, "loc": place, "msg": message, "input": found}


def _document(body: bytes, content_type: str) -> Any:
    if not body:
        raise InvalidCreationError([_complaint("missing", ["body"], "Field required", None)])
    if not content_type.partition(";")[0].strip().lower().endswith("json"):
        return body.decode(errors="replace")
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        complaint = _complaint("json_invalid", ["body", error.pos], "JSON decode error", {})
        raise InvalidCreationError([complaint | {"ctx": {"error": error.msg}}]) from error
    except UnicodeDecodeError as error:
        complaint = _complaint("json_invalid", ["body", error.start], "JSON decode error", {})
        raise InvalidCreationError([complaint | {"ctx": {"error": error.reason}}]) from error


def _url_errors(document: dict[str, Any]) -> list[dict[str, Any]]:
    if "url" not in document:
        return [_complaint("missing", ["body", "url"], "Field required", document)]
    if not isinstance(document["url"], str):
        message = "Input should be a valid string"
        return [_complaint("string_type", ["body", "url"], message, document["url"])]
    return []


def _callback_errors(document: dict[str, Any]) -> list[dict[str, Any]]:
    url = document.get("callback_url")
    place = ["body", "callback_url"]
    if url is None:
        return []
    if not isinstance(url, str):
        return [_complaint("url_type", place, "URL input should be a string or URL", url)]
    if not _CALLBACK.fullmatch(url):
        message = "Input should be a valid URL, relative URL without a base"
        return [_complaint("url_parsing", place, message, url)]
    return []


def _config_errors(document: dict[str, Any]) -> list[dict[str, Any]]:
    config = document.get("transcription_config")
    place = ["body", "transcription_config"]
    if config is None:
        return []
    if not isinstance(config, dict):
        return [_complaint("model_attributes_type", place, _NOT_A_MODEL, config)]
    errors = []
    method = config.get("method", "auto")
    if method not in _METHODS:
        message = "Input should be 'auto', 'parakeet', 'deepgram' or 'hybrid'"
        errors.append(_complaint("enum", [*place, "method"], message, method))
    errors += [
        _complaint("bool_type", [*place, name], "Input should be a valid boolean", config[name])
        for name in _SWITCHES
        if not isinstance(config.get(name, True), bool)
    ]
    return errors
