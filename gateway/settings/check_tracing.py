"""Rules of the section `tracing`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from gateway.settings.problem import Problem
from gateway.settings.telemetry import Tracing

SERVICE_NAME = "service.name"
_PATH = "/v1/traces"
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.1
_FIELD_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_OWN = frozenset({"content-encoding", "content-length", "content-type", "host"})
_MISSING = (
    "needs the extra otel, which is not installed: pip install 'klipstream-gateway[otel]', "
    "or leave the endpoint out"
)


def tracing(section: Tracing) -> Iterator[Problem]:
    """Every rule that the section breaks, the extra's absence among them; no header is shown."""
    here = ("tracing",)
    if section.endpoint is not None:
        yield from _endpoint(section.endpoint)
        if not is_installed():
            yield (*here, "endpoint"), _MISSING
        if section.ca is not None and urlsplit(section.endpoint).scheme == "http":
            yield (*here, "ca"), "is for TLS: the endpoint begins with https://"
    if section.ca is not None and not Path(section.ca).is_file():
        yield (*here, "ca"), f"names {section.ca}, which is not a file"
    yield from _headers(section)
    if SERVICE_NAME in section.resource:
        yield (*here, "resource", SERVICE_NAME), "is what tracing.service_name says"
    if section.batch > section.queue:
        yield (*here, "batch"), "must not be more than tracing.queue"


def is_installed() -> bool:
    """True when the extra `otel` is; it is looked for, not imported."""
    try:
        return find_spec("opentelemetry.proto") is not None
    except ModuleNotFoundError:
        return False


def _headers(section: Tracing) -> Iterator[Problem]:
    here = ("tracing", "headers")
    for name, value in section.headers.items():
        if not _FIELD_NAME.fullmatch(name):
            yield (*here, name), "must be the name of a header"
        elif name.lower() in _OWN:
            yield (*here, name), "is what the exporter itself says"
        elif not _FIELD_VALUE.fullmatch(value.get_secret_value()):
            yield (*here, name), "must be printable ASCII, without spaces around it"


def _endpoint(text: str) -> Iterator[Problem]:
    here = ("tracing", "endpoint")
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        yield here, "must be a URL like http://127.0.0.1:4318"
        return
    if not usable:
        yield here, "must be a URL like http://127.0.0.1:4318"
    elif url.username is not None or url.password is not None:
        yield here, "must not carry a user name or password; tracing.headers take a credential"
    elif url.query or url.fragment:
        yield here, "must not have a query or a fragment"
    elif url.path.rstrip("/").endswith(_PATH):
        yield here, f"must be the base URL: {_PATH} is added to it"
