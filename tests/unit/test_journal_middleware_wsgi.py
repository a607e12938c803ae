"""WSGI: the context from the first piece of an answer to its close, in whichever thread, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest

from chronicle.events.catalogue import Catalogue
from chronicle.journal import Journal, current, tag
from chronicle.journal.journaled import ANY, Journaled, recording
from chronicle.journal.middleware.wsgi import ACTOR, ROUTE, JournalMiddleware

SECRET = "Zq7XvKp92LmW"


@pytest.fixture
def journaled(monkeypatch: pytest.MonkeyPatch) -> Journaled:
    found = Journaled()
    recording(found, monkeypatch.setattr)
    return found


@pytest.fixture
def journal() -> Journal:
    return Journal(source="shop", transport="memory://")


class Pieces:
    """A body that is made piece by piece, and closed."""

    def __init__(self, journal: Journal, *, fails: bool = False) -> None:
        self._journal, self._fails = journal, fails

    def __iter__(self) -> Iterator[bytes]:
        for number in range(2):
            self._journal.publish("piece.sent", payload={"number": number})
            yield b"x"
        if self._fails:
            raise OSError(SECRET)

    def close(self) -> None:
        self._journal.publish("body.closed")


class Application:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/broken":
            raise RuntimeError(SECRET)
        environ[ROUTE] = "/items/{id}" if path.startswith("/items/") else None
        if path == "/late":
            environ[ACTOR] = "late"
        self._journal.publish("app.called")
        tag(left="behind")
        status = {"/nowhere": "404 Not Found", "/refused": "405 Method Not Allowed"}.get(path, "200 OK")
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "2")]
        if path == "/refused":
            headers.append(("Allow", "GET, HEAD"))
        start_response(status, headers)
        return Pieces(self._journal, fails=path == "/torn")


def asked(app: Any, path: str, **more: str) -> tuple[dict[str, str], bytes]:
    """As a server does, by the letter of the protocol."""
    environ: dict[str, Any] = {
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": f"page=2&q={SECRET}",
        **more,
    }
    setup_testing_defaults(environ)
    environ["HTTP_X_USER"] = "ann"
    environ["HTTP_COOKIE"] = f"session={SECRET}"
    environ["REMOTE_ADDR"] = "10.1.2.3"
    answer: dict[str, str] = {}

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        answer.update({name.lower(): value for name, value in headers}, status=status)
        return lambda data: None

    body = validator(app)(environ, start_response)
    try:
        return answer, b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]


def wrapped(journal: Journal, **options: Any) -> JournalMiddleware:
    given: dict[str, Any] = {"journal": journal, "events": True, "actor": lambda environ: environ.get("HTTP_X_USER")}
    return JournalMiddleware(Application(journal), **(given | options))


def test_everything_in_a_request_has_its_context(journal: Journal, journaled: Journaled) -> None:
    """The call, each piece, the close, the events; then nothing of it is left in the thread."""
    answer, body = asked(wrapped(journal, tags=lambda _: {"region": "eu"}), "/items/7", HTTP_X_REQUEST_ID="r-1")
    assert (answer["status"], answer["x-request-id"], body) == ("200 OK", "r-1", b"xx")
    assert [one.event.type for one in journaled] == [
        *("http.request.received", "app.called", "piece.sent", "piece.sent", "body.closed", "http.response.sent")
    ]
    assert journaled.count(actor="ann", request_id="r-1", ip="10.1.2.3", tags={"region": "eu"}) == 6
    assert journaled.including(type="http.request.received", payload={"path": "/items/7", "query_names": ["page", "q"]})
    sent = {"status": 200, "route": "/items/{id}", "body_bytes": 2, "media_type": "text/plain", "duration_ms": ANY}
    assert journaled.including(type="http.response.sent", outcome="success", payload=sent)
    assert current() == {}
    assert SECRET not in journaled.report
    assert all(Catalogue.shipped().problems(one.event) == () for one in journaled if one.event.type.startswith("http."))


@pytest.mark.parametrize(
    ("path", "type_", "payload"),
    [
        ("/nowhere", "http.route.not_found", {"path": "/nowhere"}),
        ("/refused", "http.method.not_allowed", {"allowed": ["GET", "HEAD"]}),
    ],
)
def test_what_went_wrong_is_told(
    journal: Journal, journaled: Journaled, path: str, type_: str, payload: dict[str, Any]
) -> None:
    """No such route, no such method."""
    asked(wrapped(journal), path)
    assert journaled.including(type=type_, outcome="failure", payload=payload)
    assert journaled.not_including(type="http.response.sent")


@pytest.mark.parametrize(("path", "kind", "error"), [("/broken", RuntimeError, "RuntimeError"), ("/torn", OSError, "OSError")])
def test_an_error_goes_on_and_is_told_once(
    journal: Journal, journaled: Journaled, path: str, kind: type[Exception], error: str
) -> None:
    """Before the answer or in the middle of it."""
    with pytest.raises(kind):
        asked(wrapped(journal), path)
    assert journaled.count(type="http.response.sent") == 1
    assert journaled.including(type="http.response.sent", outcome="failure", payload={"error_type": error}, actor="ann")
    assert current() == {}
    assert SECRET not in journaled.report


def test_who_turns_out_to_act_is_told(journal: Journal, journaled: Journaled) -> None:
    """The application found it out."""
    asked(wrapped(journal, actor=None), "/late")
    assert journaled.including(type="http.response.sent", actor="late")


def test_a_path_is_decoded(journal: Journal, journaled: Journaled) -> None:
    """WSGI has bytes as Latin-1."""
    asked(wrapped(journal), "/grün".encode().decode("latin-1"))
    assert journaled.including(type="http.request.received", payload={"path": "/grün"})


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_a_real_server_serves_it(journal: Journal, journaled: Journaled) -> None:
    """One thread, one request after the other: each has its own."""
    with make_server("127.0.0.1", 0, wrapped(journal), handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for number in range(3):
                url = f"http://127.0.0.1:{server.server_port}/items/{number}"
                answer = httpx.get(url, headers={"x-user": f"u{number}", "x-request-id": f"r{number}"})
                assert (answer.status_code, answer.headers["x-request-id"]) == (200, f"r{number}")
        finally:
            server.shutdown()
            thread.join()
    for number in range(3):
        assert journaled.count(actor=f"u{number}", request_id=f"r{number}") == 6
