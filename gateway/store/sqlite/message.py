"""Messages as rows: how they enter the outbox, with a job's change or without, and leave it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from gateway.core.outbox import DeliveryStatus, Message
from gateway.store.sqlite.query import load_queries

_SQL = load_queries("outbox")


def insert_messages(connection: sqlite3.Connection, messages: Sequence[Message]) -> None:
    """Add those that are not there yet, supersede what they replace, and put all in order."""
    added = [message for message in messages if _insert(connection, message)]
    for message in added:
        if message.supersedes and not message.status.final:
            connection.execute(_SQL["supersede"], _pair(message))
    # A pair of destination and job is arranged once, in the order of arrival.
    for message in {(message.destination, message.job_id): message for message in added}.values():
        connection.execute(_SQL["arrange"], _pair(message))


def message_of_row(row: sqlite3.Row) -> Message:
    """The message in a row that has all of its columns and `body`."""
    return Message(
        id=row["id"],
        sink=row["sink"],
        destination=row["destination"],
        kind=row["kind"],
        event_id=row["event_id"],
        job_id=row["job_id"],
        sequence=row["sequence"],
        body=row["body"],
        created_at=row["created_at"],
        due_at=row["due_at"],
        replaceable=bool(row["replaceable"]),
        supersedes=bool(row["supersedes"]),
        strict_order=bool(row["strict_order"]),
        attempt=row["attempt"],
        status=DeliveryStatus(row["status"]),
        request_id=row["request_id"],
        traceparent=row["traceparent"],
        tracestate=row["tracestate"],
    )


def _insert(connection: sqlite3.Connection, message: Message) -> bool:
    values = {
        "id": message.id,
        "sink": message.sink,
        "kind": message.kind,
        "event_id": message.event_id,
        "due_at": message.due_at,
        "replaceable": message.replaceable,
        "supersedes": message.supersedes,
        "strict_order": message.strict_order,
        "attempt": message.attempt,
        "status": message.status,
        "request_id": message.request_id,
        "traceparent": message.traceparent,
        "tracestate": message.tracestate,
        "finished_at": message.created_at if message.status.final else None,
        **_pair(message),
    }
    if connection.execute(_SQL["insert"], values).rowcount != 1:
        return False
    connection.execute(_SQL["insert_payload"], {"id": message.id, "body": message.body})
    return True


def _pair(message: Message) -> Mapping[str, object]:
    return {
        "destination": message.destination,
        "job_id": message.job_id,
        "sequence": message.sequence,
        "created_at": message.created_at,
    }
