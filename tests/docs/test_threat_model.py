"""docs/THREAT_MODEL.md: each attack names tests, and they are there."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.docs.definition import definitions
from tests.docs.markdown import ROOT, codes, tables

TABLES = tables((ROOT / "docs" / "THREAT_MODEL.md").read_text())
ROWS = [row for table in TABLES for row in table.rows]


def test_every_group_of_attacks_is_there() -> None:
    assert [table.heading for table in TABLES] == [
        "Framing",
        "Target",
        "Headers and methods",
        "Exhaustion",
        "Leaks and origins",
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["attack"][:40])
def test_every_attack_names_tests_that_exist(row: Mapping[str, str]) -> None:
    tests = codes(row["held by"])

    assert row["what happens"]
    assert tests
    for each in tests:
        file, _, name = each.partition("::")
        assert name in definitions(file), each
