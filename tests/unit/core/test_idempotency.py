"""What idempotency keys look like, and what a repeated one means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.error import (
    ContentTooLarge,
    InvalidRequest,
    ServiceUnavailable,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.core.idempotency import (
    Entry,
    Outcome,
    Repeat,
    Reservation,
    StoredAnswer,
    fingerprint,
    judge_answer,
    judge_failure,
    judge_repeat,
    read_key,
)

NOW = 1_700_000_000.0
FIRST = Reservation("alice", "k", "f", "t", "req-1", NOW, NOW + 60, NOW + 3600)
ANSWER = StoredAnswer(200, (), b"{}")


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ('"8e03978e-40d5-43e8-bc93-6894a57f9324"', "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        (r'"a \"b\" \\c"', r'a "b" \c'),
        ('"a";v=1', "a"),
        (' "a" ', "a"),
        ("x" * 255, "x" * 255),
    ],
)
def test_a_key_is_a_string_quoted_or_bare(value: str, key: str) -> None:
    assert read_key([value]) == key


@pytest.mark.parametrize(
    "values",
    [
        ['"a"', '"a"'],
        [""],
        ['""'],
        ['"a'],
        ["a b"],
        ["a, b"],
        ['"ä"'],
        ['"a\x00"'],
        ["x" * 256],
        ['"' + "x" * 256 + '"'],
    ],
)
def test_anything_else_is_refused(values: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        read_key(values)


def test_requests_differ_by_each_of_their_parts() -> None:
    parts = [
        ("POST", "/a", "application/json", b"{}"),
        ("PUT", "/a", "application/json", b"{}"),
        ("POST", "/a?b", "application/json", b"{}"),
        ("POST", "/a", "text/plain", b"{}"),
        ("POST", "/a", "application/json", b"{} "),
        ("POST", "/aapplication/json", "", b"{}"),
    ]

    assert len({fingerprint(*each) for each in parts}) == len(parts)
    assert fingerprint(*parts[0]) == fingerprint(*parts[0])


@pytest.mark.parametrize(
    ("entry", "wanted", "now", "repeat"),
    [
        (Entry(FIRST, ANSWER), FIRST, NOW, Repeat.REPLAYED),
        (Entry(FIRST, ANSWER), FIRST, NOW + 3599, Repeat.REPLAYED),
        (Entry(FIRST, ANSWER), replace(FIRST, fingerprint="g"), NOW, Repeat.REUSED),
        (Entry(FIRST), replace(FIRST, fingerprint="g"), NOW, Repeat.REUSED),
        (Entry(FIRST), FIRST, NOW + 59.9, Repeat.OUTSTANDING),
        (Entry(FIRST), FIRST, NOW + 60, Repeat.UNKNOWN),
    ],
)
def test_a_repeated_key_means(
    entry: Entry, wanted: Reservation, now: float, repeat: Repeat
) -> None:
    assert judge_repeat(entry, wanted, now) is repeat


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, Outcome.KEPT) for status in (200, 201, 202, 303, 500, 502, 504)),
        *((status, Outcome.FREED) for status in (400, 404, 409, 422, 429, 499, 503)),
    ],
)
def test_a_refusal_creates_nothing(status: int, outcome: Outcome) -> None:
    assert judge_answer(status) is outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UpstreamRefused(""), Outcome.FREED),
        (UpstreamUnavailable(""), Outcome.FREED),
        (UpstreamOverloaded(""), Outcome.FREED),
        (ServiceUnavailable(""), Outcome.FREED),
        (ContentTooLarge(""), Outcome.FREED),
        (UpstreamReset(""), Outcome.UNKNOWN),
        (UpstreamTimeout(""), Outcome.UNKNOWN),
        (RuntimeError(), Outcome.UNKNOWN),
        (KeyboardInterrupt(), Outcome.UNKNOWN),
    ],
)
def test_what_may_have_reached_the_upstream_is_unknown(
    error: BaseException, outcome: Outcome
) -> None:
    assert judge_failure(error) is outcome
