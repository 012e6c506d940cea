"""What stores write down reads back the same, from older and newer releases too."""

from __future__ import annotations

import base64
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.error import InvalidRequest
from gateway.core.job import State
from gateway.store.codec import (
    decode_cursor,
    encode_cursor,
    job_document,
    job_from_document,
    webhook_document,
    webhook_from_document,
)
from tests.support.store import new_job, webhook

JOB = new_job().job
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(results=JSON, state=st.sampled_from(State), urls=st.lists(st.text("ab/"), max_size=3))
def test_job_reads_back_the_same(results: object, state: State, urls: list[str]) -> None:
    job = replace(JOB, results=results, state=state, webhook_urls=tuple(urls))
    assert job_from_document(job_document(job)) == job


def test_field_that_a_document_lacks_takes_its_default() -> None:
    old = orjson.loads(job_document(replace(JOB, retry_count=3)))
    del old["retry_count"], old["webhook_urls"]
    assert job_from_document(orjson.dumps(old)) == JOB
    old = orjson.loads(webhook_document(webhook()))
    del old["events"], old["status"], old["max_per_second"]
    assert webhook_from_document(orjson.dumps(old)) == webhook()


def test_field_of_another_release_is_left_out() -> None:
    assert job_from_document(orjson.dumps({**orjson.loads(job_document(JOB)), "mood": 1})) == JOB
    newer = {**orjson.loads(webhook_document(webhook())), "mood": 1}
    assert webhook_from_document(orjson.dumps(newer)) == webhook()


@given(
    at=st.floats(allow_nan=False, allow_infinity=False),
    identifier=st.text(st.characters(codec="utf-8")),
)
def test_cursor_reads_back_exactly_and_is_safe_in_a_url(at: float, identifier: str) -> None:
    cursor = encode_cursor(at, identifier)
    assert decode_cursor(cursor) == (at, identifier)
    assert all(character.isalnum() or character in "-_" for character in cursor)


@given(text=st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_position_or_an_invalid_request(text: str) -> None:
    try:
        at, identifier = decode_cursor(text)
    except InvalidRequest:
        return
    assert isinstance(at, float)
    assert isinstance(identifier, str)


@pytest.mark.parametrize("position", [[True, "x"], ["1", "x"], [1, 2], [1], {"a": 1}, None])
def test_position_of_another_shape_is_refused(position: object) -> None:
    cursor = base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")
    with pytest.raises(InvalidRequest, match="cursor"):
        decode_cursor(cursor)
