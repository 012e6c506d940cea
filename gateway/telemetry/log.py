"""Structured logs: one JSON object a line in production, columns for people in development.

Every line passes `redact`: a key, secret or credential never leaves the process, whoever logged it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache

import orjson
import structlog
from structlog.types import EventDict, FilteringBoundLogger, Processor

from gateway.settings.telemetry import Log
from gateway.telemetry.sink import Stream

REDACTED = "[redacted]"
MAX_TEXT = 16 * 1024  # characters of one value; a traceback fits
MAX_DEPTH = 8  # nesting of one value

_SECRET_NAMES = (
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "deploy_key",
    "password",
    "secret",
    "secret_key",
    "signature",
    "token",
)
_SECRET_VALUES = (
    re.compile(r"\bgw_[0-9a-f]{16,}"),
    re.compile(r"\bgwt_[A-Za-z0-9._%-]+"),
    re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+"),
    re.compile(r"(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}"),
    # A Convex deploy key holds a '|'; the sentence "Convex https://… is away" is not one.
    re.compile(r"\bConvex\s+(?:[^\s|\"']+\|[^\s\"']+|(?!https?://)[^\s\"']{32,})"),
    re.compile(r"\b[\w-]+:[\w-]+\|[A-Za-z0-9+/=_.-]{8,}"),  # the same without its scheme
    re.compile(r"(?<=://)[^/\s@\"']+(?=@)"),
)
# As tuples: a union would be made anew at every value of every line.
_PLAIN = (bool, float, type(None))  # what JSON holds as it is, and can be no secret
_BYTES = (bytes, bytearray)
_MAPPINGS = (dict, Mapping)  # a dict is told at once, a Mapping by asking around
_LISTS = (AbstractSet, Sequence)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FIRST = ("timestamp", "level", "logger", "event")


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `logger: name`.

    It takes the configuration in force at each call, so a module may hold one from its import on.
    """
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def configure(log: Log, stream: Stream = sys.stdout) -> None:
    """Send every log line, the libraries' included, to `stream` in the format of `log`."""
    level = logging.getLevelNamesMapping()[log.level.upper()]
    final: list[Processor] = [_in_order, _render_json]
    if log.format == "console":
        final = [_escape_controls, _console(stream)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redact,
            *final,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name="gateway", *_: LineWriter(stream, name),
        cache_logger_on_first_use=False,
    )
    _adopt_libraries(level)


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace secrets by name and by look, at any depth; what JSON cannot hold becomes text."""
    return {str(name): cleaned(str(name), value) for name, value in event.items()}


@lru_cache(maxsize=1024)  # asked of every field of every line
def is_secret_name(name: str) -> bool:
    """True for a field that holds a secret: `api_key`, `X-API-Key`, and so on."""
    plain = name.lower().replace("-", "_")
    return any(plain == secret or plain.endswith("_" + secret) for secret in _SECRET_NAMES)


def mask(text: str) -> str:
    """`text` with everything that looks like a credential replaced."""
    # Each pattern needs one of these, or white space that is not printable. Asked of several fields
    # of every line, and nearly always so: spelled out, it costs a fifth.
    if (
        "_" not in text
        and " " not in text
        and "|" not in text
        and "@" not in text
        and text.isprintable()
    ):
        return text
    for pattern in _SECRET_VALUES:
        text = pattern.sub(REDACTED, text)
    return text


class LineWriter:
    """Writes one line a call to `stream`.

    A stream that is gone (its reader exited, its disk is full) takes nothing, and logs must never
    take the service down with them: the line is dropped and counted in `dropped`.
    """

    dropped = 0

    def __init__(self, stream: Stream, name: str) -> None:
        self._stream = stream
        self.name = name

    def msg(self, line: str) -> None:
        """Write `line` and flush, so that a crash loses none."""
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # BrokenPipeError among them; ValueError: it was closed
            LineWriter.dropped += 1

    log = debug = info = warning = error = critical = exception = fatal = msg


class LibraryHandler(logging.Handler):
    """Carries records of the standard library's logging into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log `record` as the event `library_message`."""
        get_logger(record.name).log(
            record.levelno,
            "library_message",
            message=record.getMessage(),
            exc_info=record.exc_info or None,
        )


def _adopt_libraries(level: int) -> None:
    root = logging.getLogger()
    for handler in [item for item in root.handlers if isinstance(item, LibraryHandler)]:
        root.removeHandler(handler)
    # Libraries' own debug and info lines are noise beside the gateway's, and may quote requests.
    root.addHandler(LibraryHandler(level=max(level, logging.WARNING)))


def cleaned(name: str, value: object, depth: int = 0) -> object:
    """The value of a field as a line may hold it; of a mapping or a list, `depth` levels down."""
    if isinstance(value, _PLAIN):
        return value
    if is_secret_name(name):
        return REDACTED
    if isinstance(value, str):
        return safe_text(value)
    return _converted(value, depth)


def _converted(value: object, depth: int) -> object:
    """What is neither text nor plain JSON, as JSON can hold it."""
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, _BYTES):
        value = value.decode("utf-8", "backslashreplace")
    if depth < MAX_DEPTH:
        if isinstance(value, _MAPPINGS):
            return {str(key): cleaned(str(key), item, depth + 1) for key, item in value.items()}
        if isinstance(value, _LISTS) and not isinstance(value, str):
            return [cleaned("", item, depth + 1) for item in value]
    # Anything else by its own text: a dataclass hides there the fields it does not show.
    return safe_text(str(value))


def safe_text(value: str) -> str:
    """Text as a line may hold it: valid Unicode, of bounded length, without credentials."""
    if not value.isascii():  # a request's raw bytes arrive as lone surrogates, which are not UTF-8
        value = value.encode("utf-8", "backslashreplace").decode("utf-8")
    value = mask(value)
    return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"


def _add_logger_name(logger: object, _method: str, event: EventDict) -> EventDict:
    return {"logger": getattr(logger, "name", "gateway"), **event}


def _in_order(_logger: object, _method: str, event: EventDict) -> EventDict:
    first = {name: event[name] for name in _FIRST if name in event}
    return {**first, **event}


def _render_json(_logger: object, _method: str, event: EventDict) -> str:
    return orjson.dumps(event).decode()


def _escape_controls(_logger: object, _method: str, event: EventDict) -> EventDict:
    """A value cannot move the reader's cursor or paint over earlier lines."""
    return {name: _escaped(value) for name, value in event.items()}


def _escaped(value: object) -> object:
    if isinstance(value, str):
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    return value


def _console(stream: Stream) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        # The rich formatter would print every local variable, secrets included.
        exception_formatter=structlog.dev.plain_traceback,
    )
