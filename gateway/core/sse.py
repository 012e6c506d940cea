"""Server-sent events as they come off the wire (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EVENT_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `data` is its data lines joined by LF, `id` the last one set in the stream."""

    name: str
    data: bytes
    id: str | None = None


class EventParser:
    """Cuts a byte stream into events, whatever the chunks; an event over 1 MiB is dropped."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._rest = b""
        self._after_return = False
        self._first = True
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that `chunk` completes."""
        if not chunk:
            return []
        if self._after_return:  # the other half of a CRLF that was cut in two
            chunk = chunk.removeprefix(b"\n")
        self._after_return = chunk.endswith(b"\r")
        text = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *complete, self._rest = text.split(b"\n")
        events = [event for line in complete if (event := self._line(line)) is not None]
        if len(self._rest) > self._limit:
            # What follows of this line counts as a comment; its event is dropped.
            self._rest, self._size = b":", self._limit + 1
        return events

    def _line(self, line: bytes) -> ServerEvent | None:
        if self._first:
            line, self._first = line.removeprefix(_BYTE_ORDER_MARK), False
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1  # and the LF that joins it to the next
            if self._size <= self._limit:
                self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> ServerEvent | None:
        event = None
        if self._data and self._size <= self._limit:
            event = ServerEvent(self._name or "message", b"\n".join(self._data), self._id)
        self._name, self._data, self._size = "", [], 0
        return event


def encode_event(event: ServerEvent, event_id: int | None = None) -> bytes:
    """An event as an upstream writes it, then the `id` of our own, if it has one.

    The id comes last, so that the lines before it are the upstream's.
    """
    name = b"" if event.name == "message" else b"event: %s\n" % event.name.encode()
    data = b"".join([b"data: %s\n" % line for line in event.data.split(b"\n")])
    number = b"" if event_id is None else b"id: %d\n" % event_id
    return b"%s%s%s\n" % (name, data, number)
