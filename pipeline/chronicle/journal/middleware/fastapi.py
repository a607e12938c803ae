"""FastAPI: the ASGI middleware in one call, and a dependency that says who acts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from chronicle.journal.context import tagged
from chronicle.journal.middleware import asgi

if TYPE_CHECKING:
    from fastapi import FastAPI


def install(app: FastAPI, **options: Any) -> None:
    """Add the middleware to the application, inside of all that is added after it.

    Arguments as in `requests.Options`, with `actor`, `tags` and `ip` given a `fastapi.Request` (of a websocket: an
    `HTTPConnection`) instead of the scope; `actor` may be asynchronous. Where the user is a dependency, leave `actor` out and
    use `acts`.
    """
    for name in ("actor", "tags", "ip"):
        function = options.get(name)
        if function is not None:
            options[name] = _of_request(function)
    app.add_middleware(asgi.JournalMiddleware, **options)  # type: ignore[arg-type]


def acts(user: Callable[..., Any], actor: Callable[[Any], Any] = lambda user: user) -> Any:
    """A dependency: the application's own dependency `user` says who acts, for the rest of the request.

        app = FastAPI(dependencies=[acts(current_user, lambda user: user.email)])

    Depends on `user` and gives what it gives, so that `user: Annotated[User, acts(current_user, …)]` works as well. `actor`
    turns it into an id, an `Actor`, or None for nobody known. The answer's event has this actor too.
    """
    from fastapi import Depends, Request

    async def acting(request: Request, found: Any = Depends(user)) -> AsyncIterator[Any]:  # noqa: B008 (FastAPI's way)
        who = actor(found)
        if who is None:
            yield found
            return
        request.scope[asgi.ACTOR] = who
        with tagged(actor=who):
            yield found

    acting.__annotations__["request"] = Request  # a name of this function, which FastAPI could not resolve
    return Depends(acting)


def _of_request(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    from fastapi.requests import HTTPConnection, Request

    return lambda scope: function(Request(scope) if scope["type"] == "http" else HTTPConnection(scope))
