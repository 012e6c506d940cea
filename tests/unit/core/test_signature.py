"""Signatures: the published vector, the reference package, and every way one can be wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.signature import (
    InvalidSignature,
    generate_secret,
    secret_key,
    sign,
    sign_body,
    verify,
    verify_body,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
KEY = secret_key(SECRET)
OTHER = b"k" * 24


def test_golden_vector_is_signed() -> None:
    assert sign([KEY], ID, AT, BODY) == SIGNATURE


def test_golden_vector_verifies() -> None:
    verify([KEY], ID, str(AT), SIGNATURE, BODY, now=AT)


def test_two_keys_give_two_entries_newer_first() -> None:
    newer, older = sign([OTHER, KEY], ID, AT, BODY).split(" ")
    assert older == SIGNATURE
    assert newer == sign([OTHER], ID, AT, BODY)


@pytest.mark.parametrize("known", [[KEY], [OTHER], [OTHER, KEY]])
def test_either_key_of_a_rotation_verifies(known: list[bytes]) -> None:
    verify(known, ID, str(AT), sign([OTHER, KEY], ID, AT, BODY), BODY, now=AT)


@given(secret=st.binary(min_size=24, max_size=64), body=st.binary(max_size=200))
def test_reference_package_verifies_what_is_signed(secret: bytes, body: bytes) -> None:
    at = int(datetime.now(UTC).timestamp())
    reference = standardwebhooks.Webhook(generate_secret(secret))
    text = base64.b64encode(body).decode()  # the package takes text and parses it as JSON
    document = f'"{text}"'.encode()
    headers = {
        "webhook-id": ID,
        "webhook-timestamp": str(at),
        "webhook-signature": sign([secret], ID, at, document),
    }
    assert reference.verify(document, headers) == text


@given(secret=st.binary(min_size=24, max_size=64))
def test_generated_secret_stands_for_its_bytes(secret: bytes) -> None:
    assert secret_key(generate_secret(secret)) == secret


@pytest.mark.parametrize("size", [0, 23, 65])
def test_secret_is_made_of_24_to_64_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="24 to 64"):
        generate_secret(b"x" * size)


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("whsec_", "holds 0 bytes"),
        ("whsec_MfKQ9r8G", "holds 6 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "holds 65 bytes"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS\n", "not base64"),
        ("whsec_é", "not base64"),
    ],
)
def test_unusable_secret_is_refused_without_being_shown(secret: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        secret_key(secret)
    rest = secret.removeprefix("whsec_").strip()
    assert not rest or rest not in str(refusal.value)


def test_plain_secret_is_its_utf8_bytes() -> None:
    assert secret_key("hemlighet-å") == "hemlighet-å".encode()


def test_body_signature_is_hex_hmac_of_the_body() -> None:
    expected = hmac.new(KEY, BODY, hashlib.sha256).hexdigest()
    assert sign_body(KEY, BODY) == f"sha256={expected}"
    verify_body([OTHER, KEY], f"sha256={expected}", BODY)


@pytest.mark.parametrize(
    "signature", ["", "sha256=", "sha1=00", sign_body(OTHER, BODY), "sha256=é"]
)
def test_body_signature_of_another_key_or_form_is_refused(signature: str) -> None:
    with pytest.raises(InvalidSignature, match="fits no key"):
        verify_body([KEY], signature, BODY)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "v1",
        "v1,",
        "v1,not-base64",
        "v1a," + SIGNATURE.removeprefix("v1,"),
        "v2," + SIGNATURE.removeprefix("v1,"),
        SIGNATURE[:-1],
        SIGNATURE + "=",
        "v1,é",
        sign([OTHER], ID, AT, BODY),
    ],
)
def test_signature_that_fits_no_key_is_refused(signature: str) -> None:
    with pytest.raises(InvalidSignature, match="fits no key"):
        verify([KEY], ID, str(AT), signature, BODY, now=AT)


@pytest.mark.parametrize(
    ("message_id", "timestamp", "body"),
    [(ID + "x", AT, BODY), (ID, AT + 1, BODY), (ID, AT, BODY + b" "), ("x" + ID, AT, b"")],
)
def test_signature_binds_id_timestamp_and_body(
    message_id: str, timestamp: int, body: bytes
) -> None:
    with pytest.raises(InvalidSignature, match="fits no key"):
        verify([KEY], message_id, str(timestamp), SIGNATURE, body, now=AT)


@pytest.mark.parametrize(
    "timestamp", ["", "now", "-1", "1614265330.0", " 1614265330", "\u0661", "1" * 16]
)
def test_timestamp_is_whole_seconds(timestamp: str) -> None:
    with pytest.raises(InvalidSignature, match="whole number"):
        verify([KEY], ID, timestamp, SIGNATURE, BODY, now=AT)


@pytest.mark.parametrize("off", [-301, 301])
def test_timestamp_outside_the_tolerance_is_refused(off: int) -> None:
    with pytest.raises(InvalidSignature, match="too far"):
        verify([KEY], ID, str(AT), SIGNATURE, BODY, now=AT + off)


@pytest.mark.parametrize("off", [-300, 300])
def test_timestamp_at_the_tolerance_is_taken(off: int) -> None:
    verify([KEY], ID, str(AT), SIGNATURE, BODY, now=AT + off)


def test_missing_id_is_refused() -> None:
    with pytest.raises(InvalidSignature, match="webhook-id"):
        verify([KEY], "", str(AT), SIGNATURE, BODY, now=AT)
