"""`/api/v1/webhooks`, over a real embedded store."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from gateway.core.address import AddressRule
from gateway.core.error import (
    Conflict,
    ContentTooLarge,
    Forbidden,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    StoreUnavailable,
    UnprocessableContent,
)
from gateway.core.job import EventType, State
from gateway.core.message import Response
from gateway.core.outbox import DeliveryStatus, Message
from gateway.core.retry import Dead, Delivered
from gateway.core.signature import secret_key
from gateway.core.webhook import Webhook, WebhookStatus
from gateway.store.audit import AuditQuery
from gateway.store.sqlite import Database
from gateway.web.webhooks import WebhookApi
from tests.support.fakes import FakeBody, FakeClock, FakeToken, document, make_request
from tests.support.names import LOOPBACK_SPELLINGS
from tests.support.store import (
    NOW,
    Stores,
    attempt_at,
    messages_of,
    new_job,
    next_change,
    timeline_of,
)
from tests.support.store import webhook as stored

PATH = "/api/v1/webhooks"
URL = "https://receiver.example/hook"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass
class Api:
    """The API with what it told others."""

    stores: Stores
    clock: FakeClock = field(default_factory=FakeClock)
    token: FakeToken = field(default_factory=FakeToken)
    woken: int = 0
    published: list[tuple[str, bool]] = field(default_factory=list)
    max_per_owner: int = 3

    @property
    def api(self) -> WebhookApi:
        return WebhookApi(
            webhooks=self.stores.webhooks,
            outbox=self.stores.outbox,
            jobs=self.stores.jobs,
            audit=self.stores.audit,
            rule=AddressRule(),
            max_per_owner=self.max_per_owner,
            now=self.clock,
            token=self.token,
            wake=self._wake,
            publish=self._publish,
        )

    async def __call__(
        self, method: str, path: str = "", body: object = None, **fields: Any
    ) -> Response:
        return await self.api.handle(make_request(method, PATH + path, body, **fields))

    async def create(self, **fields: Any) -> dict[str, Any]:
        created: dict[str, Any] = document(await self("POST", "", {"url": URL, **fields}))
        return created

    async def refused(
        self,
        kind: type[GatewayError],
        method: str,
        path: str = "",
        body: object = None,
        **fields: Any,
    ) -> GatewayError:
        with pytest.raises(kind) as caught:
            await self(method, path, body, **fields)
        return caught.value

    async def messages(self, webhook_id: str) -> list[Message]:
        """What waits for a webhook, as its sink gets it; claimed a day from now."""
        claims = await self.stores.outbox.claim("webhook", 100, self.clock() + 86400, 60)
        return [claim.item for claim in claims if claim.item.destination == webhook_id]

    def _wake(self) -> None:
        self.woken += 1

    async def _publish(self, webhook: Webhook, deleted: bool) -> None:  # noqa: FBT001
        self.published.append((webhook.id, deleted))


@pytest.fixture
def api(stores: Stores) -> Api:
    return Api(stores)


def errors_of(error: GatewayError) -> dict[str, str]:
    return {entry["pointer"]: entry["detail"] for entry in error.extra["errors"]}


# --- create ---------------------------------------------------------------------------------------


async def test_creation_answers_201_with_location_and_the_secret_once(api: Api) -> None:
    response = await api("POST", "", {"url": URL})
    created = document(response)

    assert response.status == 201
    assert response.headers["Location"] == f"{PATH}/{created['id']}"
    assert re.fullmatch(r"wh_[0-9A-HJKMNP-TV-Z]{26}", created["id"])
    secret = created.pop("secret")
    assert len(secret_key(secret)) == 32
    assert created["secret_hint"] == "…" + secret[-4:]
    assert created == document(await api("GET", f"/{created['id']}"))
    assert api.published == [(created["id"], False)]


async def test_resource_has_exactly_the_documented_members(api: Api) -> None:
    created = await api.create()
    assert created == {
        "id": created["id"],
        "url": URL,
        "events": ["job.*"],
        "job_id": None,
        "filter": None,
        "fields": None,
        "headers": {},
        "description": None,
        "status": "active",
        "disabled_reason": None,
        "timeout_seconds": None,
        "max_retries": None,
        "max_per_second": None,
        "secret_hint": created["secret_hint"],
        "previous_secret_expires_at": None,
        "consecutive_failures": 0,
        "last_success_at": None,
        "created_at": "2023-11-14T22:13:20.000Z",
        "secret": created["secret"],
    }


async def test_every_settable_field_is_kept(api: Api) -> None:
    wanted = {
        "events": ["job.completed", "job.failed"],
        "filter": "data.progress > `10`",
        "fields": ["job_id", "status"],
        "headers": {"Authorization": "Bearer abc", "X-Team": "blue"},
        "description": "billing",
        "status": "paused",
        "timeout_seconds": 5,
        "max_retries": 0,
        "max_per_second": 2.5,
        "secret": SECRET,
    }
    created = await api.create(**wanted)
    assert wanted | {"url": URL} == {name: created[name] for name in [*wanted, "url"]}


async def test_webhooks_of_two_creations_have_different_ids_and_secrets(api: Api) -> None:
    first, second = await api.create(), await api.create()
    assert first["id"] != second["id"]
    assert first["secret"] != second["secret"]


async def test_owner_over_the_limit_is_refused(api: Api) -> None:
    for _ in range(3):
        await api.create()
    error = await api.refused(Conflict, "POST", "", {"url": URL})
    assert "3 webhooks" in error.detail
    assert (await api("POST", "", {"url": URL}, owner="bob")).status == 201


async def test_callbacks_of_jobs_do_not_count_against_the_limit(api: Api) -> None:
    for number in range(5):
        await api.stores.webhooks.add(stored(number, job_id=f"job-{number}"))
    assert (await api("POST", "", {"url": URL})).status == 201


@pytest.mark.parametrize(
    ("fields", "pointer", "detail"),
    [
        ({"url": "http://receiver.example/"}, "#/url", "https"),
        ({"url": "https://127.0.0.1/"}, "#/url", "public address"),
        ({"url": "https://[::ffff:7f00:1]/"}, "#/url", "public address"),
        ({"url": "https://169.254.169.254/"}, "#/url", "public address"),
        ({"url": "https://a:b@receiver.example/"}, "#/url", "user name"),
        ({"url": "https://receiver.example/" + "a" * 2048}, "#/url", "2048"),
        ({"url": 5}, "#/url", "not a number"),
        ({"url": None}, "#/url", "not null"),
        ({"events": []}, "#/events", "at least one"),
        ({"events": "job.*"}, "#/events", "not a string"),
        ({"events": ["job.exploded"]}, "#/events/0", "not an event"),
        ({"events": ["job.failed", "job.failed"]}, "#/events/1", "again"),
        ({"events": ["job.failed", 5, "job.x"]}, "#/events/2", "not an event"),
        ({"filter": "data["}, "#/filter", "not JMESPath"),
        ({"filter": True}, "#/filter", "not a boolean"),
        ({"fields": []}, "#/fields", "at least one"),
        ({"fields": ["job_id", "secret"]}, "#/fields/1", "not a field"),
        ({"headers": []}, "#/headers", "not an array"),
        ({"headers": {f"X-{n}": "a" for n in range(17)}}, "#/headers", "at most 16"),
        ({"headers": {"Host": "x"}}, "#/headers/Host", "set by the gateway"),
        ({"headers": {"Webhook-Id": "x"}}, "#/headers/Webhook-Id", "set by the gateway"),
        ({"headers": {"content-LENGTH": "5"}}, "#/headers/content-LENGTH", "set by the gateway"),
        ({"headers": {"X A": "x"}}, "#/headers/X A", "not a header name"),
        ({"headers": {"X/A~": "x"}}, "#/headers/X~1A~0", "not a header name"),
        ({"headers": {"X-A": "a\r\nB: c"}}, "#/headers/X-A", "printable ASCII"),
        ({"headers": {"X-A": ""}}, "#/headers/X-A", "printable ASCII"),
        ({"headers": {"X-A": "a", "x-a": "b"}}, "#/headers/x-a", "twice"),
        ({"headers": {"X-A": 5}}, "#/headers/X-A", "not a number"),
        ({"secret": "hunter2"}, "#/secret", "whsec_"),
        ({"secret": "whsec_AAAA"}, "#/secret", "holds 3 bytes"),
        ({"secret": 5}, "#/secret", "whsec_"),
        ({"timeout_seconds": 0.5}, "#/timeout_seconds", "from 1 to 30"),
        ({"timeout_seconds": 31}, "#/timeout_seconds", "from 1 to 30"),
        ({"timeout_seconds": True}, "#/timeout_seconds", "not a boolean"),
        ({"max_retries": 11}, "#/max_retries", "from 0 to 10"),
        ({"max_retries": 1.5}, "#/max_retries", "whole number"),
        ({"max_per_second": 0.5}, "#/max_per_second", "from 1 to 1000"),
        ({"description": "a" * 501}, "#/description", "at most 500"),
        ({"description": 5}, "#/description", "not a number"),
        ({"status": "disabled"}, "#/status", "active or paused"),
        ({"status": ["active"]}, "#/status", "active or paused"),
        ({"event": ["job.*"]}, "#/event", "did you mean 'events'?"),
        ({"zzz": 1}, "#/zzz", "known are"),
        ({"id": "wh_1"}, "#/id", "set by the gateway"),
        ({"job_id": "job-1"}, "#/job_id", "set by the gateway"),
    ],
)
async def test_field_that_breaks_a_rule_is_named(
    api: Api, fields: dict[str, Any], pointer: str, detail: str
) -> None:
    error = await api.refused(UnprocessableContent, "POST", "", {"url": URL, **fields})
    found = errors_of(error)
    assert pointer in found
    assert detail in found[pointer]
    assert await api.stores.webhooks.count("alice") == 0


async def test_all_violations_are_named_at_once(api: Api) -> None:
    body = {"events": [1], "max_retries": -1, "uri": URL}
    error = await api.refused(UnprocessableContent, "POST", "", body)
    assert set(errors_of(error)) == {"#/events/0", "#/max_retries", "#/uri", "#/url"}
    assert "3 more" in error.detail


async def test_refused_secret_is_not_repeated(api: Api) -> None:
    error = await api.refused(
        UnprocessableContent, "POST", "", {"url": URL, "secret": "whsec_c3VwZXJzZWNyZXQ="}
    )
    assert "c3VwZXJzZWNyZXQ" not in f"{error.detail} {error.extra}"


@pytest.mark.parametrize(
    ("body", "kind", "detail"),
    [
        (b'{"url": }', InvalidRequest, "column 9"),
        (b'{"url": NaN}', InvalidRequest, "column 9"),
        (b"", InvalidRequest, "not JSON"),
        (b"\xff\xfe", InvalidRequest, "not JSON"),
        (b"[]", UnprocessableContent, "not an array"),
        (b"null", UnprocessableContent, "not null"),
        (
            b'{"url": "https://a.example", "url": "https://b.example"}',
            UnprocessableContent,
            "twice",
        ),
        (b'{"headers": {"A": "1", "A": "2"}}', UnprocessableContent, "'A' twice"),
        (b'{"fields":' + b"[" * 20 + b"]" * 20 + b"}", UnprocessableContent, "nested"),
        (b'{"fields":' + b"[" * 900 + b"]" * 900 + b"}", UnprocessableContent, "nested"),
        (b'{"description": "' + b"a" * 65536 + b'"}', ContentTooLarge, "65536"),
    ],
)
async def test_body_that_cannot_be_read_is_refused(
    api: Api, body: bytes, kind: type[GatewayError], detail: str
) -> None:
    error = await api.refused(kind, "POST", "", body)
    assert detail in error.detail


async def test_body_remembered_under_a_larger_limit_is_still_bounded(api: Api) -> None:
    request = make_request("POST", PATH)
    request.body = FakeBody(b" " * 65537, remembered=True)
    with pytest.raises(ContentTooLarge):
        await api.api.handle(request)


async def test_other_content_types_are_refused(api: Api) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    error = await api.refused(InvalidRequest, "POST", "", {"url": URL}, headers=headers)
    assert "'text/plain'" in error.detail
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await api("POST", "", {"url": URL}, headers=headers)).status == 201


# --- dispatch and ownership -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "", "GET, POST, HEAD"),
        ("POST", "/events", "GET, HEAD"),
        ("POST", "/wh_1", "GET, PUT, PATCH, DELETE, HEAD"),
        ("POST", "/wh_1/logs", "GET, HEAD"),
        ("GET", "/wh_1/test", "POST"),
        ("HEAD", "/wh_1/rotate", "POST"),
        ("GET", "/wh_1/recover", "POST"),
        ("GET", "/wh_1/deliveries/dlv_1/redeliver", "POST"),
    ],
)
async def test_wrong_method_is_answered_with_allow(
    api: Api, method: str, path: str, allow: str
) -> None:
    error = await api.refused(MethodNotAllowed, method, path)
    assert error.headers == {"Allow": allow}


@pytest.mark.parametrize(
    "path", ["/wh_1/unknown", "/wh_1/deliveries", "/wh_1/logs/more", "//", "/events/others"]
)
async def test_path_without_a_resource_is_not_found(api: Api, path: str) -> None:
    await api.refused(NotFound, "GET", path)


async def test_closing_slash_makes_no_difference(api: Api) -> None:
    created = document(await api("POST", "/", {"url": URL}))
    assert document(await api("GET", f"/{created['id']}/"))["id"] == created["id"]
    assert [each["id"] for each in document(await api("GET", "/"))["webhooks"]] == [created["id"]]


OTHERS = [
    ("GET", ""),
    ("PUT", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("GET", "/logs"),
    ("POST", "/test"),
    ("POST", "/rotate"),
    ("POST", "/recover"),
    ("POST", "/deliveries/dlv_1/redeliver"),
]


@pytest.mark.parametrize(("method", "path"), OTHERS)
async def test_another_owners_webhook_is_answered_like_one_that_is_not(
    api: Api, method: str, path: str
) -> None:
    await api.stores.webhooks.add(stored(1))
    details = []
    for webhook_id in ("wh_1", "wh_2"):
        body = {"url": URL} if method.startswith("P") and not path else None
        error = await api.refused(
            NotFound, method, f"/{webhook_id}{path}", body, owner="mallory", scopes=["admin"]
        )
        details.append(error.detail.replace(webhook_id, "wh"))
    assert details[0] == details[1]
    assert await api.stores.webhooks.get("wh_1") == stored(1)


async def test_list_pages_through_an_owners_webhooks_oldest_first(api: Api) -> None:
    for number in range(1, 6):
        await api.stores.webhooks.add(stored(number))
    await api.stores.webhooks.add(stored(9, owner="bob"))
    seen: list[str] = []
    cursor = ""
    while True:
        page = document(await api("GET", f"?limit=2{cursor}"))
        seen += [each["id"] for each in page["webhooks"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["wh_1", "wh_2", "wh_3", "wh_4", "wh_5"]


async def test_list_leaves_callbacks_of_jobs_out_unless_their_job_is_named(api: Api) -> None:
    await api.stores.webhooks.add(stored(1))
    await api.stores.webhooks.add(stored(2, job_id="job-1"))
    await api.stores.webhooks.add(stored(3, job_id="job-2"))
    await api.stores.webhooks.add(stored(4, job_id="job-1", owner="bob"))
    general = document(await api("GET"))["webhooks"]
    of_job = document(await api("GET", "?job_id=job-1"))["webhooks"]
    assert [each["id"] for each in general] == ["wh_1"]
    assert [each["id"] for each in of_job] == ["wh_2"]


async def test_list_filters_by_status(api: Api) -> None:
    await api.stores.webhooks.add(stored(1))
    await api.stores.webhooks.add(stored(2, status=WebhookStatus.PAUSED))
    await api.stores.webhooks.add(stored(3, status=WebhookStatus.DISABLED))
    page = document(await api("GET", "?status=paused"))
    assert [each["id"] for each in page["webhooks"]] == ["wh_2"]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("status=dead", "one of active, paused, disabled"),
        ("limit=0", "from 1 to 100"),
        ("limit=101", "from 1 to 100"),
        ("limit=five", "whole number"),
        ("limit=-1", "whole number"),
        ("limit=1&limit=2", "twice"),
        ("limits=1", "did you mean 'limit'"),
        ("cursor=", "characters"),
        ("cursor=@@@", "cursor"),
        ("cursor=%ff", "cannot be read"),
    ],
)
async def test_bad_query_parameter_is_named(api: Api, query: str, detail: str) -> None:
    error = await api.refused(InvalidRequest, "GET", f"?{query}")
    assert detail in error.detail


@pytest.mark.parametrize("path", ["/events", "/events/available"])
async def test_catalogue_has_a_sample_of_every_event(api: Api, path: str) -> None:
    events = document(await api("GET", path))["events"]
    assert [event["type"] for event in events] == [kind.value for kind in EventType]
    for event in events:
        assert event["sample"]["type"] == event["type"]
        assert event["description"]


# --- change ---------------------------------------------------------------------------------------


async def test_put_replaces_every_field_and_keeps_the_secret(api: Api) -> None:
    created = await api.create(description="old", max_retries=1, secret=SECRET)
    url = "https://other.example/"
    replaced = document(await api("PUT", f"/{created['id']}", {"url": url}))
    assert (replaced["url"], replaced["description"], replaced["max_retries"]) == (url, None, None)
    assert "secret" not in replaced
    kept = await api.stores.webhooks.get(created["id"])
    assert kept is not None
    assert (kept.secret, kept.revision) == (SECRET, 2)


async def test_put_takes_back_what_a_get_gave(api: Api) -> None:
    created = await api.create(fields=["job_id"], headers={"X-A": "b"})
    read = document(await api("GET", f"/{created['id']}"))
    assert document(await api("PUT", f"/{created['id']}", read)) == read


async def test_put_may_not_move_what_the_gateway_sets(api: Api) -> None:
    created = await api.create()
    body = {"url": URL, "id": "wh_other", "job_id": "job-1", "secret": SECRET}
    error = await api.refused(UnprocessableContent, "PUT", f"/{created['id']}", body)
    assert set(errors_of(error)) == {"#/id", "#/job_id", "#/secret"}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_change_checks_the_url_again(api: Api, method: str) -> None:
    created = await api.create()
    body = {"url": "https://10.0.0.1/"}
    error = await api.refused(UnprocessableContent, method, f"/{created['id']}", body)
    assert "public address" in errors_of(error)["#/url"]


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_no_spelling_of_a_denied_address_is_taken(api: Api, method: str, host: str) -> None:
    created = await api.create()
    path = "" if method == "POST" else f"/{created['id']}"
    error = await api.refused(UnprocessableContent, method, path, {"url": f"https://{host}/hook"})
    assert set(errors_of(error)) == {"#/url"}
    stored_now = await api.stores.webhooks.get(created["id"])
    assert stored_now is not None
    assert stored_now.url == URL


async def test_patch_changes_only_what_it_names_and_null_means_default(api: Api) -> None:
    created = await api.create(description="old", max_retries=1, events=["job.failed"])
    body = {"description": None, "events": None, "timeout_seconds": 3}
    headers = {"Content-Type": "application/merge-patch+json"}
    after = document(await api("PATCH", f"/{created['id']}", body, headers=headers))
    changes = {name: after[name] for name in after if after[name] != created[name]}
    assert changes == {"description": None, "events": ["job.*"], "timeout_seconds": 3}


async def test_patch_may_not_remove_the_url(api: Api) -> None:
    created = await api.create()
    error = await api.refused(UnprocessableContent, "PATCH", f"/{created['id']}", {"url": None})
    assert set(errors_of(error)) == {"#/url"}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_activating_a_disabled_webhook_forgets_why_it_was(api: Api, method: str) -> None:
    created = await api.create()
    await api.stores.webhooks.note_outcome(created["id"], False, NOW)
    await api.stores.webhooks.disable(created["id"], "410", NOW)
    body = {"url": URL, "status": "active"}
    after = document(await api(method, f"/{created['id']}", body))
    assert (after["status"], after["disabled_reason"]) == ("active", None)
    assert after["consecutive_failures"] == 0


async def test_put_of_a_disabled_webhook_as_read_leaves_it_disabled(api: Api) -> None:
    created = await api.create()
    await api.stores.webhooks.disable(created["id"], "410", NOW)
    read = document(await api("GET", f"/{created['id']}"))
    assert document(await api("PUT", f"/{created['id']}", read)) == read
    assert read["disabled_reason"] == "410"


class Contended:
    """A store in which somebody else is faster, `times` times."""

    def __init__(self, api: Api, times: int) -> None:
        self._store = api.stores.webhooks
        self._times = times

    async def get(self, webhook_id: str) -> Webhook | None:
        found = await self._store.get(webhook_id)
        if found is not None and self._times > 0:
            self._times -= 1
            await self._store.replace(replace(found, description="theirs"), found.revision)
        return found


async def test_change_overtaken_by_another_is_made_on_top_of_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await api.create()
    contended = Contended(api, 2)
    changing = api.api
    monkeypatch.setattr(type(changing), "_own", _own_of(contended))
    request = make_request("PATCH", f"{PATH}/{created['id']}", {"max_retries": 2})
    after = document(await changing.handle(request))
    assert (after["max_retries"], after["description"]) == (2, "theirs")


async def test_change_overtaken_again_and_again_is_a_conflict(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await api.create()
    changing = api.api
    monkeypatch.setattr(type(changing), "_own", _own_of(Contended(api, 1000)))
    request = make_request("PATCH", f"{PATH}/{created['id']}", {"max_retries": 2})
    with pytest.raises(Conflict):
        await changing.handle(request)


def _own_of(contended: Contended) -> Callable[..., Any]:
    async def own(_api: WebhookApi, webhook_id: str, _request: object) -> Webhook | None:
        return await contended.get(webhook_id)

    return own


async def test_webhook_for_every_owner_needs_the_scope_to_make_and_to_change(api: Api) -> None:
    created = document(await api("POST", "", {"url": URL}, scopes=["webhooks", "webhooks:all"]))
    made = await api.stores.webhooks.get(created["id"])
    assert made is not None
    assert made.all_owners
    path = f"/{created['id']}"
    await api.refused(Forbidden, "PATCH", path, {"url": "https://thief.example/"})
    await api.refused(Forbidden, "POST", f"{path}/rotate")
    assert (await api("PATCH", path, {}, scopes=["webhooks:all"])).status == 200


@pytest.mark.parametrize("scopes", [["webhooks"], ["admin"]])
async def test_only_the_scope_itself_widens_a_webhook(api: Api, scopes: list[str]) -> None:
    created = document(await api("POST", "", {"url": URL}, scopes=scopes))
    made = await api.stores.webhooks.get(created["id"])
    assert made is not None
    assert not made.all_owners


async def test_deletion_cancels_what_waits(api: Api) -> None:
    created = await api.create()
    sent = document(await api("POST", f"/{created['id']}/test"))
    response = await api("DELETE", f"/{created['id']}")
    assert (response.status, response.body) == (204, b"")
    delivery = await api.stores.outbox.get(sent["delivery_id"])
    assert delivery is not None
    assert delivery.message.status is DeliveryStatus.CANCELLED
    await api.refused(NotFound, "GET", f"/{created['id']}")
    assert api.published[-1] == (created["id"], True)


# --- rotation -------------------------------------------------------------------------------------


async def test_rotation_shows_a_new_secret_once_and_keeps_the_old_for_the_overlap(
    api: Api,
) -> None:
    created = await api.create()
    rotated = document(await api("POST", f"/{created['id']}/rotate", {"overlap_seconds": 60}))
    assert rotated["secret"] != created["secret"]
    assert rotated["previous_secret_expires_at"] == "2023-11-14T22:14:20.000Z"
    kept = await api.stores.webhooks.get(created["id"])
    assert kept is not None
    assert (kept.secret, kept.previous_secret) == (rotated["secret"], created["secret"])
    assert kept.previous_secret_expires_at == NOW + 60
    assert "secret" not in document(await api("GET", f"/{created['id']}"))


async def test_rotation_overlaps_for_a_day_unless_told_otherwise(api: Api) -> None:
    created = await api.create()
    rotated = document(await api("POST", f"/{created['id']}/rotate"))
    assert rotated["previous_secret_expires_at"] == "2023-11-15T22:13:20.000Z"


async def test_rotation_without_overlap_ends_the_old_secret_at_once(api: Api) -> None:
    created = await api.create()
    body = {"overlap_seconds": 0, "secret": SECRET}
    rotated = document(await api("POST", f"/{created['id']}/rotate", body))
    assert (rotated["secret"], rotated["previous_secret_expires_at"]) == (SECRET, None)
    kept = await api.stores.webhooks.get(created["id"])
    assert kept is not None
    assert kept.previous_secret is None


@pytest.mark.parametrize("overlap", [-1, 604801, "60", True])
async def test_overlap_outside_its_bounds_is_refused(api: Api, overlap: object) -> None:
    created = await api.create()
    path = f"/{created['id']}/rotate"
    error = await api.refused(UnprocessableContent, "POST", path, {"overlap_seconds": overlap})
    assert set(errors_of(error)) == {"#/overlap_seconds"}


# --- test deliveries ------------------------------------------------------------------------------


async def test_test_enqueues_an_event_of_its_own_type(api: Api) -> None:
    created = await api.create()
    response = await api("POST", f"/{created['id']}/test")
    answer = document(response)
    [message] = await api.messages(created["id"])
    body = orjson.loads(message.body)
    assert (response.status, api.woken) == (202, 1)
    assert (message.id, message.event_id) == (answer["delivery_id"], answer["event_id"])
    assert message.kind == body["type"] == "webhook.test"
    assert message.event_id == body["id"]
    assert message.job_id == body["data"]["job_id"]


async def test_test_sends_the_sample_of_an_event_cut_to_the_wanted_fields(api: Api) -> None:
    created = await api.create(fields=["status", "results"])
    await api("POST", f"/{created['id']}/test", {"event": "job.completed"})
    [message] = await api.messages(created["id"])
    body = orjson.loads(message.body)
    assert body["type"] == message.kind == "job.completed"
    assert body["data"] == {"status": "completed", "results": {"highlights": []}}


async def test_two_tests_at_once_are_two_events_that_do_not_wait_for_each_other(api: Api) -> None:
    created = await api.create()
    await api("POST", f"/{created['id']}/test")
    await api("POST", f"/{created['id']}/test")
    first, second = await api.messages(created["id"])
    assert first.event_id != second.event_id
    assert first.job_id != second.job_id


@pytest.mark.parametrize("body", [{"event": "job.*"}, {"event": 5}, {"payload": {}}])
async def test_test_of_an_unknown_event_is_refused(api: Api, body: dict[str, Any]) -> None:
    created = await api.create()
    await api.refused(UnprocessableContent, "POST", f"/{created['id']}/test", body)


@pytest.mark.parametrize(
    ("path", "body"), [("/test", None), ("/recover", {"since": "2023-11-01T00:00:00Z"})]
)
async def test_nothing_is_sent_to_a_webhook_that_is_not_active(
    api: Api, path: str, body: object
) -> None:
    created = await api.create(status="paused")
    error = await api.refused(Conflict, "POST", f"/{created['id']}{path}", body)
    assert "paused" in error.detail


# --- log, redelivery, recovery --------------------------------------------------------------------


async def end(api: Api, status: DeliveryStatus) -> list[Message]:
    """Let every waiting delivery end this way after one attempt; which they were, in order."""
    ended: list[Message] = []
    while claims := await api.stores.outbox.claim("webhook", 100, api.clock() + 86400, 60):
        for claim in claims:
            verdict = Delivered() if status is DeliveryStatus.SUCCEEDED else Dead(status)
            attempt = attempt_at(claim, api.clock(), status_code=500, error_kind="http_status")
            assert await api.stores.outbox.settle(claim, verdict, attempt, api.clock())
            ended.append(claim.item)
    return ended


async def run_job(api: Api, webhook_id: str | None, job_id: str = "job-1", **fields: Any) -> None:
    """A job that starts, moves and completes; its messages go to `webhook_id`."""
    change = new_job(job_id, api.clock(), **fields)
    steps: list[dict[str, Any]] = [
        {"state": State.RUNNING, "stage": "Transcribing", "percentage": 40.0},
        {"state": State.COMPLETED, "stage": "Completed"},
    ]
    while True:
        timeline = timeline_of(change)
        messages = messages_of(change, webhook_id) if webhook_id else []
        assert await api.stores.jobs.record(change, timeline, messages)
        job = await api.stores.jobs.get(job_id)
        assert job is not None
        if not steps:
            return
        await end(api, DeliveryStatus.EXHAUSTED)
        api.clock.at += 10
        change = next_change(job, api.clock(), **steps.pop(0))


async def test_log_shows_deliveries_with_their_attempts_newest_first(api: Api) -> None:
    created = await api.create()
    await run_job(api, created["id"])
    page = document(await api("GET", f"/{created['id']}/logs"))
    assert page["deliveries"][0]["event"] == "job.completed"
    assert page["deliveries"][-1]["event"] == "job.started"
    last = page["deliveries"][-1]
    assert (last["status"], last["attempt_count"]) == ("exhausted", 1)
    [attempt] = last["attempts"]
    assert (attempt["number"], attempt["status_code"], attempt["error_kind"]) == (
        1,
        500,
        "http_status",
    )
    assert TIME.fullmatch(attempt["started_at"])
    waiting = page["deliveries"][0]
    assert (waiting["status"], waiting["finished_at"]) == ("pending", None)
    assert TIME.fullmatch(waiting["next_attempt_at"])


async def test_log_filters_by_status_event_and_job(api: Api) -> None:
    created = await api.create()
    await run_job(api, created["id"])
    await api("POST", f"/{created['id']}/test")
    counts = {}
    for query in ("status=exhausted", "event=webhook.test", "job_id=job-1", "job_id=none"):
        page = document(await api("GET", f"/{created['id']}/logs?{query}"))
        counts[query] = len(page["deliveries"])
    assert counts == {
        "status=exhausted": 3,
        "event=webhook.test": 1,
        "job_id=job-1": 4,
        "job_id=none": 0,
    }


@pytest.mark.parametrize("query", ["status=lost", "event=job.*", "job=1", "event="])
async def test_log_filter_it_does_not_know_is_refused(api: Api, query: str) -> None:
    created = await api.create()
    await api.refused(InvalidRequest, "GET", f"/{created['id']}/logs?{query}")


async def test_log_pages(api: Api) -> None:
    created = await api.create()
    await run_job(api, created["id"])
    first = document(await api("GET", f"/{created['id']}/logs?limit=3"))
    rest = document(
        await api("GET", f"/{created['id']}/logs?limit=3&cursor={first['next_cursor']}")
    )
    ids = [each["id"] for each in first["deliveries"] + rest["deliveries"]]
    assert (len(ids), len(set(ids)), rest["next_cursor"]) == (4, 4, None)


async def test_redelivery_sends_the_same_event_and_bytes_as_a_new_delivery(api: Api) -> None:
    created = await api.create()
    await run_job(api, created["id"])
    await end(api, DeliveryStatus.SUCCEEDED)
    old = document(await api("GET", f"/{created['id']}/logs?event=job.completed"))["deliveries"][0]
    api.clock.at += 5
    response = await api("POST", f"/{created['id']}/deliveries/{old['id']}/redeliver")
    answer = document(response)
    [message] = await api.messages(created["id"])
    entry = (await api.stores.jobs.timeline("job-1"))[-1]
    assert response.status == 202
    assert message.id == answer["delivery_id"] != old["id"]
    assert (message.event_id, message.body) == (old["event_id"], entry.body)


async def test_delivery_still_under_way_is_not_redelivered(api: Api) -> None:
    created = await api.create()
    await run_job(api, created["id"])
    old = document(await api("GET", f"/{created['id']}/logs?status=pending"))["deliveries"][0]
    path = f"/{created['id']}/deliveries/{old['id']}/redeliver"
    assert "pending" in (await api.refused(Conflict, "POST", path)).detail


async def test_delivery_whose_payload_is_gone_is_not_redelivered(api: Api) -> None:
    created = await api.create()
    sent = document(await api("POST", f"/{created['id']}/test"))
    await end(api, DeliveryStatus.EXHAUSTED)
    await api.stores.outbox.drop_payloads(api.clock() + 1)
    path = f"/{created['id']}/deliveries/{sent['delivery_id']}/redeliver"
    assert "no longer kept" in (await api.refused(Conflict, "POST", path)).detail


async def test_redelivery_after_its_payload_is_dropped_sends_what_the_job_recorded(
    api: Api,
) -> None:
    created = await api.create(fields=["job_id"])
    await run_job(api, created["id"])
    await end(api, DeliveryStatus.SUCCEEDED)
    old = document(await api("GET", f"/{created['id']}/logs?event=job.completed"))["deliveries"][0]
    assert await api.stores.outbox.drop_payloads(api.clock() + 1)
    await api("POST", f"/{created['id']}/deliveries/{old['id']}/redeliver")
    [message] = await api.messages(created["id"])
    assert orjson.loads(message.body)["data"] == {"job_id": "job-1"}


async def test_test_delivery_is_redelivered_as_it_was(api: Api) -> None:
    created = await api.create()
    sent = document(await api("POST", f"/{created['id']}/test"))
    await end(api, DeliveryStatus.EXHAUSTED)
    first = await api.stores.outbox.get(sent["delivery_id"])
    await api("POST", f"/{created['id']}/deliveries/{sent['delivery_id']}/redeliver")
    [message] = await api.messages(created["id"])
    assert first is not None
    assert (message.event_id, message.body) == (first.message.event_id, first.message.body)


async def test_delivery_of_another_webhook_is_not_found(api: Api) -> None:
    created, other = await api.create(), await api.create()
    sent = document(await api("POST", f"/{other['id']}/test"))
    path = f"/{created['id']}/deliveries/{sent['delivery_id']}/redeliver"
    await api.refused(NotFound, "POST", path)


async def recover(api: Api, webhook_id: str, since: str = "2023-11-01T00:00:00Z") -> Any:
    return document(await api("POST", f"/{webhook_id}/recover", {"since": since}))


@pytest.mark.parametrize(
    "status", [DeliveryStatus.EXHAUSTED, DeliveryStatus.SKIPPED, DeliveryStatus.BLOCKED]
)
async def test_recovery_sends_again_what_failed_and_no_progress(
    api: Api, status: DeliveryStatus
) -> None:
    created = await api.create()
    await run_job(api, created["id"])
    await end(api, status)
    api.clock.at += 5
    assert await recover(api, created["id"]) == {"recovered": 3, "next_cursor": None}
    sent = await end(api, DeliveryStatus.SUCCEEDED)
    assert [message.kind for message in sent] == [
        "job.started",
        "job.stage_changed",
        "job.completed",
    ]
    timeline = {entry.event_id: entry.body for entry in await api.stores.jobs.timeline("job-1")}
    assert all(message.body == timeline[message.event_id] for message in sent)


async def test_recovery_made_again_recovers_nothing_twice(api: Api) -> None:
    created = await api.create()
    await run_job(api, created["id"])
    await end(api, DeliveryStatus.EXHAUSTED)
    api.clock.at += 5
    assert (await recover(api, created["id"]))["recovered"] == 3
    assert (await recover(api, created["id"]))["recovered"] == 0


async def test_recovery_that_failed_can_be_recovered_again(api: Api) -> None:
    created = await api.create(events=["job.completed"])
    await run_job(api, created["id"])
    await end(api, DeliveryStatus.EXHAUSTED)
    for _ in range(2):
        api.clock.at += 5
        assert (await recover(api, created["id"]))["recovered"] == 1
        await end(api, DeliveryStatus.EXHAUSTED)
    logged = document(await api("GET", f"/{created['id']}/logs?event=job.completed"))
    assert len(logged["deliveries"]) == 3
    assert len({each["event_id"] for each in logged["deliveries"]}) == 1


async def test_recovery_leaves_out_what_arrived(api: Api) -> None:
    created = await api.create(events=["job.completed"])
    await run_job(api, created["id"])
    await end(api, DeliveryStatus.SUCCEEDED)
    assert (await recover(api, created["id"]))["recovered"] == 0


async def test_recovery_sends_what_was_never_queued_because_of_a_pause(api: Api) -> None:
    created = await api.create(events=["job.started", "job.completed"])
    await run_job(api, None)
    assert (await recover(api, created["id"]))["recovered"] == 2
    assert api.woken == 1


async def test_recovery_keeps_to_the_webhooks_own_choice(api: Api) -> None:
    created = await api.create(events=["job.completed"], filter="data.job_id == 'job-2'")
    await run_job(api, None, "job-1")
    await run_job(api, None, "job-2")
    await run_job(api, None, "job-3", owner="bob")
    assert (await recover(api, created["id"]))["recovered"] == 1
    [message] = await api.messages(created["id"])
    assert message.job_id == "job-2"


async def test_recovery_leaves_out_events_on_which_the_filter_fails(api: Api) -> None:
    created = await api.create(
        events=["job.started", "job.completed"], filter="starts_with(data.stage, 'Comp')"
    )
    await run_job(api, None)  # it starts without a stage
    assert (await recover(api, created["id"]))["recovered"] == 1


async def test_recovery_of_a_jobs_callback_looks_at_that_job_alone(api: Api) -> None:
    await api.stores.webhooks.add(
        stored(1, job_id="job-2", created_at=NOW, events=("job.completed",))
    )
    await run_job(api, None, "job-1")
    await run_job(api, None, "job-2")
    assert (await recover(api, "wh_1"))["recovered"] == 1
    [message] = await api.messages("wh_1")
    assert message.job_id == "job-2"


async def test_recovery_starts_at_the_given_time_and_never_before_the_webhook(api: Api) -> None:
    await run_job(api, None, "job-1")
    api.clock.at += 100
    created = await api.create(events=["job.completed"])
    api.clock.at += 100
    await run_job(api, None, "job-2")
    assert (await recover(api, created["id"], "2023-11-15T00:00:00Z"))["recovered"] == 0
    assert (await recover(api, created["id"], "2023-11-14T00:00:00+00:00"))["recovered"] == 1


async def test_recovery_of_many_jobs_goes_on_from_a_cursor(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.delivery.replay.RECOVERY_PAGES", 1)
    monkeypatch.setattr("gateway.delivery.replay._PAGE", 2)
    created = await api.create(events=["job.completed"])
    for number in range(3):
        await run_job(api, None, f"job-{number}")
    first = await recover(api, created["id"])
    body = {"since": "2023-11-01T00:00:00Z", "cursor": first["next_cursor"]}
    rest = document(await api("POST", f"/{created['id']}/recover", body))
    assert (first["recovered"], rest) == (2, {"recovered": 1, "next_cursor": None})


@pytest.mark.parametrize("since", [None, 5, "yesterday", "2023-11-01T00:00:00"])
async def test_recovery_needs_a_time_with_an_offset(api: Api, since: object) -> None:
    created = await api.create()
    path = f"/{created['id']}/recover"
    error = await api.refused(UnprocessableContent, "POST", path, {"since": since})
    assert set(errors_of(error)) == {"#/since"}


# --- audit ----------------------------------------------------------------------------------------


async def test_every_change_leaves_a_line_without_secrets(api: Api) -> None:
    with capture_logs() as lines:
        created = await api.create(headers={"Authorization": "Bearer tell-nobody"})
        path = f"/{created['id']}"
        await api("PUT", path, {"url": URL + "?token=tell-nobody"})
        await api("PATCH", path, {"max_retries": 1})
        rotated = document(await api("POST", f"{path}/rotate"))
        await api("POST", f"{path}/test")
        await api("POST", f"{path}/recover", {"since": "2023-11-01T00:00:00Z"})
        await api("DELETE", path)
    assert [line["event"] for line in lines] == [
        "webhook_created",
        "webhook_replaced",
        "webhook_changed",
        "webhook_secret_rotated",
        "webhook_tested",
        "webhook_recovered",
        "webhook_deleted",
    ]
    for line in lines:
        assert (line["webhook_id"], line["owner"]) == (created["id"], "alice")
        assert (line["key_id"], line["request_id"]) == ("key-of-alice", "req-1")
    text = str(lines)
    assert "tell-nobody" not in text
    assert created["secret"] not in text
    assert rotated["secret"] not in text


async def test_every_change_is_audited_with_who_made_it_and_without_secrets(api: Api) -> None:
    created = await api.create(headers={"Authorization": "Bearer tell-nobody"})
    path = f"/{created['id']}"
    await api("PATCH", path, {"url": URL + "?token=tell-nobody", "max_retries": 1})
    rotated = document(await api("POST", f"{path}/rotate", {"overlap_seconds": 60}))
    sent = document(await api("POST", f"{path}/test"))
    await api("DELETE", path)
    entries, _ = await api.stores.audit.list(AuditQuery(webhook_id=created["id"]))
    assert [entry.action for entry in entries] == [
        "delivery.cancelled",
        "webhook.deleted",
        "webhook.tested",
        "webhook.secret_rotated",
        "webhook.changed",
        "webhook.created",
    ]
    changes = [entry for entry in entries if entry.action.startswith("webhook.")]
    for entry in changes:
        assert (entry.actor, entry.details["owner"]) == ("key:key-of-alice", "alice")
        assert (entry.details["request_id"], entry.details["host"]) == (
            "req-1",
            "receiver.example",
        )
    assert changes[1].details["delivery_id"] == sent["delivery_id"]
    assert changes[2].details["overlap_seconds"] == 60
    assert changes[3].details["fields"] == ["max_retries", "url"]
    text = str(entries)
    assert "tell-nobody" not in text
    assert created["secret"] not in text
    assert rotated["secret"] not in text


async def test_reads_and_refusals_leave_no_audit_line(api: Api) -> None:
    created = await api.create()
    with capture_logs() as lines:
        await api("GET")
        await api("GET", f"/{created['id']}/logs")
        await api.refused(UnprocessableContent, "PATCH", f"/{created['id']}", {"x": 1})
    assert lines == []
    entries, _ = await api.stores.audit.list(AuditQuery())
    assert [entry.action for entry in entries] == ["webhook.created"]


async def test_change_stands_when_its_copy_cannot_be_made(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def publish(_api: Api, _webhook: Webhook, _deleted: bool) -> None:  # noqa: FBT001
        raise StoreUnavailable("the outbox is away")

    monkeypatch.setattr(Api, "_publish", publish)
    with capture_logs() as lines:
        created = await api.create()
    assert created["secret"]
    assert [line["event"] for line in lines] == ["webhook_created", "webhook_copy_failed"]


async def test_without_keys_everything_belongs_to_anonymous(api: Api) -> None:
    created = document(await api("POST", "", {"url": URL}, owner=None))
    made = await api.stores.webhooks.get(created["id"])
    assert made is not None
    assert (made.owner, made.status) == ("anonymous", WebhookStatus.ACTIVE)


async def test_full_disk_refuses_a_change_clearly_and_loses_nothing(
    stores: Stores, database: Database
) -> None:
    api = Api(stores, max_per_owner=10_000)
    created = [await api.create()]
    (size,) = (await database.fetch("PRAGMA page_count", {}))[0]
    await database.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {size}"))
    refusal: StoreUnavailable | None = None
    for _ in range(100):
        try:
            created.append(await api.create(description="x" * 500))
        except StoreUnavailable as error:
            refusal = error
            break
    assert refusal is not None
    assert (refusal.status, "free space" in refusal.detail) == (503, True)
    listed = document(await api("GET", "?limit=100"))["webhooks"]
    assert [each["id"] for each in listed] == [each["id"] for each in created]
    entries, _ = await stores.audit.list(AuditQuery(action="webhook.created", limit=100))
    assert len(entries) == len(created)
    await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 100000"))
    await api("PATCH", f"/{created[0]['id']}", {"description": "after"})
    sent = document(await api("POST", f"/{created[0]['id']}/test"))
    assert [each.id for each in await api.messages(created[0]["id"])] == [sent["delivery_id"]]
