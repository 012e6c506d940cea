"""What several processes expose, as one: nothing counted is lost, twice there, or goes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from prometheus_client.samples import Sample

from gateway.telemetry.merge import Families, Ledger, cumulative, merge, parse
from gateway.telemetry.metric import Metrics, render

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# Whole numbers: a sum of floats depends on its order, and that is not what is asked here.
AMOUNTS = st.integers(0, 10_000)


@dataclass(frozen=True)
class Move:
    """Something that a process counts."""

    name: str
    apply: Callable[[Metrics], object]


def moves() -> st.SearchStrategy[Move]:
    def created(amount: int) -> Move:
        return Move(f"create {amount}", lambda metrics: metrics.jobs_created_total.inc(amount))

    def failed(kind: str) -> Move:
        return Move(f"fail {kind}", lambda metrics: metrics.jobs_failed_total.labels(kind).inc())

    def served(route: str, status: str, seconds: int) -> Move:
        def apply(metrics: Metrics) -> None:
            series = metrics.http_request_duration_seconds.labels(route, "GET", status)
            series.observe(seconds)

        return Move(f"serve {route} {status} {seconds}", apply)

    return st.one_of(
        st.builds(created, AMOUNTS),
        st.builds(failed, st.sampled_from(["network_error", "other"])),
        st.builds(served, st.sampled_from(["a", "b"]), st.sampled_from(["200", "500"]), AMOUNTS),
    )


def exposed(metrics: Metrics) -> Families:
    return parse(metrics.render(OPENMETRICS)[1])


def counts(families: Families) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Counters and histograms of the gateway: what a process's own work does not change."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in cumulative(families)
        if not family.name.startswith("process_")
        for sample in family.samples
    }


def samples(families: Families, name: str) -> list[Sample]:
    return [each for family in families for each in family.samples if each.name == name]


def value(families: Families, name: str) -> float:
    (sample,) = samples(families, name)
    return sample.value


def openmetrics(*lines: str) -> Families:
    return parse("\n".join([*lines, "# EOF\n"]).encode())


class Collected:
    """Families, as the library's encoders take them."""

    def __init__(self, families: Families) -> None:
        self.families = families

    def collect(self) -> Families:
        return self.families


@given(st.lists(st.lists(moves(), max_size=8), min_size=1, max_size=4))
def test_many_processes_expose_together_what_one_doing_it_all_would(
    work: Sequence[Sequence[Move]],
) -> None:
    one, many = Metrics(), [Metrics() for _ in work]
    for metrics, share in zip(many, work, strict=True):
        for move in share:
            move.apply(metrics)
            move.apply(one)

    merged = merge(map(exposed, many), one.gauge_rules)

    assert counts(merged) == counts(exposed(one))


@given(st.lists(st.lists(moves(), max_size=8), min_size=3, max_size=3))
def test_it_does_not_matter_who_is_merged_first(work: Sequence[Sequence[Move]]) -> None:
    processes = []
    for share in work:
        metrics = Metrics()
        for move in share:
            move.apply(metrics)
        processes.append(exposed(metrics))
    first, second, third = processes

    at_once = counts(merge([first, second, third], {}))

    assert counts(merge([merge([third, first], {}), second], {})) == at_once


@pytest.mark.parametrize(
    ("gauge", "expected"),
    [("active_connections", 5.0), ("jobs_active", 3.0), ("watch_lag_seconds", 3.0)],
)
def test_a_gauge_goes_by_its_rule(gauge: str, expected: float) -> None:
    first, second = Metrics(), Metrics()
    getattr(first, gauge).set(3)
    getattr(second, gauge).set(2)

    merged = merge([exposed(first), exposed(second)], first.gauge_rules)

    assert value(merged, f"gateway_{gauge}") == expected


def test_the_first_start_counts_and_memory_is_a_sum() -> None:
    def process(start: int, resident: int) -> Families:
        return openmetrics(
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {start}",
            "# TYPE process_resident_memory_bytes gauge",
            f"process_resident_memory_bytes {resident}",
        )

    merged = merge([process(20, 5), process(10, 7)], Metrics().gauge_rules)

    assert value(merged, "process_start_time_seconds") == 10
    assert value(merged, "process_resident_memory_bytes") == 12


def test_every_gauge_has_a_rule() -> None:
    metrics = Metrics()
    gauges = {each.name for each in metrics.registry.collect() if each.type == "gauge"}

    assert gauges - set(metrics.gauge_rules) == set()
    assert set(metrics.gauge_rules) - gauges == set()


