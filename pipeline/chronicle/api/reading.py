"""`GET /events` and `GET /changes`: pages and cursors, and how every question of a request is put to the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from chronicle.api import sight
from chronicle.api.access import Principal
from chronicle.api.gate import Gate
from chronicle.api.parameters import PAGING, Asked, page, question
from chronicle.api.parts import Parts
from chronicle.api.problems import Problem, answered, of_store
from chronicle.errors import ChronicleError
from chronicle.observe import explain
from chronicle.trail import search
from chronicle.trail.collections import CHANGES, EVENTS, Collection
from chronicle.trail.search import Row

T = TypeVar("T")
CUTS: dict[str, Callable[[Principal, dict[str, Any]], dict[str, Any]]] = {
    EVENTS.title: sight.event,
    CHANGES.title: sight.change,
}
_log = structlog.get_logger("chronicle.api")


async def asked_of_store(call: Callable[[], T]) -> T:
    """What a blocking call to the store gives, run in a thread.

    Raises:
        Problem: the store is away, or this takes too long.
    """
    try:
        return await to_thread.run_sync(call)
    except Problem:
        raise
    except ChronicleError as error:
        _log.warning("store.refused", **explain(error))
        raise of_store(error) from None


class Lists:
    """The endpoints that list."""

    def __init__(self, parts: Parts, gate: Gate) -> None:
        self._parts, self._gate = parts, gate

    async def events(self, request: Request) -> Response:
        """`GET /events`."""
        return await self._list(request, EVENTS)

    async def changes(self, request: Request) -> Response:
        """`GET /changes`."""
        return await self._list(request, CHANGES)

    async def _list(self, request: Request, collection: Collection) -> Response:
        parts = self._parts
        principal = await self._gate.reader(request.headers)
        asked = Asked.of(request.query_params.multi_items(), (*(one.name for one in collection.filters), *PAGING))
        part = page(asked, parts.reads)
        wanted = question(collection, asked, principal, parts.now())
        asked.refuse_wrong()

        def ask() -> tuple[list[Row], int | None]:
            # one more than the page, to know whether there is a next one
            rows = search.found(parts.store, parts.database, wanted, limit=part.size + 1, offset=part.offset)
            return rows, None if part.by_cursor else search.total(parts.store, parts.database, wanted)

        rows, total = await asked_of_store(ask)
        more, rows = len(rows) > part.size, rows[: part.size]
        cut = CUTS[collection.title]
        body: dict[str, Any] = {
            collection.title: [cut(principal, row.item) for row in rows],
            "next_cursor": rows[-1].cursor.text if more else None,
        }
        if total is not None:
            body["metadata"] = {
                "current_page": part.number,
                "page_size": part.size,
                "first_page": 1,
                "last_page": max(1, -(-total // part.size)),
                "total_records": total,
            }
        return answered(200, body)
