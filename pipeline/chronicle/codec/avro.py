"""Avro records to frames: many datums of one writer schema in one call of the column decoder, poison kept apart.

The datums, Confluent frame included, become one in-memory Avro container block whose record is (head, datum, canary).
Head and canary say whether a datum was too short or too long: that shifts what follows, and a block that does not come
back with every head and canary in its place is not believed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any

import fastavro
import numpy as np
import polars as pl
from polars_avro._avro_rs import AvroSource  # read_avro adds the lazy engine: 2 ms a call, five times this at 100 rows

from chronicle.codec import rows
from chronicle.codec.columns import Column, WriterSchema

HEAD_BYTES = 5  # magic byte 0, schema id in 4 bytes big-endian
REFUSED_MAX = 8  # good records that a block refused, before the column decoder is no longer tried
BLOCK_ROWS_MAX = 32_768  # polars-avro's own batch: a block gives one chunk
_SYNC = b"chronicle-block!"


def zigzag(number: int) -> bytes:
    """Avro's encoding of a non-negative long."""
    number <<= 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


# 8 bytes after each datum, an Avro double: a fixed pattern and the row's number. Bytes too many at the end of a datum
# never look like it, as they could like a plain number.
_CANARIES = np.arange(BLOCK_ROWS_MAX, dtype="<u8") | np.uint64(0x4368726F << 32)
_CANARY_BYTES = [canary.tobytes() for canary in _CANARIES]


def decode(values: Sequence[bytes], schema: WriterSchema) -> tuple[pl.DataFrame, dict[int, str]]:
    """Decode records that all have the Confluent frame (magic byte 0, 4-byte schema id) of one schema.

    Returns the frame of the good records in their order (columns: the record's fields, `schema.frame_schema()`) and
    {index in `values`: why it is bad} for the others. A detail never holds data.
    """
    return _decoder(schema).decode(values)


@lru_cache(maxsize=4096)
def _decoder(schema: WriterSchema) -> Decoder:
    return Decoder(schema)


class Decoder:
    """Everything about decoding that depends on the writer schema alone."""

    def __init__(self, schema: WriterSchema) -> None:
        self.schema = schema
        self.columnar = schema.columnar
        """Whether blocks are tried; turned off for good when no block reads although the records in it do."""
        self._proven = False
        self._refused = 0
        reader = json.loads(schema.reader or '"null"')
        self._empty = pl.DataFrame(schema=schema.frame_schema())
        self._head = _container_head(reader)
        self._fastavro = fastavro.parse_schema(_without_decimals(reader))
        self._rows = rows.Rows(schema, _fields, _convert)
        self._top = [_identity] if schema.bare else [itemgetter(column.name) for column in schema.columns]
        self._casts = [pl.col(one.name).cast(one.dtype) for one in schema.columns] if _has_enum(reader) else []

    def decode(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, str]]:
        """As the module's `decode`."""
        parts: list[pl.DataFrame] = []
        bad: dict[int, str] = {}
        for lo in range(0, len(values), BLOCK_ROWS_MAX):
            self._range(values[lo : lo + BLOCK_ROWS_MAX], lo, parts, bad)
        return (pl.concat(parts) if parts else self._empty), bad

    def _range(self, values: Sequence[bytes], at: int, parts: list[pl.DataFrame], bad: dict[int, str]) -> None:
        """Decode these values, which begin at index `at`; halve what fails as a block, down to single records.

        A record is good when a block of it alone reads, or else when fastavro reads it: a verdict that does not depend
        on its neighbours, so that the same records give the same result in any batch.
        """
        frame = self._block(values) if self.columnar else None
        if frame is not None:
            self._proven = True
            parts.append(frame)
        elif self.columnar and len(values) > 1:
            middle = len(values) // 2
            self._range(values[:middle], at, parts, bad)
            self._range(values[middle:], at + middle, parts, bad)
        else:
            frame, wrong = self._row_by_row(values)
            bad.update((at + index, detail) for index, detail in wrong.items())
            if len(frame):
                parts.append(frame)
                self._suspect()

    def _suspect(self) -> None:
        """A good record that its block refused: after a few, and no block that ever read, the schema is the reason."""
        self._refused += 1
        if self._refused >= REFUSED_MAX and not self._proven:
            self.columnar = False

    def _block(self, values: Sequence[bytes]) -> pl.DataFrame | None:
        """One call of the column decoder; None when it cannot be believed."""
        count = len(values)
        body = b"".join(chain.from_iterable(zip(values, _CANARY_BYTES, strict=False)))
        container = b"".join((self._head, zigzag(count), zigzag(len(body)), body, _SYNC))
        try:
            source = AvroSource([lambda: nullcontext(io.BytesIO(container))], False, False)
            # Exactly one batch of exactly this size, and never a second one: arrow-avro 59 loops without end when it
            # looks for more rows in a block that has bytes left, which is what a datum that is too long leads to.
            batch = pl.DataFrame(next(source.batch_iter(count, None)))
            if len(batch) != count:
                return None
            head, datum, canary = batch
            if not np.array_equal(canary.to_numpy().view("<u8"), _CANARIES[:count]):
                return None
            if not (head == pl.Series([values[0][:HEAD_BYTES]])).all():
                return None
            frame = datum.alias("value").to_frame() if self.schema.bare else datum.struct.unnest()
            return frame.with_columns(self._casts) if self._casts else frame
        except BaseException as error:  # PanicException is a BaseException
            if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                raise
            return None

    def _row_by_row(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, str]]:
        bad: dict[int, str] = {}
        records, indices = [], []
        for index, value in enumerate(values):
            try:
                records.append(self._row(value))
                indices.append(index)
            except Exception as error:  # noqa: BLE001  whatever fastavro raises on foreign bytes: one dead letter
                bad[index] = f"the bytes do not fit their Avro schema ({type(error).__name__})"
        frame, unfit = rows.keep_good(records, lambda part: self._rows.frame(part, self._top), self._empty)
        bad.update((indices[index], detail) for index, detail in unfit.items())
        return frame, bad

    def _row(self, value: bytes) -> Any:
        stream = io.BytesIO(value)
        stream.seek(HEAD_BYTES)
        record = fastavro.schemaless_reader(stream, self._fastavro, None)
        if stream.tell() != len(value):
            raise TrailingBytes
        return record


