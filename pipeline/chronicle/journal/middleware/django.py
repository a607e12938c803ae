"""Django: a middleware for `MIDDLEWARE`, in synchronous and asynchronous projects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, cast

from chronicle.errors import ConfigError
from chronicle.journal.context import tagged
from chronicle.journal.middleware.requests import REQUEST_ID, Exchange, Options, Request

if TYPE_CHECKING:
    from django.http import HttpRequest  # type: ignore[import-untyped]
    from django.http.response import HttpResponseBase  # type: ignore[import-untyped]

GetResponse = Callable[[Any], Any]


def middleware(**options: Any) -> Callable[[GetResponse], Any]:
    """Make the middleware, for a module of your own, and name that in `MIDDLEWARE`, after Django's `AuthenticationMiddleware`:

        # shop/audit.py
        middleware = django.middleware(journal=journal, actor=lambda request: request.user.pk, events=True)
        # settings.py
        MIDDLEWARE = [..., "shop.audit.middleware"]

    `actor` gets the request; in an asynchronous project it may be asynchronous (`await request.auser()`). Other arguments as in
    `Options`. The answer has the request's id in `X-Request-ID`, unless the application set one. What a streaming answer
    publishes after it has begun is outside of the context: wrap the project's ASGI or WSGI application instead.
    """
    made = Options(**options)

    def factory(get_response: GetResponse) -> Any:
        if iscoroutinefunction(get_response):

            async def asynchronous(request: HttpRequest) -> HttpResponseBase:
                exchange = Exchange(made, _request(request), request)
                actor = exchange.asked_actor()
                with tagged(**exchange.context(await actor if isawaitable(actor) else actor)):
                    exchange.received()
                    return _answered(exchange, request, await cast("Awaitable[Any]", get_response(request)))

            return asynchronous

        def synchronous(request: HttpRequest) -> HttpResponseBase:
            exchange = Exchange(made, _request(request), request)
            actor = exchange.asked_actor()
            if isawaitable(actor):
                raise ConfigError("give the Django middleware an `actor` that is no coroutine: this project is synchronous")
            with tagged(**exchange.context(actor)):
                exchange.received()
                return _answered(exchange, request, get_response(request))

        return synchronous

    factory.sync_capable = True  # type: ignore[attr-defined]  # how Django asks a factory
    factory.async_capable = True  # type: ignore[attr-defined]
    return factory


def _answered(exchange: Exchange, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    matched = request.resolver_match
    if REQUEST_ID not in response.headers:
        response.headers[REQUEST_ID] = exchange.request_id
    exchange.answered(
        response.status_code,
        route=f"/{matched.route}" if matched is not None else None,
        parameters=matched.kwargs if matched is not None else None,
        header=response.headers.get,
    )
    return response


def _request(request: HttpRequest) -> Request:
    return Request(
        method=request.method or "GET",
        path=request.path,
        scheme=request.scheme,
        host=request.headers.get("host"),
        http_version=str(request.META.get("SERVER_PROTOCOL", "")).removeprefix("HTTP/") or None,
        query=request.META.get("QUERY_STRING") or "",
        client=request.META.get("REMOTE_ADDR") or None,
        header=request.headers.get,
    )
