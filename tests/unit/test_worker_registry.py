"""The registry client: cached for good, patient with an unknown id for a bounded time, errors named by who must act."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from chronicle import config
from chronicle.errors import ConfigError, StopWorker, TransientError
from chronicle.registry import ID_MAX, Registry


class Server:
    """Answers by path: (status, JSON); counts what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: Counter[str] = Counter()
        self.credentials: set[str | None] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked[self.path] += 1
                outer.credentials.add(self.headers.get("Authorization"))
                status, body = outer.answers.get(self.path, (404, {"error_code": 40403}))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api"


Made = tuple[Server, Callable[..., Registry]]


@pytest.fixture
def made() -> Iterator[Made]:
    server, clients = Server(), []

    def make(stopping: threading.Event | None = None, **settings: Any) -> Registry:
        clients.append(Registry(config.Registry(url=server.url, **{"unknown_id_wait_s": 0.3, **settings}), stopping))
        return clients[-1]

    yield server, make
    for client in clients:
        client.close()
    server.server.shutdown()
    server.server.server_close()


def test_a_known_schema_is_asked_for_once(made: Made) -> None:
    """Ids never change their meaning."""
    server, make = made
    server.answers["/api/schemas/ids/7"] = (200, {"schema": '"long"'})
    registry = make()
    assert registry.resolve([7, 7]) == registry.resolve({7}) == {7: '"long"'}
    assert server.asked["/api/schemas/ids/7"] == 1


def test_an_unknown_id_is_asked_for_again_and_then_remembered(made: Made) -> None:
    """Within the wait it may appear; after it, the answer None is kept for a while and costs nothing."""
    server, make = made
    registry = make()
    threading.Timer(0.1, lambda: server.answers.update({"/api/schemas/ids/8": (200, {"schema": "8"})})).start()
    assert registry.resolve([8, 9]) == {8: "8", 9: None}
    asked, began = server.asked["/api/schemas/ids/9"], time.monotonic()
    assert asked > 1
    assert registry.resolve([9]) == {9: None}
    assert server.asked["/api/schemas/ids/9"] == asked
    assert time.monotonic() - began < 0.2


def test_an_impossible_id_is_not_asked_for(made: Made) -> None:
    """Garbage after a magic byte must not bother the registry, or make it answer 500 for ever."""
    server, make = made
    assert make().resolve([0, ID_MAX + 1]) == {0: None, ID_MAX + 1: None}
    assert not server.asked


@pytest.mark.parametrize(
    ("status", "error"), [(500, TransientError), (503, TransientError), (401, ConfigError), (403, ConfigError)]
)
def test_errors_are_named_by_who_must_act(made: Made, status: int, error: type[Exception]) -> None:
    """A busy registry is retried, refused credentials are the operator's."""
    server, make = made
    server.answers["/api/schemas/ids/7"] = (status, {})
    with pytest.raises(error):
        make().resolve([7])


def test_an_absent_registry_is_transient() -> None:
    """Nobody listens there."""
    registry = Registry(config.Registry(url="http://127.0.0.1:9/api"))
    with pytest.raises(TransientError):
        registry.resolve([1])


def test_a_stop_ends_the_wait_for_an_unknown_id(made: Made) -> None:
    """A worker that is told to stop does not wait, and does not call the id unknown."""
    _, make = made
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(StopWorker):
        make(stopping, unknown_id_wait_s=60).resolve([5])


def test_credentials_are_sent(made: Made) -> None:
    """Basic authentication, when a user is set."""
    server, make = made
    server.answers["/api/subjects"] = (200, [])
    make(username="u", password=SecretStr("p")).check()
    assert server.credentials == {"Basic dTpw"}


def test_references_are_put_where_their_name_is_first_used(made: Made) -> None:
    """The text stands alone afterwards; later uses keep the name."""
    server, make = made
    outer = {
        "type": "record", "name": "Outer",
        "fields": [{"name": "a", "type": ["null", "x.Inner"]}, {"name": "b", "type": "x.Inner"}],
    }  # fmt: skip
    inner = '{"type":"enum","name":"x.Inner","symbols":["A"]}'
    references = [{"name": "x.Inner", "subject": "inner", "version": 1}]
    server.answers["/api/schemas/ids/7"] = (200, {"schema": json.dumps(outer), "references": references})
    server.answers["/api/subjects/inner/versions/1"] = (200, {"schema": inner})
    text = make().resolve([7])[7]
    assert text is not None
    fields = json.loads(text)["fields"]
    assert fields[0]["type"] == ["null", json.loads(inner)]
    assert fields[1]["type"] == "x.Inner"
