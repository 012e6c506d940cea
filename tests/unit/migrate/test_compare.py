"""What a new contract breaks, what lags behind, and what is only worth a note."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.core.error import SettingsError
from gateway.migrate import contract
from gateway.migrate.compare import Finding, Severity, compare_calls, compare_tables
from gateway.migrate.contract import Contract, Function, Table, to_be
from tests.support.convex_validator import NUMBER, STRING, literal, obj, union

UPDATE = "jobs:updateProgress"
BEFORE = obj(jobId=STRING, status=union(literal("a"), literal("b")), note_=STRING)


def tables(document: Any, name: str = "jobs", **indexes: tuple[str, ...]) -> Contract:
    return Contract({name: Table(document, indexes)}, {})


def found(before: Contract, after: Contract, *, exact: bool = False) -> list[tuple[Severity, str]]:
    return [(each.severity, each.text) for each in compare_tables(before, after, exact=exact)]


def test_same_contract_has_nothing_to_say() -> None:
    shipped = contract.shipped()
    assert list(compare_tables(shipped, shipped, exact=True)) == []
    assert list(compare_calls(shipped, shipped, frozenset(shipped.functions))) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (obj(jobId=STRING, status=STRING, note=STRING), "requires note"),
        (obj(jobId=STRING, status=STRING), "takes no note"),
        (obj(jobId=STRING, status=literal("a"), note_=STRING), "takes status as 'a', not as 'b'"),
        (obj(jobId=NUMBER, status=STRING, note_=STRING), "takes jobId as number, not as string"),
        (obj(jobId=STRING, status=STRING, note_=STRING, new=STRING), "requires new"),
    ],
)
def test_narrowing_change_breaks_an_older_web_app(after: Any, expected: str) -> None:
    assert (Severity.BREAKING, expected) in found(tables(BEFORE), tables(after))


def test_widening_change_is_a_note_of_what_an_older_web_app_may_not_know() -> None:
    after = obj(jobId_=STRING, status=STRING, note_=STRING, new_=NUMBER)
    assert found(tables(BEFORE), tables(after)) == [
        (Severity.NOTE, "jobId becomes optional: an older web app may miss it"),
        (Severity.NOTE, "status becomes string: an older web app may not know it"),
        (Severity.NOTE, "new is new: an older web app leaves it out"),
    ]


def test_index_that_is_gone_or_changed_breaks_queries() -> None:
    before = tables(BEFORE, by_jobId=("jobId",), by_status=("status",))
    after = tables(BEFORE, by_status=("status", "jobId"), by_note=("note",))
    assert found(before, after) == [
        (Severity.BREAKING, "has no index by_jobId: an older web app's query by it fails"),
        (Severity.BREAKING, "has the index by_status on status, jobId, not on status"),
    ]


def test_web_apps_own_fields_indexes_and_tables_stay_its_own() -> None:
    before = Contract(
        {
            "videos": Table(obj(twitchId=STRING, likes=NUMBER), {"by_likes": ("likes",)}),
            "users": Table(obj(), {}),
        },
        {},
    )
    after = tables(obj(twitchId=STRING, jobId_=STRING), "videos")
    assert found(before, after) == [
        (Severity.NOTE, "likes is the web app's own; keep it"),
        (Severity.NOTE, "jobId is new: an older web app leaves it out"),
        (Severity.NOTE, "the web app's own table; keep it"),
    ]


def test_whole_schema_of_the_web_app_is_taken_at_its_word() -> None:
    before = Contract(
        {
            "videos": Table(obj(twitchId=STRING, likes=NUMBER), {"by_likes": ("likes",)}),
            "users": Table(obj(), {}),
        },
        {},
    )
    after = tables(obj(twitchId=STRING), "videos")
    assert found(before, after, exact=True) == [
        (Severity.BREAKING, "takes no likes"),
        (Severity.BREAKING, "has no index by_likes: an older web app's query by it fails"),
        (Severity.BREAKING, "the table is gone"),
    ]


def test_new_table_is_a_note() -> None:
    assert found(Contract({}, {}), tables(BEFORE)) == [(Severity.NOTE, "the table is new")]


def calls(args: Any, kind: str = "mutation") -> Contract:
    return Contract({}, {UPDATE: Function(kind, args, STRING)})


@pytest.mark.parametrize(
    ("deployed", "wanted", "expected"),
    [
        (Contract({}, {}), calls(obj()), (Severity.BEHIND, "is not deployed")),
        (
            calls(obj(a=STRING)),
            calls(obj(a=STRING, b_=STRING)),
            (Severity.BEHIND, "takes no b, as deployed"),
        ),
        (calls(obj(a=STRING)), calls(obj()), (Severity.BEHIND, "requires a, as deployed")),
        (calls(obj(), "query"), calls(obj()), (Severity.BEHIND, "is deployed as a query")),
        (
            calls(obj(a_=STRING)),
            calls(obj(a=STRING)),
            (Severity.BREAKING, "requires a: an older gateway's calls fail"),
        ),
    ],
)
def test_deployment_that_lags_behind_the_gateway_is_said(
    deployed: Contract, wanted: Contract, expected: tuple[Severity, str]
) -> None:
    severity, text = expected
    findings = list(compare_calls(deployed, wanted, frozenset({UPDATE})))
    assert any(each.severity is severity and each.text.startswith(text) for each in findings)


def test_web_apps_own_functions_are_not_compared() -> None:
    own = "video:updateUrls"
    (finding,) = compare_calls(calls(obj()), calls(obj()), frozenset({own}))
    text = "the web app's own function; its arguments are not compared"
    assert finding == Finding(Severity.NOTE, own, text)


def test_shared_table_is_judged_with_the_fields_that_are_the_web_apps_own() -> None:
    deployed = tables(obj(twitchId=STRING, likes=NUMBER, jobId_=NUMBER), "videos")
    wanted = tables(obj(twitchId=STRING, jobId_=STRING), "videos")
    expected = obj(twitchId=STRING, likes=NUMBER, jobId_=STRING)
    assert to_be("videos", deployed, wanted, exact=False) == expected
    assert to_be("videos", deployed, wanted, exact=True) == wanted.tables["videos"].document


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": {"tables": [{}]}}'])
def test_file_that_is_no_contract_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "contract.json"
    path.write_text(content)
    with pytest.raises(SettingsError) as error:
        contract.read(path)
    assert str(path) in error.value.problems[0]


def test_answer_of_a_deployment_is_a_contract() -> None:
    args: Mapping[str, object] = {"type": "object", "value": {}}
    answer = {
        "schema": '{"tables": []}',
        "functions": [
            {
                "path": UPDATE,
                "kind": "mutation",
                "args": orjson.dumps(args).decode(),
                "returns": '{"type": "any"}',
            }
        ],
    }
    expected = Contract({}, {UPDATE: Function("mutation", args, {"type": "any"})})
    assert contract.parse_deployed(answer) == expected
