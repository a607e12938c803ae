"""The HTTP transport against a real server on a real socket that answers as told."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from chronicle.journal import Event, Journal, PublishRefused
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.transports import TransportAway
from chronicle.journal.transports.http import Http

Answer = tuple[int, dict[str, str], bytes]


def results(events: list[dict[str, Any]], refused: tuple[int, ...] = ()) -> Answer:
    """As the service answers a batch."""
    items = [
        {"status": "refused", "error": {"payload": "no"}}
        if (event.get("payload") or {}).get("n") in refused
        else {"status": "accepted", "id": event["id"]}
        for event in events
    ]
    states = {item["status"] for item in items}
    status = 422 if states == {"refused"} else 202
    body = {"status": "accepted" if states == {"accepted"} else "partial", "durability": "confirmed", "results": items}
    return status, {}, json.dumps(body).encode()


class Service:
    """A server with one endpoint; `answer` says what it answers to the events that it got."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], list[dict[str, Any]]]] = []
        self.connections = 0
        self.answer: Callable[[list[dict[str, Any]]], Answer] = results
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                service.connections += 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                events = [json.loads(line) for line in body.split(b"\n")]
                service.requests.append(({"path": self.path, **dict(self.headers)}, events))
                status, headers, answer = service.answer(events)
                if status == 0:  # the connection breaks
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def numbers(self) -> list[int]:
        return [event["payload"]["n"] for _, events in self.requests for event in events]


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def batch(*numbers: int) -> list[Outgoing]:
    with Journal(source="test", transport="memory://") as journal:
        outs = [journal.prepared("a.b", payload={"n": n, "text": "é"}) for n in numbers]
    return [out for out in outs if out is not None]


def test_a_batch_is_one_request_on_a_connection_that_stays(service: Service) -> None:
    """NDJSON, with the key; long bodies compressed."""
    transport = Http(service.url + "/base/", key="s3cret")
    assert transport.send(batch(1, 2)) == [None, None]
    assert transport.send(batch(*range(3, 60))) == [None] * 57
    transport.close()
    (first, _), (second, events) = service.requests
    assert service.connections == 1
    assert (first["path"], first["Content-Type"], first["Authorization"]) == (
        "/base/events",
        "application/x-ndjson",
        "Bearer s3cret",
    )
    assert "Content-Encoding" not in first
    assert second["Content-Encoding"] == "gzip"
    assert events[0]["payload"] == {"n": 3, "text": "é"}


def test_each_event_has_its_own_answer(service: Service) -> None:
    """Refused in part, refused all, and one alone."""
    service.answer = lambda events: results(events, refused=(2, 9))
    transport = Http(service.url)
    assert transport.send(batch(1, 2, 3)) == [None, "payload: no", None]
    assert transport.send(batch(2, 9)) == ["payload: no", "payload: no"]
    service.answer = lambda events: (422, {}, b'{"error":{"type":"unknown"}}')
    assert transport.send(batch(1)) == ["type: unknown"]
    service.answer = lambda events: (202, {}, b'{"status":"accepted","id":"x","durability":"spilled"}')
    assert transport.send(batch(1)) == [None]
    transport.close()


def test_a_batch_that_is_too_large_is_halved(service: Service) -> None:
    """Until it fits; an event that never fits is refused alone, in its place."""

    def answer(events: list[dict[str, Any]]) -> Answer:
        if len(events) > 2 or any(event["payload"]["n"] == 5 for event in events):
            return 413, {}, b'{"error":{"body":"too large"}}'
        return results(events)

    service.answer = answer
    transport = Http(service.url)
    assert transport.send(batch(*range(9))) == [None] * 5 + ["body: too large"] + [None] * 3
    transport.close()


