"""`gateway migrate check` and `validate`: what a new `convex/` meets, before it is deployed."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.error import SettingsError

if TYPE_CHECKING:
    from gateway.migrate.contract import Contract
    from gateway.migrate.convex import ConvexMigrations
    from gateway.migrate.validator import Validator
    from gateway.settings.model import Settings

_SAMPLES = 10  # of invalid documents a table
_NOT_SET = "convex.url is not set: there is no deployment to migrate"


def add_contracts(parser: argparse.ArgumentParser) -> None:
    """`--schema FILE` and `--deployed FILE`."""
    written = "as `npm run contract` writes it"
    parser.add_argument(
        "--schema", type=Path, metavar="FILE", help=f"what is to be, {written}; default: shipped"
    )
    parser.add_argument(
        "--deployed",
        type=Path,
        metavar="FILE",
        help=f"what is there, {written}; default: asked for",
    )


@asynccontextmanager
async def deployment_of(settings: Settings) -> AsyncIterator[ConvexMigrations]:
    """The migrations of the settings' deployment. Raises SettingsError when there is none."""
    from gateway.delivery.convex import ConvexClient
    from gateway.migrate.convex import ConvexMigrations

    if settings.convex.url is None:
        raise SettingsError([_NOT_SET])
    client = ConvexClient(settings.convex)
    await client.start()
    try:
        yield ConvexMigrations(client)
    finally:
        await client.close()


async def check(arguments: argparse.Namespace, settings: Settings) -> int:
    """Compare what is deployed with what is to be; 1 when something would break or lags behind."""
    from gateway.migrate.compare import Severity, compare_calls, compare_tables

    wanted, deployed = await _contracts(arguments, settings)
    called = frozenset(path for _, path in settings.convex.functions if path is not None)
    findings = [
        *compare_tables(deployed, wanted, exact=arguments.schema is not None),
        *compare_calls(deployed, wanted, called),
    ]
    order = list(Severity)
    for each in sorted(findings, key=lambda found: (order.index(found.severity), found.where)):
        print(f"{each.severity:8}  {each.where}: {each.text}")
    bad = sum(each.severity is not Severity.NOTE for each in findings)
    print(f"{bad or 'No'} obstacle{'' if bad == 1 else 's'}.")
    return int(bad > 0)


async def validate(arguments: argparse.Namespace, settings: Settings) -> int:
    """Walk the documents that are there; 1 when the schema to be would refuse one."""
    from gateway.migrate.contract import to_be

    wanted, deployed = await _contracts(arguments, settings)
    refused = 0
    async with deployment_of(settings) as deployment:
        for table in sorted(wanted.tables.keys() & deployed.tables.keys()):
            document = to_be(table, deployed, wanted, exact=arguments.schema is not None)
            refused += await _validate_table(deployment, table, document)
    return int(refused > 0)


async def _validate_table(deployment: ConvexMigrations, table: str, document: Validator) -> int:
    seen = refused = 0
    async for found in deployment.invalid(table, document):
        if isinstance(found, int):
            seen += found
            continue
        refused += 1
        if refused <= _SAMPLES:
            print(f"{table} {found.id}: {'; '.join(found.reasons)}")
    if refused > _SAMPLES:
        print(f"{table}: and {refused - _SAMPLES:,} more")
    print(f"{table}: {seen:,} documents, {refused:,} that the schema would refuse")
    return refused


async def _contracts(
    arguments: argparse.Namespace, settings: Settings
) -> tuple[Contract, Contract]:
    """What is to be, and what is there."""
    from gateway.migrate import contract

    wanted = contract.read(arguments.schema) if arguments.schema else contract.shipped()
    if arguments.deployed:
        return wanted, contract.read(arguments.deployed)
    async with deployment_of(settings) as deployment:
        return wanted, await deployment.contract()
