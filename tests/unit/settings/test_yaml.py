"""The YAML that settings are written in: plain data with lines, and nothing to attack with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.core.error import SettingsError
from gateway.settings.yaml import MAX_BYTES, MAX_DEPTH, dotted, load, parse


def problems(text: str | bytes) -> tuple[str, ...]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(SettingsError) as caught:
        parse(data, "f.yaml")
    return caught.value.problems


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~\n"])
def test_an_empty_file_is_an_empty_mapping(text: str) -> None:
    assert parse(text.encode(), "f.yaml").value == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("0x10", 16), ("0o10", 8), ("010", 10), ("1.5", 1.5), ("1e3", 1000.0),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("2026-01-01", "2026-01-01"),
        ("60:30", "60:30"), (".nan", ".nan"), (".inf", ".inf"), ("1_000", "1_000"), ("=", "="),
        ("'1'", "1"), ('"true"', "true"), ("15s", "15s"), ("9" * 40, "9" * 40), ("1e999", "1e999"),
        ("1.", 1.0), (".5", 0.5), ("12e34" * 8, "12e34" * 8),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    found = parse(f"key: {text}\n".encode(), "f.yaml").value["key"]

    assert (found, type(found)) == (value, type(value))


def test_keys_are_text_and_merge_keys_mean_nothing() -> None:
    assert parse(b"404: a\n<<: {b: 1}\ntrue: c\n", "f.yaml").value == {
        "404": "a",
        "<<": {"b": 1},
        "true": "c",
    }


def test_every_key_and_item_knows_its_line() -> None:
    document = parse(b"a:\n  b: 1\n  c:\n    - x\n    - y: z\n", "f.yaml")

    assert document.origins["a", "b"] == "f.yaml:2"
    assert document.origins["a", "c", 0] == "f.yaml:4"
    assert document.origins["a", "c", 1, "y"] == "f.yaml:5"


def test_every_duplicate_key_is_reported_with_both_lines() -> None:
    assert problems("a: 1\nb: {c: 1, c: 2}\na: 2\n") == (
        "f.yaml:2: b.c: is there twice, first in line 2",
        "f.yaml:3: a: is there twice, first in line 1",
    )


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "a: &x [1]\n", "a: *missing\n"])
def test_anchors_and_aliases_are_refused(text: str) -> None:
    assert "anchors and aliases" in problems(text)[0]


def test_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)
    )

    assert problems(bomb)[0].startswith("f.yaml:1: anchors and aliases")


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system [id]\n", "a: !!str 1\n", "a: !own {}\n"]
)
def test_tags_are_refused(text: str) -> None:
    assert problems(text)[0].startswith("f.yaml:1: tags (!) are not allowed")


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? "])
def test_deep_nesting_is_refused_before_it_costs_anything(opening: str) -> None:
    assert f"deeper than {MAX_DEPTH}" in problems(opening * 100_000)[0]


def test_the_deepest_allowed_nesting_is_read() -> None:
    depth = MAX_DEPTH - 2  # the mapping and the value within
    assert parse(f"a: {'[' * depth}1{']' * depth}\n".encode(), "f.yaml").value["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 'x\n", "f.yaml:"),
        ("a:\n\tb: 1\n", "f.yaml:2: "),
        ("a: b: c\n", "f.yaml:1: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: "),
        ("a: \x01\n", "f.yaml:1: holds a control character"),
        ("- 1\n", "f.yaml:1: the file must hold a mapping"),
        ("words\n", "f.yaml:1: the file must hold a mapping"),
        ("? [a]\n: 1\n", "f.yaml:1: a key must be a single word or text"),
        ('a: "\\UFFFFFFFF"\n', "f.yaml: is not YAML that can be read"),
        (b"a: 1\nb: \xff\n", "f.yaml:2: is not UTF-8 text"),
        (b"\xff\xfea\x00", "f.yaml:1: is not UTF-8 text"),
    ],
)
def test_what_is_not_usable_yaml_is_one_sentence_with_its_line(
    text: str | bytes, said: str
) -> None:
    assert problems(text)[0].startswith(said)


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert parse(b"\xef\xbb\xbfa: 1\n", "f.yaml").value == {"a": 1}


def test_a_file_over_the_limit_is_refused_unparsed(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))

    with pytest.raises(SettingsError, match="larger than 1048576 bytes"):
        load(tmp_path / "big.yaml")


def test_a_file_that_never_ends_is_refused() -> None:
    with pytest.raises(SettingsError, match="larger than"):
        load(Path("/dev/zero"))


def test_an_unreadable_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_location_is_written_as_people_write_it() -> None:
    assert dotted(("jobs", "create", 0, "path")) == "jobs.create[0].path"
