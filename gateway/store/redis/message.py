"""Messages on the wire to and from the scripts: flat arguments in, arrays of fields out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from gateway.core.outbox import Attempt, Delivery, DeliveryStatus, Message
from gateway.store.redis.connection import Part

Fields = Sequence[bytes | None]


def message_arguments(messages: Sequence[Message]) -> Iterator[Part]:
    """What `insert_all` of lib_message.lua takes: an id, then `NAMES`, of each message."""
    for message in messages:
        yield message.id
        yield message.sink
        yield message.destination
        yield message.kind
        yield message.event_id
        yield message.job_id
        yield message.sequence
        yield message.created_at
        yield message.due_at
        yield flag(message.replaceable)
        yield flag(message.supersedes)
        yield flag(message.strict_order)
        yield message.attempt
        yield message.status.value
        yield message.request_id or ""
        yield message.traceparent or ""
        yield message.tracestate or ""
        yield message.body


def message_of(message_id: bytes, fields: Fields, body: bytes | None) -> Message:
    """The message whose `NAMES`, without its body, are the first sixteen of `fields`."""
    return Message(
        id=message_id.decode(),
        sink=_text(fields[0]),
        destination=_text(fields[1]),
        kind=_text(fields[2]),
        event_id=_text(fields[3]),
        job_id=_text(fields[4]),
        sequence=int(fields[5] or 0),
        created_at=float(fields[6] or 0),
        due_at=float(fields[7] or 0),
        replaceable=bool(fields[8]),
        supersedes=bool(fields[9]),
        strict_order=bool(fields[10]),
        attempt=int(fields[11] or 0),
        status=DeliveryStatus(_text(fields[12])),
        request_id=_optional(fields[13]),
        traceparent=_optional(fields[14]),
        tracestate=_optional(fields[15]),
        body=body or b"",
    )


def delivery_of(message_id: bytes, fields: Fields, lines: Sequence[bytes]) -> Delivery:
    """The delivery whose fields are those of a message, `finished_at` and perhaps the body."""
    body = fields[17] if len(fields) > 17 else b""
    finished_at = None if fields[16] is None else float(fields[16])
    attempts = tuple(attempt_of(line) for line in lines)
    return Delivery(message_of(message_id, fields, body), finished_at, attempts)


def attempt_line(attempt: Attempt) -> bytes:
    """An attempt as the log keeps it."""
    return orjson.dumps(attempt)


def attempt_of(line: bytes) -> Attempt:
    """The attempt that `attempt_line` wrote."""
    return Attempt(**orjson.loads(line))


def flag(value: object) -> str:
    """How scripts are told yes or no."""
    return "1" if value else ""


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


def _optional(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
