"""What the worker hands to the pure path: fetched records of one partition, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one topic partition, in offset order; all sequences have the same length.

    For records that came back by the retry topic, topic, partition and offsets are the *original* ones. What is in the
    records is left out of its `repr`, which libraries write into their logs.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    """When the broker (or the producer) stamped the record, in milliseconds since 1970."""
    keys: Sequence[bytes | None] = field(repr=False)
    values: Sequence[bytes | None] = field(repr=False)
    headers: Sequence[Headers] = field(repr=False)

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What the pure path must know of a source that no record says."""

    name: str
    """Debezium's `topic.prefix`; a topic belongs to the source whose name it begins with."""
    connector: str
    """`postgresql`, `mysql` or `mariadb`, as in `source.connector`."""
    epoch: int = 0
    """Used for records without the `chronicle.epoch` header."""
    unavailable_value_placeholder: str = "__debezium_unavailable_value"
    full_identity: frozenset[str] | None = frozenset()
    """Tables (`schema.table`) whose old values can be trusted: Postgres' REPLICA IDENTITY FULL; None: all of them.

    A Postgres table that is not named here keeps only the key of a deleted row, because Debezium invents the rest.
    """
    keyless: frozenset[str] | None = None
    """Tables (`schema.table`) without a primary key: a null key is a fault on every other table. None: not known, then a
    null key is a row of a table without one."""
    signal_tables: frozenset[str] = frozenset({"chronicle_signal", "chronicle_outbox"})
    """Tables (name without schema) whose rows steer the connector, and the outbox table, whose rows it makes events of; left
    out by rule `signal`."""
    context_tables: frozenset[str] = frozenset({"chronicle_context"})
    """Tables (name without schema) whose rows say who did a transaction."""
    heartbeat_tables: frozenset[str] = frozenset({"chronicle_heartbeat"})
