"""`GET /stream`: events as they come into the trail, sanitized as it has them, as server-sent events.

Each connection asks the store again and again for what was inserted since, with its own filters and limits. What is inserted
slowly may be seen late: a window is asked for twice and what was sent before is left out. Only events of the last days are
told, and never that somebody read the trail: whoever follows would read their own reading for ever.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from chronicle.api import sight
from chronicle.api.access import Principal, Role
from chronicle.api.gate import Gate
from chronicle.api.parameters import Asked, question
from chronicle.api.parts import Parts
from chronicle.api.problems import Problem, too_many
from chronicle.api.reading import asked_of_store
from chronicle.api.recording import TYPE
from chronicle.trail.collections import EVENTS, plain_row
from chronicle.trail.following import INSERTION, Name, since
from chronicle.trail.reading import micros, rows
from chronicle.trail.search import Question
from chronicle.trail.store import as_client

FILTERS = tuple(one for one in EVENTS.filters if one.name not in ("since", "until"))
DAYS = 7
"""An event whose own time is longer ago is not told."""
WINDOW_US = 3_000_000
"""How late an insert may be seen."""
ROWS_MAX = 2_000
"""Of one look; the next one goes on where it ended."""
SEEN_MAX = 100_000
HEARTBEAT_S = 15.0
CHECK_S = 5.0
"""How often it is asked whether the key is still good."""
RESUME_S = 3600
"""How long ago a `Last-Event-ID` may be."""
_encoder = msgspec.json.Encoder()
_log = structlog.get_logger("chronicle.api")


class Stream:
    """The endpoint of the live tail."""

    def __init__(self, parts: Parts, gate: Gate) -> None:
        self._parts, self._gate = parts, gate
        self._open = 0
        self.closing = asyncio.Event()
        """Set when the service stops: streams end."""
        parts.metrics.gauges["chronicle_api_streams"] = ("Open live tails.", lambda: float(self._open))

    async def stream(self, request: Request) -> Response:
        """`GET /stream`."""
        parts = self._parts
        principal = await self._gate.reader(request.headers, Role.READER)
        asked = Asked.of(request.query_params.multi_items(), [one.name for one in FILTERS])
        wanted = question(EVENTS, asked, principal, parts.now())
        asked.refuse_wrong()
        if self._open >= parts.reads.streams_max:
            raise too_many("more live tails than this service has", 10)
        begin = await asked_of_store(lambda: _begin(parts, request.headers.get("last-event-id", "")))
        tail = _Tail(parts, wanted, principal, begin)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._sent(request, tail), 200, headers, "text/event-stream")

    async def _sent(self, request: Request, tail: _Tail) -> AsyncIterator[bytes]:
        if self._open >= self._parts.reads.streams_max:
            return  # others came meanwhile: a client that follows comes again
        self._open += 1
        clock = self._parts.clock
        spoken = checked = clock()
        try:
            yield b"retry: 2000\n\n"
            while not self.closing.is_set():
                try:
                    texts = await asked_of_store(tail.look)
                except Problem:
                    texts = []  # the store is away: whoever follows waits with us
                if texts:
                    yield b"".join(texts)
                    spoken = clock()
                elif clock() - spoken >= HEARTBEAT_S:
                    yield b": still here\n\n"
                    spoken = clock()
                if clock() - checked >= CHECK_S:
                    tail.principal = await self._gate.principal(request.headers)
                    checked = clock()
                if len(texts) < ROWS_MAX:
                    await self._pause()
        except Problem:
            return  # the key is over or taken back
        finally:
            self._open -= 1

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self.closing.wait(), self._parts.reads.stream_interval_s)
        except TimeoutError:
            return


class _Tail:
    """What one connection has seen."""

    def __init__(self, parts: Parts, wanted: Question, principal: Principal, begin: int) -> None:
        self._parts, self._question = parts, wanted
        self.principal = principal
        self._from = begin
        self._newest = begin
        self._after: Name | None = None
        self._seen: dict[Name, int] = {}

    def look(self) -> list[bytes]:
        """Events that were inserted since the last time, as they are sent; none: there are no more now."""
        while True:
            texts, whole = self._page()
            if texts or whole:
                return texts

    def _page(self) -> tuple[list[bytes], bool]:
        """The next of them, and whether it came to the end."""
        parts = self._parts
        self._question = replace(self._question, sight=sight.sight(self.principal))
        seen, bound = self._question.sight.conditions(EVENTS)
        newer, place = since(self._from, self._after)
        conditions = [
            *self._question.conditions,
            *seen,
            "type != {own:String}",
            newer,
            "time > fromUnixTimestamp64Micro({days:Int64}, 'UTC')",
        ]
        bound |= {"own": TYPE, **place, "days": micros(parts.now() - timedelta(days=DAYS)), "limit": ROWS_MAX}
        sql = (
            f"SELECT {', '.join(EVENTS.columns)}, toUnixTimestamp64Micro(inserted_at) AS _at "  # noqa: S608
            "FROM {database:Identifier}.events "
            f"WHERE {' AND '.join(f'({one})' for one in conditions)} ORDER BY {INSERTION} LIMIT {{limit:UInt64}}"
        )
        found = rows(as_client(parts.store), sql, {**self._question.parameters, **bound, "database": parts.database})
        texts, at, name = [], self._from, None
        for row in found:
            at, name = row.pop("_at"), (str(row["event_id"]), row["source"], row["type"])
            self._newest = max(self._newest, at)
            if name not in self._seen:
                self._seen[name] = at
                item = sight.event(self.principal, plain_row(EVENTS, row))
                texts.append(b"id: %d\ndata: %s\n\n" % (at, _encoder.encode(item)))
        # a full look has not come to the end: the next one begins where it stopped
        whole = len(found) < ROWS_MAX
        self._from, self._after = (self._newest - WINDOW_US, None) if whole else (at, name)
        self._forget()
        return texts, whole

    def _forget(self) -> None:
        if len(self._seen) > SEEN_MAX:
            self._seen = {name: at for name, at in self._seen.items() if at >= self._newest - WINDOW_US}


def _begin(parts: Parts, last: str) -> int:
    """From when on, by the store's clock (microseconds since 1970): now, or a window before where a broken connection was.

    Events of one insert have one time, and of those only a part may have arrived: some are told twice, none is left out.
    """
    sql = "SELECT toUnixTimestamp64Micro(now64(6)) AS now"
    now = int(rows(as_client(parts.store), sql, {})[0]["now"])
    if re.fullmatch(r"[0-9]{1,18}", last, re.ASCII):
        return min(now, max(int(last) - WINDOW_US, now - RESUME_S * 1_000_000))
    return now
