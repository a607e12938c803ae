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
class TruthContext:
    """What an application said about a transaction, written by the workload in that transaction. No two say the same."""

    seq: int
    """Orders the contexts of one transaction."""
    source: str
    tx: str
    """As in the rows' truth."""
    rung: str
    """message or table."""
    text: str
    """The context as the trail has to show it: secrets filtered, keys sorted."""
    observed: bool = False
    """Written before the connector's snapshot: nothing may be seen of it."""


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
    """change, tombstone, bad (planted), or unknown: of a topic that the workload has no table for."""
    signature: tuple[Any, ...] = ()
    """Of a change: what makes it that change (key, op, transaction, log position), equal on a redelivery."""


TransactionName = tuple[str, int, str]
"""(source, epoch, transaction id)."""


@dataclass(frozen=True, slots=True)
class RawMark:
    """One record of a `<source>.transaction` topic, decoded without any of the product's code."""

    topic: str
    partition: int
    offset: int
    kind: str
    """begin, end or context; or the rule by which it is left out: heartbeat, message, tombstone."""
    source: str
    epoch: int = 0
    transaction_id: str = ""
    """As the trail has it: on Postgres the part before the colon."""
    at_ms: int = 0
    """begin and end: when, as Debezium says it."""
    tables: Mapping[str, int] = field(default_factory=dict)
    """end only: rows per table, without what is no change (contexts, messages, signals)."""
    rung: str = ""
    text: str = ""
    """context only, as in `TruthContext`."""

    @property
    def name(self) -> TransactionName:
        """Whose record it is."""
        return self.source, self.epoch, self.transaction_id


@dataclass(frozen=True, slots=True)
class Transaction:
    """One row of `transactions` after FINAL."""

    source: str
    epoch: int
    transaction_id: str
    began_ms: int | None
    ended_ms: int | None
    event_count: int | None
    tables: Mapping[str, int]
    begins: tuple[int, ...]
    """Offsets of its BEGIN records in the transaction topic."""
    rung: str
    """Of the best context; empty: there is none."""
    context_offset: int
    text: str
    """The best context, keys sorted."""

    @property
    def name(self) -> TransactionName:
        """Which transaction."""
        return self.source, self.epoch, self.transaction_id


@dataclass(frozen=True, slots=True)
class AuditContext:
    """One context record of the audit topic, redeliveries included."""

    key: str
    """The Kafka key; what the readers de-duplicate by."""
    source: str
    epoch: int
    transaction_id: str
    rung: str
    text: str
    topic: str
    """Raw topic, partition and offset: where the context came from."""
    partition: int
    offset: int

    @property
    def name(self) -> TransactionName:
        """Whose context it is."""
        return self.source, self.epoch, self.transaction_id


@dataclass(frozen=True, slots=True)
class Work:
    """What one worker that ran from a start to the end of all partitions says it did, and over which offsets it did it."""

    counted: Mapping[str, Any]
    """Its summary: records, changes by operation, transactions, dead_letters by reason, left_out by rule."""
    ranges: Mapping[tuple[str, int], tuple[int, int]]
    """(raw topic, partition) → the group's offset before and after."""
    assignments: int = 1
    """How often the group gave it its partitions: at a second time records that it had processed may have come again."""


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
    marks: Sequence[RawMark] = field(default_factory=tuple)
    """Of the transaction topics, up to where the group has read them."""
    transactions: Sequence[Transaction] = field(default_factory=tuple)
    contexts: Sequence[AuditContext] = field(default_factory=tuple)
    work: Work | None = None
    """The last worker's, where one drained everything alone."""
