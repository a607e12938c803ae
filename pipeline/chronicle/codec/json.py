"""JSON records of Connect's JsonConverter to frames: the same frame as the Avro decoder's, with or without schemas.

msgspec reads each record into a struct made from its schema, which checks types and decodes base64 on the way.
"""

from __future__ import annotations

import base64
import binascii
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache, partial
from typing import Annotated, Any

import msgspec
import polars as pl

from chronicle.codec import rows
from chronicle.codec.columns import DECIMAL, Column, Kind, RowSchema, UnsupportedSchema, WriterSchema
from chronicle.codec.schema import parse_connect
from chronicle.codec.schemaless import infer

_NULL = msgspec.Raw(b"null")
_WRAPPER = {"schema", "payload"}
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})


@dataclass(frozen=True, slots=True)
class Payloads:
    """Records that share one schema."""

    schema: WriterSchema
    indices: tuple[int, ...]
    """Into the values given to `split`."""
    values: tuple[bytes, ...] = field(repr=False)
    """The payloads, without their schema."""


@dataclass(slots=True)
class _Group:
    indices: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)

    def add(self, index: int, payload: bytes) -> None:
        self.indices.append(index)
        self.payloads.append(payload)


def split(values: Sequence[bytes]) -> tuple[list[Payloads], dict[int, str]]:
    """Group JSON records by the schema they carry; those without one by their top-level fields, with inferred types.

    Returns the groups and {index: why it is bad} (not JSON, no object, a schema that is none).
    """
    bad: dict[int, str] = {}
    prefixes: dict[bytes, _Group] = {}  # everything before a payload → its group: spares parsing the schema again
    by_schema: dict[bytes, _Group] = {}
    by_shape: dict[frozenset[str], _Group] = {}
    for index, value in enumerate(values):
        for prefix, group in prefixes.items():
            if value.startswith(prefix):
                group.add(index, value[len(prefix) : -1])
                break
        else:
            try:
                members = _read_members(value)
                wrapped = members.keys() == _WRAPPER
                schema = bytes(members["schema"]) if wrapped else b"null"
                payload = bytes(members["payload"]) if wrapped else value
                if schema == b"null":
                    shape = frozenset(_read_members(payload) if wrapped else members)
                    by_shape.setdefault(shape, _Group()).add(index, payload)
                    continue
            except msgspec.MsgspecError:
                bad[index] = "the value is no JSON object"
                continue
            group = by_schema.setdefault(schema, _Group())
            group.add(index, payload)
            prefix = b'{"schema":' + schema + b',"payload":'
            if value == prefix + payload + b"}":
                prefixes[prefix] = group
    found: list[Payloads] = []
    for text, group in by_schema.items():
        _collect(group, partial(_embedded_for, text), found, bad)
    for group in by_shape.values():
        _collect(group, infer, found, bad)
    return found, bad


def _collect(
    group: _Group,
    schema_of: Callable[[Sequence[bytes]], tuple[WriterSchema, dict[int, str]]],
    found: list[Payloads],
    bad: dict[int, str],
) -> None:
    try:
        schema, wrong = schema_of(group.payloads)
        _decoder(schema)
    except UnsupportedSchema as error:
        bad.update(dict.fromkeys(group.indices, str(error)))
        return
    if not schema.columns:  # `{}`: no frame has rows without columns
        bad.update(dict.fromkeys(group.indices, "the value has no fields"))
        return
    bad.update((group.indices[at], detail) for at, detail in wrong.items())
    good = [at for at in range(len(group.indices)) if at not in wrong]
    if good:
        found.append(Payloads(schema, tuple(group.indices[at] for at in good), tuple(group.payloads[at] for at in good)))


def _embedded_for(text: bytes, _payloads: Sequence[bytes]) -> tuple[WriterSchema, dict[int, str]]:
    return _embedded(text), {}


@lru_cache(maxsize=4096)
def _embedded(text: bytes) -> WriterSchema:
    try:
        return parse_connect(msgspec.json.decode(text))
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UnsupportedSchema(f"the embedded schema is not a Connect schema ({type(error).__name__})") from None


def decode(values: Sequence[bytes], schema: WriterSchema) -> tuple[pl.DataFrame, dict[int, str]]:
    """Decode payloads (of `Payloads.values`) of one schema; returns as `codec.avro.decode` does."""
    return _decoder(schema).decode(values)


def decode_row_text(texts: Sequence[bytes | None], row: RowSchema) -> tuple[pl.DataFrame, dict[int, str]]:
    """Decode rows written by the JsonConverter (headers `__debezium.oldkey`, `__debezium.newkey`) to `row`'s columns.

    Returns one row per text (all null for None and for bad ones) and {index: why it is bad}.
    """
    there = [index for index, text in enumerate(texts) if text is not None]
    schema = WriterSchema(0, repr(row.columns), Kind.KEY, "", row.columns, row)
    frame, wrong = decode([_unwrapped(text) for text in texts if text is not None], schema)
    bad = {there[at]: detail for at, detail in wrong.items()}
    places: list[int | None] = [None] * len(texts)
    for place, index in enumerate(index for index in there if index not in bad):
        places[index] = place
    if not there or len(bad) == len(there):
        empty = pl.DataFrame(schema=schema.frame_schema())
        return empty.clear(len(texts)), bad
    return frame.select(pl.all().gather(pl.Series(places, dtype=pl.UInt32))), bad


def _unwrapped(text: bytes) -> bytes:
    try:
        members = _read_members(text)
    except msgspec.MsgspecError:
        return text
    return bytes(members["payload"]) if members.keys() == _WRAPPER else text


