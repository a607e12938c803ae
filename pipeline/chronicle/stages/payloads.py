"""Payloads and tags of events under the policy: each member of the objects is a cell, and cells of one treatment go together.

A cell is JSON text and stays JSON text. Protected is fail closed, as in `stages.treatments`: what has no coarser value is
`[FILTERED]`; null stays null. Inside of a clear object or list, what stands under a secret-looking name is filtered.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import polars as pl

from chronicle.codec.columns import Column
from chronicle.codec.events import quoted
from chronicle.policy.names import looks_secret
from chronicle.policy.rules import Class, Treatment
from chronicle.stages import generalize, scan
from chronicle.stages.distinct import over_distinct
from chronicle.stages.sanitize import FILTERED, inner
from chronicle.stages.tokens import TokenKeys
from chronicle.stages.treatments import STARS, of_texts, treated

_NULL = "null"
_FILTERED_JSON = f'"{FILTERED}"'
_STRING = r'"(?:[^"\\]|\\.)*"(?:\s*:)?'
"""Each text of a JSON document, with the colon after it where it is a name: read from the first quote on, none is missed."""
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_ZONED, _ISO_DATE = "io.debezium.time.ZonedTimestamp", "io.debezium.time.IsoDate"
_INTEGER = r"^-?[0-9]{1,18}$"

Cells = Callable[[pl.Series], pl.Series]
"""JSON texts to JSON texts; a null in the result leaves the member out."""


def cells(treatment: Treatment, keys: TokenKeys) -> Cells:
    """What becomes of values under a treatment.

    Raises:
        ConfigError: the treatment's key is missing.
    """
    match treatment.kind:
        case Class.CLEAR:
            return _clear(treatment)
        case Class.DROP:
            return lambda texts: pl.Series(texts.name, [None], dtype=pl.String).new_from_index(0, len(texts))
        case Class.MASK:
            return _masked(of_texts("payload", treatment, keys))
        case Class.TOKEN:
            make = of_texts("payload", treatment, keys)
            return lambda texts: _written(make(unquoted(texts)))
        case Class.GENERALIZE:
            return _generalized(treatment, keys)
        case _:
            return _redacted


def unquoted(texts: pl.Series) -> pl.Series:
    """What the JSON texts say: a string's characters, null for null, anything else as it is written."""
    text = pl.col("t")
    string = text.str.starts_with('"')
    plain = pl.when(text != _NULL).then(pl.when(string).then(text.str.slice(1, text.str.len_chars() - 2)).otherwise(text))
    frame = texts.alias("t").to_frame()
    made, escaped = frame.select(
        plain.alias("plain"), (string & text.str.contains("\\", literal=True)).alias("e")
    ).get_columns()
    if not escaped.any():
        return made.alias(texts.name)
    rows = escaped.arg_true()
    return made.scatter(rows, over_distinct(texts.gather(rows), _unescaped)).alias(texts.name)


def _unescaped(texts: pl.Series) -> pl.Series:
    return pl.Series(texts.name, [msgspec.json.decode(text) for text in texts.to_list()], dtype=pl.String)


def _written(texts: pl.Series) -> pl.Series:
    return quoted(texts).fill_null(_NULL)


def _redacted(texts: pl.Series) -> pl.Series:
    hidden = pl.when(pl.col("t") == _NULL).then(pl.lit(_NULL)).otherwise(pl.lit(_FILTERED_JSON))
    return texts.to_frame("t").select(hidden.alias(texts.name)).to_series()


def _clear(treatment: Treatment) -> Cells:
    if not treatment.scan:
        return without_secrets
    finder = scan.Finder(treatment.scan)
    return lambda texts: finder.documents(without_secrets(texts))


def _masked(make: Cells) -> Cells:
    def cells_of(texts: pl.Series) -> pl.Series:
        first = pl.col("t").str.slice(0, 1)
        nested = texts.to_frame("t").select(first.is_in(["{", "[", "t", "f"])).to_series()  # a tail could hold a value whole
        made = make(unquoted(texts))
        return _written(made.set(nested, STARS) if nested.any() else made)

    return cells_of


# Generalize ---------------------------------------------------------------------------------------------------------


