"""What a writer schema says about its records: columns, their physical types after decoding, and their meaning.

One description serves all decoders: an Avro schema of the registry (`parse_avro`), a Connect schema embedded by the
JsonConverter (`parse_connect`) and a guess from schemaless JSON (`infer`) become the same `WriterSchema`, so that the
same event has the same frame whatever its encoding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import polars as pl

from chronicle.codec.avro_schema import parse_avro
from chronicle.codec.columns import (
    DECIMAL,
    Column,
    Kind,
    RowSchema,
    UnsupportedSchema,
    WriterSchema,
    decimal_column,
    kind_of,
    row_of,
    struct_column,
    text_column,
)

__all__ = ["Column", "Kind", "RowSchema", "UnsupportedSchema", "WriterSchema", "parse_avro", "parse_connect"]

_CONNECT: Mapping[str, tuple[pl.DataType, int | None]] = {
    "boolean": (pl.Boolean(), None),
    "int8": (pl.Int32(), 8),
    "int16": (pl.Int32(), 16),
    "int32": (pl.Int32(), None),
    "int64": (pl.Int64(), None),
    "float": (pl.Float32(), None),
    "float32": (pl.Float32(), None),
    "double": (pl.Float64(), None),
    "float64": (pl.Float64(), None),
    "string": (pl.String(), None),
    "bytes": (pl.Binary(), None),
}


def parse_connect(schema: Mapping[str, Any]) -> WriterSchema:
    """The schema that a JsonConverter with `schemas.enable` embeds in each record.

    Raises:
        UnsupportedSchema: not a Connect schema.
    """
    return _parse_connect_text(json.dumps(schema, sort_keys=True, separators=(",", ":")))


@lru_cache(maxsize=4096)
def _parse_connect_text(text: str) -> WriterSchema:
    schema = json.loads(text)
    top = _connect_column("value", schema)
    bare = not top.fields
    columns = (top,) if bare else top.fields
    name = schema.get("name") or ""
    kind = Kind.OTHER if bare else kind_of(name, [column.name for column in columns])
    return WriterSchema(0, text, kind, name, columns, row_of(kind, columns), bare=bare)


def _connect_column(name: str, schema: Any) -> Column:
    if not isinstance(schema, dict) or not isinstance(schema.get("type"), str):
        raise UnsupportedSchema("the embedded schema is not a Connect schema")
    rest: dict[str, Any] = {
        "semantic": schema.get("name"),
        "nullable": bool(schema.get("optional", False)),
        "params": {key: str(value) for key, value in (schema.get("parameters") or {}).items()},
    }
    match schema["type"]:
        case "struct":
            fields = tuple(_connect_column(str(one["field"]), one) for one in schema.get("fields", ()))
            if any(not one.name for one in fields):
                raise UnsupportedSchema("a column without a name")
            return struct_column(name, fields, **rest) if fields else text_column(name, rest)
        case "array":
            items = _connect_column("item", schema["items"])
            return Column(name, pl.List(items.dtype), items=items, **rest)
        case "map":
            if schema["keys"].get("type") != "string":
                return text_column(name, rest)
            items = _connect_column("value", schema["values"])
            return Column(name, pl.Map(pl.String(), items.dtype), items=items, **rest)
        case kind if kind in _CONNECT:
            dtype, width = _CONNECT[kind]
            column = Column(name, dtype, width=width, **rest)
            return decimal_column(column) if column.semantic == DECIMAL else column
    raise UnsupportedSchema("the embedded schema has a type that Connect does not have")
