"""Callbacks that a creation asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.core.address import AddressRule
from gateway.core.contract import CREATE, Contract, ContractRoute
from gateway.core.error import UnprocessableContent
from gateway.core.job import Job, State
from gateway.core.route import Match, Route
from gateway.core.webhook import Webhook
from gateway.job.callback import Callbacks, Wanted
from gateway.store.sqlite import Database, SqliteWebhookStore
from tests.support.fakes import FakeClock, make_request
from tests.support.store import NOW

URL = "https://receiver.example/"
SECRET = "a secret that receivers know"
PATH = "/api/v1/analysis"
CONTRACT = Contract(
    [ContractRoute(CREATE, PATH, frozenset({"POST"}))],
    {"id": "job_id", "state": "status", "callback_url": "request.callback_url"},
    {"running": ["*"]},
)


def extract(
    document: Any, *headers: str, secret_key: str | None = SECRET, contract: Contract = CONTRACT
) -> Wanted:
    request = make_request(
        "POST",
        PATH,
        headers=[("X-Webhook-Url", value) for value in headers],
        match=Match(Route(CREATE, PATH)),
    )
    callbacks = Callbacks(_NoStore(), AddressRule(), secret_key, FakeClock())
    return callbacks.extract(request, document, contract)


class _NoStore(SqliteWebhookStore):
    """Reading a creation touches no store."""

    def __init__(self) -> None:
        pass


def refusals(document: Any, *headers: str, **fields: Any) -> Sequence[dict[str, str]]:
    with pytest.raises(UnprocessableContent) as caught:
        extract(document, *headers, **fields)
    errors: Sequence[dict[str, str]] = caught.value.extra["errors"]
    return errors


def job(**fields: Any) -> Job:
    return Job("job-1", "inc", "alice", "one", State.QUEUED, NOW, NOW, **fields)


def test_callbacks_come_from_the_body_and_from_headers_each_once() -> None:
    document = {
        "callback_url": URL + "a",
        "webhook_urls": [URL + "b", URL + "a"],
        "webhook_events": ["job.completed", "job.failed"],
    }
    wanted = extract(document, URL + "c", URL + "b")
    assert wanted == Wanted((URL + "a", URL + "b", URL + "c"), ("job.completed", "job.failed"))


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "text",
        {},
        {"callback_url": None, "webhook_urls": None, "webhook_events": None},
        {"callback_url": "", "webhook_urls": []},
    ],
)
def test_creation_without_callbacks_wants_none(document: Any) -> None:
    assert extract(document) == Wanted()
    assert extract(document, secret_key=None) == Wanted()


def test_contract_says_where_the_callback_stands() -> None:
    contract = Contract(
        [ContractRoute(CREATE, PATH, frozenset({"POST"}), {"callback_url": "request.hooks.done"})],
        {},
        {"running": ["*"]},
    )
    assert extract({"hooks": {"done": URL}}, contract=contract).urls == (URL,)


@pytest.mark.parametrize(
    ("document", "pointer", "detail"),
    [
        ({"callback_url": "http://receiver.example/"}, "#/callback_url", "https"),
        ({"callback_url": "https://10.0.0.1/"}, "#/callback_url", "public address"),
        ({"callback_url": 5}, "#/callback_url", "not a number"),
        ({"webhook_urls": URL}, "#/webhook_urls", "not a string"),
        ({"webhook_urls": [URL, 5]}, "#/webhook_urls/1", "not a number"),
        ({"webhook_urls": [URL, "ftp://x.example/"]}, "#/webhook_urls/1", "https"),
        ({"webhook_urls": [f"{URL}{n}" for n in range(11)]}, "#/webhook_urls", "11 receivers"),
        (
            {"callback_url": URL, "webhook_urls": [f"{URL}{n}" for n in range(10)]},
            "#/webhook_urls",
            "more than 10",
        ),
        ({"callback_url": URL, "webhook_events": []}, "#/webhook_events", "at least one"),
        ({"callback_url": URL, "webhook_events": ["x"]}, "#/webhook_events/0", "not an event"),
        ({"webhook_events": ["job.failed"]}, "#/webhook_events", "without webhook_urls"),
    ],
)
def test_field_that_breaks_a_rule_is_named(
    document: dict[str, Any], pointer: str, detail: str
) -> None:
    [error] = refusals(document)
    assert error["pointer"] == pointer
    assert detail in error["detail"]


def test_header_that_breaks_a_rule_is_named() -> None:
    [error] = refusals({}, URL, "https://127.1/")
    assert error["header"] == "X-Webhook-Url"
    assert "four decimal numbers" in error["detail"]


def test_all_violations_are_named_at_once() -> None:
    errors = refusals({"callback_url": 5, "webhook_urls": [5]}, "nowhere")
    assert [error.get("pointer", error.get("header")) for error in errors] == [
        "#/callback_url",
        "#/webhook_urls/0",
        "X-Webhook-Url",
    ]


@pytest.mark.parametrize("secret_key", [None, "", " "])
def test_callback_is_refused_while_the_operator_has_set_no_secret_key(
    secret_key: str | None,
) -> None:
    errors = refusals({"callback_url": URL, "webhook_urls": [URL]}, URL, secret_key=secret_key)
    assert len(errors) == 3
    assert all("webhooks.secret_key" in error["detail"] for error in errors)


def test_webhooks_of_a_job_belong_to_its_creator_and_are_signed_with_the_setting() -> None:
    clock = FakeClock(NOW + 1)
    callbacks = Callbacks(_NoStore(), AddressRule(), SECRET, clock)
    first, second = callbacks.webhooks_of(
        job(webhook_urls=(URL + "a", URL + "b"), webhook_events=("job.failed",))
    )
    assert first == Webhook(
        id=first.id,
        owner="alice",
        url=URL + "a",
        secret=SECRET,
        created_at=NOW + 1,
        updated_at=NOW + 1,
        events=("job.failed",),
        job_id="job-1",
    )
    assert first.id.startswith("wh_")
    assert first.id != second.id


def test_without_named_events_a_callback_gets_them_all() -> None:
    callbacks = Callbacks(_NoStore(), AddressRule(), SECRET, FakeClock())
    [webhook] = callbacks.webhooks_of(job(webhook_urls=(URL,)))
    assert webhook.events == ("job.*",)


async def test_preparing_a_job_again_adds_no_second_webhook(tmp_path: Path) -> None:
    database = Database(tmp_path / "gateway.db")
    await database.open()
    try:
        store, clock = SqliteWebhookStore(database), FakeClock()
        callbacks = Callbacks(store, AddressRule(), SECRET, clock)
        await callbacks.prepare(job(webhook_urls=(URL + "a", URL + "b")))
        clock.at += 5
        await callbacks.prepare(job(webhook_urls=(URL + "a", URL + "b")))
        found = await store.candidates("alice", "job-1")
        assert sorted(each.url for each in found) == [URL + "a", URL + "b"]
    finally:
        await database.close()
