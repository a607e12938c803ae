"""Real values of every column type, from Debezium's records to ClickHouse's own types and back."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.codec import avro, types
from chronicle.codec.columns import Column, Kind, WriterSchema
from chronicle.codec.schema import parse_avro
from chronicle.sinks.engines import quoted
from tests.unit.codec_events import DATABASES, events, pairs

TEXTUAL = (
    "Nullable(Int",
    "Nullable(UInt",
    "Nullable(UUID",
    "Nullable(Date",
    "Nullable(Decimal",
    "Nullable(Enum",
    "Nullable(String",
)
"""Types whose text in ClickHouse is comparable with the canonical text; floats, JSON and arrays are compared elsewhere."""


def tables(database: str) -> Iterator[tuple[WriterSchema, pl.DataFrame]]:
    """Each captured table's rows as they were after a change."""
    texts, _ = events(database)
    for id_, found in pairs(database).items():
        schema = parse_avro(id_, texts[id_])
        if schema.kind is Kind.ENVELOPE and schema.row is not None:
            frame, bad = avro.decode([pair.avro for pair in found], schema)
            assert not bad
            rows = frame.filter(pl.col("after").is_not_null()).select("after")
            if len(rows):
                yield schema, rows


def values(rows: pl.DataFrame, expression: pl.Expr) -> list[Any]:
    return rows.select(expression.alias("value"))["value"].to_list()


def same(kind: str, source: str, stored: str) -> bool:
    """Equal but for ClickHouse's way to write a time, and for zeros at a decimal's end."""
    if "DateTime" in kind:
        return source.replace("T", " ").replace("Z", "") == stored
    return Decimal(source) == Decimal(stored) if "Decimal" in kind else source == stored


@pytest.mark.parametrize("database", DATABASES)
def test_a_mirror_column_holds_the_source_value_or_null_where_its_type_cannot(
    database: str, clickhouse: config.ClickHouse, store: Client
) -> None:
    """Every captured table of both databases: NULL exactly where predicted, all else equal in text."""
    wrong, compared = [], 0
    for number, (schema, rows) in enumerate(tables(database)):
        columns = schema.row.columns if schema.row else ()
        table = f"values_{number}"
        kinds = ", ".join(f"{quoted(column.name)} {types.clickhouse_type(column)}" for column in columns)
        store.command(f"CREATE TABLE {table} (_i UInt32, {kinds}) ENGINE = MergeTree ORDER BY _i")
        typed = rows.select(types.mirror_value(column, field(column)).alias(column.name) for column in columns)
        store.insert_arrow(table, typed.with_row_index("_i").to_arrow())
        for column in columns:
            compared += len(rows)
            wrong += list(differences(store, table, column, rows))
    assert compared > 1000
    assert wrong == []


def field(column: Column) -> pl.Expr:
    return pl.col("after").struct.field(column.name)


def differences(store: Client, table: str, column: Column, rows: pl.DataFrame) -> Iterator[str]:
    """Where the table does not say what the source said."""
    kind = types.clickhouse_type(column)
    source = values(rows, types.value_text(column, field(column)))
    fits = types.representable(column, field(column))
    fitting = [True] * len(rows) if fits is None else values(rows, fits)
    name = quoted(column.name)
    stored = store.query(
        f"SELECT isNull({name}), toString({name}) FROM {table} ORDER BY _i",
        settings={"output_format_decimal_trailing_zeros": 1},
    ).result_rows
    for row, (text, fit, (null, shown)) in enumerate(zip(source, fitting, stored, strict=True)):
        expected_null = (text is None or not fit) and not kind.startswith(("Array", "Map"))
        if bool(null) != expected_null:
            yield f"{table}.{column.name} {kind} row {row}: NULL is {bool(null)}"
        elif not null and kind.startswith(TEXTUAL) and column.dtype != pl.Binary and not same(kind, text, shown):
            yield f"{table}.{column.name} {kind} row {row}: differs"
