"""Log lines: their shape, and that no secret is ever in one."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import structlog
from pydantic import SecretStr

from gateway.settings.telemetry import Log
from gateway.telemetry.log import (
    REDACTED,
    LibraryHandler,
    LineWriter,
    configure,
    get_logger,
    is_secret_name,
    mask,
    redact,
)

KEY = "gw_" + "0123456789abcdef" * 4
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DEPLOY_KEY = "prod:happy-otter-123|eyJ2MiI6ImFiYyJ9"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    root = logging.getLogger()
    for handler in [item for item in root.handlers if isinstance(item, LibraryHandler)]:
        root.removeHandler(handler)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure(Log(level="info", format="json"), stream)
    return stream


def test_a_line_is_one_json_object_that_begins_with_when_who_and_what(stream: io.StringIO) -> None:
    get_logger("job").info("job_recorded", job_id="j1", took_seconds=0.25)

    [line] = lines(stream)
    assert list(line) == ["timestamp", "level", "logger", "event", "job_id", "took_seconds"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["logger"], line["event"]) == ("info", "job", "job_recorded")
    assert line["took_seconds"] == 0.25


def test_lines_below_the_level_are_not_written(stream: io.StringIO) -> None:
    get_logger("job").debug("noise")

    assert stream.getvalue() == ""


def test_a_logger_made_before_configure_follows_it() -> None:
    log, stream = get_logger("early"), io.StringIO()
    configure(Log(), stream)

    log.info("hello")

    assert lines(stream)[0]["logger"] == "early"


def test_bound_fields_and_context_are_on_every_line(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        get_logger("web").bind(route="job-list").info("request")

    assert lines(stream)[0].items() >= {"request_id": "r1", "route": "job-list"}.items()


def test_an_exception_is_a_field_of_the_same_line(stream: io.StringIO) -> None:
    try:
        int(KEY)
    except ValueError:
        get_logger("web").exception("failed")

    [line] = lines(stream)
    assert "ValueError: invalid literal" in line["exception"]
    assert KEY not in stream.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "api_key", "authorization", "Authorization", "secret", "token", "cookie", "Set-Cookie",
        "X-API-Key", "deploy_key", "password", "webhook_secret_key", "previous_secret",
        "proxy-authorization",
    ],
)  # fmt: skip
def test_a_field_named_like_a_secret_is_redacted(name: str) -> None:
    assert redact(None, "info", {name: "something"}) == {name: REDACTED}


@pytest.mark.parametrize("name", ["key_id", "job_id", "tokens_used", "secretary", "keyboard"])
def test_a_field_that_only_resembles_one_is_kept(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {KEY}.", KEY),
        (f"signed with {WEBHOOK_SECRET}", WEBHOOK_SECRET),
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("bearer abcdefgh", "abcdefgh"),
        ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        (f"Convex {DEPLOY_KEY}", DEPLOY_KEY),
        (f"deploys with {DEPLOY_KEY} now", DEPLOY_KEY),
        ("demo:demo|0123456789abcdef", "0123456789abcdef"),
        ("https://user:hunter2@example.com/x", "hunter2"),
    ],
)
def test_a_value_that_looks_like_a_credential_is_masked(text: str, secret: str) -> None:
    assert secret not in mask(text)
    assert REDACTED in mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "Convex https://happy-otter-123.convex.cloud is away",
        "Convex answered 503",
        "gw_short",
        "https://example.com/a@b",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert mask(text) == text


def test_secrets_are_found_at_any_depth() -> None:
    event = {"request": {"headers": [{"X-API-Key": "k"}, (f"is {KEY}", b"Bearer abcdefgh")]}}

    cleaned = redact(None, "info", event)

    assert cleaned == {
        "request": {"headers": [{"X-API-Key": REDACTED}, [f"is {REDACTED}", REDACTED]]}
    }


def test_an_object_is_shown_by_its_own_text_and_keeps_what_it_hides(stream: io.StringIO) -> None:
    @dataclass
    class Hook:
        url: str
        secret: str = field(repr=False)

    get_logger("x").info("made", hook=Hook("u", "hidden"), setting=SecretStr("hidden"))

    assert "hidden" not in stream.getvalue()
    assert "url='u'" in lines(stream)[0]["hook"]


def test_whatever_the_value_a_line_is_valid_json(stream: io.StringIO) -> None:
    recursive: list[Any] = []
    recursive.append(recursive)
    get_logger("x").info(
        "odd", surrogate="\udc80", huge=2**80, nan=float("nan"), recursive=recursive, raw=b"\xff",
        number_keys={1: "a"}, nothing=None,
    )  # fmt: skip

    [line] = lines(stream)
    assert line["surrogate"] == "\\udc80"
    assert line["huge"] == str(2**80)
    assert line["nan"] is None
    assert line["number_keys"] == {"1": "a"}


def test_a_long_value_is_cut(stream: io.StringIO) -> None:
    get_logger("x").info("big", body="x" * 100_000)

    assert len(stream.getvalue()) < 20_000


def test_console_values_cannot_move_the_cursor() -> None:
    stream = io.StringIO()
    configure(Log(format="console"), stream)

    get_logger("x").info("request", path="/\x1b[2J\r\nfake")

    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_console_tracebacks_show_no_local_variables() -> None:
    stream = io.StringIO()
    configure(Log(format="console"), stream)
    hidden = "HUNTER2".lower()  # not spelt in the source, which the traceback quotes
    try:
        len(hidden) // 0
    except ZeroDivisionError:
        get_logger("x").exception("failed")

    assert "ZeroDivisionError" in stream.getvalue()
    assert hidden not in stream.getvalue()


def test_libraries_warn_in_the_same_lines(stream: io.StringIO) -> None:
    logging.getLogger("aiohttp.server").warning("odd request with %s", KEY)
    logging.getLogger("aiohttp.access").info("too chatty")

    [line] = lines(stream)
    assert (line["logger"], line["event"], line["level"]) == (
        "aiohttp.server",
        "library_message",
        "warning",
    )
    assert line["message"] == f"odd request with {REDACTED}"


def test_configuring_again_does_not_double_the_lines(stream: io.StringIO) -> None:
    configure(Log(), stream)

    logging.getLogger("x").error("once")

    assert len(lines(stream)) == 1


class Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_left_costs_lines_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LineWriter, "dropped", 0)
    closed = io.StringIO()
    closed.close()
    for stream in (Broken(), closed):
        configure(Log(), stream)
        get_logger("x").info("unheard")

    assert LineWriter.dropped == 2
