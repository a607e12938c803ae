"""The column table of alerts: what a processor says somebody should look at, linked to the change that made it say so.

ClickHouse's DDL (`sinks/ddl/0007_alerts.sql`) follows from it; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b

import polars as pl

from chronicle.model.columns import MICROS, ColumnSpec
from chronicle.model.identity import DIGEST_BYTES, SEPARATOR


class Severity(StrEnum):
    """How soon somebody should look."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


# fmt: off
ALERTS: tuple[ColumnSpec, ...] = (
    ColumnSpec("alert_id", pl.Binary, "UUID", "Hash of the rule and its subject (16 bytes): the same on every run."),
    ColumnSpec("rule", pl.String, "LowCardinality(String)", "Which rule of the processor."),
    ColumnSpec("severity", pl.String, "LowCardinality(String)", "low, medium, high or critical."),
    ColumnSpec("title", pl.String, "String", "What happened, for a person."),
    ColumnSpec("processor", pl.String, "LowCardinality(String)", "Which processor raised it."),
    ColumnSpec("source", pl.String, "LowCardinality(String)", "As in the change."),
    ColumnSpec("schema", pl.String, "LowCardinality(String)", "As in the change."),
    ColumnSpec("table", pl.String, "LowCardinality(String)", "As in the change."),
    ColumnSpec("operation", pl.String, "LowCardinality(String)", "As in the change."),
    ColumnSpec("entity", pl.Binary, "UUID", "The row it is about."),
    ColumnSpec("event_id", pl.Binary, "UUID", "The change it is about; of many, one of them."),
    ColumnSpec("transaction_id", pl.String, "Nullable(String)", "As in the change."),
    ColumnSpec("actor_id", pl.String, "Nullable(String)", "As in the change."),
    ColumnSpec("tenant", pl.String, "LowCardinality(Nullable(String))", "As in the change."),
    ColumnSpec("occurred_at", MICROS, "DateTime64(6, 'UTC')", "Commit of the change in the database."),
    ColumnSpec("raised_at", MICROS, "DateTime64(6, 'UTC')", "When the processor ran; the version: the latest wins."),
    ColumnSpec("extra", pl.String, "Nullable(String)", "The columns that the processor named, as a JSON object."),
)
# fmt: on

_PERSON = b"chronicle.alert"


def alert_ids(subjects: Sequence[tuple[str, ...]]) -> list[bytes]:
    """16 bytes for each (rule, what it is about …). Not keyed: event ids are, and the other parts stand beside it."""
    return [
        blake2b(SEPARATOR.join(one).encode(), digest_size=DIGEST_BYTES, person=_PERSON, usedforsecurity=False).digest()
        for one in subjects
    ]
