"""What the service is made of; `chronicle.wiring_api` and `chronicle.wiring_embedded` fill it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from chronicle.api.limits import Sizes
from chronicle.errors import TransientError
from chronicle.trail.store import Store

if TYPE_CHECKING:
    from chronicle.api.access import Limits, Role
    from chronicle.api.keys import Keys
    from chronicle.api.metrics import ApiMetrics
    from chronicle.api.tokens import Tokens
    from chronicle.codec.entity import Entity
    from chronicle.events.event import Event

Durability = Literal["confirmed", "spilled"]
Record = tuple[bytes, bytes]
"""Key (which orders) and the event's JSON."""


class Unavailable(TransientError):
    """Neither the broker nor the spill can hold these events now: none of them may be told as accepted."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Publisher(Protocol):
    """Where accepted events go. What `publish` has returned for survives a kill -9 of this process."""

    async def start(self) -> None:
        """Called once, in the event loop that serves."""

    async def publish(self, records: Sequence[Record]) -> Durability:
        """Hold all of these, and say how.

        Raises:
            Unavailable: not all of them are held; the same ones may be handed in again.
        """

    def problem(self) -> str | None:
        """What keeps it from taking events, for /ready."""

    async def close(self) -> None:
        """End what is under way."""


class EntityWriter(Protocol):
    """Where reference data is written. Both calls wait for whoever confirms; they raise as `chronicle.entities.put`."""

    def put(self, entities: Sequence[Entity]) -> None:
        """Write these, each whole."""

    def delete(self, ids: Sequence[str]) -> None:
        """Delete these."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Of one query, one export, one stream."""

    query_timeout_s: int
    page_rows_max: int = 1_000
    page_depth_max: int = 10_000
    """Records that pages reach; a cursor reaches all."""
    export_rows_max: int = 1_000_000
    export_timeout_s: int = 600
    streams_max: int = 32
    stream_interval_s: float = 0.5
    reads_per_s: float = 50.0
    """Of one caller."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that `app.create` needs."""

    database: str
    publisher: Publisher
    store: Store
    """Bounded already (`trail.store.Bounded`): it reads only, for `reads.query_timeout_s`."""
    entities: EntityWriter
    keys: Keys
    tokens: Tokens | None
    sizes: Sizes
    reads: ReadLimits
    metrics: ApiMetrics
    open_to_all: bool = False
    """Nobody is asked for a key as long as none was ever made. Only when bound to loopback."""
    role_limits: Mapping[Role, Limits] = field(default_factory=dict)
    events_per_s: float = 0.0
    """Of one caller; 0: no limit."""
    refuse: Callable[[Event], None] | None = None
    """Strict mode: raises `EventRefused` for what the catalogue does not know."""
    export_store: Store | None = None
    """As `store`, with the limits of an export; none: `store`."""
    clock: Callable[[], float] = field(kw_only=True)
    """Monotonic seconds."""
    now: Callable[[], datetime] = field(kw_only=True)
    """The wall clock, aware."""
