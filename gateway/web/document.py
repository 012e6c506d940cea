"""JSON documents of the gateway's own resources, in and out."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import orjson
from multidict import CIMultiDict

from gateway.core.error import ContentTooLarge, InvalidRequest, UnprocessableContent
from gateway.core.message import Request, Response
from gateway.core.violation import json_type

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 16
_JSON_TYPES = ("application/json", "application/merge-patch+json")


async def read_object(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The request's JSON object; `optional` lets an absent body stand for `{}`.

    Raises `InvalidRequest` (what is not JSON, with the position), `ContentTooLarge` over 64 KiB and
    `UnprocessableContent` for JSON that is no object, nested too deeply or names a member twice.
    """
    if request.body.is_empty and optional:
        return {}
    media_type = request.headers.get("Content-Type", "application/json").partition(";")[0]
    if media_type.strip().lower() not in _JSON_TYPES:
        raise InvalidRequest(
            f"The body's Content-Type is {media_type!r}; send application/json.",
        )
    raw = await request.body.read(MAX_BODY_BYTES)
    if len(raw) > MAX_BODY_BYTES:  # read before, under a larger limit
        raise ContentTooLarge(f"The body exceeds {MAX_BODY_BYTES} bytes.")
    if not raw and optional:
        return {}
    return parse_object(raw)


def parse_object(raw: bytes) -> dict[str, Any]:
    """`raw` as a JSON object (RFC 8259); errors as of `read_object`."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from error
    if not isinstance(document, dict):
        detail = f"The body must be a JSON object, not {json_type(document)}."
        raise UnprocessableContent(detail, [{"pointer": "#", "detail": "must be an object"}])
    _check_depth(document)
    _check_duplicates(raw)
    return document


def json_response(
    status: int, document: object, headers: Mapping[str, str] | None = None
) -> Response:
    """A response that carries `document`; `orjson.Fragment` within it is passed on as it is."""
    fields = CIMultiDict({"Content-Type": "application/json", **(headers or {})})
    return Response(status, fields, orjson.dumps(document))


def _check_depth(document: object) -> None:
    level: list[object] = [document]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    detail = f"The body is nested deeper than {MAX_DEPTH} levels."
    raise UnprocessableContent(detail, [{"pointer": "#", "detail": "is nested too deeply"}])


def _children(value: object) -> Collection[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_duplicates(raw: bytes) -> None:
    """Refuse two members of one name: of these orjson keeps the last, another parser the first."""
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            twice.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)

    json.loads(raw, object_pairs_hook=note)
    if twice:
        errors = [{"pointer": "#", "detail": f"names {name!r} twice"} for name in twice]
        raise UnprocessableContent(f"The body names {twice[0]!r} twice.", errors)
