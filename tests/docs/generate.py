"""Writes what follows from the code: `python -m tests.docs.generate`.

That is config/schema/, docs/settings.md, docs/metrics.md, docs/problems.md, docs/commands.md, the
marked parts of docs/jobs.md and docs/scaling.md, and the alerts as the Prometheus operator takes
them. What a setting means is written in docs/settings.md itself, and kept.
"""

from __future__ import annotations

import inspect
import io
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from itertools import groupby
from pathlib import Path

import orjson

from benchmarks.report import LATEST
from benchmarks.scale.table import tables as scale_tables
from gateway import cli
from gateway.core import error
from gateway.core.error import GatewayError
from gateway.core.job import EventType, State
from gateway.core.transition import TRANSITIONS
from gateway.telemetry.metric import Metrics
from gateway.telemetry.worker_metric import WorkerMetrics
from tests.docs.command import commands
from tests.docs.markdown import ROOT, tables
from tests.docs.setting import Setting, file_name, files, settings

SETTINGS = ROOT / "docs" / "settings.md"
METRICS = ROOT / "docs" / "metrics.md"
JOBS = ROOT / "docs" / "jobs.md"
SCALING = ROOT / "docs" / "scaling.md"
PROBLEMS = ROOT / "docs" / "problems.md"
COMMANDS = ROOT / "docs" / "commands.md"
SCHEMAS = ROOT / "config" / "schema"
ALERTS = ROOT / "config" / "prometheus" / "alerts.yaml"
RULE = ROOT / "config" / "kubernetes" / "components" / "monitoring" / "prometheus-rule.yaml"
COLUMNS = ("setting", "takes", "default", "meaning")
UNFED: frozenset[str] = frozenset()  # exposed, but nothing sets them yet
BEGIN, END = "<!-- generated from core/transition.py -->\n", "<!-- end -->\n"
BEGIN_SCALING = "<!-- generated from benchmarks/results/latest.json -->\n"

_SETTINGS_HEAD = """\
# Settings

Every key of every file. Durations: `500ms`, `15s`, `5m`, `1h`, `1d`; sizes: `64KiB`, `1MiB`. What
is *required* must be said once its section is there; `[]` stands for each item of a list, `<name>`
for a name of your own. `gateway check` names every problem with its line.

Over `gateway.yaml` come `config/<GATEWAY_ENV>.yaml`, and over that variables: `GATEWAY__` and
the path, two underscores a level, as in `GATEWAY__UPSTREAM__URL`. Their text means what it
would in YAML (`[a, b]` is a list, `15s` a duration), nothing means none. Mappings are merged
key by key; all else is replaced whole. A secret is never written out: `${NAME}` takes it from a
variable, `${NAME:-}` lets it be absent, `file:/run/secrets/name` reads a mounted file, at the
start. The policy files have no overlays: they are live ([policies.md](policies.md)), and each
environment mounts its own.

Paths, types and defaults are generated from the code; editors have them from `config/schema/`,
which each file names in its first line.
"""
_METRICS_HEAD = """\
# Metrics

`GET /metrics` on the admin listener: the Prometheus text format, or OpenMetrics where it is
accepted. Durations are seconds. Labels hold names of routes, methods, status codes and words of
fixed sets; never an id or a URL. Several workers have one exposition: counters and histograms are
sums, gauges as the table says. So are replicas added up: of jobs and messages in a store that they
share each shows all, where each has its own store each shows its own. This page is generated from
the code. What the mission called them is in [mission.md](mission.md).
"""

_COMMANDS_HEAD = """\
# Commands

`gateway --help` says the same. Every command exits with 0 when all is well, with 1 when there is a
problem, said on standard error as what, where and how to mend it, and with 2 when it was called
wrongly. This page is generated from the code.
"""
_RULE_HEAD = """\
# Generated from config/prometheus/alerts.yaml, where each alert has its test and its runbook.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: analysis-api}
spec:
"""

_PROBLEMS_HEAD = """\
# Problems

What the gateway itself answers instead of what was asked for: a document of RFC 9457
(`application/problem+json`), its `type` as below, with `status`, `title`, `detail`, `instance` and
`request_id`. The upstream's own errors pass as they are. This page is generated from the code.
"""


def pages() -> dict[Path, str]:
    """What each generated file should hold."""
    schemas = {SCHEMAS / f"{name}.json": schema(name) for name in files()}
    return {
        **schemas,
        SETTINGS: settings_page(SETTINGS.read_text() if SETTINGS.exists() else ""),
        METRICS: metrics_page(),
        PROBLEMS: problems_page(),
        JOBS: jobs_page(JOBS.read_text()),
        SCALING: scaling_page(SCALING.read_text()),
        COMMANDS: commands_page(),
        RULE: rule(ALERTS.read_text()),
    }


def schema(name: str) -> str:
    """What `gateway schema` prints for this file."""
    with redirect_stdout(io.StringIO()) as out:
        assert cli.main(["schema", name]) == 0
    return out.getvalue()


