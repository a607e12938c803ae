"""What was written (truth) and what came out (observation), as plain data: read by `load`, compared by `checker`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TruthRow:
    """One row written by a trigger in the transaction that changed the row."""

    seq: int
    """Orders the writes of one row (drawn while the row is locked)."""
    source: str
    schema: str
    table: str
    op: str
    """c, u, d or t."""
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None
    tx: str
    observed: bool = False
    """Written before the connector's snapshot: its last state is seen as a snapshot row, not as a change."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row of `changes` after FINAL."""

    event_id: str
    source: str
    schema: str
    table: str
    entity: str
    operation: str
    key: str
    previous_key: str | None
    before: str | None
    after: str | None
    before_known: bool
    changed: tuple[str, ...]
    unavailable: tuple[str, ...]
    position: int
    transaction_id: str | None
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change record of the audit topic, in topic order, redeliveries included."""

    event_id: str
    """The Kafka key; what the readers de-duplicate by."""
    partition: int
    offset: int
    source: str
    schema: str
    table: str
    entity: str
    operation: str
    key: str
    previous_key: str | None
    before: str | None
    after: str | None
    position: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter, by the coordinates of its record."""

    topic: str
    partition: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record of a raw topic, decoded without any of the product's code."""

    topic: str
    partition: int
    offset: int
    kind: str
    """change, tombstone or bad (planted)."""
    signature: tuple[Any, ...] = ()
    """Of a change: what makes it that change (key, op, transaction, log position), equal on a redelivery."""


@dataclass(frozen=True, slots=True)
class MirrorRow:
    """One row of a `…_current` view."""

    values: Mapping[str, Any]
    flags: frozenset[str] = frozenset()
    """Columns that are NULL because ClickHouse's type cannot hold the value."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that came out."""

    changes: Sequence[Change]
    changes_raw_rows: int
    """Rows of `changes` without FINAL: what is more than `len(changes)` are redeliveries."""
    audit: Sequence[AuditRecord]
    mirrors: Mapping[str, Sequence[MirrorRow]]
    """By raw topic; only tables with a key."""
    source_rows: Mapping[str, Sequence[Mapping[str, Any]]]
    """By raw topic: the rows as they stand in the database."""
    dead_letters: Sequence[DeadLetter]
    raw: Sequence[RawRecord] = field(default_factory=tuple)
    transaction_records: int = 0
