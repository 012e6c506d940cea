"""API keys and who they stand for."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from gateway.core.credential import (
    KEY_PREFIX,
    Key,
    Principal,
    find_key,
    format_key,
    hash_key,
    index_keys,
)

SECRET = format_key(bytes(range(24)))
KEY = Key("key_1", hash_key(SECRET), "alice", frozenset({"jobs:read"}))
NOW = 1_700_000_000.0


def test_a_key_is_its_prefix_and_hex() -> None:
    assert KEY_PREFIX + bytes(range(24)).hex() == SECRET


def test_a_key_needs_24_random_bytes() -> None:
    with pytest.raises(ValueError, match="24"):
        format_key(bytes(23))


def test_a_key_is_kept_as_its_sha256() -> None:
    assert hash_key(SECRET) == hashlib.sha256(SECRET.encode()).hexdigest()


def test_a_key_of_raw_bytes_has_a_hash() -> None:
    assert hash_key("\udcff") == hashlib.sha256(b"\xff").hexdigest()


def test_a_known_key_is_found() -> None:
    assert find_key(index_keys([KEY]), SECRET, NOW) == KEY


@pytest.mark.parametrize("secret", ["", SECRET.upper(), SECRET + " ", KEY.sha256])
def test_anything_else_is_not_a_key(secret: str) -> None:
    assert find_key(index_keys([KEY]), secret, NOW) is None


def test_a_hash_filed_under_another_is_not_a_key() -> None:
    assert find_key({hash_key(SECRET): replace(KEY, sha256="0" * 64)}, SECRET, NOW) is None


def test_a_key_ends_when_it_expires() -> None:
    keys = index_keys([replace(KEY, expires_at=NOW)])

    assert find_key(keys, SECRET, NOW - 0.001) is not None
    assert find_key(keys, SECRET, NOW) is None


def test_a_key_stands_for_its_owner() -> None:
    assert KEY.principal == Principal("key_1", "alice", frozenset({"jobs:read"}))


def test_a_principal_may_do_what_was_granted() -> None:
    assert KEY.principal.allows("jobs:read")
    assert not KEY.principal.allows("jobs:write")


def test_admin_covers_every_scope() -> None:
    assert Principal("k", "root", frozenset({"admin"})).allows("webhooks")
