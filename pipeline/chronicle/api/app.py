"""The service as one ASGI application: `POST /events` first, everything else by FastAPI's routes; errors in one form."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

import structlog
from anyio import to_thread
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from chronicle.api import openapi
from chronicle.api.bodies import Gone
from chronicle.api.entities import Entities
from chronicle.api.export import Export
from chronicle.api.gate import Gate
from chronicle.api.histories import Histories
from chronicle.api.ingest import PATH as EVENTS_PATH
from chronicle.api.ingest import Ingest
from chronicle.api.metrics import SAMPLE_S
from chronicle.api.parts import Parts
from chronicle.api.problems import Problem, answered
from chronicle.api.reading import Lists
from chronicle.api.stream import Stream
from chronicle.errors import ChronicleError
from chronicle.observe import explain
from chronicle.trail.reading import rows
from chronicle.trail.store import as_client

UNENDING = ("/stream", "/export")
READY_CACHE_S = 1.0
_log = structlog.get_logger("chronicle.api")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def create(parts: Parts) -> FastAPI:
    """The application; its lifespan starts and closes `parts.publisher` and keeps the keys fresh."""
    gate = Gate(parts)
    stream = Stream(parts, gate)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        _at_stop(lambda: loop.call_soon_threadsafe(stream.closing.set))
        await parts.publisher.start()
        with suppress(ChronicleError):  # then nobody gets in before they are known
            await to_thread.run_sync(parts.keys.refresh)
        watching = [asyncio.create_task(gate.watch()), asyncio.create_task(_sampled(parts))]
        try:
            yield
        finally:
            stream.closing.set()
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await parts.publisher.close()

    app = FastAPI(title="Chronicle", lifespan=lifespan, openapi_url="/openapi.json", redoc_url=None)
    app.openapi = openapi.document  # type: ignore[method-assign]  # FastAPI's own way to give another document
    _routes(app, parts, gate, stream)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(Measured, parts=parts)
    app.add_middleware(Ingest, parts=parts, gate=gate)  # the last one is asked first
    app.state.stream = stream
    return app


async def _sampled(parts: Parts) -> None:
    while True:
        parts.metrics.sample()
        await asyncio.sleep(SAMPLE_S)


def _at_stop(call: Callable[[], object]) -> None:
    """Have this called when the process is asked to stop, before the server waits for its connections to end: a live tail
    would otherwise never end by itself."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if not callable(before):
            continue

        def stop(signum: int, frame: FrameType | None, before: Callable[..., object] = before) -> None:
            call()
            before(signum, frame)

        signal.signal(number, stop)


def _routes(app: FastAPI, parts: Parts, gate: Gate, stream: Stream) -> None:
    lists, histories, entities, probes = Lists(parts, gate), Histories(parts, gate), Entities(parts, gate), Probes(parts)
    for method, path, endpoint in (
        ("GET", "/events", lists.events),
        ("GET", "/changes", lists.changes),
        ("GET", "/history/{table}/{key:path}", histories.history),
        ("GET", "/transactions/{id:path}", histories.transaction),
        ("GET", "/actors/{id:path}/activity", histories.activity),
        ("GET", "/entities", entities.find),
        ("POST", "/entities", entities.put),
        ("GET", "/entities/{id:path}", entities.one),
        ("DELETE", "/entities/{id:path}", entities.delete),
        ("GET", "/export", Export(parts, gate).export),
        ("GET", "/stream", stream.stream),
        ("GET", "/health", probes.health),
        ("GET", "/ready", probes.ready),
        ("GET", "/metrics", probes.metrics),
    ):
        app.add_route(path, endpoint, [method], include_in_schema=False)
    for route in app.routes:
        if isinstance(route, Route) and route.path in UNENDING:
            route.methods = {"GET"}  # HEAD would have all of it made, for nobody


class Probes:
    """What monitoring asks; no key is needed, and nothing of the trail is told."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: tuple[float, str | None] = (-READY_CACHE_S, None)

    async def health(self, _request: Request) -> Response:
        """`GET /health`: this process answers."""
        return answered(200, {"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """`GET /ready`: events are taken and questions answered."""
        problems = {}
        if said := self._parts.publisher.problem():
            problems["events"] = said
        if not self._parts.keys.fresh:
            problems["keys"] = "the keys cannot be read"
        if said := await self._store():
            problems["store"] = said
        return answered(503, {"error": problems}) if problems else answered(200, {"status": "ready"})

    async def metrics(self, _request: Request) -> Response:
        """`GET /metrics`, for Prometheus."""
        return Response(self._parts.metrics.text(), 200, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _store(self) -> str | None:
        at, said = self._known
        if self._parts.clock() - at < READY_CACHE_S:
            return said
        try:
            await to_thread.run_sync(lambda: rows(as_client(self._parts.store), "SELECT 1 AS one"))
            said = None
        except ChronicleError:
            said = "the store does not answer"
        self._known = (self._parts.clock(), said)
        return said


class Measured:
    """ASGI middleware: how long each route takes, and what it answers."""

    def __init__(self, app: Any, parts: Parts) -> None:
        self._app, self._parts = app, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = self._parts.clock(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = scope.get("route")
            endpoint = f"{scope['method']} {route.path}" if route is not None else "none"
            self._parts.metrics.served(endpoint, status, self._parts.clock() - begun)


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101  (registered for it alone)
    return error.response()


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = {name.lower(): value for name, value in (getattr(error, "headers", None) or {}).items()}
    if status == 404:
        return answered(404, {"error": {"path": "there is nothing here: see /docs"}}, headers)
    if status == 405:
        headers["allow"] = ", ".join(sorted(_methods(request)))
        return answered(405, {"error": {"method": f"choose one of {headers['allow']}"}}, headers)
    return answered(status, {"error": {"request": "cannot be answered"}}, headers)


def _methods(request: Request) -> set[str]:
    """All methods of a path; a router tells only those of its first route."""
    found = {"POST"} if request.url.path == EVENTS_PATH else set()  # taken before routing, so routing does not know it
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return found


async def _bug(request: Request, error: Exception) -> Response:
    if isinstance(error, Gone):
        return answered(400, {"error": {"body": "the connection was closed"}})
    _log.error("request.failed", method=request.method, **explain(error))
    return answered(500, {"error": {"service": "a bug in Chronicle: the service's log says where"}})
