"""What stands for a column's values under its class of the policy: expressions for images and for mirrors, compiled once.

Protected is fail closed: what has no coarser value, no scan result in bounded work, or no sensible tail is `[FILTERED]` or
`****`, never the value. NULL stays NULL in every class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from chronicle.codec.columns import Column
from chronicle.codec.meaning import Make, json_fragment, meaning_of
from chronicle.codec.types import mirror_value, representable, value_text
from chronicle.errors import ConfigError
from chronicle.policy.rules import Class, Treatment
from chronicle.stages import generalize, scan
from chronicle.stages.ciphers import Sentinel
from chronicle.stages.sanitize import FILTERED
from chronicle.stages.tokens import TokenKeys

STARS = "****"
"""The hidden part of a masked value, whatever its length."""
_FILTERED_JSON = f'"{FILTERED}"'
_WITHOUT_ZONE = "io.debezium.time.IsoTimestamp"
_NO_TAIL = frozenset({"io.debezium.data.Enum", "io.debezium.data.EnumSet", "io.debezium.data.Json", "io.debezium.data.Bits"})
"""Of few values, which a tail would tell apart, or of several values in one text, of which a tail could hold one whole."""


@dataclass(frozen=True, slots=True)
class Treated:
    """How a treated column is written and stored. All functions take the raw decoded column and map null to null."""

    text: Make | None
    """To what stands in images: a value that Polars' JSON writer writes canonically, or, if `raw`, JSON text. None: the
    column is left out."""
    value: Make | None
    """To the dtype that ClickHouse takes; None: the column has no place in the mirror."""
    clickhouse: str | None
    """Its type without Nullable; None as `value`."""
    raw: bool = False
    """`text` makes JSON text (as `codec.meaning.Meaning.raw`): it must not be encoded again."""
    fits: Make | None = None
    """False where `value` is null although there is a value (it has no coarser one, or ClickHouse cannot hold it); None:
    never."""
    nullable: bool = True
    """Whether ClickHouse allows Nullable(…) around the type."""


def treated(column: Column, treatment: Treatment, keys: TokenKeys, sentinel: Sentinel | None = None) -> Treated | None:
    """What becomes of a column; None when it stays as it is (CLEAR without a scan).

    An encrypted column becomes the sentinel's mark, in images and in the mirror, until `ciphers.sealed` puts the ciphertexts
    in place.

    Raises:
        ConfigError: the treatment makes no sense for the column's type, or its key is missing. Names column and class.
        ValueError: ENCRYPT without a sentinel.
    """
    match treatment.kind:
        case Class.CLEAR:
            return _scanned(column, treatment.scan) if treatment.scan else None
        case Class.DROP | Class.REDACT:
            return Treated(_constant(FILTERED) if treatment.kind is Class.REDACT else None, None, None)
        case Class.MASK:
            return _string(_masked(column, treatment.keep))
        case Class.TOKEN:
            tokens = keys[treatment.domain].of
            return _string(lambda value: value_text(column, value).map_batches(tokens, return_dtype=pl.String()))
        case Class.GENERALIZE:
            return _generalized(column, treatment.to)
        case Class.ENCRYPT:
            if sentinel is None:
                raise ValueError("an encrypted column needs a sentinel")
            return _string(_constant(sentinel.mark(column.name)))


def of_texts(name: str, treatment: Treatment, keys: TokenKeys) -> Callable[[pl.Series], pl.Series]:
    """The treatment of a text that is no column of a table (a field of a context): a String series to what stands for it.

    DROP gives nulls.

    Raises:
        ConfigError: as `treated`; ENCRYPT, because such a text belongs to no change.
    """
    if treatment.kind is Class.ENCRYPT:
        raise ConfigError(f"choose another class for {name}: encrypt is for columns of tables")
    found = treated(Column(name, pl.String()), treatment, keys)
    if found is None:
        return lambda texts: texts
    make = found.text
    if make is None:
        return lambda texts: pl.Series(texts.name, [None], dtype=pl.String).new_from_index(0, len(texts))
    made = make(pl.col("text"))
    return lambda texts: texts.alias("text").to_frame().select(made.alias(texts.name)).to_series()


def _string(text: Make) -> Treated:
    return Treated(text, text, "String")


def _constant(text: str) -> Make:
    return lambda value: pl.when(value.is_not_null()).then(pl.lit(text))


# Mask ---------------------------------------------------------------------------------------------------------------


def _masked(column: Column, keep: int) -> Make:
    """Stars and the last `keep` characters of the canonical text; stars alone where that were more than half of it."""
    meaning = meaning_of(column)
    nested = meaning.raw and not column.dtype.is_float()
    if keep <= 0 or nested or column.as_text or column.dtype in (pl.Boolean(),) or column.semantic in _NO_TAIL:
        return _constant(STARS)
    if isinstance(column.dtype, pl.List):
        return _constant(STARS)

    def text(value: pl.Expr) -> pl.Expr:
        shown = value_text(column, value)
        tail = pl.when(shown.str.len_chars() >= 2 * keep).then(shown.str.tail(keep)).otherwise(pl.lit(""))
        return pl.when(value.is_not_null()).then(pl.lit(STARS) + tail)

    return text


# Generalize ---------------------------------------------------------------------------------------------------------


def _generalized(column: Column, to: str) -> Treated:
    if column.items is not None and isinstance(column.dtype, pl.List):
        if column.items.items is not None or (column.items.fields and not generalize.variable(column.items)):
            raise _senseless(column, to)
        return _each(_generalized(column.items, to))
    kind, _, argument = to.partition(":")
    made: Make | None = None
    clock = generalize.clock_of(column)
    text = column.dtype == pl.String() and clock is None and not column.as_text and column.semantic != "io.debezium.data.Json"
    if kind in generalize.STEPS and clock is not None:
        step = generalize.to_step(column, clock, kind)
        if step is not None and clock.form == "zoned":  # its coarse form is its canonical one already
            return _coarse(column, step, text=_unzoned if column.semantic == _WITHOUT_ZONE else _same)
        made = step and generalize.staged(step, column.dtype)
    elif kind == "bucket" and generalize.is_number(column) and argument.isdecimal() and int(argument) > 0:
        made = generalize.to_bucket(column, int(argument))
    elif kind == "prefix" and (text or (generalize.is_number(column) and not column.dtype.is_float())):
        if argument.isdecimal() and int(argument) > 0:
            made, column = generalize.to_prefix(column, int(argument)), generalize.plain_text(column)
    elif kind == "domain" and text:
        made, column = generalize.to_domain, generalize.plain_text(column)
    elif kind == "net" and text and (network := generalize.Network.parse(argument)) is not None:
        made, column = network.of, generalize.plain_text(column)
    if made is None:
        raise _senseless(column, to)
    return _coarse(column, made)


def _senseless(column: Column, to: str) -> ConfigError:
    kind = column.semantic or str(column.dtype)
    return ConfigError(f"choose another class for column {column.name}: generalize to {to!r} makes no sense for {kind}")


def _same(value: pl.Expr) -> pl.Expr:
    return value


def _unzoned(value: pl.Expr) -> pl.Expr:
    return value.str.strip_suffix("Z")


def _coarse(column: Column, coarse: Make, text: Make | None = None) -> Treated:
    """Of a function from the column's values to coarser ones: null where there is none, which is [FILTERED] then.

    `text`: from coarse values to their canonical text, where there is a shorter way than the column's own.
    """
    meaning = meaning_of(column)
    canonical = text or meaning.text
    clock = generalize.clock_of(column) is not None
    number = column.dtype.is_integer() and not clock  # has a coarse value always
    hidden = pl.lit(_FILTERED_JSON if meaning.raw else FILTERED)

    def plain(then: Make) -> Make:
        return lambda value: then(coarse(value))

    def once(then: Make) -> Make:
        return generalize.chained(coarse, then, column.dtype)

    # what is made of an instant names it many times
    after = once if clock else plain
    shown, typed = after(canonical), after(lambda value: mirror_value(column, value))

    def image(value: pl.Expr) -> pl.Expr:
        return shown(value) if number else pl.when(value.is_not_null()).then(shown(value).fill_null(hidden))

    def fits(value: pl.Expr) -> pl.Expr:
        return value.is_null() | typed(value).is_not_null()

    always = number and meaning.fits is None
    return Treated(image, typed, meaning.clickhouse, raw=meaning.raw, fits=None if always else fits)


# Scan ---------------------------------------------------------------------------------------------------------------


def _scanned(column: Column, kinds: tuple[str, ...]) -> Treated:
    finder = scan.Finder(kinds)
    if column.dtype == pl.String():
        if generalize.clock_of(column) is not None:
            raise _unscannable(column)
        json = column.as_text or column.semantic == "io.debezium.data.Json"
        search = _over(finder.documents if json else finder.texts)
        meaning = meaning_of(column)

        def value(source: pl.Expr) -> pl.Expr:
            return mirror_value(column, search(source))

        def fits(source: pl.Expr) -> pl.Expr:
            held = representable(column, search(source))
            return pl.lit(True) if held is None else held

        exact = meaning.fits is None
        return Treated(
            lambda source: meaning.text(search(source)),
            value,
            meaning.clickhouse,
            fits=None if exact else fits,
            nullable=meaning.nullable,
        )
    if column.items is not None and column.items.dtype == pl.String() and isinstance(column.dtype, pl.List):
        return _each(_scanned(column.items, kinds))
    if column.items is not None or (column.fields and not generalize.variable(column)):
        fragment, documents = meaning_of(column), _over(finder.documents)

        def document(source: pl.Expr) -> pl.Expr:
            return documents(pl.when(source.is_not_null()).then(json_fragment(fragment, source)))

        return Treated(document, document, "String", raw=True)
    raise _unscannable(column)


def _unscannable(column: Column) -> ConfigError:
    kind = column.semantic or str(column.dtype)
    return ConfigError(f"leave out `scan` for column {column.name} (class clear): it is for text, not for {kind}")


def _over(change: Callable[[pl.Series], pl.Series]) -> Make:
    return lambda value: value.map_batches(change, return_dtype=pl.String())


# Arrays -------------------------------------------------------------------------------------------------------------


def _each(inner: Treated) -> Treated:
    """An array of which every element is treated."""
    make, value, fits = inner.text, inner.value, inner.fits
    assert make is not None and value is not None  # noqa: S101  # only classes with a text and a value get here

    def text(source: pl.Expr) -> pl.Expr:
        if not inner.raw:
            return source.list.eval(make(pl.element()))
        joined = source.list.eval(make(pl.element()).fill_null("null")).list.join(",")
        return pl.when(source.is_not_null()).then(pl.concat_str(pl.lit("["), joined, pl.lit("]")))

    element = f"Nullable({inner.clickhouse})" if inner.nullable else str(inner.clickhouse)
    return Treated(
        text,
        lambda source: source.list.eval(value(pl.element())),
        f"Array({element})",
        raw=inner.raw,
        fits=None if fits is None else lambda source: source.list.eval(fits(pl.element())).list.all(),
        nullable=False,
    )
