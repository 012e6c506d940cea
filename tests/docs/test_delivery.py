"""docs/delivery.md: every promise has its number, and tests that exist."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.docs.definition import definitions
from tests.docs.markdown import ROOT, codes, tables

PAGE = (ROOT / "docs" / "delivery.md").read_text()
(PROMISES,) = [table for table in tables(PAGE) if "it must hold" in table.rows[0]]


def test_every_promise_is_there() -> None:
    assert [row[""] for row in PROMISES.rows] == [str(number) for number in range(1, 25)]


@pytest.mark.parametrize("row", PROMISES.rows, ids=lambda row: row[""])
def test_promise_names_tests_that_exist(row: Mapping[str, str]) -> None:
    tests = codes(row["held by"])

    assert bool(tests) != (row["held by"] == "not yet")
    for span in tests:
        file, _, name = span.partition("::")
        assert name in definitions(file), span
