"""Signatures of deliveries: Standard Webhooks v1, and the upstream's own `sha256=` of the body.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix, not a secret
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
TOLERANCE_SECONDS = 300.0
_VERSION = "v1"
_BODY_SCHEME = "sha256="
_TIMESTAMP = re.compile(r"[0-9]{1,15}")


class InvalidSignature(ValueError):
    """A delivery that must not be trusted; the text says which check failed, never a secret."""


def generate_secret(random: bytes) -> str:
    """`whsec_` and the base64 of `random`. Raises ValueError unless it is 24 to 64 bytes."""
    if not SECRET_BYTES_MIN <= len(random) <= SECRET_BYTES_MAX:
        raise ValueError(
            f"a secret is made of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random bytes,"
            f" not {len(random)}"
        )
    return SECRET_PREFIX + base64.b64encode(random).decode()


def secret_key(secret: str) -> bytes:
    """The HMAC key that a secret stands for.

    Of `whsec_…` it is the base64-decoded rest; any other text, such as a secret that receivers of
    the upstream's own scheme already hold, is its UTF-8 bytes. Raises ValueError, without the
    secret in its text.
    """
    if not secret.startswith(SECRET_PREFIX):
        if not secret.strip():
            raise ValueError("the secret is empty")
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError(f"the secret after {SECRET_PREFIX} is not base64 with padding") from None
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError(
            f"the secret after {SECRET_PREFIX} holds {len(key)} bytes;"
            f" it must hold {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}"
        )
    return key


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` field: a `v1,<base64>` for each key, separated by spaces.

    `timestamp` is whole epoch seconds. During a rotation the newer key comes first.
    """
    return " ".join(f"{_VERSION},{_digest(key, message_id, timestamp, body)}" for key in keys)


def sign_body(key: bytes, body: bytes) -> str:
    """The `x-klipstream-signature` field: `sha256=` and the hex HMAC-SHA256 of the body alone."""
    return _BODY_SCHEME + hmac.new(key, body, hashlib.sha256).hexdigest()


def verify(
    keys: Sequence[bytes],
    message_id: str,
    timestamp: str,
    signature: str,
    body: bytes,
    *,
    now: float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> None:
    """Raise InvalidSignature unless an entry of the `webhook-signature` field fits one of the keys.

    `timestamp` is the `webhook-timestamp` field as received; it may be off `now` (epoch seconds) by
    `tolerance_seconds` either way, which bounds how long a recorded delivery can be replayed.
    Entries of other versions are passed over. Comparison takes constant time.
    """
    if not message_id:
        raise InvalidSignature("webhook-id is missing")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise InvalidSignature("webhook-timestamp is not a whole number of seconds")
    if abs(now - int(timestamp)) > tolerance_seconds:
        raise InvalidSignature("webhook-timestamp is too far from now")
    entries = [entry.partition(",") for entry in signature.split(" ")]
    given = [digest.encode() for version, _, digest in entries if version == _VERSION]
    expected = [_digest(key, message_id, int(timestamp), body).encode() for key in keys]
    # Every pair is compared, so that time tells nothing of which one fitted.
    fits = [hmac.compare_digest(one, other) for one in expected for other in given]
    if not any(fits):
        raise InvalidSignature("webhook-signature fits no key")


def verify_body(keys: Sequence[bytes], signature: str, body: bytes) -> None:
    """Raise InvalidSignature unless the `x-klipstream-signature` field fits one of the keys.

    It binds neither id nor time: a receiver that can should use `verify`.
    """
    given = signature.encode()
    fits = [hmac.compare_digest(sign_body(key, body).encode(), given) for key in keys]
    if not any(fits):
        raise InvalidSignature("x-klipstream-signature fits no key")


def _digest(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
