"""The command line: a module a command, each of which imports what it needs when it runs.

So `gateway --help` is quick, and a command costs what it uses.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from gateway import __version__
from gateway.cli import (
    check,
    convex,
    demo,
    drain,
    explain,
    failure,
    jobs,
    keys,
    migrate,
    schema,
    serve,
    webhooks,
    worker,
)
from gateway.cli.failure import fail
from gateway.core.error import SettingsError

# In the order of `gateway --help`.
_COMMANDS = (
    serve,
    check,
    explain,
    drain,
    keys,
    jobs,
    webhooks,
    convex,
    migrate,
    demo,
    schema,
    worker,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 well, 1 a problem (said on stderr), 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except SettingsError as error:
        return fail(*error.problems)
    except BrokenPipeError:
        # The reader of a pipe had enough (`gateway schema | head`): that is no error, and Python
        # must not complain of it again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return fail(failure.explain(error))
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="A gateway in front of an asynchronous-job API: keys, limits, cache, and every "
        "job change as a signed webhook or a Convex update.",
    )
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser
