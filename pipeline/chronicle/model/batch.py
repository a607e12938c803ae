"""One batch between the pure path and the sinks: changes, typed rows for mirrors, transactions, events, dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from chronicle.model.alerts import ALERTS
from chronicle.model.columns import empty
from chronicle.model.dead_letters import DeadLetter
from chronicle.model.event_columns import NO_EVENTS
from chronicle.model.references import References


@dataclass(frozen=True, slots=True)
class MirrorColumn:
    """A column of a mirror table."""

    name: str
    clickhouse_type: str
    """With its Nullable(…) where it has one; key columns are never nullable, Array never is (see `TableRows`)."""
    key: bool = False
    how: str = ""
    """How the values are written when they are not clear (`token person`): columns of different ways are never mixed."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """Typed rows of one captured table under one writer schema, for its mirror. Only tables with a primary key.

    `frame` has one row a change (create, update, snapshot, delete; never truncate), the columns of `columns` in their
    order, and then

    - `_row` UInt32: the row's index in `Batch.changes`,
    - `_deleted` UInt8,
    - `_unavailable` List[String]: columns whose value the database did not send (here NULL),
    - `_flags` List[String]: columns that are NULL here although the source had a value that the type cannot hold,
    - `_nulls` List[String]: array columns that are NULL in the source (ClickHouse has no nullable array; here empty).
    """

    source: str
    schema: str
    table: str
    columns: tuple[MirrorColumn, ...]
    frame: pl.DataFrame = field(repr=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """What every sink gets, whole. The same batch, or parts of it, may come again: sinks are idempotent by `event_id`."""

    changes: pl.DataFrame = field(repr=False)
    """One row a change, columns as in `model.columns.CHANGES`, rows of one partition in offset order."""
    tables: tuple[TableRows, ...]
    transactions: pl.DataFrame = field(repr=False)
    """Rows of the transaction topics, columns as in `model.columns.TRANSACTIONS`."""
    dead_letters: tuple[DeadLetter, ...] = ()
    left_out: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(topic, rule) → rows that became nothing on purpose; rules: tombstone, heartbeat, signal, schema_change,
    notification, message (a logical message that is no context), skipped (an event that the policy leaves out)."""
    warnings: Sequence[str] = ()
    """Things an operator should read once (names of tables and columns, never values)."""
    unclassified: Mapping[str, int] = field(default_factory=dict)
    """Table (source.schema.table), or `events:<type>` → values hidden because the policy does not name their column."""
    granted: Mapping[tuple[str, str, str], pl.DataFrame] = field(default_factory=dict, repr=False)
    """Clear values for processors, and for nothing else: the step `processors` takes them out of the batch.

    (source, schema, table) → one row for each of its changes that has images: `_row` (UInt32, index in `changes`) and the
    granted columns by their names, as people see them (`stages.row_view`).
    """
    alerts: pl.DataFrame = field(default_factory=lambda: empty(ALERTS), repr=False)
    """What processors raised, columns as in `model.alerts.ALERTS`; idempotent by `alert_id`."""
    references: tuple[References, ...] = field(default=(), repr=False)
    """Clear ids of reference data, until the step `enrich` joins it; none in any sink or processor."""
    unknown_entities: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(table, into) → changes that named an entity that there is not."""
    events: pl.DataFrame = field(default_factory=lambda: NO_EVENTS, repr=False)
    """What applications said, columns as in `model.event_columns.EVENTS`; idempotent by `event_columns.IDENTITY`."""

    def rows(self) -> int:
        """How many input records this batch accounts for: each has exactly one disposition."""
        sunk = len(self.changes) + len(self.transactions) + len(self.events)
        return sunk + len(self.dead_letters) + sum(self.left_out.values())

    def select(self, lo: int, hi: int) -> Batch:
        """The changes `lo` to `hi` (exclusive) with their mirror rows and alerts, nothing else: for bisecting a batch."""
        tables = []
        for rows in self.tables:
            mine = pl.col("_row").is_between(lo, hi, closed="left")
            part = rows.frame.filter(mine).with_columns(pl.col("_row") - pl.lit(lo, pl.UInt32))
            if len(part):
                tables.append(TableRows(rows.source, rows.schema, rows.table, rows.columns, part))
        changes = self.changes.slice(lo, hi - lo)
        alerts = self.alerts.join(changes, on="event_id", how="semi") if len(self.alerts) else self.alerts
        return Batch(changes, tuple(tables), self.transactions.clear(), alerts=alerts)
