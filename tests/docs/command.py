"""Every command of the command line with its options, as its parser has them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from gateway import cli


@dataclass(frozen=True, slots=True)
class Option:
    """One argument: how it is written, and what it says."""

    written: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command that can be run, by its whole name."""

    name: str
    meaning: str
    options: tuple[Option, ...]


def commands() -> list[Command]:
    """Every command, in the order of `gateway --help`; groups are left out for what is in them."""
    return list(_below(cli._parser(), "gateway", ""))


def _below(parser: argparse.ArgumentParser, name: str, meaning: str) -> Iterator[Command]:
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield Command(name, meaning, tuple(map(_option, _shown(parser))))
    for group in groups:
        for each in group._choices_actions:  # a command without help is not for people
            yield from _below(group.choices[each.dest], f"{name} {each.dest}", each.help or "")


def _shown(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            yield action


def _option(action: argparse.Action) -> Option:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    value = "" if action.nargs == 0 else name
    if action.choices:
        value = "|".join(map(str, action.choices))
    if action.option_strings:
        written = f"{', '.join(action.option_strings)} {value}".rstrip()
    else:
        written = f"[{value}]" if action.nargs in ("?", "*") else value
    meaning = action.help or ""
    if "%(default)s" in meaning:
        meaning = meaning.replace("%(default)s", f"`{action.default}`")
    elif (
        action.nargs != 0 and action.option_strings and action.default and "default" not in meaning
    ):
        meaning += f"; default: `{action.default}`"
    return Option(written, meaning)
