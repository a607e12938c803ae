"""A real HTTP endpoint on loopback that checks signatures, keeps what it was sent, and answers as a test wants."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "a secret of the receiver"


@dataclass(frozen=True)
class Posted:
    """One request that the endpoint was sent."""

    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Audit records, taken out of their envelopes."""
        if self.headers["Content-Type"] == "application/x-ndjson":
            return [json.loads(line) for line in self.body.splitlines()]
        return [event["data"] for event in json.loads(self.body)]


Answer = tuple[int, dict[str, str]]
OK: Answer = (204, {})


class Endpoint:
    """Listens on a free port of 127.0.0.1 until closed. `answer` decides about each request; the default takes all."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.posted: list[Posted] = []
        """Requests with a right signature, answered 2xx."""
        self.refused: list[Posted] = []
        self.answer: Callable[[Posted], Answer] = lambda _posted: OK
        self.answer_body = b""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posted = Posted(self.path, dict(self.headers.items()), body)
                status, headers = endpoint.answer(posted) if genuine(posted) else (401, {})
                (endpoint.posted if 200 <= status < 300 else endpoint.refused).append(posted)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                content = b"" if status == 204 else endpoint.answer_body
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                try:
                    self.wfile.write(content)
                except OSError:  # the other side has seen enough
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of all requests that were taken, in order."""
        return [record for posted in self.posted for record in posted.records]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def genuine(posted: Posted) -> bool:
    """What a receiver does, written without the sender's code."""
    parts = dict(part.split("=", 1) for part in posted.headers["X-Chronicle-Signature"].split(","))
    expected = hmac.new(SECRET.encode(), parts["t"].encode() + b"." + posted.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, parts["v1"])
