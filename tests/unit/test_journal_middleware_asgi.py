"""ASGI and FastAPI: who acts in which request, for everything published in it and for nothing after; events without secrets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from chronicle import Actor
from chronicle.events.catalogue import Catalogue
from chronicle.journal import Journal, current
from chronicle.journal.journaled import ANY, Journaled, recording
from chronicle.journal.middleware import asgi, fastapi
from chronicle.journal.middleware.requests import query_names, shown_path

SECRET = "Zq7XvKp92LmW"
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def journaled(monkeypatch: pytest.MonkeyPatch) -> Journaled:
    found = Journaled()
    recording(found, monkeypatch.setattr)
    return found


@pytest.fixture
def journal() -> Journal:
    return Journal(source="shop", transport="memory://", strict=False)


def application(journal: Journal, **options: Any) -> FastAPI:
    app = FastAPI()
    given_: dict[str, Any] = {"journal": journal, "events": True, "actor": lambda request: request.headers.get("x-user")}
    fastapi.install(app, **(given_ | options))

    @app.get("/orders/{order_id}")
    async def order(order_id: int) -> dict[str, Any]:
        await asyncio.sleep(0)
        journal.publish("order.read", resource=("order", order_id))
        return {}

    @app.get("/blocking")
    def blocking() -> None:
        journal.publish("order.blocking", tags={"thread": threading.current_thread() is threading.main_thread()})

    @app.post("/reset/{token}")
    async def reset(token: str, request: Request) -> int:
        journal.publish("password.reset")
        return len(await request.body()) + len(token)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError(SECRET)

    @app.get("/forbidden")
    async def forbidden() -> None:
        raise HTTPException(403)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(3):
                journal.publish("piece.sent", payload={"number": number})
                yield b"x"

        return StreamingResponse(pieces())

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        journal.publish("socket.opened")
        await websocket.close()

    return app


def client(app: Any) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


def test_everything_in_a_request_has_its_context(journal: Journal, journaled: Journaled) -> None:
    """Actor, request id, trace, address and tags, in the endpoint as in the middleware's events, and nothing stays behind."""
    app = application(journal, tags=lambda request: {"host": request.url.hostname, "tenant": "acme"})
    answer = client(app).get("/orders/7?page=2&q=x", headers={"x-user": "ann", "x-request-id": "r-1", "traceparent": TRACE})
    assert answer.headers["x-request-id"] == "r-1"
    assert [one.event.type for one in journaled] == ["http.request.received", "order.read", "http.response.sent"]
    common = {"actor": "ann", "request_id": "r-1", "traceparent": TRACE, "ip": "testclient", "tenant": "acme"}
    assert journaled.count(**common, tags={"host": "testserver"}) == 3
    received = {"method": "GET", "path": "/orders/7", "query_names": ["page", "q"], "scheme": "http", "host": "testserver"}
    assert journaled.including(type="http.request.received", payload=received)
    sent = {
        "method": "GET",
        "status": 200,
        "route": "/orders/{order_id}",
        "path": "/orders/7",
        "duration_ms": ANY,
        "body_bytes": 2,
    }
    assert journaled.including(type="http.response.sent", outcome="success", payload=sent)
    assert current() == {}
    assert all(Catalogue.shipped().problems(one.event) == () for one in journaled if one.event.type.startswith("http."))


def test_blocking_endpoints_have_it_too(journal: Journal, journaled: Journaled) -> None:
    """They run in a thread of the pool."""
    client(application(journal)).get("/blocking", headers={"x-user": "ann"})
    assert journaled.including(type="order.blocking", actor="ann", request_id=ANY)


def test_a_streaming_answer_has_it_to_its_end(journal: Journal, journaled: Journaled) -> None:
    """And is told when it is sent."""
    client(application(journal)).get("/stream", headers={"x-user": "ann"})
    assert [one.event.type for one in journaled] == ["http.request.received", *["piece.sent"] * 3, "http.response.sent"]
    assert journaled.count(actor="ann") == 5


def test_a_websocket_has_the_context(journal: Journal, journaled: Journaled) -> None:
    """Without HTTP events."""
    with client(application(journal)).websocket_connect("/ws", headers={"x-user": "ann", "x-request-id": "w-1"}):
        pass
    assert [one.event.type for one in journaled] == ["socket.opened"]
    assert journaled.including(actor="ann", request_id="w-1")


@pytest.mark.parametrize("given_", ["", " ", "a b", "ä", "x" * 201, "a\tb", "<script>", "{}", '"'])
def test_a_request_id_that_is_none_is_replaced(journal: Journal, journaled: Journaled, given_: str) -> None:
    """Too long or strange: one is made; the answer says it."""
    answer = client(application(journal)).get("/orders/7", headers=[("x-request-id", given_.encode())])
    made = answer.headers["x-request-id"]
    assert made != given_
    assert len(made) == 32
    assert journaled.count(request_id=made) == 3


