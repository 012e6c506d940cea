"""The command line. A subcommand imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import __version__
from gateway.core.error import SettingsError

if TYPE_CHECKING:
    from gateway.settings.model import Settings

DEFAULT_SCOPES = "jobs:read,jobs:write,webhooks"
_BIND = re.compile(r"bind on address \('([^']*)', (\d+)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 well, 1 a problem (said on stderr), 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except SettingsError as error:
        return _fail(*error.problems)
    except BrokenPipeError:
        # The reader of a pipe had enough (`gateway schema | head`): that is no error, and Python
        # must not complain of it again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(_explain(error))
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

    serve = commands.add_parser("serve", help="run the gateway")
    _add_config(serve)
    serve.add_argument(
        "--port-file", type=Path, metavar="FILE", help="write the ports in use there, as JSON"
    )
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="say what is wrong with the settings and policies")
    _add_config(check)
    check.add_argument("--connect", action="store_true", help="also dial everything they name")
    check.set_defaults(run=_check)

    keys = commands.add_parser("keys", help="API keys")
    _add_key_commands(keys.add_subparsers(required=True, metavar="COMMAND"))

    demo = commands.add_parser("demo", help="watch the whole product work, with no setup")
    demo.add_argument("--once", action="store_true", help="end by itself; exit code 0 if all went")
    demo.add_argument("--json", action="store_true", help="print a summary object last")
    demo.set_defaults(run=_demo)

    schema = commands.add_parser("schema", help="print the JSON Schema of a file, for editors")
    schema.add_argument(
        "file",
        nargs="?",
        default="gateway",
        choices=["gateway", "auth", "cache", "rate_limits", "security_headers"],
    )
    schema.set_defaults(run=_schema)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=Path("gateway.yaml"), help="default: %(default)s"
    )


def _add_key_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    create = commands.add_parser("create", help="make a key; it is shown once")
    create.add_argument("--owner", required=True, help="whose jobs and webhooks it sees")
    create.add_argument("--id", help="the key's name in logs; default: a random one")
    create.add_argument("--scopes", default=DEFAULT_SCOPES, help="default: %(default)s")
    create.add_argument("--expires", metavar="TIME", help="such as 2027-01-31T00:00:00Z")
    create.add_argument(
        "--write", type=Path, metavar="FILE", help="add its entry there: policies/auth.yaml"
    )
    create.set_defaults(run=_create_key)


def _serve(arguments: argparse.Namespace) -> int:
    from gateway.app import run  # noqa: PLC0415 - only this command needs it

    run(arguments.config, arguments.port_file)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from gateway.settings.load import load, load_policies, policies_directory  # noqa: PLC0415

    problems: list[str] = []
    directory = arguments.config.parent / "policies"
    settings = None
    try:
        settings = load(arguments.config, os.environ)
        directory = policies_directory(arguments.config, settings)
    except SettingsError as error:
        problems.extend(error.problems)
    # The settings may be too wrong to name the directory; its files are looked at all the same.
    if settings is not None or directory.is_dir():
        try:
            auth = load_policies(directory).auth
            if auth.enabled and not auth.entries:
                print(f"note: {directory}/auth.yaml has no keys yet; see 'gateway keys create'")
        except SettingsError as error:
            problems.extend(error.problems)
    if problems or settings is None:
        return _fail(*problems)
    print(f"{arguments.config} and {directory} are good.")
    return _connect(settings) if arguments.connect else 0


def _connect(settings: Settings) -> int:
    import asyncio  # noqa: PLC0415

    from gateway.settings.model import Log  # noqa: PLC0415
    from gateway.telemetry.log import configure  # noqa: PLC0415
    from gateway.web.connect import connect, failed  # noqa: PLC0415

    configure(Log(level="error"), sys.stderr)
    conditions = asyncio.run(connect(settings))
    width = max(map(len, conditions))
    for name, condition in conditions.items():
        word = "FAILED" if failed(condition) else condition["status"].replace("_", " ")
        said = condition["error"] or f"{condition['latency_seconds']:.3f} s"
        print(f"{name:{width}}  {word:14}  {said}")
    return int(any(failed(condition) for condition in conditions.values()))


def _create_key(arguments: argparse.Namespace) -> int:
    import secrets  # noqa: PLC0415

    from gateway.core.credential import format_key, hash_key  # noqa: PLC0415
    from gateway.settings.append import append_entry, formatted  # noqa: PLC0415
    from gateway.settings.check_policy import check_auth  # noqa: PLC0415
    from gateway.settings.policy import AuthPolicy, KeyEntry  # noqa: PLC0415

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
        return _fail(*problems)
    if arguments.write:
        _refuse_known_id(arguments.write, str(entry["id"]))
        append_entry(arguments.write, "entries", entry)
    print(f"The key, shown this once:\n\n  {key}\n")
    print(f"Its entry is in {arguments.write}:" if arguments.write else "Add under entries:")
    print(f"\n{formatted(entry, 2)}", end="")
    return 0


def _refuse_known_id(path: Path, key_id: str) -> None:
    from gateway.settings import yaml  # noqa: PLC0415

    entries = (yaml.load(path).value.get("entries") or []) if path.exists() else []
    if isinstance(entries, list) and any(
        isinstance(entry, dict) and entry.get("id") == key_id for entry in entries
    ):
        raise SettingsError([f"{path}: has a key with the id {key_id!r} already"])


def _demo(arguments: argparse.Namespace) -> int:
    from gateway.demo.main import run  # noqa: PLC0415

    return run(once=arguments.once, json=arguments.json)


def _schema(arguments: argparse.Namespace) -> int:
    import json  # noqa: PLC0415

    from gateway.settings import policy  # noqa: PLC0415
    from gateway.settings.model import Model, Settings  # noqa: PLC0415

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


def _explain(error: OSError) -> str:
    """One sentence about what the system refused."""
    reason = error.strerror or str(error)
    if found := _BIND.search(str(error)):
        host, port = found.groups()
        if error.errno == errno.EADDRINUSE:
            return f"port {port} on {host} is in use by another process; choose another port"
        return f"cannot listen on port {port} of {host}: {os.strerror(error.errno or 0)}"
    if error.errno == errno.EADDRINUSE:
        return "a port of the gateway is in use by another process; choose another port"
    if error.filename is not None:
        return f"{error.filename}: {reason}"
    return reason


def _fail(*problems: str) -> int:
    for problem in problems:
        print(f"gateway: {problem}", file=sys.stderr)
    return 1
