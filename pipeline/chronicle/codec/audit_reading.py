"""Audit records read back: the bytes that `codec.audit` writes, as rows of the changes frame again.

For workers that read routes' topics, not raw ones. Record by record, because each may be wrong by itself. Events:
`codec.audit_events_reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import numpy as np
import polars as pl

from chronicle.codec import diff
from chronicle.codec.audit import ACTIVITIES
from chronicle.model.columns import CHANGES

R = TypeVar("R")
_HALF = pl.lit(1 << 64, pl.UInt128)
INSTANT = "%Y-%m-%dT%H:%M:%S%.6fZ"
_TIMES = ("committed_at", "captured_at", "processed_at", "received_at")
_TEXTS = ("previous_key", "before", "after", "tags", "extra")


class Uid(msgspec.Struct, gc=False):
    uid: str | None


class User(msgspec.Struct, gc=False):
    name: str | None
    type: str | None
    uid: str | None


class Actor(msgspec.Struct, gc=False):
    session: Uid
    user: User


class Endpoint(msgspec.Struct, gc=False):
    ip: str | None


NOBODY = Actor(Uid(None), User(None, None, None))
NOWHERE = Endpoint(None)


class _Unmapped(msgspec.Struct, gc=False):
    after: msgspec.Raw
    attribution: str
    before: msgspec.Raw
    before_known: bool
    changed: list[str]
    committed_at: str
    connector: str
    entity: str
    epoch: int
    extra: msgspec.Raw
    key: msgspec.Raw
    labels: list[str]
    operation: str
    policy: str
    position: str
    previous_entity: UUID | None
    previous_key: msgspec.Raw
    reason: str | None
    request_id: str | None
    schema: str
    source: str
    table: str
    tags: msgspec.Raw
    tenant: str | None
    transaction_id: str | None
    unavailable: list[str]
    violations: list[str]


class _Metadata(msgspec.Struct, gc=False):
    uid: str


class _Core(msgspec.Struct, gc=False):
    actor: Actor | None
    metadata: _Metadata
    src_endpoint: Endpoint | None
    unmapped: _Unmapped


class _Meta(msgspec.Struct, gc=False):
    captured_at: str
    enriched: msgspec.Raw
    offset: int
    partition: int
    processed_at: str
    received_at: str
    schema_id: int
    topic: str
    transaction_order: int | None


class _Record(msgspec.Struct, gc=False):
    core: _Core
    meta: _Meta


class _Enveloped(msgspec.Struct, gc=False):
    specversion: str
    data: _Record


@dataclass(frozen=True, slots=True)
class Read:
    """What a sequence of records says."""

    changes: pl.DataFrame = field(repr=False)
    """Columns as in `model.columns.CHANGES`."""
    rows: Sequence[int]
    """Index of the record that each change was in."""
    unreadable: Sequence[int]
    """Indexes of records that are no audit record of a change."""


def changes(values: Sequence[bytes | None]) -> Read:
    """The changes in these records, in their order; CloudEvents are taken out of their envelopes."""
    records, rows, unreadable = decoded(values, _Record, _Enveloped, _possible)
    texts = _frame(records)
    frame = _typed(texts)
    wrong = texts.select(pl.any_horizontal(frame[name].is_null() for name in (*_TIMES, "event_id", "entity", "position_hi")))
    bad = wrong.to_series() if len(texts) else pl.Series([], dtype=pl.Boolean)
    return Read(*without(bad, frame, rows, unreadable))


def decoded(
    values: Sequence[bytes | None], record: type[R], enveloped: Any, possible: Callable[[R], bool]
) -> tuple[list[R], list[int], list[int]]:
    """Those that are a `record`, or a CloudEvent (`enveloped`) whose data is one, and are `possible`; the indexes of these,
    and of the others."""
    plain, wrapped = msgspec.json.Decoder(record), msgspec.json.Decoder(enveloped)
    records: list[R] = []
    rows: list[int] = []
    unreadable: list[int] = []
    for index, value in enumerate(values):
        try:
            found = plain.decode(value or b"")
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            try:
                found = wrapped.decode(value or b"").data
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                unreadable.append(index)
                continue
        if possible(found):
            records.append(found)
            rows.append(index)
        else:
            unreadable.append(index)
    return records, rows, unreadable


def without(
    bad: pl.Series, frame: pl.DataFrame, rows: list[int], unreadable: list[int]
) -> tuple[pl.DataFrame, list[int], list[int]]:
    """The frame without rows in which a text was none of its type; their records are unreadable as well."""
    if not bad.any():
        return frame, rows, unreadable
    late = {row for row, is_bad in zip(rows, bad, strict=True) if is_bad}
    return frame.filter(~bad), [row for row in rows if row not in late], sorted([*unreadable, *late])


def _possible(record: _Record) -> bool:
    """What no type says: numbers within their columns, an operation, JSON objects where there must be one."""
    row, meta = record.core.unmapped, record.meta
    order = meta.transaction_order
    return (
        row.operation in ACTIVITIES
        and 0 <= row.epoch < 1 << 8
        and 0 <= meta.partition < 1 << 31
        and 0 <= meta.offset < 1 << 63
        and 0 <= meta.schema_id < 1 << 32
        and (order is None or 0 <= order < 1 << 64)
        and all(bytes(memoryview(raw)[:1]) in OBJECT_OR_NULL for raw in (row.after, row.before, row.key, row.previous_key))
        and all(bytes(memoryview(raw)[:1]) in OBJECT_OR_NULL for raw in (row.tags, meta.enriched, row.extra))
    )


OBJECT_OR_NULL = frozenset({b"{", b"n"})


def text_of(raw: msgspec.Raw) -> str | None:
    """JSON as it is written; None for null."""
    text = str(memoryview(raw), "utf-8")
    return None if text == "null" else text


def _frame(records: Sequence[_Record]) -> pl.DataFrame:
    """All columns; times, identifiers and positions still as texts."""
    rows, metas = [record.core.unmapped for record in records], [record.meta for record in records]
    actors = [record.core.actor or NOBODY for record in records]
    columns: dict[str, list[Any]] = {
        "event_id": [record.core.metadata.uid for record in records],
        "previous_entity": [row.previous_entity.bytes if row.previous_entity else None for row in rows],
        "key": [text_of(row.key) or "" for row in rows],
        "stub": [""] * len(rows),
        "attributed_at": [None] * len(rows),  # of the moment, so that no record has it
        "actor_id": [actor.user.uid for actor in actors],
        "actor_type": [actor.user.type for actor in actors],
        "actor_name": [actor.user.name for actor in actors],
        "session": [actor.session.uid for actor in actors],
        "ip": [(record.core.src_endpoint or NOWHERE).ip for record in records],
        "position_hi": [row.position for row in rows],
        "position_lo": [],
    }
    columns["enriched"] = [text_of(meta.enriched) for meta in metas]
    for name in _TEXTS:
        columns[name] = [text_of(getattr(row, name)) for row in rows]
    texts = {*_TIMES, "event_id", "entity", "position_hi"}
    made = []
    for spec in CHANGES:
        values = columns.get(spec.name)
        if values is None:
            owners: Sequence[Any] = metas if spec.name in _Meta.__struct_fields__ else rows
            values = [getattr(one, spec.name) for one in owners]
        if spec.dtype == pl.List(pl.String):
            made.append(lists(spec.name, values))
        elif spec.name == "position_lo":
            made.append(pl.Series(spec.name, [None], dtype=spec.dtype).new_from_index(0, len(rows)))
        else:
            made.append(pl.Series(spec.name, values, dtype=pl.String if spec.name in texts else spec.dtype))
    return pl.DataFrame(made)


def lists(name: str, values: Sequence[list[str]]) -> pl.Series:
    """Few distinct lists, many rows."""
    places: dict[tuple[str, ...], int] = {}
    of_row = [places.setdefault(tuple(one), len(places)) for one in values]
    return diff.gather(name, list(places), np.array(of_row, np.int64))


def _typed(texts: pl.DataFrame) -> pl.DataFrame:
    """The changes frame; null where a text is none of its type."""
    schema = {spec.name: spec.dtype for spec in CHANGES}
    position = pl.col("position_hi").cast(pl.UInt128, strict=False)
    identifiers = [
        pl.col(name).str.replace_all("-", "", literal=True).str.decode("hex", strict=False) for name in ("event_id", "entity")
    ]
    return texts.with_columns(
        *(
            pl.col(name).str.to_datetime(INSTANT, time_unit="us", time_zone="UTC", strict=False).cast(schema[name])
            for name in _TIMES
        ),
        *(pl.when(one.bin.size() == IDENTIFIER_BYTES).then(one) for one in identifiers),
        (position // _HALF).cast(pl.UInt64).alias("position_hi"),
        (position % _HALF).cast(pl.UInt64).alias("position_lo"),
    )


IDENTIFIER_BYTES = 16
