"""A webhook receiver: verifies, handles each event once, answers at once.

    WEBHOOK_SECRET=whsec_… python receiver.py --port 9000 --memory seen.db

Statuses: 204 the event is kept (or was before), 401 the signature is not right, 400 no event.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 1024 * 1024


class Receiver:
    """Takes deliveries; `keys` are the decoded secrets, any of which may have signed."""

    def __init__(self, keys: Sequence[bytes], memory: str) -> None:
        self._keys = keys
        self._lock = threading.Lock()
        self._memory = sqlite3.connect(memory, check_same_thread=False)
        self._memory.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY, event TEXT)")

    def receive(self, headers: Mapping[str, str], body: bytes) -> int:
        """The status to answer a delivery with."""
        if not self._is_signed(headers, body):
            return 401
        try:
            event = json.loads(body)
            event_id = event["id"]
        except (ValueError, TypeError, KeyError):
            return 400
        # The id and what the event does are one transaction: a crash leaves both or neither, and
        # the delivery comes again.
        with self._lock, self._memory:
            added = self._memory.execute(
                "INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING", (event_id, body.decode())
            )
            if added.rowcount == 1:
                handle(event)
        return 204

    def _is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        message_id = headers.get("webhook-id", "")
        timestamp = headers.get("webhook-timestamp", "")
        if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
            return False  # without this, whoever records a delivery could send it for ever
        signed = f"{message_id}.{timestamp}.".encode() + body
        given = headers.get("webhook-signature", "").encode().split(b" ")
        expected = [
            b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
            for key in self._keys
        ]
        return any(hmac.compare_digest(one, other) for one in given for other in expected)


def handle(event: Mapping[str, Any]) -> None:
    """What your system does with an event. Keep it short: the gateway waits for the answer."""
    data = event["data"]
    print(f"{event['type']} {data['job_id']} #{event['sequence']} {data['status']}", flush=True)


def keys_of(secrets: str) -> list[bytes]:
    """The keys of secrets separated by spaces. Raises ValueError when there is none."""
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets.split()]
    if not keys:
        raise ValueError("WEBHOOK_SECRET is not set")
    return keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--memory", default="seen.db", help="the file that remembers what came")
    arguments = parser.parse_args()
    receiver = Receiver(keys_of(os.environ.get("WEBHOOK_SECRET", "")), arguments.memory)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
                self.close_connection = True
                self._answer(413)
                return
            body = self.rfile.read(int(length))
            self._answer(receiver.receive(dict(self._lower()), body))

        def log_message(self, *_: object) -> None:
            """One line an event is enough."""

        def _lower(self) -> list[tuple[str, str]]:
            return [(name.lower(), value) for name, value in self.headers.items()]

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