# One schema ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _decoder(schema: WriterSchema) -> Decoder:
    return Decoder(schema)


class Decoder:
    """Everything about decoding that depends on the schema alone.

    Raises:
        UnsupportedSchema: a field name that JSON cannot hold as it is.
    """

    def __init__(self, schema: WriterSchema) -> None:
        try:
            kind = _type(schema.columns[0]) if schema.bare else _struct(schema.columns)
            self._read = msgspec.json.Decoder(kind).decode
        except (ValueError, TypeError) as error:
            raise UnsupportedSchema(f"the embedded schema cannot be read ({type(error).__name__})") from None
        self._empty = pl.DataFrame(schema=schema.frame_schema())
        self._rows = rows.Rows(schema, lambda column: _fields(len(column.fields)), _convert)
        self._top: list[rows.Field] = [lambda value: value] if schema.bare else _fields(len(schema.columns))

    def decode(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, str]]:
        """As the module's `decode`."""
        records, indices, bad = self._records(values)
        frame, unfit = rows.keep_good(records, lambda part: self._rows.frame(part, self._top), self._empty)
        bad.update((indices[at], detail) for at, detail in unfit.items())
        return frame, bad

    def _records(self, values: Sequence[bytes]) -> tuple[list[Any], Sequence[int], dict[int, str]]:
        read = self._read
        try:
            return [read(value) for value in values], range(len(values)), {}
        except (msgspec.MsgspecError, RecursionError):
            pass
        records, indices, bad = [], [], {}
        for index, value in enumerate(values):
            try:
                records.append(read(value))
                indices.append(index)
            except (msgspec.MsgspecError, RecursionError) as error:
                bad[index] = f"the JSON does not fit its schema ({type(error).__name__})"
        return records, indices, bad


def _fields(count: int) -> list[rows.Field]:
    return rows.attributes(f"f{at}" for at in range(count))


def _struct(columns: Sequence[Column]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for at, column in enumerate(columns):
        kind = _type(column)
        if kind is msgspec.Raw:
            fields.append((f"f{at}", kind, msgspec.field(default=_NULL)))
        elif column.nullable:
            fields.append((f"f{at}", kind, msgspec.field(default=None)))
        else:
            fields.append((f"f{at}", kind))
    names = {f"f{at}": column.name for at, column in enumerate(columns)}
    return msgspec.defstruct("Record", fields, rename=names, gc=False, kw_only=True)


_INT32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


def _type(column: Column) -> Any:
    """The type msgspec reads a column's values as."""
    if column.as_text or column.semantic == DECIMAL:
        return msgspec.Raw  # exact: a number of JSON must not become a float on the way to a decimal
    kind = _bare_type(column)
    return kind | None if column.nullable else kind


def _bare_type(column: Column) -> Any:
    dtype = column.dtype
    if column.fields:
        return _struct(column.fields)
    if column.items is not None:
        items: Any = _type(column.items)
        return types.GenericAlias(list, (items,)) if isinstance(dtype, pl.List) else types.GenericAlias(dict, (str, items))
    if dtype.is_float():
        return float | str  # "NaN"
    kinds: dict[pl.DataType, Any] = {
        pl.Boolean(): bool,
        pl.Int32(): _INT32,
        pl.Int64(): _INT64,
        pl.Binary(): bytes,
    }
    return kinds.get(dtype, str)


def _convert(column: Column) -> rows.Convert | None:
    """msgspec's value to the transport dtype; None: as it is."""
    if column.as_text:
        return lambda raw: None if bytes(raw) == b"null" else bytes(raw).decode()
    if column.semantic == DECIMAL:
        return _convert_decimal(column)
    if column.dtype.is_float():
        return _float
    if column.items is not None:
        return _convert_items(column.items, isinstance(column.dtype, pl.Map))
    return _convert_fields(column.fields) if column.fields else None


def _float(value: float | str) -> float:
    if isinstance(value, str) and value not in NOT_FINITE:
        raise ValueError("a text is no number")
    return float(value)


def _convert_decimal(column: Column) -> rows.Convert:
    scale = int(column.params.get("scale", 0))
    number = isinstance(column.dtype, pl.Decimal)

    def convert(raw: msgspec.Raw) -> str | bytes | None:
        text = bytes(raw)
        if text == b"null":
            if not column.nullable:
                raise ValueError("a null where there can be none")
            return None
        if text.startswith(b'"'):  # decimal.format=BASE64: the unscaled number's bytes
            unscaled = int.from_bytes(_base64(text[1:-1]), "big", signed=True)
        else:
            shifted = Decimal(text.decode()).scaleb(scale)
            unscaled = int(shifted)
            if unscaled != shifted:
                raise ValueError("a decimal has more digits than its scale")
        if number:
            return rows.decimal_text(unscaled, scale)
        return unscaled.to_bytes((unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1, "big", signed=True)

    return convert


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a text is no base64") from None


def _convert_items(items: Column, is_map: bool) -> rows.Convert | None:
    item = _convert(items)
    if item is None:
        return None
    if is_map:
        return lambda value: {key: None if one is None else item(one) for key, one in value.items()}
    return lambda value: [None if one is None else item(one) for one in value]


def _convert_fields(fields: tuple[Column, ...]) -> rows.Convert:
    members = [(column.name, get, _convert(column)) for column, get in zip(fields, _fields(len(fields)), strict=True)]

    def convert(value: Any) -> dict[str, Any]:
        out = {}
        for name, get, item in members:
            one = get(value)
            out[name] = one if one is None or item is None else item(one)
        return out

    return convert