def _generalized(treatment: Treatment, keys: TokenKeys) -> Cells:
    kind = treatment.to.partition(":")[0]
    if kind == "bucket":
        return _bucketed(treatment, keys)
    if kind in generalize.STEPS:
        return _stepped(treatment, keys)
    make = of_texts("payload", treatment, keys)

    def parts(texts: pl.Series) -> pl.Series:
        scalar = _begins(texts, '["0-9-]')  # the beginning of an object is no coarser object
        return _only(texts, scalar, lambda some: _written(make(unquoted(some))))

    return parts


def _bucketed(treatment: Treatment, keys: TokenKeys) -> Cells:
    integers, floats = (_over(Column("payload", dtype), treatment, keys) for dtype in (pl.Int64(), pl.Float64()))

    def numbers(texts: pl.Series) -> pl.Series:
        whole = texts.str.contains(_INTEGER)
        made = _only(texts, whole, lambda some: integers(some.cast(pl.Int64)))
        return _only(texts, ~whole & _begins(texts, "[0-9-]"), lambda some: floats(some.cast(pl.Float64)), made)

    return numbers


def _stepped(treatment: Treatment, keys: TokenKeys) -> Cells:
    instants = _over(Column("payload", pl.String(), _ZONED), treatment, keys)
    dates = _redacted if treatment.to == "hour" else _over(Column("payload", pl.String(), _ISO_DATE), treatment, keys)

    def times(texts: pl.Series) -> pl.Series:
        plain = unquoted(texts)
        string = _begins(texts, '"')
        date = plain.str.contains(_DATE).fill_null(False) & string
        made = _only(texts, date, lambda _: _written(dates(plain.filter(date))))
        return _only(texts, string & ~date, lambda _: _written(instants(plain.filter(string & ~date))), made)

    return times


def _over(column: Column, treatment: Treatment, keys: TokenKeys) -> Cells:
    """The treatment of a column of tables, over a series: to its text in images."""
    found = treated(column, treatment, keys)
    assert found is not None and found.text is not None  # noqa: S101  # generalize always has a text
    made = found.text(pl.col("v")).cast(pl.String)
    return lambda values: values.alias("v").to_frame().select(made.alias(values.name)).to_series()


def _begins(texts: pl.Series, characters: str) -> pl.Series:
    return texts.str.contains(f"^{characters}")


def _only(texts: pl.Series, mask: pl.Series, make: Cells, otherwise: pl.Series | None = None) -> pl.Series:
    """The cells in the mask by `make`, all others redacted (or as they are in `otherwise`)."""
    made = _redacted(texts) if otherwise is None else otherwise
    return made.scatter(mask.arg_true(), make(texts.filter(mask))) if mask.any() else made


# Secrets inside -----------------------------------------------------------------------------------------------------


def without_secrets(texts: pl.Series) -> pl.Series:
    """The JSON texts without what stands under secret-looking names in their objects, at any depth."""
    nested = _begins(texts, r"[{\[]").arg_true()
    if not len(nested):
        return texts
    strings = pl.DataFrame({"row": nested, "s": texts.gather(nested).str.extract_all(_STRING)}).explode("s")
    names = strings.filter(pl.col("s").str.ends_with(":"))  # null, which is no text, is dropped
    secret = [name for name in names["s"].unique().to_list() if looks_secret(_name(name))]
    if not secret:
        return texts
    rows = names.filter(pl.col("s").is_in(secret))["row"].unique().sort()
    return texts.clone().scatter(rows, [_filtered(text) for text in texts.gather(rows).to_list()])


def _name(written: str) -> str:
    text = written.rstrip(": \t\r\n")
    return str(msgspec.json.decode(text)) if "\\" in text else text[1:-1]


def _filtered(text: str) -> str:
    return msgspec.json.encode(inner(msgspec.json.decode(text))).decode()


def secret_cells(names: pl.Series, texts: pl.Series) -> pl.Series:
    """Tags: clear, but for what stands under secret-looking names."""
    secret = [name for name in names.unique().to_list() if looks_secret(name)]
    cleaned = without_secrets(texts)
    if not secret:
        return cleaned
    mask = names.is_in(secret)
    return cleaned.clone().scatter(mask.arg_true(), _redacted(texts.filter(mask)))
