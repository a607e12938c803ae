"""Keys of records as text: raw for identities, as the policy writes them for everything that leaves.

Keys of many tables are alike (one `id` of 64 bits), so records are decoded by the layout of their key and not table by
table: a call of the column decoder costs as much as hundreds of small keys.
"""

from __future__ import annotations

import json as stdlib_json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from chronicle.codec import avro, json, types
from chronicle.codec.schema import Column, RowSchema, WriterSchema
from chronicle.model.dead_letters import Reason
from chronicle.stages.decode import JSON_HEAD, NO_HEAD, Indexes, Outcome, Records, Schemas, head_id
from chronicle.stages.treatments import Treated

NOTHING: Mapping[str, Treated] = {}


@dataclass(frozen=True, slots=True)
class Shape:
    """What all keys of one layout have in common, and the keys themselves."""

    columns: tuple[Column, ...]
    frame: pl.DataFrame = field(repr=False)
    """One column per key column, one row per record."""

    @property
    def names(self) -> tuple[str, ...]:
        """Key columns in the key's order."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a batch, by record index."""

    shapes: tuple[Shape, ...]
    shape: Indexes
    """Index into `shapes`; -1: no key, or none that could be read."""
    place: Indexes
    """Row in its shape's frame."""
    raw: pl.Series = field(repr=False)
    bad: frozenset[int]
    """Records whose key could not be read: dead letters already."""

    def written(self, rows: Indexes, treated: Mapping[str, Treated]) -> pl.Series:
        """Keys of these records, all of one shape, as they may leave."""
        shape = int(self.shape[rows[0]])
        if shape < 0 or not treated.keys() & set(self.shapes[shape].names):
            return self.raw.gather(pl.Series(rows)).alias("key")
        of_shape = self.shapes[shape]
        return key_text(of_shape.columns, of_shape.frame[self.place[rows]], treated)


def key_text(columns: Sequence[Column], frame: pl.DataFrame, treated: Mapping[str, Treated] = NOTHING) -> pl.Series:
    """Canonical texts of decoded keys; `frame` has one column per key column."""
    fields = [(column, pl.col(column.name)) for column in columns]
    made = {column.name: treated[column.name].text for column in columns if column.name in treated}
    replaced = {name: make(pl.col(name)) for name, make in made.items() if make is not None}  # a token, always text
    return frame.select(types.object_text(fields, replaced=replaced).alias("key")).to_series()


class KeyReader:
    """Reads keys; remembers one decoder per layout."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._layouts: dict[str, tuple[WriterSchema, bytes]] = {}
        self._layout_of: dict[bytes, tuple[WriterSchema, bytes]] = {}

    def read(
        self,
        records: Records,
        wanted: Sequence[tuple[bytes | None, Sequence[int]]],
        texts: Mapping[int, str | None],
        outcome: Outcome,
    ) -> Keys:
        """Keys of the wanted records, given as (head of the key, record indexes); the others stay without."""
        reading = _Reading(records, outcome)
        by_layout: dict[tuple[WriterSchema, bytes], list[tuple[bytes, Sequence[int]]]] = {}
        json_rows: list[int] = []
        for head, rows in wanted:
            if head == NO_HEAD:
                reading.fail(rows, Reason.WRONG_FRAME, "begins with neither magic byte 0 nor {")
            elif head == JSON_HEAD:
                json_rows += rows
            elif head is not None:
                layout = self._layout(head, texts)
                if isinstance(layout, _Unreadable):
                    reading.fail(rows, layout.reason, layout.detail, head_id(head))
                else:
                    by_layout.setdefault(layout, []).append((head, rows))
        for (schema, head), members in by_layout.items():
            reading.avro(schema, head, members)
        if json_rows:
            reading.json(json_rows)
        return reading.keys()

    def _layout(self, head: bytes, texts: Mapping[int, str | None]) -> tuple[WriterSchema, bytes] | _Unreadable:
        known = self._layout_of.get(head)
        if known is not None:
            return known
        schema = self._schemas.get(head, texts)
        if isinstance(schema, tuple):
            return _Unreadable(*schema)
        if schema.bare or not schema.columns:
            return _Unreadable(Reason.UNSUPPORTED_SCHEMA, "it has no columns")
        reader = stdlib_json.loads(schema.reader or "null")
        fields = reader.get("fields") if isinstance(reader, dict) else reader
        meaning = [(one.semantic, one.width, sorted(one.params.items())) for one in schema.columns]
        layout = self._layouts.setdefault(stdlib_json.dumps([fields, meaning]), (schema, head))
        self._layout_of[head] = layout
        return layout


def previous(columns: Sequence[Column], old_keys: Sequence[str], treated: Mapping[str, Treated]) -> tuple[pl.Series, pl.Series]:
    """Keys out of headers (`__debezium.oldkey`), as they may leave and raw; null where one does not fit the key's columns."""
    frame, _ = json.decode_row_text([text.encode() for text in old_keys], RowSchema(tuple(columns)))
    nothing = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    texts = (key_text(columns, frame, treated), key_text(columns, frame))
    written, raw = (pl.select(pl.when(~nothing).then(one)).to_series() for one in texts)
    return written, raw


