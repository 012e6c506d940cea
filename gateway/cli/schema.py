"""`gateway schema`: the JSON Schema of a file, for editors."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.option import Commands


def add(commands: Commands) -> None:
    """The command and its options."""
    schema = commands.add_parser("schema", help="print the JSON Schema of a file, for editors")
    schema.add_argument(
        "file",
        nargs="?",
        default="gateway",
        choices=(
            *("gateway", "auth", "cache", "cors", "idempotency", "rate_limits"),
            *("security_headers", "validation"),
        ),
        help="default: %(default)s",
    )
    schema.set_defaults(run=_schema)


def _schema(arguments: argparse.Namespace) -> int:
    import json

    from gateway.settings.model import Settings
    from gateway.settings.policy import PolicySet

    model: Any = Settings
    if arguments.file != "gateway":
        model = PolicySet.model_fields[arguments.file].annotation
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    print(json.dumps(schema | model.model_json_schema(), indent=2))
    return 0
