"""Routes and paths: what policies match is what is forwarded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.error import InvalidRequest
from gateway.core.route import Route, RouteTable, normalize_path

GET, POST = frozenset({"GET"}), frozenset({"POST"})
TABLE = RouteTable(
    [
        Route("list", "/jobs", GET),
        Route("create", "/jobs", POST),
        Route("history", "/jobs/history", GET),
        Route("status", "/jobs/{job_id}/status", GET),
        Route("details", "/jobs/{job_id}", GET),
        Route("any", "/any"),
        Route("tree", "/tree/*"),
        Route("dotted", "/a.b/{x}", GET),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/jobs", "list"),
        ("POST", "/jobs", "create"),
        ("PUT", "/jobs", "other"),
        ("GET", "/jobs/", "other"),
        ("GET", "/jobs/history", "history"),
        ("GET", "/jobs/1", "details"),
        ("POST", "/jobs/1", "other"),
        ("GET", "/jobs/1/status", "status"),
        ("GET", "/jobs/1/2/status", "other"),
        ("GET", "/jobs//status", "other"),
        ("GET", "/JOBS", "other"),
        ("BREW", "/any", "any"),
        ("GET", "/tree/", "tree"),
        ("GET", "/tree/a/b", "tree"),
        ("GET", "/tree", "other"),
        ("GET", "/a.b/1", "dotted"),
        ("GET", "/axb/1", "other"),
    ],
)
def test_the_first_route_that_fits_wins(method: str, path: str, name: str) -> None:
    assert TABLE.match(method, path).name == name


def test_a_placeholder_takes_one_segment() -> None:
    assert TABLE.match("GET", "/jobs/a-1/status").params == {"job_id": "a-1"}
    assert TABLE.match("GET", "/jobs").params == {}


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a//b", "/a//b"),
        ("/a/%20b/..c", "/a/%20b/..c"),
        ("/a/.b", "/a/.b"),
    ],
)
def test_dot_segments_are_removed(path: str, normal: str) -> None:
    assert normalize_path(path) == normal


@pytest.mark.parametrize(
    "path",
    [
        *("", "jobs", "*"),
        *("/a%2fb", "/a%2Fb", "/a%5cb", "/a%00", "/a;b", "/a\\b", "/a b", "/a\x7f", "/a\n"),
        *("/%252f", "/%252e%252e/"),
        *("/..", "/a/../../b", "/%2e%2e/a"),
    ],
)
def test_a_path_that_parsers_read_differently_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest):
        normalize_path(path)


@given(st.lists(st.sampled_from(["a", ".", "..", "%2e", "%2E%2e", "", "b.c", "..."]), max_size=8))
def test_a_normal_path_is_normal_and_has_no_dot_segment(segments: list[str]) -> None:
    try:
        normal = normalize_path("/" + "/".join(segments))
    except InvalidRequest:
        return
    assert normalize_path(normal) == normal
    assert not {".", ".."} & set(normal.split("/"))


def test_a_parameter_is_decoded_once() -> None:
    table = RouteTable([Route("job-status", "/jobs/{job_id}/status")])
    assert table.match("GET", "/jobs/job%3A1/status").params == {"job_id": "job:1"}
    assert table.match("GET", "/jobs/100%2525/status").params == {"job_id": "100%25"}
