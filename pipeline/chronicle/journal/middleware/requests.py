"""What all HTTP middleware does with a request: its context, and its events if asked. Knows no framework.

Never in an event: the query string, cookies, authorization, any header besides those named here, bodies.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chronicle.errors import ChronicleError
from chronicle.events.event import TEXT_LENGTH_MAX, Actor, Outcome
from chronicle.events.types import payload_of
from chronicle.policy.names import looks_secret

if TYPE_CHECKING:
    from chronicle.journal import Journal

REQUEST_ID = "X-Request-ID"
ANONYMOUS = Actor("anonymous", "anonymous")
"""Of a request that `actor` names nobody for: else it would be put down to the server's own user."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,200}", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_BEFORE_SECRETS = frozenset({"reset", "verify", "confirm", "activate", "invite", "invitation", "unsubscribe", "magic", "share"})
_RANDOM = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[\w.~%=+-]{20,}", re.ASCII)
_PLAIN_ID = re.compile(r"[0-9]{1,18}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_METHOD = re.compile(r"[A-Z]{1,20}", re.ASCII)
_FAILED_FROM, _NOT_FOUND, _NOT_ALLOWED = 400, 404, 405

GivenActor = Any
"""A `chronicle.Actor`, an id, or None."""


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments that all HTTP middleware has.

    Args:
        journal: where events go; needed with `events=True`, else only the context is set.
        actor: who acts, from the framework's request (ASGI: the scope; WSGI: the environ; Django, FastAPI: the request): an id,
            an `Actor`, or None for nobody known. An error in it is the request's error.
        tags: further tags, likewise; `tenant`, `session` and `reason` are the event's own fields, as in `tagged`.
        ip: the client's address, likewise; None: the peer's. Behind a proxy say how: only the application knows whom to trust.
        events: write `http.request.received`, `http.response.sent`, `http.route.not_found`, `http.method.not_allowed`.
        excluded: paths without events (`/health`), exactly as they are asked for.
        trust_request_id: take the client's `X-Request-ID` (letters, digits, punctuation, at most 200 of them); else make one.
    """

    journal: Journal | None = None
    actor: Callable[[Any], GivenActor] | None = None
    tags: Callable[[Any], Mapping[str, Any]] | None = None
    ip: Callable[[Any], str | None] | None = None
    events: bool = False
    excluded: frozenset[str] = frozenset()
    trust_request_id: bool = True

    def __post_init__(self) -> None:
        if self.events and self.journal is None:
            raise ValueError("give the middleware a journal: events=True writes to it")


@dataclass(frozen=True, slots=True)
class Request:
    """What a framework says of a request, plainly."""

    method: str
    path: str
    scheme: str | None = None
    host: str | None = None
    http_version: str | None = None
    query: str = ""
    client: str | None = None
    header: Callable[[str], str | None] = lambda _: None
    """A header's value by its lower-case name."""


class Exchange:
    """One request from when it came in until it is answered.

    The middleware asks for `context`, enters it, calls `received`, runs the application, and calls `answered` once,
    still inside.
    """

    def __init__(self, options: Options, request: Request, given: Any) -> None:
        self._options, self._request, self._given = options, request, given
        self._begun = time.monotonic()
        found = request.header(REQUEST_ID.lower()) or ""
        trusted = options.trust_request_id and _REQUEST_ID.fullmatch(found)
        self.request_id = found if trusted else uuid.uuid4().hex
        self._writes = options.events and request.path not in options.excluded

    def asked_actor(self) -> Any:
        """What `actor` says: perhaps an awaitable, which an asynchronous framework awaits. None: there is no such function."""
        return None if self._options.actor is None else self._options.actor(self._given)

    def context(self, actor: GivenActor) -> dict[str, Any]:
        """What `tagged` is given for the request, with what `asked_actor` said."""
        options, request = self._options, self._request
        said: dict[str, Any] = {"request_id": self.request_id}
        if options.actor is not None:
            said["actor"] = ANONYMOUS if actor is None else actor
        traceparent = (request.header("traceparent") or "").strip()
        if _TRACEPARENT.fullmatch(traceparent):
            said["traceparent"] = traceparent
        address = request.client if options.ip is None else options.ip(self._given)
        if address:
            said["ip"] = address[:TEXT_LENGTH_MAX]
        return said if options.tags is None else {**options.tags(self._given), **said}

    def received(self) -> None:
        """Write `http.request.received`: the route is not known yet."""
        if not self._writes:
            return
        request = self._request
        self._write(
            "http.request.received",
            path=shown_path(request.path, None, None),
            query_names=query_names(request.query),
            scheme=request.scheme,
            host=_short(request.host),
            http_version=request.http_version,
            body_bytes=_length(request.header("content-length")),
            media_type=_media_type(request.header("content-type")),
            user_agent=_short(request.header("user-agent")),
        )

    def answered(
        self,
        status: int,
        *,
        route: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        header: Callable[[str], str | None] = lambda _: None,
        error: BaseException | None = None,
        actor: GivenActor = None,
    ) -> None:
        """Write `http.response.sent`, or that there is no such route or method (404 without a route; 405).

        Args:
            status: 500 where the application raised before it answered.
            route: the pattern that matched; None: none did.
            parameters: what the route took out of the path; those with secret names are not shown.
            header: of the answer, by lower-case name.
            error: what the application raised.
            actor: who turned out to act, where that was found while the request was at work.
        """
        if not self._writes:
            return
        path = shown_path(self._request.path, route, parameters)
        known: dict[str, Any] = {"actor": actor} if actor is not None else {}
        if status == _NOT_FOUND and route is None:
            self._write("http.route.not_found", "failure", known, path=path)
            return
        if status == _NOT_ALLOWED:
            allowed = [word for one in (header("allow") or "").split(",") if _METHOD.fullmatch(word := one.strip())]
            self._write("http.method.not_allowed", "failure", known, route=route, path=path, allowed=allowed or None)
            return
        self._write(
            "http.response.sent",
            "success" if status < _FAILED_FROM and error is None else "failure",
            known,
            status=status,
            route=route,
            path=path,
            duration_ms=round((time.monotonic() - self._begun) * 1_000, 3),
            body_bytes=_length(header("content-length")),
            media_type=_media_type(header("content-type")),
            error_type=None if error is None else type(error).__qualname__,
        )

    def _write(
        self,
        type: str,
        outcome: Outcome | None = None,
        known: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        journal = self._options.journal
        assert journal is not None  # noqa: S101  # `Options` sees to it
        method = self._request.method if _METHOD.fullmatch(self._request.method) else "OTHER"
        try:
            journal.publish(payload_of(type)(method=method, **fields), outcome=outcome, **(known or {}))
        except ChronicleError:  # the journal has counted it; a request is answered all the same
            return


def shown_path(path: str, route: str | None, parameters: Mapping[str, Any] | None) -> str:
    """The path as events have it, without what may be a secret in it.

    With a route: the route itself, if a parameter of it has a secret name (`/reset/{token}`). Without one, as long as it is not
    known or where there is none: `[FILTERED]` for a part that stands after a word like `reset` or `token`, and for one that is
    long and of letters and digits, unless it is a UUID.
    """
    if route is not None:
        return route if any(looks_secret(name) for name in parameters or ()) else path.partition("?")[0][:TEXT_LENGTH_MAX]
    shown, before = [], ""
    for part in path.partition("?")[0].split("/"):
        hides = part and (before.lower() in _BEFORE_SECRETS or looks_secret(before) or _RANDOM.fullmatch(part))
        shown.append("[FILTERED]" if hides and not _PLAIN_ID.fullmatch(part) else part)
        before = part
    return "/".join(shown)[:TEXT_LENGTH_MAX]


def query_names(query: str) -> list[str] | None:
    """Names of a query's parameters, in order, each once; a part without `=` is a value and not shown."""
    from urllib.parse import unquote_plus

    names = dict.fromkeys(
        unquote_plus(name)[:100] for part in query.split("&") for name, sign, _ in [part.partition("=")] if sign
    )
    return list(names)[:100] or None


def _short(value: str | None) -> str | None:
    return value[:TEXT_LENGTH_MAX] if value else None


def _length(value: str | None) -> int | None:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 19 else None


def _media_type(value: str | None) -> str | None:
    return value.partition(";")[0].strip().lower()[:100] or None if value else None
