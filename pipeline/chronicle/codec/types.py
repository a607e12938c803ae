"""What a column's values mean: their canonical JSON, their ClickHouse type, and the values that type can hold.

All functions build Polars expressions; nothing is computed here. Build them once per writer schema.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from chronicle.codec.columns import Column
from chronicle.codec.meaning import json_fragment, meaning_of

_TEXT = ('{"v":', "}")


def object_text(
    fields: Sequence[tuple[Column, pl.Expr]],
    *,
    replaced: Mapping[str, pl.Expr] | None = None,
    raw: Collection[str] = (),
    unavailable: Mapping[str, pl.Expr] | None = None,
) -> pl.Expr:
    """Canonical JSON text of an object with these members in this order.

    `replaced`: a String expression that stands for the column (`[FILTERED]`), null staying null. `raw`: members whose
    replacement is JSON text already. `unavailable`: a Boolean expression per column; where true the column is left out of the
    text. Columns named there cost more: name only those that have such a row in this frame.
    """
    replaced, unavailable = replaced or {}, unavailable or {}
    parts: list[Run | _Alone] = []
    for column, value in fields:
        meaning = meaning_of(column)
        there = replaced.get(column.name)
        is_raw = meaning.raw if there is None else column.name in raw
        member = meaning.text(value) if there is None else there
        if is_raw or column.name in unavailable:
            text = member.fill_null("null") if is_raw else _encoded(member)
            parts.append(_Alone(column.name, text, unavailable.get(column.name)))
        elif parts and isinstance(parts[-1], list):
            parts[-1].append(member.alias(column.name))
        else:
            parts.append([member.alias(column.name)])
    return _with_gaps(parts) if unavailable else _whole(parts)


def value_text(column: Column, value: pl.Expr) -> pl.Expr:
    """The value as String: the text itself for text-like columns, otherwise as in the canonical JSON. Null stays null."""
    meaning = meaning_of(column)
    if column.dtype.is_float():
        return meaning.text(value).str.strip_chars('"')
    if meaning.raw or isinstance(column.dtype, pl.List):
        return pl.when(value.is_not_null()).then(json_fragment(meaning, value))
    return meaning.text(value).cast(pl.String)


def clickhouse_type(column: Column, *, key: bool = False) -> str:
    """The mirror column's type; `Nullable(…)` unless it is a key column, an Array or a Map.

    Enum16 numbers its values from 1 in the source's order; arrays of JSON are arrays of text.
    """
    meaning = meaning_of(column)
    if key:
        return "LowCardinality(String)" if meaning.clickhouse.startswith("LowCardinality") else meaning.clickhouse
    return f"Nullable({meaning.clickhouse})" if meaning.nullable else meaning.clickhouse


def mirror_value(column: Column, value: pl.Expr) -> pl.Expr:
    """The value in the dtype that `insert_arrow` delivers into `clickhouse_type`; null where it is not representable."""
    return meaning_of(column).value(value)


def representable(column: Column, value: pl.Expr) -> pl.Expr | None:
    """False where the source has a value that `clickhouse_type` cannot hold; true otherwise, null values included.

    None when the type holds every value, so that nothing needs to be computed.
    """
    fits = meaning_of(column).fits
    return None if fits is None else (value.is_null() | fits(value)).fill_null(True)


Run = list[pl.Expr]
"""Neighbouring members that Polars' JSON writer writes canonically, together."""


@dataclass(frozen=True, slots=True)
class _Alone:
    """A member with a text of its own: a float, a record, a map, or one that may be left out."""

    name: str
    text: pl.Expr
    absent: pl.Expr | None

    @property
    def key(self) -> str:
        return json.dumps(self.name, ensure_ascii=False) + ":"


def _whole(parts: Sequence[Run | _Alone]) -> pl.Expr:
    """All members, in one pass: a run at either end keeps its own brace."""
    pieces: list[pl.Expr] = []
    before = "{"  # stands between what is in `pieces` and what comes
    for index, part in enumerate(parts):
        if isinstance(part, _Alone):
            pieces += (pl.lit(before + part.key), part.text)
        else:
            encoded = pl.struct(*part).struct.json_encode()
            if index:
                pieces.append(pl.lit(before))
                encoded = encoded.str.strip_prefix("{")
            pieces.append(encoded if index == len(parts) - 1 else encoded.str.strip_suffix("}"))
        before = ","
    if not parts or isinstance(parts[-1], _Alone):
        pieces.append(pl.lit("}" if parts else "{}"))
    return pieces[0] if len(pieces) == 1 else pl.concat_str(*pieces)


def _with_gaps(parts: Sequence[Run | _Alone]) -> pl.Expr:
    """Members of which some are left out in some rows: each has a comma after it, and the last comma goes."""
    pieces: list[pl.Expr] = []
    comma = pl.lit(",")
    for part in parts:
        if isinstance(part, _Alone):
            piece = pl.concat_str(pl.lit(part.key), part.text, comma)
            gone = part.absent
            pieces.append(piece if gone is None else pl.when(gone.fill_null(False)).then(pl.lit("")).otherwise(piece))
        else:
            encoded = pl.struct(*part).struct.json_encode()
            pieces += (encoded.str.strip_prefix("{").str.strip_suffix("}"), comma)
    return pl.concat_str(pl.lit("{"), pl.concat_str(*pieces).str.strip_suffix(","), pl.lit("}"))


def _encoded(member: pl.Expr) -> pl.Expr:
    """JSON text of one value that Polars' writer writes canonically."""
    return pl.struct(member.alias("v")).struct.json_encode().str.strip_prefix(_TEXT[0]).str.strip_suffix(_TEXT[1])
