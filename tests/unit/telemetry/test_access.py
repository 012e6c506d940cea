"""The access line, made without structlog, is the line that structlog would make."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest

from gateway.settings.telemetry import Log
from gateway.telemetry.access import JsonLines, access_writer, through_structlog
from gateway.telemetry.log import configure

AT = 1_789_000_000.25
SECRET = "gw_0123456789abcdef0123456789abcdef"


def line(**fields: Any) -> dict[str, Any]:
    return {"method": "GET", "path": "/a", "status": 200, "request_id": "r-1", **fields}


def written(added: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    stream = io.StringIO()
    JsonLines(stream, lambda: AT)(added, fields)
    assert stream.getvalue().endswith("\n")
    document: dict[str, Any] = orjson.loads(stream.getvalue())
    return document


@pytest.mark.parametrize(
    "added",
    [
        {},
        {"cache": "hit", "quota": {"per-key": 3}},
        {"credential": "unknown", "api_key": SECRET, "deep": {"password": "x", "at": [1, 2.5]}},
        {"problem": f"a key {SECRET} in words", "job_id": "j\udce9"},
    ],
)
def test_it_is_what_structlog_would_write(added: dict[str, Any]) -> None:
    fields = line(path=f"/a/{SECRET}", request_id="bearer abcdefgh")
    stream = io.StringIO()
    configure(Log(format="json"), stream)
    through_structlog(added, dict(fields))
    expected = orjson.loads(stream.getvalue())

    got = written(added, dict(fields))

    assert SECRET not in str(got)
    assert got.pop("timestamp") == "2026-09-10T00:26:40.250000Z"
    expected.pop("timestamp")
    assert got == expected
    assert list(got) == list(expected)


def test_the_time_is_that_of_the_line() -> None:
    stream, times = io.StringIO(), iter([AT, AT + 0.5, AT + 1])
    lines = JsonLines(stream, lambda: next(times))
    for _ in range(3):
        lines({}, line())

    stamps = [orjson.loads(each)["timestamp"][-16:] for each in stream.getvalue().splitlines()]
    assert stamps == ["00:26:40.250000Z", "00:26:40.750000Z", "00:26:41.250000Z"]


def test_consoles_are_structlogs_business() -> None:
    assert access_writer(Log(format="console")) is through_structlog
    assert isinstance(access_writer(Log(format="json")), JsonLines)


def test_a_level_above_info_writes_none() -> None:
    stream = io.StringIO()
    access_writer(Log(level="warning"), stream)({}, line())
    assert stream.getvalue() == ""


def test_a_stream_that_takes_nothing_costs_the_line_alone() -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    lines = JsonLines(Gone(), lambda: AT)
    lines({}, line())
    assert lines.dropped == 1
