"""The column table of events: what applications say themselves, as the pipeline keeps it.

ClickHouse's DDL (`sinks/ddl/0009_events.sql`) and the audit record follow from it; tests hold them equal.
"""

from __future__ import annotations

import polars as pl

from chronicle.model.columns import MICROS, MILLIS, ColumnSpec, empty

# fmt: off
EVENTS: tuple[ColumnSpec, ...] = (
    ColumnSpec("event_id", pl.Binary, "UUID", "The application's id of it (16 bytes): what one event is, IDENTITY says."),
    ColumnSpec("type", pl.String, "LowCardinality(String)", "Words with dots between them: security.login."),
    ColumnSpec("time", MICROS, "DateTime64(6, 'UTC')", "When it happened, as the application says."),
    ColumnSpec("source", pl.String, "LowCardinality(String)", "The application."),
    ColumnSpec("action", pl.String, "LowCardinality(Nullable(String))", "What was done."),
    ColumnSpec("resource_type", pl.String, "LowCardinality(Nullable(String))", "What kind of thing it was done to."),
    ColumnSpec("resource_id", pl.String, "Nullable(String)", "To which one, sanitized."),
    ColumnSpec("outcome", pl.String, "LowCardinality(Nullable(String))", "success, failure or unknown."),
    ColumnSpec("priority", pl.String, "LowCardinality(String)", "low, normal or high."),
    ColumnSpec("tenant", pl.String, "LowCardinality(Nullable(String))", "For whom."),
    ColumnSpec("actor_id", pl.String, "Nullable(String)", "Who did it."),
    ColumnSpec("actor_type", pl.String, "LowCardinality(Nullable(String))", "What kind of actor: user, service, …"),
    ColumnSpec("actor_name", pl.String, "Nullable(String)", "How the actor is shown."),
    ColumnSpec("description", pl.String, "Nullable(String)", "For people to read, sanitized."),
    ColumnSpec("reason", pl.String, "Nullable(String)", "Why it was done."),
    ColumnSpec("request_id", pl.String, "Nullable(String)", "The request in which it was done."),
    ColumnSpec("trace_id", pl.String, "Nullable(String)", "W3C trace id, 32 hex digits."),
    ColumnSpec("span_id", pl.String, "Nullable(String)", "W3C parent id, 16 hex digits."),
    ColumnSpec("ip", pl.String, "Nullable(String)", "From where."),
    ColumnSpec("session", pl.String, "Nullable(String)", "In which session."),
    ColumnSpec("payload", pl.String, "Nullable(String) CODEC(ZSTD(3))", "What happened in detail, as a JSON object, sanitized."),
    ColumnSpec("tags", pl.String, "Nullable(String)", "What else the application said, as a JSON object, sanitized."),
    ColumnSpec("labels", pl.List(pl.String), "Array(LowCardinality(String))", "The policy's labels."),
    ColumnSpec("violations", pl.List(pl.String), "Array(LowCardinality(String))", "Where it differs from its type's schema (open mode): unknown_type, missing:payload.x, …"),
    ColumnSpec("policy", pl.String, "LowCardinality(String)", "Hash of the policy this event was written under (table `policies`)."),
    ColumnSpec("topic", pl.String, "LowCardinality(String)", "Raw topic."),
    ColumnSpec("partition", pl.UInt32, "UInt32", "Raw partition."),
    ColumnSpec("offset", pl.UInt64, "UInt64", "Raw offset."),
    ColumnSpec("received_at", MILLIS, "DateTime64(3, 'UTC')", "Kafka's record time."),
    ColumnSpec("processed_at", MICROS, "DateTime64(6, 'UTC')", "Processed by the worker; the version: the latest processing of an event wins."),
)
# fmt: on

IDENTITY = ("source", "tenant", "type", "event_id")
"""What makes two rows one event: sent again it replaces itself. Applications choose ids, and one that knows an id of another
tenant's must not replace that event. No tenant and an empty one are the same."""

NO_EVENTS = empty(EVENTS)
"""Shared by all batches that have none."""