def test_exemplars_are_kept_and_the_younger_wins() -> None:
    def process(trace: str, at: float) -> Families:
        return openmetrics(
            "# TYPE h histogram",
            f'h_bucket{{le="1.0"}} 1 # {{trace_id="{trace}"}} 0.5 {at}',
            'h_bucket{le="+Inf"} 1',
            "h_count 1",
            "h_sum 0.5",
        )

    merged = merge([process("old", 10.0), process("new", 20.0), process("older", 5.0)], {})

    body = render(Collected(merged), OPENMETRICS)[1].decode()
    assert 'h_bucket{le="1.0"} 3.0 # {trace_id="new"} 0.5 20.0' in body


def test_a_label_that_one_process_alone_has_is_there() -> None:
    first, second = Metrics(), Metrics()
    second.jobs_failed_total.labels("network_error").inc(2)

    merged = merge([exposed(first), exposed(second)], first.gauge_rules)

    (sample,) = samples(merged, "gateway_jobs_failed_total")
    assert (sample.labels, sample.value) == ({"error_type": "network_error"}, 2)


def test_a_series_of_another_type_is_left_out() -> None:
    counter = openmetrics("# TYPE a counter", "a_total 1")
    gauge = openmetrics("# TYPE a gauge", "a 9")

    merged = merge([counter, gauge], {})

    assert [(each.name, each.value) for family in merged for each in family.samples] == [
        ("a_total", 1)
    ]


def test_a_gauge_without_a_rule_shows_the_largest() -> None:
    processes = [openmetrics("# TYPE a gauge", f"a {each}") for each in (1, 3, 2)]

    assert value(merge(processes, {}), "a") == 3


def test_merging_leaves_what_was_merged_as_it_was() -> None:
    process = openmetrics("# TYPE a counter", "a_total 1")

    merge([process, process], {})

    assert value(process, "a_total") == 1


@pytest.mark.parametrize("body", [b"", b"# TYPE a counter\na_total 1\n", b"<html>", b"\xff"])
def test_what_is_no_exposition_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - in the library's words, or the codec's
        parse(body)


def test_gauges_go_with_their_process_and_counters_stay() -> None:
    metrics = Metrics()
    metrics.jobs_created_total.inc(3)
    metrics.active_connections.set(7)
    ledger = Ledger()
    ledger.note("a", exposed(metrics))

    ledger.end("a")

    assert value(merge(ledger.expositions(), {}), "gateway_jobs_created_total") == 3
    assert samples(merge(ledger.expositions(), {}), "gateway_active_connections") == []


class Processes(RuleBasedStateMachine):
    """Workers that count, tell, end in order, are killed, and are replaced."""

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger()
        self.live: dict[str, Metrics] = {}
        self.everything = Metrics()
        self.number = 0
        self.is_exact = True
        self.before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    @rule()
    def start(self) -> None:
        if len(self.live) < 3:
            self.number += 1
            self.live[str(self.number)] = Metrics()

    @precondition(lambda self: self.live)
    @rule(move=moves(), which=st.integers(0, 2))
    def count(self, move: Move, which: int) -> None:
        move.apply(list(self.live.values())[which % len(self.live)])
        move.apply(self.everything)

    @rule()
    def scrape(self) -> None:
        for name, metrics in self.live.items():
            self.ledger.note(name, exposed(metrics))
        if self.is_exact and self.live:
            told = {
                each for each in counts(merge(self.ledger.expositions(), {})).items() if each[1]
            }
            done = {each for each in counts(exposed(self.everything)).items() if each[1]}
            assert told == done

    @precondition(lambda self: self.live)
    @rule()
    def end(self) -> None:
        name, metrics = self.live.popitem()
        self.ledger.end(name, exposed(metrics))

    @precondition(lambda self: self.live)
    @rule()
    def kill(self) -> None:
        name, _ = self.live.popitem()
        self.ledger.end(name)
        self.is_exact = False  # what it counted since it last told is gone with it

    @invariant()
    def nothing_goes_back(self) -> None:
        now = counts(merge(self.ledger.expositions(), {}))
        assert [key for key, value in self.before.items() if now.get(key, -1.0) < value] == []
        self.before = now


TestProcesses = Processes.TestCase
TestProcesses.settings = settings(max_examples=25, stateful_step_count=20)
