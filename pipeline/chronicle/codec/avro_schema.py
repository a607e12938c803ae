"""An Avro schema of the registry, as columns and as the reader's schema that every decoder accepts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import polars as pl

from chronicle.codec.columns import (
    DECIMAL,
    DECIMAL_DIGITS_MAX,
    Column,
    Kind,
    UnsupportedSchema,
    WriterSchema,
    decimal_column,
    kind_of,
    row_of,
    struct_column,
    text_column,
)

_AVRO: Mapping[str, pl.DataType] = {
    "boolean": pl.Boolean(),
    "int": pl.Int32(),
    "long": pl.Int64(),
    "float": pl.Float32(),
    "double": pl.Float64(),
    "string": pl.String(),
    "bytes": pl.Binary(),
}


@lru_cache(maxsize=4096)
def parse_avro(id: int, text: str) -> WriterSchema:
    """An Avro schema of the registry, as Connect's Avro converters write it (`connect.name` and so on) or plain.

    Raises:
        UnsupportedSchema: not an Avro schema, or one without any column form.
    """
    walk = _AvroWalk()
    try:
        schema = json.loads(text)
        top, reader = walk.column("value", schema, "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsupportedSchema(f"the schema with id {id} is not an Avro schema ({type(error).__name__})") from None
    bare = not top.fields
    columns = (top,) if bare else top.fields
    name = (schema.get("connect.name") or walk.full_name(schema, "")) if isinstance(schema, dict) and not bare else ""
    kind = Kind.OTHER if bare else kind_of(name, [column.name for column in columns])
    row = row_of(kind, columns)
    return WriterSchema(id, text, kind, name, columns, row, json.dumps(reader), columnar=walk.columnar, bare=bare)


class _AvroWalk:
    """One pass over an Avro schema: its columns, and the reader's copy that keeps only what defines the binary layout.

    The copy names its types r0, r1, …, because arrow-avro resolves no name with a dot in it. It leaves out defaults,
    documentation and every logical type but a decimal that fits 38 digits, because one annotation that a decoder refuses
    (a negative scale, 64 digits) would otherwise make the whole table unreadable.
    """

    def __init__(self) -> None:
        self.columnar = True
        self._named: dict[str, tuple[str, Column | None]] = {}
        """Full name of a type that was begun → its name in the copy, and its column once it is complete."""

    @staticmethod
    def full_name(schema: Mapping[str, Any], namespace: str) -> str:
        name = str(schema["name"])
        space = schema.get("namespace", namespace)
        return name if "." in name or not space else f"{space}.{name}"

    def _define(self, schema: Mapping[str, Any], namespace: str) -> tuple[str, str]:
        """Begin a named type; returns its full name and its name in the copy."""
        full = self.full_name(schema, namespace)
        alias = f"r{len(self._named)}"
        self._named[full] = (alias, None)
        return full, alias

    def column(self, name: str, schema: Any, namespace: str) -> tuple[Column, Any]:
        """The column and the reader's schema."""
        if not isinstance(schema, dict):
            other = self._union if isinstance(schema, list) else self._reference
            return other(name, schema, namespace)
        kind = schema["type"]
        if kind in ("record", "array", "map"):
            nested = self._record if kind == "record" else self._container
            return nested(name, schema, namespace)
        if kind in ("enum", "fixed"):
            return self._layout(name, kind, schema, namespace)
        if isinstance(kind, str) and kind in _AVRO:
            return self._primitive(name, kind, schema)
        return self.column(name, kind, namespace)  # {"type": {"type": …}}, or a name

    def _layout(self, name: str, kind: str, schema: Mapping[str, Any], namespace: str) -> tuple[Column, Any]:
        full, alias = self._define(schema, namespace)
        layout = {key: schema[key] for key in ("symbols", "size") if key in schema}
        dtype: pl.DataType = pl.String() if kind == "enum" else pl.Binary()
        column = Column(name, dtype, **self._rest(schema))
        self._named[full] = (alias, column)
        return column, {"type": kind, "name": alias, **layout}

    def _container(self, name: str, schema: Mapping[str, Any], namespace: str) -> tuple[Column, Any]:
        rest = self._rest(schema)
        if schema["type"] == "array":
            items, reader = self.column("item", schema["items"], namespace)
            return Column(name, pl.List(items.dtype), items=items, **rest), {"type": "array", "items": reader}
        items, reader = self.column("value", schema["values"], namespace)
        return Column(name, pl.Map(pl.String(), items.dtype), items=items, **rest), {"type": "map", "values": reader}

    def _primitive(self, name: str, kind: str, schema: Mapping[str, Any]) -> tuple[Column, Any]:
        width = {"int8": 8, "int16": 16}.get(schema.get("connect.type", ""))
        column = Column(name, _AVRO[kind], width=width, **self._rest(schema))
        if column.semantic == DECIMAL and kind == "bytes":
            column = decimal_column(column)
            if isinstance(column.dtype, pl.Decimal):
                # more digits than declared do no harm, so that what is read does not depend on the declaration
                return column, {
                    "type": "bytes",
                    "logicalType": "decimal",
                    "precision": DECIMAL_DIGITS_MAX,
                    "scale": column.dtype.scale,
                }
        return column, kind

    def _record(self, name: str, schema: Mapping[str, Any], namespace: str) -> tuple[Column, Any]:
        full, alias = self._define(schema, namespace)
        space = full.rpartition(".")[0]
        fields, readers = [], []
        for one in schema["fields"]:
            column, reader = self.column(str(one["name"]), one["type"], space)
            fields.append(column)
            readers.append({"name": column.name, "type": reader})
        rest = self._rest(schema)
        if not fields:  # Arrow has no struct without fields
            self.columnar = False
        whole = struct_column(name, tuple(fields), **rest) if fields else text_column(name, rest)
        self._named[full] = (alias, whole)
        return whole, {"type": "record", "name": alias, "fields": readers}

    def _reference(self, name: str, reference: str, namespace: str) -> tuple[Column, Any]:
        if reference in _AVRO:
            return Column(name, _AVRO[reference], nullable=False), reference
        if reference == "null":
            self.columnar = False
            return text_column(name, {}), reference
        full = reference if "." in reference or not namespace else f"{namespace}.{reference}"
        alias, column = self._named[full if full in self._named else reference]
        if column is None:  # inside its own definition
            self.columnar = False
            return text_column(name, {"nullable": False}), alias
        return replace(column, name=name), alias

    def _union(self, name: str, branches: list[Any], namespace: str) -> tuple[Column, Any]:
        pairs = [("null", "null") if one == "null" else self.column(name, one, namespace) for one in branches]
        readers = [reader for _, reader in pairs]
        columns = [column for column, _ in pairs if isinstance(column, Column)]
        nullable = len(columns) < len(branches)
        if len(columns) == 1 and nullable:
            return replace(columns[0], nullable=True), readers
        self.columnar = False
        return text_column(name, {"nullable": nullable}), readers

    @staticmethod
    def _rest(schema: Mapping[str, Any]) -> dict[str, Any]:
        params = {key: str(value) for key, value in (schema.get("connect.parameters") or {}).items()}
        semantic = schema.get("connect.name")
        if semantic is None and schema.get("logicalType") == "decimal" and schema["type"] == "bytes":
            semantic = DECIMAL  # a producer that is not Connect
            params |= {"scale": str(schema.get("scale", 0)), "connect.decimal.precision": str(schema.get("precision", ""))}
        return {"semantic": semantic, "nullable": False, "params": params}
