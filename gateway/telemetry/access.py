"""The access line: one for every request, so it is made without structlog.

It has the schema, the redaction and, in JSON, the very bytes that the processors would make.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.settings.telemetry import Log
from gateway.telemetry.log import cleaned, get_logger, is_secret_name, safe_text
from gateway.telemetry.sink import Stream

LOGGER, EVENT = "access", "request"
# Fields of the gateway's own making: none is a secret. Those a client has a hand in are masked.
_MASKED = ("path", "request_id")

# Takes the fields that policies added and those of every line, by name.
WriteLine = Callable[[Mapping[str, Any], dict[str, Any]], None]


# Takes what differs between lines of equal requests: id, status, bytes, seconds, epoch seconds.
WriteAgain = Callable[[str, int, int, float, float], None]


def repeated(write_line: WriteLine, added: Mapping[str, Any], fields: dict[str, Any]) -> WriteAgain:
    """What writes lines as `write_line` would of these fields, again and again.

    Of `added` only counts (mappings of integers) may change meanwhile.
    """
    if isinstance(write_line, JsonLines):
        return write_line.again(added, fields)

    def write(request_id: str, status: int, size: int, seconds: float, _at: float) -> None:
        differing = {
            "status": status,
            "duration_seconds": seconds,
            "bytes": size,
            "request_id": request_id,
        }
        write_line(added, fields | differing)

    return write


def through_structlog(added: Mapping[str, Any], fields: dict[str, Any]) -> None:
    """The line as structlog is configured: for consoles, and for tests."""
    get_logger(LOGGER).info(EVENT, **{**added, **fields})


def access_writer(
    log: Log, stream: Stream = sys.stdout, now: Callable[[], float] = time.time
) -> WriteLine:
    """What writes access lines under these settings."""
    if log.level in ("warning", "error"):
        return lambda _added, _fields: None
    return through_structlog if log.format == "console" else JsonLines(stream, now)


class JsonLines:
    """Access lines as JSON; a line that its stream does not take is dropped and counted."""

    def __init__(self, stream: Stream, now: Callable[[], float]) -> None:
        self.dropped = 0
        self._stream = stream
        self._now = now
        self._second = -1
        self._prefix = ""

    def __call__(self, added: Mapping[str, Any], fields: dict[str, Any]) -> None:
        """Write a line."""
        self._write(self._line({name: cleaned(name, added[name]) for name in added}, fields))

    def again(self, added: Mapping[str, Any], fields: dict[str, Any]) -> WriteAgain:
        """See `repeated`."""
        told: dict[str, Any] = {
            # Counts are told as they are at each line; whatever else was added stays as it was.
            name: value if _are_counts(name, value) else cleaned(name, value)
            for name, value in added.items()
        }
        line = self._line(told, fields)

        def write(request_id: str, status: int, size: int, seconds: float, at: float) -> None:
            line["timestamp"] = self._timestamp(at)
            line["status"] = status
            line["duration_seconds"] = seconds
            line["bytes"] = size
            line["request_id"] = request_id
            self._write(line)

        return write

    def _line(self, added: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
        for name in _MASKED:
            fields[name] = safe_text(fields[name])
        first = {
            "timestamp": self._timestamp(self._now()),
            "level": "info",
            "logger": LOGGER,
            "event": EVENT,
        }
        return first | added | fields

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._stream.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).decode())
            self._stream.flush()
        except (OSError, ValueError):  # its reader stands still or is gone
            self.dropped += 1

    def _timestamp(self, at: float) -> str:
        """RFC 3339 in UTC; what stands before the fraction is made once a second."""
        second = int(at)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._prefix}{int((at - second) * 1e6):06d}Z"


def _are_counts(name: str, value: object) -> bool:
    return (
        isinstance(value, dict)
        and not is_secret_name(name)
        and all(type(each) is int and not is_secret_name(key) for key, each in value.items())
    )
