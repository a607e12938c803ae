"""What goes wrong, as the service answers it: a status, and for each wrong thing one sentence, never a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from chronicle.errors import ChronicleError, ConfigError, TransientError

RETRY_AFTER_S = 1
"""What a caller is told who comes at a bad moment."""
_encoder = msgspec.json.Encoder()


class Problem(ChronicleError):
    """A request cannot be answered. `errors`: what is wrong, by parameter, field or part of the request."""

    def __init__(self, status: int, errors: Mapping[str, str], headers: Mapping[str, str] | None = None) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in errors.items()))
        self.status = status
        self.errors = dict(errors)
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """`{"error": {name: sentence}}`."""
        return answered(self.status, {"error": self.errors}, self.headers)


def answered(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(_encoder.encode(body), status, dict(headers or {}), "application/json")


def unauthorized(text: str) -> Problem:
    """Nobody knows who asks."""
    return Problem(401, {"authorization": text}, {"WWW-Authenticate": 'Bearer realm="chronicle"'})


def forbidden(name: str, text: str) -> Problem:
    """We know who asks, and that is not theirs."""
    return Problem(403, {name: text})


def unavailable(name: str, text: str, retry_after_s: float = RETRY_AFTER_S) -> Problem:
    """A part is away or full: the same request may succeed later."""
    return Problem(503, {name: text}, {"Retry-After": str(max(1, round(retry_after_s)))})


def too_many(text: str, retry_after_s: float) -> Problem:
    """More than this caller may ask for in this time."""
    return Problem(429, {"rate": text}, {"Retry-After": str(max(1, int(retry_after_s + 0.999)))})


def of_store(error: ChronicleError) -> Problem:
    """An error of the trail's functions, without its words where these speak to the operator."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, TransientError):
        return unavailable("store", "the store is away or busy, or this question takes longer than it may: ask for less")
    if isinstance(error, ConfigError):
        return unavailable("store", "the store is not set up for this: the service's log says more", 30)
    return Problem(500, {"store": "the store refuses this query: the service's log says more"})
