"""`gateway keys`: API keys, in a policy file, in the store, or through a running gateway."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.option import Commands, add_admin, add_config
from gateway.cli.table import show_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.cli.admin_api import Document
    from gateway.cli.key_desk import KeyDesk

DEFAULT_SCOPES = "jobs:read,jobs:write,webhooks"
_COLUMNS = ("id", "owner", "name", "state", "scopes", "tier", "expires_at", "last_used_at")


def add(commands: Commands) -> None:
    """The commands and their options."""
    keys = commands.add_parser("keys", help="API keys")
    below = keys.add_subparsers(required=True, metavar="COMMAND")
    _add_create(below)
    _add_list(below)
    _add_rotate(below)
    _add_revoke(below)


def _add_create(commands: Commands) -> None:
    create = commands.add_parser("create", help="make a key; it is shown once")
    create.add_argument("--owner", required=True, help="whose jobs and webhooks it sees")
    create.add_argument("--id", help="the key's name in logs; default: a random one")
    create.add_argument("--name", help="what it is for, in words")
    create.add_argument("--scopes", default=DEFAULT_SCOPES, help="default: %(default)s")
    create.add_argument("--tier", help="of policies/rate_limits.yaml")
    create.add_argument(
        "--networks", action="append", metavar="CIDR", help="works from there alone; repeatable"
    )
    create.add_argument("--expires", metavar="TIME", help="such as 2027-01-31T00:00:00Z")
    where = create.add_mutually_exclusive_group()
    where.add_argument(
        "--write", type=Path, metavar="FILE", help="add its entry there: policies/auth.yaml"
    )
    where.add_argument("--store", action="store_true", help="keep it in the store")
    add_admin(where)
    add_config(create)
    create.set_defaults(run=_create)


def _add_list(commands: Commands) -> None:
    listing = commands.add_parser("list", help="show the keys of a store or a gateway")
    listing.add_argument("--owner", help="only this one's")
    listing.add_argument("--json", action="store_true", help="as JSON")
    add_admin(listing)
    add_config(listing)
    listing.set_defaults(run=_list)


def _add_rotate(commands: Commands) -> None:
    rotate = commands.add_parser("rotate", help="make a successor; the key lives on for an overlap")
    rotate.add_argument("key_id", metavar="ID", help="of the key to succeed")
    rotate.add_argument("--id", help="the successor's; default: a random one")
    rotate.add_argument("--overlap", default="24h", help="how long both work; default: %(default)s")
    rotate.add_argument("--expires", metavar="TIME", help="when the successor ends")
    where = rotate.add_mutually_exclusive_group()
    where.add_argument("--write", type=Path, metavar="FILE", help="the policy file that has it")
    add_admin(where)
    add_config(rotate)
    rotate.set_defaults(run=_rotate)


def _add_revoke(commands: Commands) -> None:
    revoke = commands.add_parser("revoke", help="end a key of the store at once")
    revoke.add_argument("key_id", metavar="ID", help="as `list` shows it")
    add_admin(revoke)
    add_config(revoke)
    revoke.set_defaults(run=_revoke)


def _create(arguments: argparse.Namespace) -> int:
    if not arguments.store and arguments.admin is None:
        from gateway.cli.key_file import create

        return create(arguments)
    document = _given(
        owner=arguments.owner,
        id=arguments.id,
        name=arguments.name,
        scopes=[scope.strip() for scope in arguments.scopes.split(",") if scope.strip()],
        tier=arguments.tier,
        networks=arguments.networks,
        expires_at=arguments.expires,
    )
    return _at_desk(arguments, lambda desk: desk.create(document), _show_created)


def _list(arguments: argparse.Namespace) -> int:
    return _at_desk(
        arguments,
        lambda desk: desk.list(arguments.owner),
        lambda keys: show_table(_COLUMNS, keys),
    )


def _rotate(arguments: argparse.Namespace) -> int:
    if arguments.write is not None:
        from gateway.cli.key_file import rotate

        return rotate(arguments)
    document = _given(id=arguments.id, overlap=arguments.overlap, expires_at=arguments.expires)

    def show(issued: Document) -> None:
        _show_created(issued)
        before = issued["predecessor"]
        print(f"{before['id']} works until {before['expires_at']}.")

    return _at_desk(arguments, lambda desk: desk.rotate(arguments.key_id, document), show)


def _revoke(arguments: argparse.Namespace) -> int:
    def show(_: None) -> None:
        print(f"{arguments.key_id} is revoked.")

    return _at_desk(arguments, lambda desk: desk.revoke(arguments.key_id), show)


def _show_created(issued: Document) -> None:
    print(f"The key, shown this once:\n\n  {issued['key']}\n")
    print(f"It is {issued['id']}, of {issued['owner']}, for {', '.join(issued['scopes'])}.")


def _at_desk(
    arguments: argparse.Namespace,
    work: Callable[[KeyDesk], Awaitable[Any]],
    show: Callable[[Any], None],
) -> int:
    from gateway.cli.desk import at_desk
    from gateway.cli.key_desk import REACH

    return at_desk(REACH, arguments, work, show)


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
