"""The health of several workers: the worst of each part, and who has it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.web.health import Status
from gateway.worker.overview import Seen, components, judge, needed, worst


def seen(slot: int, status: str = "healthy", *, answers: bool = True, **parts: str) -> Seen:
    report: dict[str, Any] = {
        "status": status,
        "components": {name: {"status": found, "error": None} for name, found in parts.items()},
    }
    return Seen(slot, 100 + slot, report, answers)


def test_the_worst_of_a_component_is_shown_with_whose_it_is() -> None:
    found = components([seen(0, redis="healthy"), seen(1, redis="degraded")])

    assert found == {"redis": {"status": "degraded", "error": None, "worker": 1}}


def test_of_equals_the_first_is_shown() -> None:
    found = components([seen(0, redis="unhealthy"), seen(1, redis="unhealthy")])

    assert found["redis"]["worker"] == 0


def test_a_component_that_one_worker_alone_has_is_shown() -> None:
    found = components([Seen(0, 100, None), seen(1, redis="healthy", cpu="healthy")])

    assert {name: part["worker"] for name, part in found.items()} == {"redis": 1, "cpu": 1}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], Status.HEALTHY),
        ([Status.HEALTHY, Status.DEGRADED], Status.DEGRADED),
        ([Status.UNHEALTHY, Status.DEGRADED], Status.UNHEALTHY),
        ([Status.UNKNOWN, Status.HEALTHY], Status.UNKNOWN),
        ([Status.NOT_CONFIGURED, Status.HEALTHY], Status.HEALTHY),
    ],
)
def test_the_worst_of_several(found: list[Status], expected: Status) -> None:
    assert worst(found) is expected


def test_all_of_them_there_and_answering_is_well() -> None:
    assert judge([seen(0), seen(1)], 2) == (Status.HEALTHY, None)


def test_one_that_is_gone_or_silent_is_named() -> None:
    assert judge([seen(0), seen(2, answers=False)], 3) == (
        Status.UNHEALTHY,
        "worker 2 does not answer, worker 1 is not running",
    )
    assert judge([seen(0), seen(2)], 3) == (Status.DEGRADED, "worker 1 is not running")


@pytest.mark.parametrize(("workers", "expected"), [(2, 1), (3, 2), (4, 2), (5, 3), (128, 64)])
def test_half_of_them_are_needed(workers: int, expected: int) -> None:
    assert needed(workers) == expected
