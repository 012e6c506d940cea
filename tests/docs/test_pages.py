"""Every page: it is in the index, and whatever code it shows is run or read by some test."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import cli
from gateway.settings.load import load, load_policies
from tests.docs.markdown import ROOT, blocks, codes, links, prose, tables
from tests.support.certificate import make_certificate

DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), ROOT / "convex" / "README.md"]
# Programs that are not ours: what is typed there is for the reader's own shell.
FOREIGN = {".", "buildah", "curl", "export", "git", "kubectl", "pip"}
PROSE = {"http", "mermaid", "text"}  # shown, not run
ELSEWHERE = {"ts", "tsx", "sh"}  # convex/README.md, whose code `make lint` checks in convex/
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)$", re.MULTILINE)
_PLACE = re.compile(r"(?:gateway|tests|docs|config)/[\w./]+$")
_HEAD = re.compile(r"# (gateway\.yaml|policies/(\w+)\.yaml)\n")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page.read_text(), "console"):
            typed = _COMMAND.findall(block.text)
            assert typed, f"{name_of(page)}: a console block without a prompt"
            yield from ((name_of(page), command.replace("\\\n", "")) for command in typed)


def samples() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        yield from ((name_of(page), block.text) for block in blocks(page.read_text(), "yaml"))


def test_every_page_is_in_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(INDEX.read_text())}

    missing = {*DOCS.glob("*.md")} - {INDEX} - linked

    assert missing == set(), "docs/README.md has a line for every page"


def test_the_index_is_by_reader() -> None:
    headings = {table.heading for table in tables(INDEX.read_text())}

    assert headings == {"Operators", "Client developers", "Webhook receivers", "Contributors"}


def test_every_place_that_contributors_are_sent_to_is_there() -> None:
    page = (DOCS / "contributing.md").read_text()
    places = {code for code in codes(prose(page)) if _PLACE.match(code)}

    assert [place for place in places if not (ROOT / place).exists()] == []
    assert len(places) > 20


@pytest.mark.parametrize(("page", "command"), [*commands()], ids=str)
def test_every_command_that_is_shown_is_one(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    program = words[0]
    if program == "gateway":
        assert callable(cli._parser().parse_args(words[1:]).run)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{words[1]}:.*##", makefile, re.MULTILINE)
    elif program == "python":
        assert words[1] == "-m"
        assert importlib.util.find_spec(words[2]) is not None
    else:
        assert program in FOREIGN


@pytest.mark.parametrize(("page", "sample"), [*samples()])
def test_every_settings_sample_is_taken(page: str, sample: str, tmp_path: Path) -> None:
    found = _HEAD.match(sample)
    assert found is not None, "its first line says which file it is"
    if "/etc/tls/" in sample:
        certificate, key = make_certificate(tmp_path, "gateway.test")
        sample = sample.replace("/etc/tls/tls.crt", str(certificate))
        sample = sample.replace("/etc/tls/tls.key", str(key))
    (tmp_path / Path(found[1]).name).write_text(sample)

    if found[2] is None:
        load(
            tmp_path / "gateway.yaml",
            {
                "REDIS_URL": "redis://127.0.0.1:6379",
                "HOSTNAME": "gateway-0",
                "COLLECTOR_TOKEN": "Bearer made-up",
            },
        )
    else:
        load_policies(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_all_other_code_has_a_test_that_runs_it(page: Path) -> None:
    languages = {block.language for block in blocks(page.read_text())}
    languages -= {"console", "yaml"} | PROSE
    if page.parent.name == "convex":
        languages -= ELSEWHERE
    runners = [path.read_text() for path in (ROOT / "tests" / "docs").glob("test_*.py")]
    mine = "".join(text for text in runners if f'"{page.name}"' in text)

    assert "" not in languages, "a block without a language"
    assert [each for each in languages if f'blocks(PAGE, "{each}")' not in mine] == []
