"""A job written as its upstream would: the contract's expressions turned round.

What the gateway knows of a job is told on in the words of the upstream's own stream where that is
not read here: another replica follows it, or it is polled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.core.contract import ANY_STATE, STREAM, Contract, Unreadable
from gateway.core.event import rfc3339
from gateway.core.job import Job, State
from gateway.core.sse import ServerEvent

_ENDS = {State.COMPLETED: "completed", State.FAILED: "failed", State.CANCELLED: "cancelled"}
_SAMPLE = "a-job"
_FIELDS = (
    "subject",
    "percentage",
    "stages_completed",
    "total_stages",
    "eta_seconds",
    "error",
    "results",
)
_Path = tuple[str, ...]


class Rendering:
    """Writes the events of a job's stream from what is known of the job.

    `expressions` are the stream's JMESPath expressions, parsed, by field; `states` maps our states
    to the upstream's words. Raises ValueError when what it would write does not read back through
    `contract` as the same.
    """

    def __init__(self, contract: Contract, states: Mapping[str, Sequence[str]]) -> None:
        self._contract = contract
        self._template = contract.template(STREAM)
        self._paths = {
            name: _paths(tree) for name, tree in contract.expressions(self._template).items()
        }
        self._words = {
            state: next((word for word in states.get(state, ()) if word != ANY_STATE), state.value)
            for state in State
        }
        # A state that the upstream has no word for is told by ours, and need not read back.
        self._known = [state for state in State if states.get(state)]
        self._prove()

    def greeting(self, job: Job, now: float) -> ServerEvent:
        """What a client is told first."""
        return _event(
            {
                "event": "connected",
                "message": f"Connected to job {job.id} status stream",
                "job_id": job.id,
                "timestamp": rfc3339(now),
            }
        )

    def told(self, job: Job, now: float) -> list[ServerEvent]:
        """How the job stands; for one that has ended, the farewell too."""
        name = _ENDS.get(job.state, "progress")
        events = [_event({"event": name, **self._document(job), "timestamp": rfc3339(now)})]
        if job.state.terminal:
            farewell = {
                "event": "stream_ended",
                "message": f"Stream ended - job {name}",
                "job_id": job.id,
                "final_status": self._words[job.state],
                "timestamp": rfc3339(now),
            }
            events.append(_event(farewell))
        return events

    def _document(self, job: Job) -> dict[str, Any]:
        """The job by the contract's paths.

        A stage that does not show the state, as of a job that timed out in it, gives way to it.
        """
        document: dict[str, Any] = {}
        for stage in (job.stage, None):
            document = {}
            self._put(document, "id", job.id)
            self._put(document, "stage", stage)
            self._put(document, "state", self._words[job.state])
            for name in _FIELDS:
                self._put(document, name, getattr(job, name))
            if self._reads_as(document, job):
                break
        return document

    def _put(self, document: dict[str, Any], name: str, value: object) -> None:
        if value is None:
            return
        for path in self._paths.get(name, ()):
            _set(document, path, value)

    def _reads_as(self, document: Mapping[str, Any], job: Job) -> bool:
        try:
            seen = self._contract.observe(document, 0.0, template=self._template, job_id=job.id)
        except Unreadable:
            return False
        if seen.state is not job.state:
            return False
        return "percentage" not in self._paths or seen.percentage == job.percentage

    def _prove(self) -> None:
        """Write a job of every state, and read it back."""
        for state in self._known:
            for percentage in (None, 40.0):
                job = Job(_SAMPLE, "", "", "", state, 0.0, 0.0, percentage=percentage)
                if not self._reads_as(self._document(job), job):
                    raise ValueError(
                        f"what jobs.fields and jobs.states read of a stream's event cannot be "
                        f"turned round: a job that is {state} would not read back as that"
                    )


def _paths(tree: Mapping[str, Any]) -> list[_Path]:
    """Where the value that an expression finds may stand, every alternative of an `||`."""
    kind, children = tree["type"], tree.get("children") or []
    if kind == "field":
        return [(tree["value"],)]
    if kind == "subexpression":
        steps = [_paths(child) for child in children]
        if all(len(step) == 1 for step in steps):
            return [tuple(name for step in steps for name in step[0])]
        return []
    if kind == "or_expression":
        return [path for child in children for path in _paths(child)]
    for child in children:  # of a choice by type the first: that is where the field belongs
        if isinstance(child, Mapping) and (found := _paths(child)):
            return found[:1]
    return []


def _set(document: dict[str, Any], path: _Path, value: object) -> None:
    """Put a value where a path leads, unless something stands there already."""
    at = document
    for name in path[:-1]:
        at = at.setdefault(name, {})
        if not isinstance(at, dict):
            return
    at.setdefault(path[-1], value)


def _event(document: Mapping[str, Any]) -> ServerEvent:
    return ServerEvent(str(document["event"]), orjson.dumps(document))