def test_a_client_s_request_id_may_be_mistrusted(journal: Journal, journaled: Journaled) -> None:
    """Where anybody can send one."""
    client(application(journal, trust_request_id=False)).get("/orders/7", headers={"x-request-id": "r-1"})
    assert journaled.not_including(request_id="r-1")


@pytest.mark.parametrize("given_", ["", "x", TRACE.upper(), TRACE + "-", f"00-{'0' * 32}-{'b' * 16}-01"])
def test_a_trace_that_is_none_is_left_out(journal: Journal, journaled: Journaled, given_: str) -> None:
    """The request is served and told all the same."""
    client(application(journal)).get("/orders/7", headers={"traceparent": given_})
    assert journaled.count(traceparent=None) == 3


def test_nobody_known_is_anonymous(journal: Journal, journaled: Journaled) -> None:
    """Never the server's own user."""
    client(application(journal)).get("/orders/7")
    assert journaled.count(actor=Actor("anonymous", "anonymous")) == 3


def test_without_a_function_the_actor_is_left_alone(journal: Journal, journaled: Journaled) -> None:
    """The context's, or the process."""
    client(application(journal, actor=None)).get("/orders/7")
    assert journaled.count(actor={"type": "process"}) == 3


def test_an_asynchronous_actor_is_awaited(journal: Journal, journaled: Journaled) -> None:
    """With a request as FastAPI has it."""

    async def actor(request: Request) -> Actor:
        await asyncio.sleep(0)
        return Actor(request.headers["x-user"], "user", "Ann")

    client(application(journal, actor=actor)).get("/orders/7", headers={"x-user": "ann"})
    assert journaled.count(actor=Actor("ann", "user", "Ann")) == 3


@pytest.mark.parametrize(
    ("method", "path", "type_", "payload"),
    [
        ("GET", "/nowhere/7", "http.route.not_found", {"method": "GET", "path": "/nowhere/7"}),
        (
            "DELETE",
            "/orders/7",
            "http.method.not_allowed",
            {"method": "DELETE", "route": "/orders/{order_id}", "allowed": ["GET"]},
        ),
        ("GET", "/forbidden", "http.response.sent", {"status": 403, "route": "/forbidden"}),
        ("GET", "/broken", "http.response.sent", {"status": 500, "route": "/broken", "error_type": "RuntimeError"}),
        ("GET", "/orders/x", "http.response.sent", {"status": 422}),
    ],
)
def test_what_went_wrong_is_told(
    journal: Journal, journaled: Journaled, method: str, path: str, type_: str, payload: dict[str, Any]
) -> None:
    """No such route, no such method, a refusal, an error: each with its type, as a failure."""
    client(application(journal)).request(method, path)
    assert journaled.including(type=type_, outcome="failure", payload=payload)
    assert len(journaled) == 2
    assert SECRET not in journaled.report


def test_nothing_secret_of_a_request_is_in_its_events(journal: Journal, journaled: Journaled) -> None:
    """Neither query, cookies, authorization, body, other headers nor the secret part of a path."""
    client(application(journal)).post(
        f"/reset/{SECRET}?code={SECRET}&{SECRET}",
        content=SECRET,
        headers={
            "authorization": f"Bearer {SECRET}",
            "cookie": f"session={SECRET}",
            "x-api-key": SECRET,
            "referer": f"http://x/{SECRET}",
        },
    )
    assert journaled.including(
        type="http.response.sent", payload={"status": 200, "route": "/reset/{token}", "path": "/reset/{token}"}
    )
    assert all(SECRET not in repr(one.event) for one in journaled)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/reset/{SECRET}", "/reset/[FILTERED]"),
        (f"/users/7/Reset/{SECRET}/x", "/users/7/Reset/[FILTERED]/x"),
        (f"/api-key/{SECRET}", "/api-key/[FILTERED]"),
        (f"/x/{SECRET}{SECRET}", "/x/[FILTERED]"),
        ("/files/0b7c0c2e-6f6d-4d0e-9d6e-2f1f3b0d9a11/7", "/files/0b7c0c2e-6f6d-4d0e-9d6e-2f1f3b0d9a11/7"),
        ("/orders/12345678901234567/customer-information-pages", "/orders/12345678901234567/customer-information-pages"),
        ("/", "/"),
    ],
)
def test_a_path_without_a_route_shows_no_secret(journal: Journal, journaled: Journaled, path: str, shown: str) -> None:
    """Before it is known what its parts are, or where there is nothing: what may be a secret is hidden."""
    asgi_only = asgi.JournalMiddleware(FastAPI(openapi_url=None), journal=journal, events=True)
    client(asgi_only).get(path)
    assert journaled.including(type="http.request.received", payload={"path": shown})
    assert journaled.including(type="http.route.not_found", payload={"path": shown})


