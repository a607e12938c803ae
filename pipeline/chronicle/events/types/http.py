"""Payloads of `http.…`: requests that a service received. Address, session and trace stand in the event itself."""

from __future__ import annotations

from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said

Method = Annotated[str, said("Verb of the request.", "GET")]
Route = Annotated[str | None, said("Pattern that the request matched, without values.", "/orders/{order_id}")]
Path = Annotated[str | None, said("Path as it was asked for, without the query.", "/orders/1042", "token")]
Bytes = Annotated[int | None, said("Length of the body.", 512)]
MediaType = Annotated[str | None, said("Media type of the body.", "application/json")]


class HttpRequestReceived(Payload, frozen=True):
    """A request came in."""

    KIND: ClassVar[Kind] = Kind.of("http.request.received")

    method: Method
    route: Route = None
    path: Path = None
    query_names: Annotated[list[str] | None, said("Names of the query's parameters, never their values.", ["page"])] = None
    scheme: Annotated[str | None, said("http or https.", "https")] = None
    host: Annotated[str | None, said("Host that was asked.", "shop.example.com")] = None
    http_version: Annotated[str | None, said("Version of the protocol.", "1.1")] = None
    body_bytes: Bytes = None
    media_type: MediaType = None
    user_agent: Annotated[str | None, said("What the client calls itself.", "Mozilla/5.0", "token")] = None


class HttpResponseSent(Payload, frozen=True):
    """A request was answered."""

    KIND: ClassVar[Kind] = Kind.of("http.response.sent")

    method: Method
    status: Annotated[int, said("Status code.", 200)]
    route: Route = None
    path: Path = None
    duration_ms: Annotated[float | None, said("From the request's first byte to the answer's last.", 12.5)] = None
    body_bytes: Bytes = None
    media_type: MediaType = None
    error_type: Annotated[str | None, said("Class of the exception, where there was one.", "TimeoutError")] = None


class HttpRouteNotFound(Payload, frozen=True):
    """There is nothing at the path that was asked for."""

    KIND: ClassVar[Kind] = Kind.of("http.route.not_found")

    method: Method
    path: Path = None


class HttpMethodNotAllowed(Payload, frozen=True):
    """There is something at the path, but not for this verb."""

    KIND: ClassVar[Kind] = Kind.of("http.method.not_allowed")

    method: Method
    route: Route = None
    path: Path = None
    allowed: Annotated[list[str] | None, said("Verbs that it has.", ["GET", "HEAD"])] = None
