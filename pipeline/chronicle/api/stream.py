"""`GET /stream`: events and changes as they come into the trail, sanitized as it has them, as server-sent events.

Each connection asks the store again and again for what was inserted since, with its own filters and limits: see `feeds`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from operator import itemgetter

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from chronicle.api.access import Principal, Role
from chronicle.api.feeds import WINDOW_US, ChangeFeed, EventFeed, Feed
from chronicle.api.gate import Gate
from chronicle.api.parameters import Asked, Narrowed, narrowed
from chronicle.api.parts import Parts
from chronicle.api.problems import Problem, too_many
from chronicle.api.reading import asked_of_store
from chronicle.trail.collections import CHANGES, EVENTS, Collection
from chronicle.trail.reading import rows
from chronicle.trail.store import as_client

KINDS: Mapping[str, tuple[Collection, ...]] = {"events": (EVENTS,), "changes": (CHANGES,), "all": (EVENTS, CHANGES)}
FEEDS: Mapping[str, Callable[[Parts, Narrowed, int], Feed]] = {EVENTS.title: EventFeed, CHANGES.title: ChangeFeed}
HEARTBEAT_S = 15.0
CHECK_S = 5.0
"""How often it is asked whether the key is still good."""
RESUME_S = 3600
"""How long ago a `Last-Event-ID` may be."""
KIND = "events"
"""What is told when nothing is said: events have filters of their own."""
_encoder = msgspec.json.Encoder()


def filters(collections: Sequence[Collection]) -> tuple[str, ...]:
    """The parameters that narrow a tail of all of these."""
    names = [{one.name for one in collection.filters} for collection in collections]
    shared = set.intersection(*names) - {"since", "until"}
    return tuple(one.name for one in collections[0].filters if one.name in shared)


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
        collections = KINDS.get(request.query_params.get("kind", KIND), KINDS[KIND])
        asked = Asked.of(request.query_params.multi_items(), ("kind", *filters(collections)))
        asked.choice("kind", KIND, KINDS)
        wanted = [narrowed(one, asked, principal, parts.now()) for one in collections]
        asked.refuse_wrong()
        if self._open >= parts.reads.streams_max:
            raise too_many("more live tails than this service has", 10)
        begin = await asked_of_store(lambda: _begin(parts, request.headers.get("last-event-id", "")))
        feeds = [FEEDS[one.title](parts, each, begin) for one, each in zip(collections, wanted, strict=True)]
        tail = _Tail(feeds, principal)
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
                    waits = tail.whole
                except Problem:
                    texts, waits = [], True  # the store is away: whoever follows waits with us
                if texts:
                    yield b"".join(texts)
                    spoken = clock()
                elif clock() - spoken >= HEARTBEAT_S:
                    yield b": still here\n\n"
                    spoken = clock()
                if clock() - checked >= CHECK_S:
                    tail.principal = await self._gate.principal(request.headers)
                    checked = clock()
                if waits:
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
    """What one connection follows."""

    def __init__(self, feeds: Sequence[Feed], principal: Principal) -> None:
        self._feeds = feeds
        self.principal = principal
        self.whole = True
        """Whether the last look came to the end of what there is."""

    def look(self) -> list[bytes]:
        """What was inserted since the last time, as it is sent; none: there is no more now."""
        while True:
            pages = [feed.page(self.principal) for feed in self._feeds]
            ends = [page.until for page in pages if page.until is not None]
            self.whole = not ends
            # whoever resumes at an id must miss nothing of a feed that is behind
            bound = min(ends, default=None)
            found = sorted((pair for page in pages for pair in page.items), key=itemgetter(0))
            texts = [
                b"id: %d\ndata: %s\n\n" % (at if bound is None else min(at, bound), _encoder.encode(item)) for at, item in found
            ]
            if texts or self.whole:
                return texts


def _begin(parts: Parts, last: str) -> int:
    """From when on, by the store's clock (microseconds since 1970): now, or a window before where a broken connection was.

    Events of one insert have one time, and of those only a part may have arrived: some are told twice, none is left out.
    """
    sql = "SELECT toUnixTimestamp64Micro(now64(6)) AS now"
    now = int(rows(as_client(parts.store), sql, {})[0]["now"])
    if re.fullmatch(r"[0-9]{1,18}", last, re.ASCII):
        return min(now, max(int(last) - WINDOW_US, now - RESUME_S * 1_000_000))
    return now