def test_halves_that_arrived_are_said_when_the_rest_is_away(service: Service) -> None:
    """So that they are not sent twice."""

    def answer(events: list[dict[str, Any]]) -> Answer:
        if len(events) > 2:
            return 413, {}, b"{}"
        return results(events) if events[0]["payload"]["n"] < 2 else (503, {"Retry-After": "3"}, b"{}")

    service.answer = answer
    transport = Http(service.url)
    with pytest.raises(TransportAway) as away:
        transport.send(batch(*range(8)))
    assert (away.value.confirmed, away.value.retry_after) == (frozenset({0, 1}), 3.0)
    transport.close()


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 408, 415, 429, 500, 502, 503])
def test_what_an_operator_can_put_right_loses_no_event(service: Service, status: int) -> None:
    """The transport counts as away; the other side's wish is heard."""
    service.answer = lambda events: (status, {"Retry-After": "7"}, b'{"error":{"x":"y"}}')
    transport = Http(service.url)
    with pytest.raises(TransportAway, match=str(status)) as away:
        transport.send(batch(1, 2))
    assert away.value.retry_after == 7
    assert away.value.confirmed == frozenset()
    transport.close()


def test_a_wish_may_be_a_date(service: Service) -> None:
    """As HTTP allows; what is neither is no wish."""
    transport = Http(service.url)
    for text, wished in (
        (time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100)), True),
        ("soon", False),
        ("-5", False),
        ("9" * 400, True),
    ):
        service.answer = lambda events, text=text: (503, {"Retry-After": text}, b"")  # type: ignore[misc]
        with pytest.raises(TransportAway) as away:
            transport.send(batch(1))
        assert (away.value.retry_after is not None) == wished
    transport.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b'{"results":[]}', b'{"results":[1,2]}', b'{"status":"accepted"}', b"[" * 100_000, b"\xff"],
)
def test_an_answer_that_is_not_the_services_confirms_nothing(service: Service, answer: bytes) -> None:
    """A proxy's page with status 202 or 200 is none."""
    service.answer = lambda events: (202, {}, answer)
    transport = Http(service.url)
    with pytest.raises(TransportAway):
        transport.send(batch(1, 2))
    transport.close()


def test_a_quiet_connection_that_was_closed_is_opened_again(service: Service) -> None:
    """Without an error: the batch is sent once more, on a new one; on a fresh connection it is an error."""
    transport = Http(service.url)
    service.answer = lambda events: (*results(events)[:1], {"Connection": "close"}, results(events)[2])
    transport.send(batch(1))
    service.answer = results
    transport.send(batch(2))
    breaks = iter([True, False])
    service.answer = lambda events: (0, {}, b"") if next(breaks) else results(events)
    assert transport.send(batch(3)) == [None]
    service.answer = lambda events: (0, {}, b"")
    with pytest.raises(TransportAway):
        transport.send(batch(4))
    transport.close()


def test_nobody_there_is_away() -> None:
    """A closed port, and a server that never answers."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(TransportAway):
            Http(url).send(batch(1))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TransportAway, match="TimeoutError"):
            Http(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.1).send(batch(1))


def test_a_journal_over_http_survives_an_outage(service: Service, tmp_path: Path) -> None:
    """Events published while the service says 503 are on the disk, and arrive first and in order when it is back."""
    away = threading.Event()
    away.set()
    service.answer = lambda events: (503, {"Retry-After": "0"}, b"{}") if away.is_set() else results(events)
    journal = Journal(
        source="test",
        transport=service.url,
        key="k",
        spill=str(tmp_path),
        breaker_reset_s=0.01,
        breaker_reset_max_s=0.05,
        on_error=lambda *_: None,
    )
    for n in range(40):
        journal.publish("a.b", payload={"n": n})
    assert journal.publish_sync("a.b", payload={"n": 40}).disposition == "spilled"
    before = len(service.requests)
    away.clear()
    journal.recover(30)
    journal.publish_sync("a.b", payload={"n": 41})
    journal.close()
    arrived = [event["payload"]["n"] for _, events in service.requests[before:] for event in events]
    assert sorted(set(arrived)) == list(range(42))
    assert arrived == sorted(arrived)
    assert journal.counts["confirmed"] == 42


def test_the_services_refusal_reaches_the_caller(service: Service) -> None:
    """As `PublishRefused`, with the service's words; the neighbours of a batch are confirmed."""
    service.answer = lambda events: results(events, refused=(1,))
    journal = Journal(source="test", transport=service.url, on_error=lambda *_: None)
    with pytest.raises(PublishRefused, match="payload: no"):
        journal.publish("a.b", payload={"n": 1}, timeout=30)
    assert journal.publish(Event(type="a.b", payload={"n": 2}), timeout=30).disposition == "confirmed"
    journal.close()
