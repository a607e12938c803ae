"""The HTTP service over doubles of what is outside of it: a publisher that remembers, a store that answers from lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec

from chronicle.api.access import Limits, Role
from chronicle.api.app import create
from chronicle.api.keys import Keys, hashed
from chronicle.api.limits import Sizes
from chronicle.api.metrics import ApiMetrics
from chronicle.api.parts import Durability, Parts, ReadLimits, Record, Unavailable
from chronicle.codec.entity import Entity
from chronicle.errors import TransientError

NOW = datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=UTC)
SECRET = "s" * 43


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds - 1000.0)


class Remembering:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.durability: Durability = "confirmed"
        self.away = False

    async def start(self) -> None:
        """Nothing to open."""

    async def publish(self, records: Sequence[Record]) -> Durability:
        if self.away:
            raise Unavailable("away", 7)
        self.records += records
        return self.durability

    def problem(self) -> str | None:
        return "away" if self.away else None

    async def close(self) -> None:
        """Nothing to close."""

    @property
    def events(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(text) for _, text in self.records]


@dataclass
class Answer:
    """What a query gives."""

    column_names: Sequence[str]
    result_rows: Sequence[Sequence[Any]]


class Listed:
    """A store that has keys and nothing else."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.away = False
        self.queries = 0

    def key(self, number: int, *roles: str, expires: datetime | None = None, revoked: bool = False, **limits: Any) -> str:
        """Add a key; its text."""
        text = f"chr_{number:012x}_{SECRET}"
        self.keys.append(
            {
                "id": f"{number:012x}",
                "name": f"key {number}",
                "hash": hashed(text),
                "roles": list(roles),
                **{name: list(limits.get(name, ())) for name in ("sources", "tables", "tenants", "columns")},
                "created_at": NOW,
                "expires_at": expires,
                "revoked_at": NOW if revoked else None,
            }
        )
        return text

    def query(self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None) -> Answer:
        self.queries += 1
        if self.away:
            raise TransientError("away")
        if "api_keys" not in query:
            return Answer(["n"], [[0]] if "count()" in query else [])
        names = list(self.keys[0]) if self.keys else ["id"]
        return Answer(names, [list(one.values()) for one in self.keys])

    def query_row_block_stream(
        self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None
    ) -> AbstractContextManager[Any]:
        raise TransientError("there is nothing to stream")


class Written:
    """Reference data that is kept in a list."""

    def __init__(self) -> None:
        self.entities: list[Entity] = []
        self.deleted: list[str] = []

    def put(self, entities: Sequence[Entity]) -> None:
        self.entities += entities

    def delete(self, ids: Sequence[str]) -> None:
        self.deleted += ids


@dataclass
class Service:
    """A service and the doubles that it stands on."""

    sizes: Sizes = field(default_factory=lambda: Sizes(64 * 1024, 256 * 1024, 100))
    open_to_all: bool = True
    events_per_s: float = 0.0
    reads_per_s: float = 0.0
    role_limits: dict[Role, Limits] = field(default_factory=dict)
    refuse: Callable[[Any], None] | None = None
    tokens: Any = None
    clock: Clock = field(default_factory=Clock)
    publisher: Remembering = field(default_factory=Remembering)
    store: Listed = field(default_factory=Listed)
    entities: Written = field(default_factory=Written)

    def parts(self) -> Parts:
        """Of this service."""
        return Parts(
            database="trail",
            publisher=self.publisher,
            store=self.store,
            entities=self.entities,
            keys=Keys(self.store, "trail", self.clock, cache_s=5, stale_s=600),
            tokens=self.tokens,
            sizes=self.sizes,
            reads=ReadLimits(10, reads_per_s=self.reads_per_s),
            metrics=ApiMetrics(),
            open_to_all=self.open_to_all,
            role_limits=self.role_limits,
            events_per_s=self.events_per_s,
            refuse=self.refuse,
            clock=self.clock,
            now=self.clock.now,
        )

    def ask(self, *requests: tuple[Any, ...], parts: Parts | None = None, refreshed: bool = True) -> list[httpx.Response]:
        """Send requests `(method, path, options)` one after the other, and give the answers."""
        made = parts or self.parts()

        async def run() -> list[httpx.Response]:
            app = create(made)
            if refreshed:
                made.keys.refresh()
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return [
                    await client.request(method, path, **(options[0] if options else {})) for method, path, *options in requests
                ]

        return asyncio.run(run())

    def post(self, body: Any, **options: Any) -> httpx.Response:
        """One POST of events."""
        headers = {"content-type": "application/json", **options.pop("headers", {})}
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        [answer] = self.ask(("POST", "/events", {"content": content, "headers": headers}), **options)
        return answer


def bearer(key: str) -> dict[str, str]:
    """A header with a key."""
    return {"authorization": f"Bearer {key}"}
