"""`/keys` on the admin listener, over a real socket and a real store."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.core.credential import Key, find_key, format_key, hash_key, index_keys
from gateway.policy.key_issuer import KeyIssuer
from gateway.policy.key_source import KeySource
from gateway.store.sqlite import Database, SqliteKeyStore
from gateway.telemetry.metric import Metrics
from gateway.web.admin import Admin
from gateway.web.health import Health
from gateway.web.keys import KeyApi
from gateway.web.problem import problem
from tests.support.fakes import FakeClock

ADMIN = format_key(b"the-operator's-key-for-all")
READER = format_key(b"a-key-that-may-only-read!!")
CLOSE = format_key(b"an-admin's-key-from-afar!!")


class Listener:
    """The admin listener, its keys, and what a client sees."""

    def __init__(self, source: KeySource, client: TestClient[web.Request, web.Application]) -> None:
        self.source = source
        self._client = client

    async def ask(
        self, method: str, path: str, document: Any = None, *, key: str | None = ADMIN, **given: Any
    ) -> tuple[int, Any]:
        headers = {"X-API-Key": key} if key else {}
        headers |= given.pop("headers", {})
        given |= {} if document is None else {"json": document}
        async with self._client.request(method, path, headers=headers, **given) as response:
            stored = response.headers.get("Cache-Control") != "no-store"
            assert not stored or response.status >= 400
            self.headers = response.headers
            return response.status, await response.json() if response.status != 204 else None

    async def create(self, **fields: Any) -> Any:
        status, document = await self.ask("POST", "/keys", {"owner": "acme", **fields})
        assert status == 201, document
        return document

    def knows(self, secret: str) -> Key | None:
        return find_key(secret, self.source.by_hash)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def admin(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Listener]:
    database = Database(tmp_path / "gateway.db")
    await database.open()
    metrics = Metrics()
    store = SqliteKeyStore(database)
    source = KeySource(store, metrics, clock)
    source.listed = index_keys(
        [
            Key("root", hash_key(ADMIN), "ops", frozenset({"admin"})),
            Key("reader", hash_key(READER), "ops", frozenset({"jobs:read"})),
            Key("afar", hash_key(CLOSE), "ops", frozenset({"admin"}), networks=("192.0.2.0/24",)),
        ]
    )
    issuer = KeyIssuer(
        store,
        scopes=lambda: ("admin", "jobs:read", "jobs:write", "webhooks"),
        tiers=lambda: {"partner": {}},
        changed=source.refresh_quietly,
        now=clock,
        token=secrets.token_bytes,
    )
    application = Admin(
        Health([], interval=60.0, timeout=5.0, now=clock),
        None,
        not_ready=lambda: None,
        drain=lambda: None,
        problem=problem,
        about={},
        resources=KeyApi(issuer, store, source, clock).routes(),
    ).application()
    async with TestClient(TestServer(application)) as client:
        yield Listener(source, client)
    await database.close()


async def test_a_new_key_is_shown_once_and_works_at_once(admin: Listener) -> None:
    document = await admin.create(
        name="CI", scopes=["jobs:read"], tier="partner", networks=["10.0.0.0/8"], id="ci"
    )

    assert admin.headers["Location"] == "/keys/ci"
    known = admin.knows(document["key"])
    assert known is not None
    assert (known.key_id, known.owner, known.tier) == ("ci", "acme", "partner")
    status, shown = await admin.ask("GET", "/keys/ci")
    assert status == 200
    assert "key" not in shown
    assert "hash" not in str(shown)
    assert {**document, "key": None} == {**shown, "key": None}


async def test_a_key_has_sensible_defaults(admin: Listener, clock: FakeClock) -> None:
    document = await admin.create()

    assert re.fullmatch(r"gw_[0-9a-f]{64}", document["key"])
    assert re.fullmatch(r"key_[0-9a-f]{12}", document["id"])
    assert document["scopes"] == ["jobs:read", "jobs:write", "webhooks"]
    assert (document["state"], document["expires_at"]) == ("active", None)
    assert document["created_at"] == "2023-11-14T22:13:20Z"


async def test_everything_wrong_is_said_at_once(admin: Listener) -> None:
    status, document = await admin.ask(
        "POST",
        "/keys",
        {
            "id": "a b",
            "name": 7,
            "scopes": ["jobs:raed"],
            "tier": "gold",
            "networks": ["10.0.0.1/8"],
            "expires_at": "2020-01-01T00:00:00Z",
            "expire": 1,
        },
    )

    assert status == 422
    assert {error["pointer"] for error in document["errors"]} == {
        "#/expire",
        "#/owner",
        "#/name",
        "#/scopes/0",
        "#/tier",
        "#/networks/0",
        "#/expires_at",
        "#/id",
    }
    assert admin.source.by_hash == {}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"owner": ""}, "#/owner"),
        ({"owner": "a\x00b"}, "#/owner"),
        ({"owner": "x" * 201}, "#/owner"),
        ({"owner": "a", "scopes": "admin"}, "#/scopes"),
        ({"owner": "a", "scopes": [1]}, "#/scopes"),
        ({"owner": "a", "networks": ["10.0.0.0/8"] * 65}, "#/networks"),
        ({"owner": "a", "expires_at": 5}, "#/expires_at"),
        ({"owner": "a", "expires_at": "2027-01-31T00:00:00"}, "#/expires_at"),
        ({"owner": "a", "tier": []}, "#/tier"),
    ],
)
async def test_a_member_that_breaks_a_rule_is_named(
    admin: Listener, document: Any, pointer: str
) -> None:
    status, answer = await admin.ask("POST", "/keys", document)

    assert (status, [error["pointer"] for error in answer["errors"]]) == (422, [pointer])


async def test_an_id_is_not_given_twice(admin: Listener) -> None:
    await admin.create(id="ci")

    assert (await admin.ask("POST", "/keys", {"owner": "b", "id": "ci"}))[0] == 409


async def test_after_a_rotation_both_keys_work_for_the_overlap(
    admin: Listener, clock: FakeClock
) -> None:
    first = await admin.create(id="ci", tier="partner", scopes=["webhooks"], name="CI")

    status, second = await admin.ask("POST", "/keys/ci/rotate", {"overlap": "1h"})

    assert status == 201
    assert second["lineage"] == "ci"
    for name in ("owner", "name", "scopes", "tier", "networks"):
        assert second[name] == first[name]
    assert second["predecessor"]["expires_at"] == "2023-11-14T23:13:20Z"
    old, new = admin.knows(first["key"]), admin.knows(second["key"])
    assert old is not None
    assert new is not None
    assert (old.is_active(clock() + 3599), old.is_active(clock() + 3600)) == (True, False)
    assert old.principal.lineage == new.principal.lineage == "ci"


async def test_a_rotation_needs_no_body_and_an_ended_key_has_none(
    admin: Listener, clock: FakeClock
) -> None:
    await admin.create(id="ci")
    status, second = await admin.ask("POST", "/keys/ci/rotate")
    assert (status, second["predecessor"]["expires_at"]) == (201, "2023-11-15T22:13:20Z")

    clock.at += 86_400
    assert (await admin.ask("POST", "/keys/ci/rotate"))[0] == 409
    assert (await admin.ask("POST", "/keys/none/rotate"))[0] == 404
    assert (await admin.ask("POST", f"/keys/{second['id']}/rotate", {"overlap": "-1s"}))[0] == 422
    assert (await admin.ask("POST", f"/keys/{second['id']}/rotate", {"id": "ci"}))[0] == 409


async def test_a_revoked_key_is_unknown_at_once(admin: Listener) -> None:
    document = await admin.create(id="ci")

    assert (await admin.ask("DELETE", "/keys/ci"))[0] == 204
    assert admin.knows(document["key"]) is None
    assert (await admin.ask("GET", "/keys/ci"))[1]["state"] == "revoked"
    assert (await admin.ask("DELETE", "/keys/ci"))[0] == 409
    assert (await admin.ask("DELETE", "/keys/none"))[0] == 404


async def test_keys_of_both_sources_are_listed_page_by_page(
    admin: Listener, clock: FakeClock
) -> None:
    for number in range(3):
        clock.at += 1
        await admin.create(id=f"k{number}", owner="acme" if number else "ops")
    _, first = await admin.ask("GET", "/keys?limit=2")
    _, second = await admin.ask("GET", f"/keys?limit=2&cursor={first['next_cursor']}")
    _, of_owner = await admin.ask("GET", "/keys?owner=acme")

    def ids(page: Any) -> list[str]:
        return [key["id"] for key in page["keys"]]

    assert ids(first) == ["root", "reader", "afar", "k0", "k1"]
    assert (ids(second), second["next_cursor"]) == (["k2"], None)
    assert ids(of_owner) == ["k1", "k2"]
    assert first["keys"][0]["last_used_at"] == "2023-11-14T22:13:23Z"
    assert [key["source"] for key in first["keys"]] == ["file"] * 3 + ["store"] * 2


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "cursor=x"])
async def test_a_page_that_cannot_be_is_an_invalid_request(admin: Listener, query: str) -> None:
    assert (await admin.ask("GET", f"/keys?{query}"))[0] == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": READER}, 403),
        ({"X-API-Key": CLOSE}, 401),
        ({"X-API-Key": format_key(bytes(32))}, 401),
        ({"Authorization": f"Bearer {ADMIN}"}, 200),
        ({"Authorization": f"Bearer {ADMIN}", "X-API-Key": ADMIN}, 400),
    ],
)
async def test_only_an_administrator_is_answered(
    admin: Listener, headers: dict[str, str], status: int
) -> None:
    for method, path in (("GET", "/keys"), ("GET", "/keys/x")):
        answered, _ = await admin.ask(method, path, key=None, headers=headers)
        assert answered in (status, 404 if status == 200 else status)
    if status != 200:
        for method, path in (("POST", "/keys"), ("POST", "/keys/x/rotate"), ("DELETE", "/keys/x")):
            assert (await admin.ask(method, path, key=None, headers=headers))[0] == status
    assert ("WWW-Authenticate" in admin.headers) == (status == 401)


async def test_a_body_that_is_too_large_is_refused(admin: Listener) -> None:
    assert (await admin.ask("POST", "/keys", {"owner": "x" * 70_000}))[0] == 413


async def test_changes_are_logged_without_the_key(admin: Listener) -> None:
    with structlog.testing.capture_logs() as lines:
        document = await admin.create(id="ci")
        await admin.ask("POST", "/keys/ci/rotate", {"id": "ci2"})
        await admin.ask("DELETE", "/keys/ci2")

    told = [(line["event"], line["key_id"], line["by"]) for line in lines]
    assert told == [
        ("key_created", "ci", "root"),
        ("key_rotated", "ci2", "root"),
        ("key_revoked", "ci2", "root"),
    ]
    assert document["key"] not in str(lines)
