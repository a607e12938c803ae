"""Audit records of events read back: the bytes that `codec.audit_events` writes, as rows of the events frame again.

For workers that read routes' topics, as `codec.audit_reading` is for changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import polars as pl

from chronicle.codec.audit_reading import (
    IDENTIFIER_BYTES,
    INSTANT,
    NOBODY,
    NOWHERE,
    OBJECT_OR_NULL,
    Actor,
    Endpoint,
    decoded,
    lists,
    text_of,
    without,
)
from chronicle.model.event_columns import EVENTS

_MARK = b'"kind":"event"'
_OUTCOMES = {"Success": "success", "Failure": "failure", "Unknown": "unknown", None: None}
_TIMES = ("time", "processed_at", "received_at")


class _Unmapped(msgspec.Struct, gc=False):
    action: str | None
    kind: Literal["event"]
    labels: list[str]
    occurred_at: str
    payload: msgspec.Raw
    policy: str
    priority: Literal["low", "normal", "high"]
    reason: str | None
    request_id: str | None
    resource_id: str | None
    resource_type: str | None
    source: str
    span_id: str | None
    tags: msgspec.Raw
    tenant: str | None
    trace_id: str | None
    type: str
    violations: list[str]


class _Metadata(msgspec.Struct, gc=False):
    uid: str


class _Core(msgspec.Struct, gc=False):
    actor: Actor | None
    message: str | None
    metadata: _Metadata
    src_endpoint: Endpoint | None
    status: Literal["Success", "Failure", "Unknown"] | None
    unmapped: _Unmapped


class _Meta(msgspec.Struct, gc=False):
    offset: int
    partition: int
    processed_at: str
    received_at: str
    topic: str


class _Record(msgspec.Struct, gc=False):
    core: _Core
    meta: _Meta


class _Enveloped(msgspec.Struct, gc=False):
    specversion: str
    data: _Record


@dataclass(frozen=True, slots=True)
class Read:
    """What a sequence of records says."""

    events: pl.DataFrame = field(repr=False)
    """Columns as in `model.event_columns.EVENTS`."""
    rows: Sequence[int]
    """Index of the record that each event was in."""
    unreadable: Sequence[int]
    """Indexes of records that are no audit record of an event."""


def maybe(value: bytes) -> bool:
    """Whether it may be an event's record: a quick look, true of all that are."""
    return _MARK in value


def events(values: Sequence[bytes]) -> Read:
    """The events in these records, in their order; CloudEvents are taken out of their envelopes."""
    records, rows, unreadable = decoded(values, _Record, _Enveloped, _possible)
    frame = _typed(_frame(records))
    bad = frame.select(pl.any_horizontal(frame[name].is_null() for name in (*_TIMES, "event_id"))).to_series()
    return Read(*without(bad, frame, rows, unreadable))


def _possible(record: _Record) -> bool:
    """What no type says: numbers within their columns, and JSON objects where there must be one."""
    row, meta = record.core.unmapped, record.meta
    documents = (bytes(memoryview(raw)[:1]) for raw in (row.payload, row.tags))
    return 0 <= meta.partition < 1 << 31 and 0 <= meta.offset < 1 << 63 and all(one in OBJECT_OR_NULL for one in documents)


def _frame(records: Sequence[_Record]) -> pl.DataFrame:
    """All columns; times and the identifier still as texts."""
    rows, metas = [record.core.unmapped for record in records], [record.meta for record in records]
    actors = [record.core.actor or NOBODY for record in records]
    columns: dict[str, list[Any]] = {
        "event_id": [record.core.metadata.uid for record in records],
        "time": [row.occurred_at for row in rows],
        "outcome": [_OUTCOMES[record.core.status] for record in records],
        "actor_id": [actor.user.uid for actor in actors],
        "actor_type": [actor.user.type for actor in actors],
        "actor_name": [actor.user.name for actor in actors],
        "session": [actor.session.uid for actor in actors],
        "description": [record.core.message for record in records],
        "ip": [(record.core.src_endpoint or NOWHERE).ip for record in records],
        "payload": [text_of(row.payload) for row in rows],
        "tags": [text_of(row.tags) for row in rows],
    }
    made = []
    for spec in EVENTS:
        values = columns.get(spec.name)
        if values is None:
            owners: Sequence[Any] = metas if spec.name in _Meta.__struct_fields__ else rows
            values = [getattr(one, spec.name) for one in owners]
        if spec.dtype == pl.List(pl.String):
            made.append(lists(spec.name, values))
        else:
            texts = spec.name in _TIMES or spec.name == "event_id"
            made.append(pl.Series(spec.name, values, dtype=pl.String if texts else spec.dtype))
    return pl.DataFrame(made)


def _typed(texts: pl.DataFrame) -> pl.DataFrame:
    """The events frame; null where a text is none of its type."""
    schema = {spec.name: spec.dtype for spec in EVENTS}
    identifier = pl.col("event_id").str.replace_all("-", "", literal=True).str.decode("hex", strict=False)
    return texts.with_columns(
        *(
            pl.col(name).str.to_datetime(INSTANT, time_unit="us", time_zone="UTC", strict=False).cast(schema[name])
            for name in _TIMES
        ),
        pl.when(identifier.bin.size() == IDENTIFIER_BYTES).then(identifier).alias("event_id"),
    )