def settings_page(before: str) -> str:
    """The page, its meanings taken from what it said before."""
    meanings = meanings_of(before)
    parts = [_SETTINGS_HEAD]
    for heading, group in groupby(settings(), _heading):
        parts.append(f"\n## {heading}\n\n{_row(COLUMNS)}{_row('---' for _ in COLUMNS)}")
        for setting in group:
            default = "*required*" if setting.default is None else setting.default
            meaning = meanings.get((setting.file, setting.path), "")
            parts.append(_row((f"`{setting.path}`", setting.type, default, meaning)))
    return "".join(parts)


def meanings_of(page: str) -> Mapping[tuple[str, str], str]:
    """What the page says of each setting, by file and path."""
    return {
        (table.heading.partition(":")[0], row["setting"].strip("`")): row["meaning"]
        for table in tables(page)
        for row in table.rows
    }


def metrics_page() -> str:
    """Every series, as `/metrics` has it."""
    names = ("series", "kind", "labels", "of several workers", "what it says")
    parts = [_METRICS_HEAD, f"\n{_row(names)}{_row('---' for _ in names)}"]
    parts += [_row(cells) for cells in sorted([*_series(Metrics()), *_series(WorkerMetrics())])]
    return "".join(parts)


def problems_page() -> str:
    """Every type of problem, as its class describes it."""
    names = ("type", "status", "title", "when")
    parts = [_PROBLEMS_HEAD, f"\n{_row(names)}{_row('---' for _ in names)}"]
    for each in sorted(_problems(), key=lambda found: (found.status, found.slug)):
        said = inspect.cleandoc(each.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        parts.append(_row((f"`{each.__new__(each).type}`", str(each.status), each.title, said)))
    return "".join(parts)


def jobs_page(page: str) -> str:
    """The page with its marked part made anew."""
    return _marked(page, BEGIN, f"{''.join(_diagram())}\n{''.join(_transitions())}")


def scaling_page(page: str) -> str:
    """The page with the tables that follow from the latest results of the benchmarks."""
    return _marked(page, BEGIN_SCALING, scale_tables(orjson.loads(LATEST.read_bytes())))


def _marked(page: str, begin: str, text: str) -> str:
    """The page with what stands between the mark and `END` replaced."""
    head, found, rest = page.partition(begin)
    _, end, tail = rest.partition(END)
    assert found, f"the page lacks the mark {begin.strip()}"
    assert end, f"the page lacks the mark {END.strip()}"
    return f"{head}{begin}{text}{END}{tail}"


def commands_page() -> str:
    """Every command with its options."""
    parts = [_COMMANDS_HEAD]
    for command in commands():
        parts.append(f"\n## {command.name}\n\n{command.meaning[0].upper()}{command.meaning[1:]}.\n")
        if command.options:
            parts.append(f"\n{_row(('option', 'meaning'))}{_row(('---', '---'))}")
        parts += [
            _row((f"`{option.written}`".replace("|", "\\|"), option.meaning))
            for option in command.options
        ]
    return "".join(parts)


def rule(alerts: str) -> str:
    """Prometheus' rules as a resource of its operator's."""
    _, begin, groups = alerts.partition("groups:\n")
    assert begin, "alerts.yaml lacks its groups"
    return _RULE_HEAD + textwrap.indent(begin + groups, "  ")


def _problems() -> Iterator[type[GatewayError]]:
    for each in vars(error).values():
        if isinstance(each, type) and issubclass(each, GatewayError):
            yield each


def _heading(setting: Setting) -> str:
    if setting.file != file_name("gateway"):
        return setting.file
    section, dot, _ = setting.path.partition(".")
    return f"{setting.file}: {section}" if dot else setting.file


def _series(metrics: Metrics | WorkerMetrics) -> Iterator[tuple[str, ...]]:
    labels = {
        f"gateway_{name}": ", ".join(f"`{label}`" for label in family._labelnames)
        for name, family in vars(metrics).items()
        if hasattr(family, "_labelnames")
    }
    for family in metrics.registry.collect():
        if isinstance(metrics, WorkerMetrics) and not family.name.startswith("gateway_"):
            continue  # the process's own, which every process has
        name = f"{family.name}_total" if family.type == "counter" else family.name
        said = family.documentation.rstrip(".") + "."
        if name.removeprefix("gateway_") in UNFED:
            said += " Not set yet: always 0."
        rule = metrics.gauge_rules[family.name] if family.type == "gauge" else "sum"
        yield f"`{name}`", family.type, labels.get(name, ""), rule, said


def _diagram() -> Iterator[str]:
    yield "```mermaid\nstateDiagram-v2\n"
    for (known, seen), events in TRANSITIONS.items():
        if known is not seen:
            yield f"    {known or '[*]'} --> {seen}: {', '.join(map(_short, events))}\n"
    for state in State:
        if state.terminal:
            yield f"    {state} --> [*]\n"
    yield "```\n"


def _transitions() -> Iterator[str]:
    yield _row(("known", "observed", "events"))
    yield _row(("---", "---", "---"))
    for (known, seen), events in TRANSITIONS.items():
        yield _row((known or "nothing", seen, ", ".join(f"`{event}`" for event in events)))


def _short(event: EventType) -> str:
    return event.removeprefix("job.")


def _row(cells: Iterator[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |") + "\n"


def main() -> None:
    """Write every file that has changed."""
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(path.relative_to(ROOT))  # noqa: T201 - a command says what it did


if __name__ == "__main__":
    main()
