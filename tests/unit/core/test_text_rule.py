"""Text that cannot become a script where it is shown."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.text_rule import TextRule, judge, judge_text

STRIP = TextRule("strip", "strip")
SCRIPTS = [
    "<script>alert(1)</script>",
    "a <img src=x onerror=alert(1)>",
    "</textarea><svg/onload=alert(1)>",
    "<!--x",
    "<?xml-stylesheet href=x?>",
    "<<script>x",
]
URLS = [
    "javascript:alert(1)",
    " JavaScript:alert(1)",
    "java\tscript:alert(1)",
    "vbscript:x",
    "data:text/html,<b>x",
    "data:image/svg+xml;base64,xx",
]


class Tags(HTMLParser):
    """Whether a text, shown as HTML, is more than text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found = True

    def handle_endtag(self, tag: str) -> None:
        self.found = True

    def handle_comment(self, data: str) -> None:
        self.found = True

    def handle_decl(self, decl: str) -> None:
        self.found = True

    def handle_pi(self, data: str) -> None:
        self.found = True


@pytest.mark.parametrize("text", SCRIPTS)
def test_markup_is_rejected(text: str) -> None:
    _, problem = judge_text(text, TextRule())

    assert problem is not None
    assert "markup" in problem


@pytest.mark.parametrize("rule", [TextRule(), TextRule("strip", "allow")])
@pytest.mark.parametrize("text", URLS)
def test_a_url_that_runs_a_script_is_rejected_and_never_mended(text: str, rule: TextRule) -> None:
    _, problem = judge_text(text, rule)

    assert problem is not None


@pytest.mark.parametrize(
    "text",
    [
        "a < b",
        "1<2",
        "x <- y",
        "<3",
        "https://example.com/?q=1&amp;2",
        "Fisch & Chips",
        "tab\tline\r\n",
        "data:image/png;base64,xx",
        "javascript is a language: yes",
        "عربى",
        "\U0001f600",
    ],
)
def test_plain_text_passes_untouched(text: str) -> None:
    assert judge_text(text, TextRule()) == (text, None)


@pytest.mark.parametrize(
    "character", ["\x00", "\x1b", "\x7f", "\x85", "\u202e", "\u2066", "\ud800"]
)
def test_control_characters_are_named_or_stripped(character: str) -> None:
    _, problem = judge_text(f"a{character}b", TextRule())

    assert problem == f"holds the control character U+{ord(character):04X}"
    assert judge_text(f"a{character}b", STRIP) == ("ab", None)
    assert judge_text(f"a{character}b", TextRule("allow", "allow")) == (f"a{character}b", None)


@given(st.text(alphabet="<>/!?ab\x00 =\"'-", max_size=30))
def test_stripped_text_holds_no_markup_and_stays_so(text: str) -> None:
    stripped, problem = judge_text(text, STRIP)

    assert problem is None
    assert not Tags(stripped).found
    assert judge_text(stripped, TextRule()) == (stripped, None)


@pytest.mark.parametrize("text", ["<\x00script>", "<\x00\x01/b>"])
def test_a_control_character_cannot_hide_markup(text: str) -> None:
    stripped, _ = judge_text(text, STRIP)

    assert "<" not in stripped


def test_every_bad_string_is_pointed_at() -> None:
    document: Any = {"a": [{"b": "<i>"}, "ok"], "c": "x\x00", "n": 1, "<k>": "v"}

    verdict = judge(document, TextRule())

    assert [error["pointer"] for error in verdict.violations.errors] == ["#/a/0/b", "#/c", "#"]


def test_stripping_says_that_it_changed_something() -> None:
    verdict = judge({"a": ["<b>hi</b>"], "n": 1}, STRIP)

    assert (verdict.document, verdict.changed) == ({"a": ["b>hi/b>"], "n": 1}, True)
    assert not judge({"a": "hi"}, STRIP).changed


def test_the_name_of_a_member_is_never_stripped() -> None:
    assert judge({"<b>": 1}, STRIP).violations.errors[0]["pointer"] == "#"
