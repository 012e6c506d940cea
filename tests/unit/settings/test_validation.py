"""What `policies/validation.yaml` and its files may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.error import SettingsError
from gateway.settings.load import load_policies

SCHEMA = '{"type": "object"}'


def problem(directory: Path, text: str, **files: str) -> str:
    (directory / "validation.yaml").write_text(text)
    for name, content in files.items():
        (directory / f"{name}.json").write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_policies(directory)
    [found] = caught.value.problems
    return found


def test_a_schema_beside_the_policies_is_read(tmp_path: Path) -> None:
    (tmp_path / "validation.yaml").write_text("routes: {job-create: {schema_file: a.json}}")
    (tmp_path / "a.json").write_text(SCHEMA)

    assert load_policies(tmp_path).documents == {"a.json": {"type": "object"}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ('{"type": "objekt"}', "is no JSON Schema that can be used: type"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[]", "is no JSON Schema"),
        ('{"$ref": "https://example.com/a.json"}', "put it into the file"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_with_its_line(
    tmp_path: Path, content: str, said: str
) -> None:
    text = "mode: shadow\nroutes:\n  job-create:\n    schema_file: a.json\n"

    found = problem(tmp_path, text, a=content)

    assert found.startswith(f"{tmp_path}/validation.yaml:4: routes.job-create.schema_file: a.json ")
    assert said in found


@pytest.mark.parametrize("name", ["../a.json", "/etc/passwd", "b/a.json", ".a.json"])
def test_a_schema_stands_beside_the_policies(tmp_path: Path, name: str) -> None:
    found = problem(tmp_path, f"routes: {{job-create: {{schema_file: {name}}}}}")

    assert "beside the policy files" in found


def test_a_schema_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    found = problem(tmp_path, "routes: {job-create: {schema_file: creat.json}}", create=SCHEMA)

    assert found.endswith("did you mean 'create.json'?")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("routes: {job-creat: {}}", "did you mean 'job-create'?"),
        ("routes: {job-create: {content_types: [json]}}", "like application/json"),
        ("openapi: {path: openapi.json}", "must begin with /"),
        ("openapi: {source: file}", "is required"),
        ("openapi: {source: upstream, file: a.json}", "is not read"),
        ("markup: escape", "must be 'reject', 'strip' or 'allow'"),
        ("max_depth: 0", "at least 1"),
    ],
)
def test_the_rules_of_the_file_are_checked(tmp_path: Path, text: str, said: str) -> None:
    assert said in problem(tmp_path, text)


def test_a_description_in_a_file_must_be_one(tmp_path: Path) -> None:
    found = problem(tmp_path, "openapi: {source: file, file: a.json}", a="{}")

    assert "a.json is not an OpenAPI 3.1 document" in found


def test_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "validation.yaml").write_text("routes: {job-create: {schema_file: a.json}}")
    (tmp_path / "cache.yaml").write_text("tll: 1s")
    (tmp_path / "auth.yaml").write_text(
        f"entries: [{{id: a, hash: {'0' * 64}, owner: o, tier: gold}}]"
    )

    with pytest.raises(SettingsError) as caught:
        load_policies(tmp_path)

    told = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    for said in ("unknown tier", "did you mean 'ttl'?", "a.json is not in"):
        assert said in told
