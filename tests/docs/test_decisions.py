"""Decisions are cited by their numbers: each has one, and no two have the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def test_no_two_decisions_have_one_number() -> None:
    numbers = [path.name[:4] for path in DECISIONS]

    assert sorted(set(numbers)) == numbers


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decisions_title_has_the_number_of_its_file(path: Path) -> None:
    title = re.match(r"# (\d+)\. ", path.read_text())

    assert title is not None
    assert int(title[1]) == int(path.name[:4])
