"""The request headers of a webhook delivery, by Standard Webhooks and the upstream's own scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from multidict import CIMultiDict

from gateway import __version__
from gateway.core.outbox import Message
from gateway.core.signature import sign, sign_body
from gateway.core.subscription import is_reserved

USER_AGENT = f"klipstream-gateway/{__version__}"


def delivery_headers(
    static: Mapping[str, str], message: Message, keys: Sequence[bytes], timestamp: int
) -> CIMultiDict[str]:
    """The headers of one attempt; `timestamp` is whole epoch seconds, the newest key comes first.

    A reserved name in `static` is passed over, however it came there. The HMAC of the body alone is
    made with the newest key: that scheme knows no second entry.
    """
    headers = CIMultiDict((name, value) for name, value in static.items() if not is_reserved(name))
    headers["Content-Type"] = "application/json"
    headers["User-Agent"] = USER_AGENT
    headers["Accept-Encoding"] = "identity"
    headers["webhook-id"] = message.event_id
    headers["webhook-timestamp"] = str(timestamp)
    headers["webhook-signature"] = sign(keys, message.event_id, timestamp, message.body)
    headers["x-webhook-event"] = message.kind
    headers["x-webhook-attempt"] = str(message.attempt)
    headers["x-klipstream-signature"] = sign_body(keys[0], message.body)
    headers.update(trace_headers(message))
    return headers


def trace_headers(message: Message) -> dict[str, str]:
    """`X-Request-ID` and W3C trace context of the request that began the job, where known."""
    known = {
        "X-Request-ID": message.request_id,
        "traceparent": message.traceparent,
        "tracestate": message.tracestate,
    }
    return {name: value for name, value in known.items() if value is not None}
