"""`gateway schema`: the JSON Schema of a file, for editors."""

from __future__ import annotations

import argparse

from gateway.cli.option import Commands


def add(commands: Commands) -> None:
    """The command and its options."""
    schema = commands.add_parser("schema", help="print the JSON Schema of a file, for editors")
    schema.add_argument(
        "file",
        nargs="?",
        default="gateway",
        choices=["gateway", "auth", "cache", "rate_limits", "security_headers"],
    )
    schema.set_defaults(run=_schema)


def _schema(arguments: argparse.Namespace) -> int:
    import json

    from gateway.settings import policy
    from gateway.settings.model import Model, Settings

    models: dict[str, type[Model]] = {
        "gateway": Settings,
        "auth": policy.AuthPolicy,
        "cache": policy.CachePolicy,
        "rate_limits": policy.RateLimitPolicy,
        "security_headers": policy.SecurityHeaderPolicy,
    }
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    print(json.dumps(schema | models[arguments.file].model_json_schema(), indent=2))
    return 0
