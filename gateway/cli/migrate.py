"""`gateway migrate`: change what Convex and the store hold already, and change it back."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.cli import migrate_check
from gateway.cli.failure import fail
from gateway.cli.migrate_check import add_contracts, deployment_of
from gateway.cli.option import Commands, add_config
from gateway.cli.progress import ProgressBar
from gateway.core.error import SettingsError, StoreUnavailable

if TYPE_CHECKING:
    from gateway.migrate.convex import ConvexMigrations, Direction, Migration, Progress
    from gateway.settings.model import Settings

Work = Callable[[argparse.Namespace, "Settings"], Coroutine[Any, Any, int]]


def add(commands: Commands) -> None:
    """The commands and their options."""
    migrate = commands.add_parser(
        "migrate", help="change what Convex and the store hold already, and change it back"
    )
    actions = migrate.add_subparsers(required=True, metavar="COMMAND")
    status = _action(actions, "status", "say which migrations are applied", _status)
    status.add_argument("what", nargs="?", choices=("convex", "store"), help="default: both")
    about = "say what deploying convex/ would break"
    add_contracts(_action(actions, "check", about, migrate_check.check))
    about = "judge every document by the schema to be"
    add_contracts(_action(actions, "validate", about, migrate_check.validate))
    up = _action(actions, "up", "apply what is missing", _up)
    up.add_argument("what", nargs="?", choices=("convex", "store"), help="default: both")
    up.add_argument("--to", metavar="NAME", help="of Convex's, up to this one; default: all")
    _add_batches(up)
    down = _action(actions, "down", "roll back the last migration", _down)
    down.add_argument("what", choices=("convex", "store"), help="whose")
    down.add_argument("--to", metavar="NAME", help="of Convex's, this one and all after it")
    _add_batches(down)
    about = "forget what an applied migration overwrote: no way back"
    confirm = _action(actions, "confirm", about, _confirm)
    confirm.add_argument("name", metavar="NAME", help="as `status` shows it")
    _add_batch_size(confirm)


def _add_batches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="of Convex's, do it and undo it")
    _add_batch_size(parser)


def _add_batch_size(parser: argparse.ArgumentParser) -> None:
    about = "documents a transaction; default: %(default)s"
    parser.add_argument("--batch-size", type=_batch_size, default=200, metavar="N", help=about)


def _batch_size(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 500:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 500, not {text!r}")
    return int(text)


def _action(commands: Commands, name: str, about: str, work: Work) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about)
    add_config(parser)
    parser.set_defaults(run=partial(_run, work))
    return parser


def _run(work: Work, arguments: argparse.Namespace) -> int:
    import asyncio

    from gateway.delivery.convex import ConvexError
    from gateway.migrate.convex import MigrationFailed
    from gateway.settings.load import load

    settings = load(arguments.config, os.environ)
    try:
        return asyncio.run(work(arguments, settings))
    except ConvexError as error:
        return fail(f"Convex: {error.line}")
    except MigrationFailed as error:
        return fail(str(error))
    except StoreUnavailable as error:
        return fail(error.detail)


async def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    from gateway.migrate.layout import open_layouts

    if arguments.what != "store" and (settings.convex.url or arguments.what == "convex"):
        async with deployment_of(settings) as deployment:
            migrations = await deployment.status()
        print(f"Convex {settings.convex.url}")
        width = max(len(each.name) for each in migrations)
        for each in migrations:
            print(f"  {each.version}  {each.name:{width}}  {_standing(each)}")
    if arguments.what != "convex":
        async with open_layouts(settings) as layouts:
            for layout in layouts:
                standing = await layout.stands_at()
                print(f"{layout.where}: schema {standing} of {layout.newest}")
    return 0


def _standing(migration: Migration) -> str:
    run = migration.run
    if run is None or migration.untouched:
        return f"not applied: {migration.description}"
    counts = f"{run.processed:,} documents, {run.changed:,} changed"
    if migration.applied:
        back = "confirmed" if run.confirmed else "can be rolled back"
        return f"applied: {counts}; {back}"
    why = f": {run.error}" if run.error else ""
    return f"{run.state} on its way {run.direction}: {counts}{why}"


async def _up(arguments: argparse.Namespace, settings: Settings) -> int:
    from gateway.migrate.layout import open_layouts

    if arguments.what != "store" and (settings.convex.url or arguments.what == "convex"):
        async with deployment_of(settings) as deployment:
            migrations = list(await deployment.status())
            wanted = migrations[: _place(migrations, arguments.to, len(migrations) - 1) + 1]
            missing = [each for each in wanted if not each.applied]
            await _walk(deployment, missing, "up", arguments)
        if not missing:
            print(f"Convex {settings.convex.url}: nothing to apply")
    if arguments.what != "convex" and not arguments.dry_run:
        async with open_layouts(settings) as layouts:
            for layout in layouts:
                if await layout.stands_at() or (arguments.what and len(layouts) == 1):
                    print(f"{layout.where}: {await layout.up() or 'nothing to apply'}")
    return 0


async def _down(arguments: argparse.Namespace, settings: Settings) -> int:
    from gateway.migrate.layout import open_layouts

    if arguments.what == "store":
        if arguments.dry_run:
            return fail("--dry-run is of Convex's migrations; the store's keep a copy of the file")
        async with open_layouts(settings) as layouts:
            print(f"{layouts[-1].where}: {await layouts[-1].down()}")
        return 0
    async with deployment_of(settings) as deployment:
        migrations = await deployment.status()
        touched = [each for each in migrations if not each.untouched]
        if arguments.to is not None:
            first = migrations[_place(migrations, arguments.to, 0)].version
            touched = [each for each in touched if each.version >= first]
        else:
            touched = touched[-1:]
        await _walk(deployment, touched[::-1], "down", arguments)
    if not touched:
        print(f"Convex {settings.convex.url}: nothing to roll back")
    return 0


def _place(migrations: Sequence[Migration], name: str | None, default: int) -> int:
    if name is None:
        return default
    names = [each.name for each in migrations]
    if name not in names:
        raise SettingsError([f"there is no migration {name!r}; known: {', '.join(names)}"])
    return names.index(name)


async def _walk(
    deployment: ConvexMigrations,
    migrations: Sequence[Migration],
    direction: Direction,
    arguments: argparse.Namespace,
) -> None:
    for each in migrations:
        label = f"{each.name} {direction}" + (" (dry run)" if arguments.dry_run else "")
        bar = ProgressBar(label, sys.stderr)
        await deployment.run(
            each,
            direction,
            partial(_draw, bar),
            batch_size=arguments.batch_size,
            dry_run=arguments.dry_run,
        )


def _draw(bar: ProgressBar, progress: Progress) -> None:
    word = "changed" if progress.direction == "up" else "restored"
    note = f", {progress.changed:,} {word}"
    bar.show(progress.processed, progress.total, note, ended=progress.done)


async def _confirm(arguments: argparse.Namespace, settings: Settings) -> int:
    async with deployment_of(settings) as deployment:
        forgotten = await deployment.confirm(arguments.name, batch_size=arguments.batch_size)
    print(f"{arguments.name} is confirmed; what it overwrote in {forgotten:,} documents is gone.")
    return 0
