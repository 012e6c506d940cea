"""docs/webhooks.md: its samples verify real deliveries, and its tables name what there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import textwrap
import time
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.cli import main
from gateway.core.filter import compile_filter
from gateway.core.job import EventType
from gateway.core.outbox import Message
from gateway.core.signature import generate_secret, secret_key
from gateway.delivery.header import delivery_headers
from gateway.settings.load import load
from gateway.web.webhook_input import SETTABLE
from gateway.web.webhook_sample import DATA_FIELDS, sample
from tests.docs.markdown import ROOT, blocks, codes, tables

PAGE = (ROOT / "docs" / "webhooks.md").read_text()
LIBRARY, BY_HAND = (block.text for block in blocks(PAGE, "python"))
(ANY_SECRET,) = re.findall(r"   ```python\n((?:   .*\n)+?)   ```", PAGE)
(JAVASCRIPT,) = (block.text for block in blocks(PAGE, "javascript"))
VERIFIER = ROOT / "tests" / "node_verifier"
NODE = shutil.which("node")
SECRET = generate_secret(b"a receiver's own 32-byte secret.")
OTHER = generate_secret(b"a secret of quite another hook..")


def run(code: str, **names: Any) -> dict[str, Any]:
    """What a sample defines."""
    exec(compile(code, "docs/webhooks.md", "exec"), names)  # noqa: S102 - the sample under test
    return names


def delivery(*secrets: str, at: float | None = None) -> tuple[Mapping[str, str], bytes]:
    """A delivery as the gateway makes it: headers and body."""
    document = sample(EventType.COMPLETED)
    message = Message(
        id="dlv_1",
        sink="webhook",
        destination="wh_1",
        kind=document["type"],
        event_id=document["id"],
        job_id="job_sample",
        sequence=document["sequence"],
        body=json.dumps(document).encode(),
        created_at=0.0,
        due_at=0.0,
        attempt=1,
        request_id="r-1",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="vendor=1",
    )
    keys = [secret_key(secret) for secret in secrets]
    headers = delivery_headers({}, message, keys, int(time.time() if at is None else at))
    return headers, message.body


def rows(column: str) -> list[Mapping[str, str]]:
    """The rows of the table that begins with this column."""
    (found,) = [table for table in tables(PAGE) if next(iter(table.rows[0])) == column]
    return list(found.rows)


def test_library_sample_handles_a_delivery_once_however_often_it_comes() -> None:
    handled: list[Any] = []
    receive = run(LIBRARY, SECRET=SECRET, handle=handled.append)["receive"]

    assert [receive(*delivery(SECRET)), receive(*delivery(SECRET))] == [204, 204]
    assert [event["type"] for event in handled] == ["job.completed"]


def test_library_sample_refuses_what_another_signed_or_changed() -> None:
    handled: list[Any] = []
    receive = run(LIBRARY, SECRET=SECRET, handle=handled.append)["receive"]
    headers, body = delivery(SECRET)

    assert [receive(*delivery(OTHER)), receive(headers, body + b" ")] == [401, 401]
    assert handled == []


@pytest.mark.parametrize("secrets", [(SECRET,), (SECRET, OTHER), (OTHER, SECRET)])
def test_sample_by_hand_takes_any_signature_of_its_secret(secrets: tuple[str, ...]) -> None:
    run(BY_HAND)["verify"](SECRET, *delivery(*secrets))


def test_sample_by_hand_refuses_what_another_signed_or_changed_or_kept() -> None:
    verify = run(BY_HAND)["verify"]
    headers, body = delivery(SECRET)

    with pytest.raises(ValueError, match="no signature fits"):
        verify(SECRET, *delivery(OTHER))
    with pytest.raises(ValueError, match="no signature fits"):
        verify(SECRET, headers, body + b" ")
    with pytest.raises(ValueError, match="too far from now"):
        verify(SECRET, *delivery(SECRET, at=time.time() - 301))


def test_sample_for_several_secrets_takes_any_and_refuses_the_rest() -> None:
    names = run(BY_HAND + textwrap.dedent(ANY_SECRET))
    headers, body = delivery(SECRET)

    names["verify_any"]([OTHER, SECRET], headers, body)
    with pytest.raises(ValueError, match="no signature fits"):
        names["verify_any"]([OTHER], headers, body)


@pytest.mark.skipif(
    NODE is None or not (VERIFIER / "node_modules").exists(),
    reason="the npm package standardwebhooks is not installed: 'make install' with Node 20",
)
def test_javascript_sample_handles_a_delivery_once_and_refuses_what_another_signed() -> None:
    assert NODE is not None
    cases = []
    for secret in (SECRET, SECRET, OTHER):
        headers, body = delivery(secret)
        lower = {name.lower(): value for name, value in headers.items()}
        cases.append({"headers": lower, "body": body.decode()})
    driver = """
        const handled = [];
        const cases = JSON.parse(process.env.CASES);
        const statuses = cases.map((each) =>
          receive(each.headers, each.body, (event) => handled.push(event.type)));
        console.log(JSON.stringify({ statuses, handled }));
    """
    done = subprocess.run(
        [NODE, "--input-type=module", "-"],
        input=JAVASCRIPT + driver,
        cwd=VERIFIER,
        env={**os.environ, "WEBHOOK_SECRET": SECRET, "CASES": json.dumps(cases)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert json.loads(done.stdout) == {"statuses": [204, 204, 401], "handled": ["job.completed"]}


def test_example_of_a_body_is_the_catalogues() -> None:
    example = next(block for block in blocks(PAGE, "json") if '"sequence"' in block.text)

    assert json.loads(example.text) == sample(EventType.PROGRESS)


def test_headers_are_those_of_a_delivery() -> None:
    named = {name.lower() for row in rows("header") for name in codes(row["header"])}
    sent = {name.lower() for name in delivery(SECRET)[0]}

    assert named == sent - {"content-type", "user-agent", "accept-encoding"}


def test_fields_are_those_that_a_creation_takes() -> None:
    assert {codes(row["field"])[0] for row in rows("field")} == SETTABLE | {"secret"}


def test_filter_of_the_example_is_one() -> None:
    (row,) = [row for row in rows("field") if row["field"] == "`filter`"]
    example = codes(row["what it does"])[-1]

    compile_filter(example)
    assert all(name in DATA_FIELDS for name in re.findall(r"data\.(\w+)", example))


def test_schedule_is_the_shipped_one() -> None:
    webhooks = load(ROOT / "gateway.yaml", {}).webhooks
    shown = re.search(r"as shipped after (.*?), each", PAGE, re.DOTALL)
    assert shown is not None
    said = [_seconds(text) for text in re.findall(r"[\d.]+ (?:s|min|h)\b", shown[1])]
    said.append(said[-1])  # "twice 10 h"

    assert "twice 10 h" in shown[1]
    assert said == list(webhooks.retry_delays[: webhooks.max_retries])


def _seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"s": 1, "min": 60, "h": 3600}[unit]


def test_commands_of_operators_are_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["webhooks", "--help"])
    offered = re.search(r"^  COMMAND\n((?:    .*\n)+)", capsys.readouterr().out, re.MULTILINE)
    assert offered is not None
    names = re.findall(r"^    (\w+)", offered[1], re.MULTILINE)

    assert [codes(row["command"])[0].split()[2] for row in rows("command")] == names


def test_options_of_operators_are_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for row in rows("command"):
        with pytest.raises(SystemExit):
            main([*codes(row["command"])[0].split()[1:3], "--help"])
        offered = capsys.readouterr().out
        for code in codes(row["what it does"]):
            assert code.split()[0] in offered
