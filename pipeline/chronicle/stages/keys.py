"""Keys of records as text: raw for identities, sanitized for everything that leaves.

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
from chronicle.policy.names import looks_secret
from chronicle.stages import sanitize
from chronicle.stages.decode import JSON_HEAD, NO_HEAD, Indexes, Outcome, Records, Schemas, head_id


@dataclass(frozen=True, slots=True)
class Shape:
    """What all keys of one layout have in common."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Key columns in the key's order."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True)
class KeyTexts:
    """Canonical key texts of some records."""

    raw: pl.Series = field(repr=False)
    clean: pl.Series = field(repr=False)
    """Sanitized; the same series where nothing had to be."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a batch, by record index."""

    shapes: tuple[Shape, ...]
    shape: Indexes
    """Index into `shapes`; -1: no key, or none that could be read."""
    raw: pl.Series = field(repr=False)
    clean: pl.Series = field(repr=False)
    bad: frozenset[int]
    """Records whose key could not be read: dead letters already."""


def key_texts(columns: Sequence[Column], frame: pl.DataFrame, token_key: bytes) -> KeyTexts:
    """Texts of decoded keys; `frame` has one column per key column."""
    fields = [(column, pl.col(column.name)) for column in columns]
    raw = frame.select(types.object_text(fields).alias("key")).to_series()
    secret = [column for column in columns if looks_secret(column.name)]
    if not secret:
        return KeyTexts(raw, raw)
    clear = frame.select(types.value_text(column, pl.col(column.name)).alias(column.name) for column in secret)
    tokens = [sanitize.tokens(token_key, one).alias(f"token {one.name}") for one in clear.iter_columns()]
    replaced = {column.name: pl.col(f"token {column.name}") for column in secret}
    clean = frame.hstack(tokens).select(types.object_text(fields, replaced=replaced).alias("key")).to_series()
    return KeyTexts(raw, clean)


class KeyReader:
    """Reads keys; remembers one decoder per layout."""

    def __init__(self, schemas: Schemas, identity_key: bytes) -> None:
        self._schemas = schemas
        self._token_key = sanitize.token_key(identity_key)
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
        reading = _Reading(records, outcome, self._token_key)
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

    def previous(self, columns: Sequence[Column], old_keys: Sequence[str]) -> KeyTexts:
        """Keys out of headers (`__debezium.oldkey`); null where a header does not fit the key's columns."""
        frame, _ = json.decode_row_text([text.encode() for text in old_keys], RowSchema(tuple(columns)))
        texts = key_texts(columns, frame, self._token_key)
        nothing = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
        raw, clean = (pl.select(pl.when(~nothing).then(one)).to_series().rename("key") for one in (texts.raw, texts.clean))
        return KeyTexts(raw, clean)

    def tokens(self, texts: pl.Series) -> pl.Series:
        """Tokens for a column of texts."""
        return sanitize.tokens(self._token_key, texts)

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


@dataclass(frozen=True, slots=True)
class _Unreadable:
    reason: Reason
    detail: str


class _Reading:
    """The keys of one batch, layout by layout, into columns by record index."""

    def __init__(self, records: Records, outcome: Outcome, token_key: bytes) -> None:
        self._records, self._outcome, self._token_key = records, outcome, token_key
        self._failed: set[int] = set()
        self._shapes: list[Shape] = []
        self._shape = np.full(len(records), -1, np.int64)
        self._indexes: list[Indexes] = []
        self._texts: list[KeyTexts] = []

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
        self._shapes.append(Shape(columns))
        self._indexes.append(indexes)
        self._texts.append(key_texts(columns, frame, self._token_key))

    def keys(self) -> Keys:
        """What has been read."""
        count = len(self._records)
        if not self._texts:
            nothing = pl.Series("key", [None], dtype=pl.String).new_from_index(0, count)
            return Keys((), self._shape, nothing, nothing, frozenset(self._failed))
        indexes = np.concatenate(self._indexes)
        at = np.full(count, -1, np.int64)
        at[indexes] = np.arange(len(indexes))
        place = pl.Series("at", at)
        where = place.set(place < 0, None)
        raw = pl.concat([one.raw for one in self._texts]).gather(where)
        same = all(one.clean is one.raw for one in self._texts)
        clean = raw if same else pl.concat([one.clean for one in self._texts]).gather(where)
        return Keys(tuple(self._shapes), self._shape, raw, clean, frozenset(self._failed))
