"""`gateway keys`: API keys."""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.cli.failure import fail
from gateway.cli.option import Commands
from gateway.core.error import SettingsError

DEFAULT_SCOPES = "jobs:read,jobs:write,webhooks"


def add(commands: Commands) -> None:
    """The commands and their options."""
    keys = commands.add_parser("keys", help="API keys")
    _add_create(keys.add_subparsers(required=True, metavar="COMMAND"))


def _add_create(commands: Commands) -> None:
    create = commands.add_parser("create", help="make a key; it is shown once")
    create.add_argument("--owner", required=True, help="whose jobs and webhooks it sees")
    create.add_argument("--id", help="the key's name in logs; default: a random one")
    create.add_argument("--scopes", default=DEFAULT_SCOPES, help="default: %(default)s")
    create.add_argument("--expires", metavar="TIME", help="such as 2027-01-31T00:00:00Z")
    create.add_argument(
        "--write", type=Path, metavar="FILE", help="add its entry there: policies/auth.yaml"
    )
    create.set_defaults(run=_create_key)


def _create_key(arguments: argparse.Namespace) -> int:
    import secrets

    from gateway.core.credential import format_key, hash_key
    from gateway.settings.append import append_entry, formatted
    from gateway.settings.check_policy import check_auth
    from gateway.settings.policy import AuthPolicy, KeyEntry

    key = format_key(secrets.token_bytes(32))
    scopes = tuple(scope.strip() for scope in arguments.scopes.split(",") if scope.strip())
    entry: dict[str, str | tuple[str, ...]] = {
        "id": arguments.id or f"key_{secrets.token_hex(6)}",
        "owner": arguments.owner,
        "hash": f"sha256:{hash_key(key)}",
        "scopes": scopes,
    }
    if arguments.expires:
        entry["expires"] = arguments.expires
    policy = AuthPolicy(entries=(KeyEntry.model_validate(entry),))
    if problems := [f"--{location[2]}: {message}" for location, message in check_auth(policy)]:
        return fail(*problems)
    if arguments.write:
        _refuse_known_id(arguments.write, str(entry["id"]))
        append_entry(arguments.write, "entries", entry)
    print(f"The key, shown this once:\n\n  {key}\n")
    print(f"Its entry is in {arguments.write}:" if arguments.write else "Add under entries:")
    print(f"\n{formatted(entry, 2)}", end="")
    return 0


def _refuse_known_id(path: Path, key_id: str) -> None:
    from gateway.settings import yaml

    entries = (yaml.load(path).value.get("entries") or []) if path.exists() else []
    if isinstance(entries, list) and any(
        isinstance(entry, dict) and entry.get("id") == key_id for entry in entries
    ):
        raise SettingsError([f"{path}: has a key with the id {key_id!r} already"])
