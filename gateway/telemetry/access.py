"""The access line: one for every request, so it is made without structlog.

It has the schema, the redaction and, in JSON, the very bytes that the processors would make.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.settings.model import Log
from gateway.telemetry.log import cleaned, get_logger, safe_text
from gateway.telemetry.sink import Stream

LOGGER, EVENT = "access", "request"
# Fields of the gateway's own making: none is a secret. Those a client has a hand in are masked.
_MASKED = ("path", "request_id")

# Takes the fields that policies added and those of every line, by name.
WriteLine = Callable[[Mapping[str, Any], dict[str, Any]], None]


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
        for name in _MASKED:
            fields[name] = safe_text(fields[name])
        line: dict[str, object] = {
            "timestamp": self._timestamp(self._now()),
            "level": "info",
            "logger": LOGGER,
            "event": EVENT,
        }
        for name, value in added.items():
            line[name] = cleaned(name, value)
        line |= fields
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