class TrailingBytes(ValueError):
    """The datum ends before its record does."""


def _container_head(reader: Any) -> bytes:
    schema = {
        "type": "record",
        "name": "chronicle.Row",
        "fields": [
            {"name": "head", "type": {"type": "fixed", "name": "chronicle.Head", "size": HEAD_BYTES}},
            {"name": "datum", "type": reader},
            {"name": "canary", "type": "double"},
        ],
    }
    meta = {b"avro.schema": json.dumps(schema).encode(), b"avro.codec": b"null"}
    pairs = b"".join(zigzag(len(key)) + key + zigzag(len(value)) + value for key, value in meta.items())
    return b"Obj\x01" + zigzag(len(meta)) + pairs + zigzag(0) + _SYNC


def _without_decimals(reader: Any) -> Any:
    """The reader's schema with decimals as bytes: exact whatever their number of digits."""
    if isinstance(reader, list):
        return [_without_decimals(one) for one in reader]
    if isinstance(reader, dict):
        if "logicalType" in reader:
            return reader["type"]
        return {key: _without_decimals(value) for key, value in reader.items()}
    return reader


def _has_enum(reader: Any) -> bool:
    if isinstance(reader, list):
        return any(_has_enum(one) for one in reader)
    return isinstance(reader, dict) and (reader.get("type") == "enum" or any(_has_enum(one) for one in reader.values()))


def _identity(value: Any) -> Any:
    return value


def _fields(column: Column) -> list[Callable[[Any], Any]]:
    return [itemgetter(one.name) for one in column.fields]


def _convert(column: Column) -> rows.Convert | None:
    """fastavro's value to the transport dtype; None: as it is."""
    if column.as_text:
        return rows.json_text
    if isinstance(column.dtype, pl.Decimal):
        scale = column.dtype.scale
        return lambda value: rows.decimal_text(int.from_bytes(value, "big", signed=True), scale)
    if column.items is not None:
        return _convert_items(column.items, isinstance(column.dtype, pl.Map))
    return _convert_fields(column.fields) if column.fields else None


def _convert_items(items: Column, is_map: bool) -> rows.Convert | None:
    item = _convert(items)
    if item is None:
        return None
    if is_map:
        return lambda value: {key: None if one is None else item(one) for key, one in value.items()}
    return lambda value: [None if one is None else item(one) for one in value]


def _convert_fields(fields: tuple[Column, ...]) -> rows.Convert | None:
    converts = [(one.name, convert) for one in fields if (convert := _convert(one)) is not None]
    if not converts:
        return None
    return lambda value: value | {name: None if value[name] is None else convert(value[name]) for name, convert in converts}
