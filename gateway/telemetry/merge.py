"""One exposition of several processes': counters and histograms are summed, gauges by their rule.

prometheus-client's own mode for several processes drops exemplars, and its files outlive a crash;
so each process exposes what it has, and here it is put together. Pure: no clock, no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar, Sample

Families = Sequence[Metric]
_Key = tuple[str, tuple[tuple[str, str], ...]]
_SUMMED = frozenset({"counter", "histogram", "summary"})


class Rule(StrEnum):
    """What a gauge of several processes is."""

    SUM = "sum"  # each has a part of it
    MAX = "max"  # each shows the same thing, or the worst counts
    MIN = "min"  # the first counts


def parse(exposition: bytes) -> Families:
    """The families of an exposition in OpenMetrics 1.0. Raises ValueError for what is none."""
    return list(text_string_to_metric_families(exposition.decode()))  # type: ignore[no-untyped-call]


def merge(expositions: Iterable[Families], rules: Mapping[str, Rule]) -> Families:
    """The families of them all, in the order in which they are first met.

    `rules` are those of gauges, by family; the largest counts of one that has none, as of a worker
    of another version. For that reason too a family keeps the type it was first met with. Of two
    exemplars the younger stays.
    """
    merged: dict[str, Metric] = {}
    samples: dict[str, dict[_Key, Sample]] = {}
    for family in (each for families in expositions for each in families):
        into = merged.get(family.name)
        if into is None:
            into = Metric(family.name, family.documentation, family.type, family.unit)
            merged[family.name] = into
            samples[family.name] = {}
        if into.type == family.type:
            rule = Rule.SUM if family.type in _SUMMED else rules.get(family.name, Rule.MAX)
            _add(samples[family.name], family, rule)
    for name, family in merged.items():
        family.samples = list(samples[name].values())
    return list(merged.values())


def cumulative(families: Families) -> Families:
    """What a process leaves when it ends: all but its gauges."""
    return [family for family in families if family.type in _SUMMED]


def _add(into: dict[_Key, Sample], family: Metric, rule: Rule) -> None:
    for sample in family.samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        there = into.get(key)
        into[key] = sample if there is None else _both(there, sample, rule)


def _both(one: Sample, other: Sample, rule: Rule) -> Sample:
    if rule is Rule.SUM:
        value = one.value + other.value
    else:
        value = (max if rule is Rule.MAX else min)(one.value, other.value)
    return one._replace(value=value, exemplar=_younger(one.exemplar, other.exemplar))


def _younger(one: Exemplar | None, other: Exemplar | None) -> Exemplar | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda each: float(each.timestamp or 0.0))


class Ledger:
    """What each of several processes last exposed, and what those that ended have left.

    So no counter of the sum ever goes back: neither while a process does not answer, nor when it
    ends and another takes its place. One killed takes with it what it counted since it last told.
    """

    def __init__(self) -> None:
        self._live: dict[str, Families] = {}
        self._left: Families = ()

    def note(self, process: str, families: Families) -> None:
        """A process exposes this now."""
        self._live[process] = families

    def end(self, process: str, last: Families | None = None) -> None:
        """A process has ended; `last` is what it exposed at its end, if it came to that."""
        known = self._live.pop(process, ())
        self._left = cumulative(merge([self._left, known if last is None else last], {}))

    def expositions(self) -> Sequence[Families]:
        """All of it, to be merged; nothing in here is changed any more."""
        return [*self._live.values(), self._left]
