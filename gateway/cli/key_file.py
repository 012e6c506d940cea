"""`gateway keys create` and `rotate` for keys that stand in a policy file."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.cli.failure import fail
from gateway.core.credential import format_key, hash_key
from gateway.core.error import SettingsError
from gateway.settings import yaml
from gateway.settings.append import append_entry, formatted
from gateway.settings.base import parse_duration
from gateway.settings.check_policy import check_auth
from gateway.settings.policy import AuthPolicy, KeyEntry

Entry = dict[str, str | tuple[str, ...]]


def create(arguments: argparse.Namespace) -> int:
    """Print a new key and its entry, or add the entry to the file that `--write` names."""
    entry: Entry = {
        "owner": arguments.owner,
        "scopes": tuple(scope.strip() for scope in arguments.scopes.split(",") if scope.strip()),
        **_texts(name=arguments.name, tier=arguments.tier, expires=arguments.expires),
    }
    if arguments.networks:
        entry["networks"] = tuple(arguments.networks)
    return _issue(entry, arguments.id, arguments.write)


def rotate(arguments: argparse.Namespace) -> int:
    """Add a successor of an entry to its file; when the entry ends is for the operator to write."""
    try:
        overlap = timedelta(seconds=parse_duration(arguments.overlap))
    except ValueError as error:
        return fail(f"--overlap: {error}")
    before = next((e for e in _entries(arguments.write) if e.get("id") == arguments.key_id), None)
    if before is None:
        return fail(f"{arguments.write}: has no key with the id {arguments.key_id!r}")
    kept = ("owner", "name", "scopes", "tier", "networks")
    entry: Entry = {name: _plain(before[name]) for name in kept if before.get(name) is not None}
    entry |= _texts(expires=arguments.expires)
    entry["lineage"] = str(before.get("lineage") or arguments.key_id)
    if code := _issue(entry, arguments.id, arguments.write):
        return code
    ends_at = (datetime.now(UTC) + overlap).isoformat(timespec="seconds").replace("+00:00", "Z")
    print(f"\nNow let the old one end; write at the entry {arguments.key_id}:")
    print(f"\n    expires: {ends_at}")
    return 0


def _issue(fields: Entry, key_id: str | None, path: Path | None) -> int:
    key = format_key(secrets.token_bytes(32))
    entry: Entry = {
        "id": key_id or f"key_{secrets.token_hex(6)}",
        "owner": fields.pop("owner"),
        "hash": f"sha256:{hash_key(key)}",
        **fields,
    }
    policy = AuthPolicy(entries=(KeyEntry.model_validate(entry),))
    if problems := [f"--{location[2]}: {message}" for location, message in check_auth(policy)]:
        return fail(*problems)
    if path is not None:
        if any(known.get("id") == entry["id"] for known in _entries(path)):
            raise SettingsError([f"{path}: has a key with the id {entry['id']!r} already"])
        append_entry(path, "entries", entry)
    print(f"The key, shown this once:\n\n  {key}\n")
    print(f"Its entry is in {path}:" if path is not None else "Add under entries:")
    print(f"\n{formatted(entry, 2)}", end="")
    return 0


def _entries(path: Path) -> list[Mapping[str, Any]]:
    entries = (yaml.load(path).value.get("entries") or []) if path.exists() else []
    return (
        [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )


def _texts(**texts: str | None) -> Entry:
    return {name: text for name, text in texts.items() if text}


def _plain(value: Any) -> str | tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else str(value)