def test_excluded_paths_have_no_events(journal: Journal, journaled: Journaled) -> None:
    """But the context."""
    client(application(journal, excluded=frozenset({"/orders/7"}))).get("/orders/7", headers={"x-user": "ann"})
    assert [one.event.type for one in journaled] == ["order.read"]
    assert journaled.including(actor="ann")


def test_events_need_a_journal() -> None:
    """Told when the middleware is made."""
    with pytest.raises(ValueError, match="journal"):
        asgi.JournalMiddleware(FastAPI(), events=True)


def test_requests_at_the_same_time_are_kept_apart(journal: Journal, journaled: Journaled) -> None:
    """A hundred at once, interleaved: each event has its own request's actor."""
    app = application(journal)

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as asking:
            await asyncio.gather(
                *(
                    asking.get(f"/orders/{number}", headers={"x-user": f"u{number}", "x-request-id": f"r{number}"})
                    for number in range(100)
                )
            )

    asyncio.run(ask())
    for number in range(100):
        assert journaled.count(actor=f"u{number}", request_id=f"r{number}") == 3
    assert all(one.event.resource_id == (one.event.request_id or "")[1:] for one in journaled if one.event.type == "order.read")


def test_a_dependency_says_who_acts(journal: Journal, journaled: Journaled) -> None:
    """`acts`: the application's own dependency; the answer's event has the actor too, and the next request has not."""
    app = FastAPI()
    fastapi.install(app, journal=journal, events=True)

    async def current_user(request: Request) -> str | None:
        return request.headers.get("x-user")

    user = fastapi.acts(current_user, lambda name: name and Actor(name, "user"))

    @app.get("/async")
    async def in_loop(who: str | None = user) -> str:
        journal.publish("a.read")
        return who or ""

    @app.get("/sync", dependencies=[user])
    def in_thread() -> None:
        journal.publish("b.read")

    asking = client(app)
    assert asking.get("/async", headers={"x-user": "ann"}).json() == "ann"
    asking.get("/sync", headers={"x-user": "bob"})
    asking.get("/async")
    assert journaled.including(type="a.read", actor=Actor("ann", "user"))
    assert journaled.including(type="b.read", actor=Actor("bob", "user"))
    assert journaled.count(type="http.response.sent", actor={"id": "ann"}) == 1
    assert journaled.count(type="http.response.sent", actor={"id": "bob"}) == 1
    assert journaled.count(type="a.read", actor={"type": "process"}) == 1


def test_plain_starlette_has_routes(journal: Journal, journaled: Journaled) -> None:
    """Mounted ones too."""
    from starlette.responses import PlainTextResponse

    async def item(_: Any) -> PlainTextResponse:
        return PlainTextResponse("x", headers={"X-Request-ID": "mine"})

    inner = [Route("/items/{item_id}", item)]
    app = asgi.JournalMiddleware(Starlette(routes=[Mount("/api", routes=inner), *inner]), journal=journal, events=True)
    answer = client(app).get("/items/7", headers={"x-request-id": "r-1"})
    assert answer.headers["x-request-id"] == "mine"
    assert client(app).get("/api/items/7").status_code == 200
    assert journaled.count(type="http.response.sent", payload={"path": "/items/7", "route": ANY}) == 1
    assert journaled.count(type="http.response.sent", payload={"path": "/api/items/7", "route": ANY}) == 1


def test_a_refused_event_breaks_no_request(journaled: Journaled) -> None:
    """A protection that fails, say: counted, and the request is answered."""
    from chronicle.journal import EventRefused

    def refuse(_: Any) -> Any:
        raise EventRefused("payload", "no")

    journal = Journal(source="shop", transport="memory://", protect=refuse)
    app = FastAPI()
    fastapi.install(app, journal=journal, events=True)
    assert client(app).get("/x").status_code == 404
    assert journal.counts["invalid"] == 2
    assert len(journaled) == 0


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text(), max_size=3), st.none() | st.text())
def test_a_query_shows_names_alone(query: str, parameters: dict[str, str], route: str | None) -> None:
    """Of any text: no value of it, and never a question mark in a path."""
    for name in query_names(f"{query}&page={SECRET}&{SECRET}") or []:
        assert SECRET not in name
    assert "?" not in shown_path("/a?b", None, parameters)
    assert shown_path(f"/{SECRET}", "/{api_key}", {"api_key": SECRET}) == "/{api_key}"
    assert route is None or shown_path("/x", route, {**parameters, "token": "t"}) == route
