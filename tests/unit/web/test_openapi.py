"""The OpenAPI documents: every resource is in them, and every name they use is defined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.web.convex_admin import ConvexAdmin
from gateway.web.job_admin import JobAdmin
from gateway.web.keys import KeyApi
from gateway.web.openapi import public_document
from gateway.web.openapi_admin import admin_document
from gateway.web.webhook_admin import WebhookAdmin
from gateway.web.webhook_input import SETTABLE
from gateway.web.webhooks import WebhookApi

DOCUMENTS = {"public": public_document(), "admin": admin_document()}
METHODS = {"get", "put", "post", "patch", "delete"}


def operations(document: Any) -> set[tuple[str, str]]:
    return {
        (method, path)
        for path, item in document["paths"].items()
        for method in item
        if method in METHODS
    }


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_is_defined(name: str) -> None:
    document = DOCUMENTS[name]
    defined = {f"#/components/schemas/{each}" for each in document["components"]["schemas"]}
    assert set(references(document)) <= defined


@pytest.mark.parametrize("name", DOCUMENTS)
def test_operations_are_named_once(name: str) -> None:
    document = DOCUMENTS[name]
    names = [
        document["paths"][path][method]["operationId"] for method, path in operations(document)
    ]
    assert len(names) == len(set(names))


def test_public_document_has_every_webhook_resource() -> None:
    api = WebhookApi(**dict.fromkeys(WebhookApi.__dataclass_fields__))  # type: ignore[arg-type]
    documented = {
        tuple(path.removeprefix("/api/v1/webhooks").split("/")[1:]): set(item) & METHODS
        for path, item in DOCUMENTS["public"]["paths"].items()
        if path.startswith("/api/v1/webhooks")
    }
    answered = {
        segments: {each.lower() for each in api._methods(segments)} for segments in documented
    }
    assert documented == answered


def test_admin_document_has_every_resource_that_asks_for_a_key() -> None:
    made = [
        *KeyApi.routes(object.__new__(KeyApi)),
        *JobAdmin.routes(object.__new__(JobAdmin)),
        *WebhookAdmin.routes(object.__new__(WebhookAdmin)),
        *ConvexAdmin.routes(object.__new__(ConvexAdmin)),
    ]
    routes = {(route.method.lower(), route.path) for route in made}
    assert routes - {("get", "/openapi.json")} == operations(DOCUMENTS["admin"])


def test_creation_takes_what_the_document_says() -> None:
    creation = DOCUMENTS["public"]["components"]["schemas"]["WebhookCreation"]
    assert set(creation["properties"]) == SETTABLE | {"secret"}
