"""Who is told of a job's change: the messages that are committed together with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.core.event import serialize
from gateway.core.identifier import derived
from gateway.core.job import EventType, Job, JobChange, JobEvent
from gateway.core.outbox import Message
from gateway.core.webhook import Webhook, passes, project, subscribes
from gateway.delivery import convex_sink, webhook
from gateway.delivery.convex_document import (
    Arguments,
    analytics_arguments,
    progress_arguments,
    status_arguments,
    url_arguments,
    webhook_arguments,
)
from gateway.settings.delivery import ConvexFunctions
from gateway.store.outbox import Outbox
from gateway.store.webhook import WebhookStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

CALLS_PER_CHANGE = 4  # at most: the outbox orders one job's messages by whole numbers

Envelope = Mapping[str, Any]


class WebhookSubscription:
    """A message for each event and each webhook that wants it."""

    def __init__(self, store: WebhookStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._log = get_logger("delivery")

    async def messages(self, change: JobChange, envelopes: Sequence[Envelope]) -> Sequence[Message]:
        """The messages; `envelopes` run parallel to the events. Raises StoreUnavailable."""
        if not change.events:
            return ()
        job = change.job
        candidates = await self._store.candidates(job.owner, job.id)
        messages = []
        for event, envelope in zip(change.events, envelopes, strict=True):
            wanting = [each for each in candidates if self._wants(each, job, event, envelope)]
            whole = serialize(envelope) if wanting else b""
            for each in wanting:
                body = whole if each.fields is None else serialize(project(each, envelope))
                messages.append(_event_message(job, event, envelope, each, body))
        return messages

    def _wants(self, candidate: Webhook, job: Job, event: JobEvent, envelope: Envelope) -> bool:
        if not subscribes(candidate, job.owner, job.id, event.type):
            return False
        try:
            return passes(candidate, envelope)
        except Exception as error:  # noqa: BLE001 - a foreign expression: its owner's loss alone
            self._metrics.webhook_filter_errors_total.inc()
            self._log.warning(
                "webhook_filter_failed",
                webhook_id=candidate.id,
                job_id=job.id,
                type=event.type.value,
                error=f"{type(error).__name__}: {error}",
            )
            return False


class ConvexSubscription:
    """A change in a few calls, in order; only for a `convex.url` that is set.

    The job's update comes first, since the web app's own functions need the video that it makes;
    analytics last. A function whose path is null is not called. Until the job's end each change
    tells all of it anew, so that a later one can take the place of what still waits.
    """

    def __init__(self, functions: ConvexFunctions) -> None:
        self._functions = functions

    async def messages(self, change: JobChange, envelopes: Sequence[Envelope]) -> Sequence[Message]:
        """The messages: each tells the job's state after all events of the change."""
        if not change.events:
            return ()
        called = [
            (kind, arguments)
            for kind, arguments in self._operations(change)
            if getattr(self._functions, kind) is not None
        ]
        event_id = str(envelopes[-1]["id"])
        return [
            _convex_message(change, event_id, kind, arguments, place)
            for place, (kind, arguments) in enumerate(called)
        ]

    def _operations(self, change: JobChange) -> Sequence[tuple[str, Arguments]]:
        job, before = change.job, change.before
        operations = [("update_progress", progress_arguments(job))]
        # The update replaces a status that still waits: it must not be the last to tell it.
        told_anew = self._functions.update_progress is not None
        if job.subject and (told_anew or before is None or before.state is not job.state):
            operations.append(("update_status", status_arguments(job)))
        if job.subject and job.state.terminal and (urls := url_arguments(job))["urls"]:
            operations.append(("update_urls", urls))
        if job.state.terminal:
            operations.append(("track_analytics", analytics_arguments(job)))
        return operations


class WebhookPublisher:
    """Enqueues a copy of a changed webhook for Convex: the API's and the sink's `publish` hook."""

    def __init__(
        self,
        functions: ConvexFunctions,
        outbox: Outbox,
        *,
        now: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._functions = functions
        self._outbox = outbox
        self._now = now
        self._wake = wake

    async def __call__(self, changed: Webhook, deleted: bool) -> None:  # noqa: FBT001 - a hook's shape
        """Enqueue the copy. Raises StoreUnavailable."""
        if self._functions.store_webhook_config is None:
            return
        await self._outbox.enqueue([_config_message(changed, deleted=deleted, now=self._now())])
        self._wake()


def _event_message(
    job: Job, event: JobEvent, envelope: Envelope, target: Webhook, body: bytes
) -> Message:
    event_id = str(envelope["id"])
    progress = event.type is EventType.PROGRESS
    return Message(
        id=derived("dlv_", event.at, event_id, target.id),
        sink=webhook.SINK,
        destination=target.id,
        kind=event.type.value,
        event_id=event_id,
        job_id=job.id,
        sequence=event.sequence,
        body=body,
        created_at=event.at,
        due_at=event.at,
        replaceable=progress,
        supersedes=progress or event.type.terminal,
        request_id=job.request_id,
        traceparent=job.traceparent,
        tracestate=job.tracestate,
    )


def _convex_message(
    change: JobChange, event_id: str, kind: str, arguments: Arguments, place: int
) -> Message:
    """One call of a change; `place` counts its calls from 0 and orders them."""
    job, at = change.job, change.events[-1].at
    return Message(
        id=derived("dlv_", at, event_id, convex_sink.DESTINATION, kind),
        sink=convex_sink.SINK,
        destination=convex_sink.DESTINATION,
        kind=kind,
        event_id=event_id,
        job_id=job.id,
        sequence=job.sequence * CALLS_PER_CHANGE + place,
        body=serialize(arguments),
        created_at=at,
        due_at=at,
        replaceable=not job.state.terminal,
        supersedes=place == 0,
        strict_order=True,
        request_id=job.request_id,
        traceparent=job.traceparent,
        tracestate=job.tracestate,
    )


def _config_message(changed: Webhook, *, deleted: bool, now: float) -> Message:
    """A webhook's copy. Its id stands where a job's does: its revisions keep their order."""
    arguments = webhook_arguments(changed, deleted=deleted)
    revision = arguments["revision"]
    return Message(
        id=derived("dlv_", now, changed.id, revision, deleted, convex_sink.DESTINATION),
        sink=convex_sink.SINK,
        destination=convex_sink.DESTINATION,
        kind="store_webhook_config",
        event_id=f"{changed.id}.{revision}",
        job_id=changed.id,
        sequence=revision,
        body=serialize(arguments),
        created_at=now,
        due_at=now,
        replaceable=True,
        supersedes=True,
        strict_order=True,
    )
