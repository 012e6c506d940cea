"""Requests against the upstream's own description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.core.openapi import OpenApi
from gateway.core.route import Route
from gateway.core.violation import Violations

UPSTREAM = Path(__file__).parents[2] / "data" / "upstream" / "openapi.json"
LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 9}}


def document(**operation: Any) -> dict[str, Any]:
    paths = {"/jobs/{id}": {"get": operation}}
    return {
        "openapi": "3.1.0",
        "paths": paths,
        "components": {"schemas": {"L": {"type": "integer"}}},
    }


def judged(
    operation: dict[str, Any], path: str = "/jobs/1", query: str = "", **headers: str
) -> list[dict[str, str]]:
    found, values = OpenApi(document(**operation)).find("GET", path)
    violations = Violations()
    if found is not None:
        found.judge_parameters(values, query, CIMultiDict(headers), violations)
    return violations.errors


@pytest.fixture(scope="module")
def upstream() -> OpenApi:
    return OpenApi(json.loads(UPSTREAM.read_bytes()))


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=5", None),
        ("", None),
        ("limit=5.0", None),
        ("limit=10", "is greater than the maximum of 9"),
        ("limit=abc", 'is not of type "integer"'),
        ("limit=", 'is not of type "integer"'),
        ("limit=%35", None),
        ("limit=nan", 'is not of type "integer"'),
        ("limit=99&limit=5", None),  # the last counts, as with the upstream
        ("other=x", None),
    ],
)
def test_query_parameters_are_what_their_text_stands_for(query: str, detail: str | None) -> None:
    errors = judged({"parameters": [LIMIT]}, query=query)

    expected = [] if detail is None else [{"parameter": "limit", "in": "query", "detail": detail}]
    assert errors == expected


def test_what_is_required_is_missed() -> None:
    header = {"name": "X-Tenant", "in": "header", "required": True, "schema": {"type": "string"}}

    [error] = judged({"parameters": [header]})

    assert (error["parameter"], error["in"], error["detail"]) == (
        "X-Tenant",
        "header",
        "is required",
    )
    assert judged({"parameters": [header]}, **{"x-tenant": "a"}) == []


@pytest.mark.parametrize(("path", "errors"), [("/jobs/12", 0), ("/jobs/x", 1)])
def test_a_path_parameter_is_judged(path: str, errors: int) -> None:
    parameter = {"name": "id", "in": "path", "schema": {"$ref": "#/components/schemas/L"}}

    assert len(judged({"parameters": [parameter]}, path)) == errors


@pytest.mark.parametrize(
    ("schema", "text", "errors"),
    [
        ({"type": "boolean"}, "yes", 0),
        ({"type": "boolean"}, "maybe", 1),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "", 0),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "x", 1),
        ({"type": "number"}, "1e3", 0),
        ({"type": "string", "maxLength": 1}, "12", 1),
        ({"enum": ["a"]}, "b", 1),
    ],
)
def test_other_kinds_of_text(schema: Any, text: str, errors: int) -> None:
    parameter = {"name": "q", "in": "query", "schema": schema}

    assert len(judged({"parameters": [parameter]}, query=f"q={text}")) == errors


def test_a_list_is_every_value() -> None:
    items = {"type": "array", "items": {"type": "integer"}}
    parameter = {"name": "q", "in": "query", "schema": items}

    assert judged({"parameters": [parameter]}, query="q=1&q=2") == []
    assert judged({"parameters": [parameter]}, query="q=1&q=x") != []


def test_the_upstreams_own_document_can_be_used(upstream: OpenApi) -> None:
    operation, _ = upstream.find("POST", "/api/v1/analysis")

    assert len(upstream) > 30
    assert operation is not None
    assert operation.body_required


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"url": "https://www.twitch.tv/videos/1"}, []),
        ({"url": "x", "callback_url": None, "transcription_config": None, "more": 1}, []),
        ({}, ["#/url"]),
        ({"url": 5}, ["#/url"]),
        (
            {"url": "x", "transcription_config": {"enable_gpu": "no"}},
            ["#/transcription_config/enable_gpu"],
        ),
        ({"url": "x", "callback_url": ""}, ["#/callback_url"]),
    ],
)
def test_a_creation_is_judged_at_its_fields(
    upstream: OpenApi, body: Any, pointers: list[str]
) -> None:
    operation, _ = upstream.find("POST", "/api/v1/analysis")
    assert operation is not None
    assert operation.body is not None
    violations = Violations()

    operation.body.judge(body, violations)

    assert [error["pointer"] for error in violations.errors] == pointers


def test_a_route_known_already_is_found_without_looking_through_all(upstream: OpenApi) -> None:
    route = Route("job-cancel", "/api/v1/queue/jobs/{job_id}")
    elsewhere = Route("job-status", "/nowhere/{job_id}")

    assert upstream.find("GET", "/api/v1/analysis", Route("x", "/api/v1/analysis"))[0] is None
    assert upstream.find("POST", "/", Route("c", "/api/v1/analysis"))[0] is not None
    assert upstream.find("DELETE", "/x", route, ("1",))[1] == ("1",)
    assert upstream.find("GET", "/x", elsewhere, ("1",))[0] is None


def test_a_polled_path_that_takes_any_text_costs_nothing(upstream: OpenApi) -> None:
    operation, _ = upstream.find("GET", "/api/v1/analysis/some-id/status")

    assert operation is None


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ([], "3.1"),
        ({"openapi": "3.0.3"}, "3.1"),
        ({"swagger": "2.0"}, "3.1"),
        (
            {"openapi": "3.1.0", "paths": {"/x": {"get": {"parameters": [{"name": "q"}]}}}},
            "says it is",
        ),
        ({"openapi": "3.1.0", "paths": {"/x": {"$ref": "#/components/x"}}}, "leads nowhere"),
        ({"openapi": "3.1.0", "paths": {"/x": 5}}, "leads nowhere"),
        (document(parameters=[{**LIMIT, "schema": {"type": "objekt"}}]), "0/type"),
        (document(parameters=[{**LIMIT, "schema": {"$ref": "http://127.0.0.1:1/x"}}]), "nowhere"),
    ],
)
def test_a_document_that_cannot_be_used_is_told(broken: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OpenApi(broken)


def test_a_document_without_paths_judges_nothing() -> None:
    assert OpenApi({"openapi": "3.1.1"}).find("GET", "/x")[0] is None
