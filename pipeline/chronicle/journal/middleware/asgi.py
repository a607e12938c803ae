"""ASGI: Starlette, FastAPI, Quart, Django's `asgi.py` and everything else that speaks it. Requests and websockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from inspect import isawaitable
from typing import Any

from chronicle.journal.context import tagged
from chronicle.journal.middleware.requests import REQUEST_ID, Exchange, Options, Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ACTOR = "chronicle.actor"
"""Key of the scope: who turned out to act, set by whoever found it out (`fastapi.acts`)."""
_HEADER = REQUEST_ID.lower().encode()


class JournalMiddleware:
    """Wraps an application: `app = JournalMiddleware(app, journal=journal, actor=…, events=True)`.

    `actor` gets the scope and may be asynchronous; place the middleware inside of what authenticates (`scope["user"]`). Other
    arguments as in `Options`. The answer has the request's id in `X-Request-ID`, unless the application set one. Of a websocket
    only the context is set. An error of the application goes on as it is.
    """

    def __init__(self, app: App, **options: Any) -> None:
        self._app, self._options = app, Options(**options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's protocol."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        exchange = Exchange(self._options, _request(scope), scope)
        actor = exchange.asked_actor()
        said = exchange.context(await actor if isawaitable(actor) else actor)
        with tagged(**said):
            if scope["type"] == "http":
                await self._answered(exchange, scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _answered(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        started: list[Message] = []

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers") or ())
                if not any(name.lower() == _HEADER for name, _ in headers):
                    headers.append((_HEADER, exchange.request_id.encode()))
                message = {**message, "headers": headers}
                started.append(message)
            await send(message)

        exchange.received()
        error: BaseException | None = None
        try:
            await self._app(scope, receive, sending)
        except BaseException as raised:
            error = raised
            raise
        finally:
            exchange.answered(
                started[0]["status"] if started else 500,
                route=route(scope),
                parameters=scope.get("path_params"),
                header=_header(started[0]["headers"] if started else ()),
                error=error,
                actor=scope.get(ACTOR),
            )


def route(scope: Scope) -> str | None:
    """The pattern that the router matched, as Starlette and FastAPI leave it in the scope; None: none, or another framework."""
    found = getattr(scope.get("route"), "path_format", None) or getattr(scope.get("route"), "path", None)
    if isinstance(found, str):
        return found
    if "endpoint" not in scope:
        return None
    path = str(scope.get("path", ""))
    for name, value in (scope.get("path_params") or {}).items():
        path = path.replace(str(value), f"{{{name}}}", 1)
    return path


def _request(scope: Scope) -> Request:
    header = _header(scope.get("headers") or ())
    client = scope.get("client")
    return Request(
        method=str(scope.get("method", "GET")),
        path=str(scope.get("path", "")),
        scheme=scope.get("scheme"),
        host=header("host"),
        http_version=scope.get("http_version"),
        query=(scope.get("query_string") or b"").decode("latin-1"),
        client=str(client[0]) if client else None,
        header=header,
    )


def _header(pairs: Any) -> Callable[[str], str | None]:
    def value(name: str) -> str | None:
        wanted = name.encode()
        return next((bytes(given).decode("latin-1") for key, given in pairs if bytes(key).lower() == wanted), None)

    return value
