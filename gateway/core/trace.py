"""W3C Trace Context, and the spans that a trace is made of.

Source: W3C Trace Context, Level 1 with the random flag of Level 2; section numbers are Level 1's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

SAMPLED, RANDOM = 0x01, 0x02  # of the trace flags; no other is known, so none is passed on
MAX_STATE = 512  # characters of a tracestate that are kept, by whole members (section 3.3.1.5)
MAX_MEMBERS = 32
_LARGE_MEMBER = 128  # the first to go when there is too much
_RATIO_BITS = 1 << 64

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_MEMBER = re.compile(
    r"([a-z0-9][a-z0-9_*/@-]{0,255})="
    r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Which trace something is part of, and which span of it caused it.

    `trace_id` and `span_id` are 32 and 16 lower-case hex digits, neither all zero. `state` is the
    `tracestate`, which other vendors wrote and read; empty when there is none.
    """

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""

    @property
    def is_sampled(self) -> bool:
        """True when whoever began the trace wants it recorded."""
        return self.flags & SAMPLED != 0

    @property
    def traceparent(self) -> str:
        """The field's value, of version 00 (section 3.2)."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse_traceparent(text: str) -> TraceContext | None:
    """The context of a `traceparent`; None for a malformed one, or one of zeros (section 3.2.2).

    Later versions than 00 may carry more behind it, and are read as far as 00 goes (section 4.1).
    """
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & (SAMPLED | RANDOM))


def parse_tracestate(values: Iterable[str]) -> str:
    """The members of every `tracestate` field as one value; empty when they cannot be relied on.

    One malformed or repeated member, or more than 32, discard them all (section 3.3.1.3). What is
    longer than `MAX_STATE` loses its largest members first, then its last.
    """
    members: dict[str, str] = {}
    for text in ",".join(values).split(","):
        member = text.strip(" \t")
        if not member:  # empty ones are allowed, and say nothing
            continue
        found = _MEMBER.fullmatch(member)
        if found is None or found[1] in members or len(members) == MAX_MEMBERS:
            return ""
        members[found[1]] = member
    return _bounded([*members.values()])


def _bounded(members: list[str]) -> str:
    large = [member for member in members if len(member) > _LARGE_MEMBER]
    while len(state := ",".join(members)) > MAX_STATE:
        members.remove(large.pop() if large else members[-1])
    return state


def is_within(trace_id: str, ratio: float) -> bool:
    """Whether a trace that begins here is sampled: by its id, so that all who ask it agree."""
    return int(trace_id[16:], 16) < ratio * _RATIO_BITS


def trace_ids(traceparent: str | None) -> dict[str, str]:
    """What ties a log line to the span that a `traceparent` names; nothing when it names none."""
    context = None if traceparent is None else parse_traceparent(traceparent)
    return {} if context is None else {"trace_id": context.trace_id, "span_id": context.span_id}


class Kind(IntEnum):
    """What a span is; the numbers are OTLP's."""

    SERVER = 2
    CLIENT = 3


class Recorder(Protocol):
    """Gives spans their ids, and takes those that have ended."""

    def new_span_id(self) -> str:
        """16 hex digits, not all zero."""
        ...

    def record(self, span: Span) -> None:
        """Take a sampled span that has ended; never waits."""
        ...


@dataclass(slots=True, eq=False)
class Span:
    """One piece of work of a trace, from `started_at` to `ended_at` (epoch seconds).

    `context` is its own: what it calls has it as parent. `parent_id` None: it begins its trace.
    """

    name: str
    kind: Kind
    context: TraceContext
    parent_id: str | None
    started_at: float
    recorder: Recorder = field(repr=False)
    ended_at: float = 0.0
    is_error: bool = False
    attributes: Mapping[str, Attribute | None] = field(default_factory=dict)

    @property
    def is_sampled(self) -> bool:
        """True when it is recorded at its end."""
        return self.context.flags & SAMPLED != 0

    @property
    def ids(self) -> dict[str, str]:
        """What ties a log line to the span; of a measurement too, if the span is sampled."""
        return {"trace_id": self.context.trace_id, "span_id": self.context.span_id}

    @property
    def exemplar(self) -> dict[str, str] | None:
        """The labels of an exemplar; None unless the span can be looked at."""
        return self.ids if self.is_sampled else None

    def child(self, name: str, kind: Kind, started_at: float) -> Span:
        """A span that this one causes."""
        own = self.context
        context = TraceContext(own.trace_id, self.recorder.new_span_id(), own.flags, own.state)
        return Span(name, kind, context, own.span_id, started_at, self.recorder)

    def end(
        self, at: float, attributes: Mapping[str, Attribute | None], *, is_error: bool = False
    ) -> None:
        """Record it, if it is sampled; attributes of None are left out."""
        if self.is_sampled:
            self.ended_at = max(at, self.started_at)
            self.attributes = attributes
            self.is_error = is_error
            self.recorder.record(self)