@dataclass(frozen=True, slots=True)
class _Unreadable:
    reason: Reason
    detail: str


class _Reading:
    """The keys of one batch, layout by layout, into columns by record index."""

    def __init__(self, records: Records, outcome: Outcome) -> None:
        self._records, self._outcome = records, outcome
        self._failed: set[int] = set()
        self._shapes: list[Shape] = []
        self._shape = np.full(len(records), -1, np.int64)
        self._place = np.zeros(len(records), np.int64)
        self._indexes: list[Indexes] = []
        self._texts: list[pl.Series] = []

    def fail(self, rows: Sequence[int], reason: Reason, detail: str, schema_id: int | None = None) -> None:
        """These records are dead letters because of their keys."""
        self._outcome.fail(rows, reason, f"key: {detail}", schema_id)
        self._failed.update(rows)

    def avro(self, schema: WriterSchema, head: bytes, members: Sequence[tuple[bytes, Sequence[int]]]) -> None:
        """Keys of one layout under several schema ids, read as if all had the first one's."""
        rows: list[int] = []
        values: list[bytes] = []
        for own, indexes in members:
            rows += indexes
            raw = [self._records.keys[index] or b"" for index in indexes]
            values += raw if own == head else [head + one[len(head) :] for one in raw]
        frame, bad = avro.decode(values, schema)
        self._take(schema.columns, rows, frame, bad)

    def json(self, rows: Sequence[int]) -> None:
        """Keys in JSON, grouped by the schema they carry."""
        payloads, unreadable = json.split([self._records.keys[index] or b"" for index in rows])
        for index, detail in unreadable.items():
            self.fail([rows[index]], Reason.NOT_DECODABLE, detail)
        for one in payloads:
            mine = [rows[index] for index in one.indices]
            if one.schema.bare or not one.schema.columns:
                self.fail(mine, Reason.UNSUPPORTED_SCHEMA, "it has no columns")
                continue
            self._take(one.schema.columns, mine, *json.decode(one.values, one.schema))

    def _take(self, columns: tuple[Column, ...], rows: Sequence[int], frame: pl.DataFrame, bad: Mapping[int, str]) -> None:
        for index, detail in bad.items():
            self.fail([rows[index]], Reason.NOT_DECODABLE, detail)
        indexes = np.delete(np.asarray(rows, np.int64), list(bad)) if bad else np.asarray(rows, np.int64)
        self._shape[indexes] = len(self._shapes)
        self._place[indexes] = np.arange(len(indexes))
        self._shapes.append(Shape(columns, frame))
        self._indexes.append(indexes)
        self._texts.append(key_text(columns, frame))

    def keys(self) -> Keys:
        """What has been read."""
        count = len(self._records)
        if not self._texts:
            nothing = pl.Series("key", [None], dtype=pl.String).new_from_index(0, count)
            return Keys((), self._shape, self._place, nothing, frozenset(self._failed))
        indexes = np.concatenate(self._indexes)
        at = np.full(count, -1, np.int64)
        at[indexes] = np.arange(len(indexes))
        place = pl.Series("at", at)
        where = place.set(place < 0, None)
        raw = pl.concat(self._texts).gather(where)
        return Keys(tuple(self._shapes), self._shape, self._place, raw, frozenset(self._failed))
