"""What a change makes unfit to serve (RFC 9111 section 4.4)."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from gateway.core.error import InvalidRequest
from gateway.core.message import Request, Response
from gateway.core.route import normalize_path

_NAMING_OTHERS = ("Location", "Content-Location")


def invalidated_targets(request: Request, response: Response) -> tuple[str, ...]:
    """The targets, each once, whose stored answers a successful unsafe request ends.

    Its own, and those of its origin that the answer names; none when it failed.
    """
    if not 200 <= response.status < 400:
        return ()
    targets = {request.target: None}
    for name in _NAMING_OTHERS:
        if name in response.headers:
            target = _same_origin(request, response.headers[name])
            if target is not None:
                targets[target] = None
    return tuple(targets)


def _same_origin(request: Request, reference: str) -> str | None:
    """The target that a URI reference names; None for another origin, or for no URI at all."""
    base = f"{request.scheme}://{request.host}"
    try:
        named = urlsplit(urljoin(base + request.target, reference))
        if f"{named.scheme}://{named.netloc}".lower() != base.lower():
            return None
        path = normalize_path(named.path or "/")
    except (ValueError, InvalidRequest):
        return None
    return f"{path}?{named.query}" if named.query else path
