"""`gateway drain`: ask a running gateway to send its clients elsewhere, before it is stopped."""

from __future__ import annotations

import argparse
import os

from gateway.cli.failure import fail
from gateway.cli.option import Commands

_ADMIN_URL = "http://127.0.0.1:9901"
_TIMEOUT_SECONDS = 5.0


def add(commands: Commands) -> None:
    """The command and its options."""
    drain = commands.add_parser("drain", help="let a running gateway finish, and take nothing new")
    drain.add_argument(
        "--admin-url",
        default=os.environ.get("GATEWAY_ADMIN_URL", _ADMIN_URL),
        metavar="URL",
        help=f"its admin listener; default: GATEWAY_ADMIN_URL, else {_ADMIN_URL}",
    )
    drain.set_defaults(run=_drain)


def _drain(arguments: argparse.Namespace) -> int:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    url = f"{arguments.admin_url.rstrip('/')}/drain"
    try:
        with urlopen(Request(url, method="POST"), timeout=_TIMEOUT_SECONDS):  # noqa: S310 - the operator's own
            return 0
    except HTTPError as error:
        with error:
            return fail(f"{url} answered {error.code}: is that the admin listener of a gateway?")
    except (URLError, TimeoutError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        return fail(f"{url} cannot be asked: {reason}; --admin-url names another")
