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
    holds_key,
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
    assert find_key(SECRET, index_keys([KEY])) == KEY


@pytest.mark.parametrize("secret", ["", SECRET.upper(), SECRET + " ", KEY.sha256])
def test_anything_else_is_not_a_key(secret: str) -> None:
    assert find_key(secret, index_keys([KEY])) is None


def test_a_hash_filed_under_another_is_not_a_key() -> None:
    assert find_key(SECRET, {hash_key(SECRET): replace(KEY, sha256="0" * 64)}) is None


def test_a_key_ends_when_it_expires() -> None:
    key = replace(KEY, expires_at=NOW)

    assert key.is_active(NOW - 0.001)
    assert not key.is_active(NOW)


def test_a_revoked_key_has_ended() -> None:
    assert not replace(KEY, revoked_at=NOW).is_active(NOW - 1)


def test_a_key_is_found_in_any_source() -> None:
    assert find_key(SECRET, {}, index_keys([KEY])) == KEY


@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd00::1%eth0", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("unix", False),
    ],
)
def test_a_key_may_be_bound_to_networks(client: str, *, allowed: bool) -> None:
    assert replace(KEY, networks=("10.0.0.0/8", "fd00::/8")).allows_client(client) is allowed
    assert KEY.allows_client(client)


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="host bits"):
        replace(KEY, networks=("10.0.0.1/8",))


def test_a_key_is_the_first_of_its_lineage() -> None:
    assert (KEY.lineage, KEY.principal.lineage) == ("key_1", "key_1")
    assert replace(KEY, key_id="key_2", lineage="key_1").principal.lineage == "key_1"


@pytest.mark.parametrize(
    ("text", "found"), [(f"/jobs?k={SECRET}", True), ("/gw_jobs", False), ("/jobs?k=gw_12", False)]
)
def test_a_key_is_seen_in_a_text(text: str, *, found: bool) -> None:
    assert holds_key(text) is found


def test_a_key_stands_for_its_owner() -> None:
    assert KEY.principal == Principal("key_1", "alice", frozenset({"jobs:read"}))


def test_a_principal_may_do_what_was_granted() -> None:
    assert KEY.principal.allows("jobs:read")
    assert not KEY.principal.allows("jobs:write")


def test_admin_covers_every_scope() -> None:
    assert Principal("k", "root", frozenset({"admin"})).allows("webhooks")
