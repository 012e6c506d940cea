"""The metrics of all workers, whether they answer, are silent or have ended."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.telemetry.metric import Metrics
from gateway.telemetry.worker_metric import WorkerMetrics
from gateway.worker.exposition import OPENMETRICS, Exposition
from tests.unit.worker.doubles import FakeMember


def exposes(created: int) -> Callable[..., bytes]:
    metrics = Metrics()
    metrics.jobs_created_total.inc(created)
    body = metrics.render(OPENMETRICS)[1]
    return lambda *_: body


def silent(*_: object) -> bytes:
    raise ConnectionResetError


class Workers:
    def __init__(self, *created: int) -> None:
        self.members = [FakeMember(slot) for slot in range(len(created))]
        for member, count in zip(self.members, created, strict=True):
            member.answers = exposes(count)
        self.exposition = Exposition(
            lambda: [member for member in self.members if member.serves], WorkerMetrics()
        )

    async def created(self) -> float:
        _, body = await self.exposition.render(OPENMETRICS)
        families = text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
        samples = (sample for family in families for sample in family.samples)
        (found,) = (each.value for each in samples if each.name == "gateway_jobs_created_total")
        return float(found)


async def test_all_of_them_are_summed() -> None:
    assert await Workers(3, 4).created() == 7


async def test_what_a_silent_one_said_last_counts() -> None:
    workers = Workers(3, 4)
    await workers.created()
    workers.members[1].answers = silent

    assert await workers.created() == 7


async def test_an_exposition_that_is_none_counts_as_silence() -> None:
    workers = Workers(3, 4)
    await workers.created()
    workers.members[1].answers = lambda *_: b"<html>"

    assert await workers.created() == 7


async def test_one_that_ended_in_order_leaves_all_it_counted() -> None:
    workers = Workers(3, 4)
    await workers.created()
    ended = workers.members[1]
    ended.last = exposes(9)()
    ended.die(0)
    await workers.exposition.ended(ended)

    assert await workers.created() == 12


async def test_one_that_was_killed_leaves_what_it_last_told() -> None:
    workers = Workers(3, 4)
    await workers.created()
    workers.members[1].die()
    await workers.exposition.ended(workers.members[1])

    assert await workers.created() == 7


async def test_an_answer_that_comes_after_the_end_is_not_counted_twice() -> None:
    workers = Workers(3, 4)
    late = workers.members[1]
    answer = late.answers

    def ends_meanwhile(method: str, path: str, data: bytes) -> bytes:
        late.last = answer(method, path, data)
        late.die(0)
        return late.last

    late.answers = ends_meanwhile
    await workers.exposition.look()
    await workers.exposition.ended(late)

    assert await workers.created() == 7


async def test_text_has_no_exemplars_and_openmetrics_has() -> None:
    metrics = Metrics()
    series = metrics.http_request_duration_seconds.labels("a", "GET", "200")
    series.observe(0.2, {"trace_id": "abc"})
    workers = Workers(0)
    workers.members[0].answers = lambda *_: metrics.render(OPENMETRICS)[1]

    kind, text = await workers.exposition.render("text/plain")
    _, openmetrics = await workers.exposition.render(OPENMETRICS)

    assert kind.startswith("text/plain")
    assert b"trace_id" not in text
    assert b'# {trace_id="abc"} 0.2' in openmetrics
