"""WSGI: Flask, Bottle, Pyramid, Django's `wsgi.py` and everything else that speaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from typing import Any

from chronicle.journal.context import tagged
from chronicle.journal.middleware.requests import REQUEST_ID, Exchange, Options, Request

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

ROUTE = "chronicle.route"
"""Key of the environ: the pattern that matched, set by the application. Without it a 404 counts as an unknown route."""
ACTOR = "chronicle.actor"
"""Key of the environ: who turned out to act."""


class JournalMiddleware:
    """Wraps an application: `app = JournalMiddleware(app, journal=journal, actor=…, events=True)`.

    `actor` gets the environ. Other arguments as in `Options`. The application, the pieces of its answer and its `close` run in
    a context of their own (`contextvars`), so that nothing is left behind in the server's thread, whichever thread that is. The
    answer is sent, and told, when the server closes it. The answer has the request's id in `X-Request-ID`, unless the
    application set one. An error of the application goes on as it is.
    """

    def __init__(self, app: App, **options: Any) -> None:
        self._app, self._options = app, Options(**options)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI's protocol."""
        answer = _Answer(Exchange(self._options, _request(environ), environ), environ, copy_context())
        answer.run(answer.begin)
        try:
            return answer.started(answer.run(self._app, environ, answer.starting(start_response)))
        except BaseException as error:
            answer.run(answer.told, error)
            raise


class _Answer:
    """The body on its way to the server."""

    def __init__(self, exchange: Exchange, environ: Environ, around: Context) -> None:
        self._exchange, self._environ, self._context = exchange, environ, around
        self._status, self._headers = 500, list[tuple[str, str]]()
        self._body: Iterable[bytes] = ()
        self._pieces: Iterator[bytes] = iter(())
        self._told = False

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._context.run(function, *arguments)

    def begin(self) -> None:
        tagged(**self._exchange.context(self._exchange.asked_actor())).__enter__()  # for as long as this context is there
        self._exchange.received()

    def starting(self, start_response: StartResponse) -> StartResponse:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            self._status = int(status[:3])
            if not any(name.lower() == REQUEST_ID.lower() for name, _ in headers):
                headers = [*headers, (REQUEST_ID, self._exchange.request_id)]
            self._headers = headers
            return start_response(status, headers, *error)

        return start

    def started(self, body: Iterable[bytes]) -> _Answer:
        self._body = body
        self._pieces = self.run(iter, body)
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece: bytes = self.run(next, self._pieces)
        except StopIteration:
            raise
        except BaseException as error:
            self.run(self.told, error)
            raise
        return piece

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                self.run(close)
        finally:
            self.run(self.told, None)

    def told(self, error: BaseException | None) -> None:
        """Once, however it ends."""
        if self._told:
            return
        self._told = True
        headers = {name.lower(): value for name, value in self._headers}
        self._exchange.answered(
            self._status, route=self._environ.get(ROUTE), header=headers.get, error=error, actor=self._environ.get(ACTOR)
        )


def _request(environ: Environ) -> Request:
    def header(name: str) -> str | None:
        key = name.upper().replace("-", "_")
        found = environ.get(key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else f"HTTP_{key}")
        return found or None

    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    return Request(
        method=str(environ.get("REQUEST_METHOD", "GET")),
        path=path.encode("latin-1", "replace").decode("utf-8", "replace"),  # WSGI has bytes as Latin-1
        scheme=environ.get("wsgi.url_scheme"),
        host=header("host"),
        http_version=str(environ.get("SERVER_PROTOCOL", "")).removeprefix("HTTP/") or None,
        query=environ.get("QUERY_STRING") or "",
        client=environ.get("REMOTE_ADDR"),
        header=header,
    )
