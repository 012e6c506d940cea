"""`gateway explain`: what would become of a request, policy by policy."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.failure import fail
from gateway.cli.option import Commands, add_config

if TYPE_CHECKING:
    from gateway.app.explain import Explanation

_DESCRIPTION = """\
Says which route a request is on, which policies it meets in their order, and what each would decide
and why, by the files as they are. Nothing is sent, counted or changed."""


def add(commands: Commands) -> None:
    """The command and its options."""
    parser = commands.add_parser(
        "explain", help="say what would become of a request", description=_DESCRIPTION
    )
    parser.add_argument("method", metavar="METHOD", help="GET, POST, ...")
    parser.add_argument("target", metavar="PATH", help="with its query: /api/v1/jobs?limit=5")
    add_config(parser)
    parser.add_argument("--key", metavar="KEY", help="the API key it carries; - reads stdin")
    parser.add_argument("--ip", metavar="ADDRESS", default="127.0.0.1", help="where it comes from")
    parser.add_argument(
        "--header", metavar="'NAME: VALUE'", action="append", default=[], help="may be repeated"
    )
    parser.add_argument("--data", metavar="TEXT", help="its body; @FILE reads one")
    parser.add_argument("--https", action="store_true", help="it came over TLS")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    import asyncio
    import json
    import sys
    from dataclasses import asdict

    from gateway.app.explain import Question, explain
    from gateway.core.error import GatewayError
    from gateway.settings.load import load, load_policies, policies_directory
    from gateway.settings.telemetry import Log
    from gateway.telemetry.log import configure

    configure(Log(level="error"), sys.stderr)
    headers: list[tuple[str, str]] = []
    for given in arguments.header:
        name, colon, value = given.partition(":")
        if not colon or not name.strip() or not given.isprintable():
            return fail(f"--header {given!r}: must be one line, written 'Name: value'")
        headers.append((name.strip(), value.strip()))
    settings = load(arguments.config, os.environ)
    policies = load_policies(policies_directory(arguments.config, settings))
    if arguments.key is not None:
        key = sys.stdin.readline().strip() if arguments.key == "-" else arguments.key
        headers.append((policies.auth.keys.header, key))
    question = Question(
        method=arguments.method,
        target=arguments.target,
        headers=headers,
        body=_body(arguments.data),
        address=arguments.ip,
        scheme="https" if arguments.https else "http",
    )
    try:
        found = asyncio.run(explain(settings, policies, question))
    except GatewayError as error:
        return fail(f"{error.status} {error.slug}: {error.detail}")
    if arguments.json:
        print(json.dumps(asdict(found) | {"refused_by": found.refused_by}, indent=2))
    else:
        _show(found)
    return 0


def _body(given: str | None) -> bytes:
    if given is None:
        return b""
    return Path(given[1:]).read_bytes() if given.startswith("@") else given.encode()


def _show(found: Explanation) -> None:
    print(f"route      {found.route} ({found.template})")
    for name, value in found.parameters.items():
        print(f"           {name} = {value}")
    print(f"answers    {found.answered_by}")
    print(f"forwarded  {found.forwarded}\n")
    width = max((len(step.policy) for step in found.steps), default=0)
    for step in found.steps:
        print(f"{'x' if step.refuses else ' '} {step.policy:{width}}  {step.decision}")
    end = f"refused by {found.refused_by}" if found.refused_by else "passes every policy"
    print(f"\n{end}")
    for note in found.notes:
        print(f"note: {note}")
