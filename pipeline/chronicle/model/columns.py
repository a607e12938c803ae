"""The one column table: names, types and meaning of a change and of a transaction record.

ClickHouse's DDL (`sinks/ddl/*.sql`), the audit record and the documentation follow from it; tests hold them equal.
128-bit values are two UInt64 columns (`…_hi`, `…_lo`) or 16-byte Binary in a frame, because Arrow has no such integer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

MICROS = pl.Datetime("us", "UTC")
MILLIS = pl.Datetime("ms", "UTC")
STORED_MS = (-2_208_988_800_000, 10_413_791_999_999)
"""The times that the store holds, 1900 to 2299 (milliseconds since 1970). Whoever writes a record may choose its time, unless
its topic has the broker's: what lies outside is stored as the nearer end."""


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column: how a frame holds it, how ClickHouse holds it, what it means."""

    name: str
    dtype: pl.DataType | type[pl.DataType]
    clickhouse: str
    doc: str


# fmt: off
CHANGES: tuple[ColumnSpec, ...] = (
    ColumnSpec("event_id", pl.Binary, "UUID", "Keyed hash of the change's identity (16 bytes): the same on every redelivery and rerun."),
    ColumnSpec("source", pl.String, "LowCardinality(String)", "The source: Debezium's topic.prefix."),
    ColumnSpec("connector", pl.String, "LowCardinality(String)", "postgresql, mysql or mariadb."),
    ColumnSpec("schema", pl.String, "LowCardinality(String)", "Postgres: schema; MySQL and MariaDB: database."),
    ColumnSpec("table", pl.String, "LowCardinality(String)", "Table name."),
    ColumnSpec("entity", pl.Binary, "UUID", "Keyed hash of the raw primary key (16 bytes): a row's stable name. Without a key: the table's."),
    ColumnSpec("operation", pl.String, "LowCardinality(String)", "snapshot, create, update, delete or truncate."),
    ColumnSpec("key", pl.String, "String", "Primary key as JSON, sanitized; empty without one."),
    ColumnSpec("previous_key", pl.String, "Nullable(String)", "On the create half of a primary-key change: the key before it."),
    ColumnSpec("previous_entity", pl.Binary, "Nullable(UUID)", "The entity that belongs to previous_key."),
    ColumnSpec("before", pl.String, "Nullable(String) CODEC(ZSTD(3))", "The row before, as JSON, sanitized; NULL when there is none or it is not known."),
    ColumnSpec("after", pl.String, "Nullable(String) CODEC(ZSTD(3))", "The row after, as JSON, sanitized."),
    ColumnSpec("before_known", pl.Boolean, "Bool", "False when the database did not send the old row whole (replica identity): before holds the key at most."),
    ColumnSpec("changed", pl.List(pl.String), "Array(LowCardinality(String))", "Columns an update changed; empty when before is not known."),
    ColumnSpec("unavailable", pl.List(pl.String), "Array(LowCardinality(String))", "Columns whose value the database did not send (unchanged TOAST)."),
    ColumnSpec("labels", pl.List(pl.String), "Array(LowCardinality(String))", "Logical operations: the policy's labels and those of processors."),
    ColumnSpec("violations", pl.List(pl.String), "Array(LowCardinality(String))", "Value rules this row breaks and that only flag: rule:column."),
    ColumnSpec("stub", pl.String, "LowCardinality(String)", "Why only this line is kept, without images: ignored, filtered, sampled, skipped, dropped (by a processor) or unaudited (as its transaction asked); empty for a change told whole."),
    ColumnSpec("policy", pl.String, "LowCardinality(String)", "Hash of the policy this row was written under (table `policies`)."),
    ColumnSpec("epoch", pl.UInt8, "UInt8", "Raised when a slot, binlog or server starts over."),
    ColumnSpec("position_hi", pl.UInt64, "", "Upper half of position, the epoch in its top 8 bits."),
    ColumnSpec("position_lo", pl.UInt64, "UInt128", "Lower half; together `position`: the only order, within one source."),
    ColumnSpec("transaction_id", pl.String, "Nullable(String)", "Postgres: the 32-bit txId, which wraps; MariaDB: the GTID; MySQL: GTID or file and position."),
    ColumnSpec("transaction_order", pl.UInt64, "Nullable(UInt64)", "Debezium's total_order: a hint, not stable over restarts."),
    ColumnSpec("attribution", pl.String, "LowCardinality(String)", "What says who did it: message, table, comment or row; pending: not known yet; none."),
    ColumnSpec("actor_id", pl.String, "Nullable(String)", "Who did it."),
    ColumnSpec("actor_type", pl.String, "LowCardinality(Nullable(String))", "What kind of actor: user, service, …"),
    ColumnSpec("actor_name", pl.String, "Nullable(String)", "How the actor is shown."),
    ColumnSpec("request_id", pl.String, "Nullable(String)", "The request in which it was done."),
    ColumnSpec("reason", pl.String, "Nullable(String)", "Why it was done."),
    ColumnSpec("ip", pl.String, "Nullable(String)", "From where."),
    ColumnSpec("session", pl.String, "Nullable(String)", "In which session."),
    ColumnSpec("tenant", pl.String, "LowCardinality(Nullable(String))", "For whom."),
    ColumnSpec("tags", pl.String, "Nullable(String)", "What else the application said, as a JSON object."),
    ColumnSpec("attributed_at", MICROS, "Nullable(DateTime64(6, 'UTC'))", "When the worker knew who did it."),
    ColumnSpec("enriched", pl.String, "Nullable(String)", "Reference data joined by the policy, as a JSON object."),
    ColumnSpec("extra", pl.String, "Nullable(String)", "What processors added, as a JSON object."),
    ColumnSpec("topic", pl.String, "LowCardinality(String)", "Raw topic."),
    ColumnSpec("partition", pl.UInt32, "UInt32", "Raw partition."),
    ColumnSpec("offset", pl.UInt64, "UInt64", "Raw offset."),
    ColumnSpec("schema_id", pl.UInt32, "UInt32", "Writer schema of the value in the registry; 0 for JSON."),
    ColumnSpec("committed_at", MICROS, "DateTime64(6, 'UTC')", "Commit in the database (MySQL: to the second)."),
    ColumnSpec("captured_at", MICROS, "DateTime64(6, 'UTC')", "Read by Debezium."),
    ColumnSpec("received_at", MILLIS, "DateTime64(3, 'UTC')", "Kafka's record time."),
    ColumnSpec("processed_at", MICROS, "DateTime64(6, 'UTC')", "Processed by the worker; the version: the latest processing of a change wins."),
)

MEANING: Mapping[str, pl.DataType | type[pl.DataType]] = {
    spec.name: spec.dtype
    for spec in CHANGES
    if spec.name
    in {
        *("labels", "violations", "stub", "policy", "attribution", "actor_id", "actor_type", "actor_name", "request_id"),
        *("reason", "ip", "session", "tenant", "tags", "attributed_at", "enriched", "extra"),
    }
}
"""What is added to a change after it is identified: by policy, attribution, reference data and processors."""

TRANSACTIONS: tuple[ColumnSpec, ...] = (
    ColumnSpec("source", pl.String, "LowCardinality(String)", "The source."),
    ColumnSpec("epoch", pl.UInt8, "UInt8", "As in a change."),
    ColumnSpec("transaction_id", pl.String, "String", "As in a change; a non-transactional message has none and is left out."),
    ColumnSpec("kind", pl.String, "", "begin, context or end."),
    ColumnSpec("occurred_at", MICROS, "", "begin and end: time of the record's transaction marker; context: commit time."),
    ColumnSpec("event_count", pl.UInt64, "", "end only: rows of the transaction as Debezium counted them, messages excluded. A hint."),
    ColumnSpec("tables", pl.List(pl.Struct({"table": pl.String, "count": pl.UInt64})), "", "end only: rows per data collection."),
    ColumnSpec("context", pl.String, "", "context only: the JSON object the application wrote, keys sorted."),
    ColumnSpec("rung", pl.String, "", "context only: message or table."),
    ColumnSpec("topic", pl.String, "", "Raw topic."),
    ColumnSpec("partition", pl.UInt32, "", "Raw partition."),
    ColumnSpec("offset", pl.UInt64, "", "Raw offset."),
    ColumnSpec("processed_at", MICROS, "", "Processed by the worker."),
)
# fmt: on


def empty(columns: tuple[ColumnSpec, ...]) -> pl.DataFrame:
    """A frame of these columns without rows."""
    return pl.DataFrame(schema={column.name: column.dtype for column in columns})
