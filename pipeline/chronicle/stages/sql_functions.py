"""Casts and functions that a condition may use; each has an answer, or null, for every row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from chronicle.stages.row_view import NUMBERS, Sort
from chronicle.stages.terms import Refused, Term, boolean, text, together

# Casts: what cannot be cast is null -----------------------------------------------------------------------------------


def _to_text(term: Term) -> Term:
    if term.json:
        return Term(Sort.TEXT, term.expr)
    return term if term.sort is Sort.TEXT else Term(Sort.TEXT, term.expr.cast(pl.String))


def _to_number(sort: Sort, dtype: pl.DataType) -> Callable[[Term], Term]:
    def cast(term: Term) -> Term:
        if term.sort in (Sort.DATE, Sort.STAMP):
            raise Refused(f"{term.sort} is no number: write EXTRACT(… FROM …)")
        return Term(sort, term.expr.cast(dtype, strict=False))

    return cast


def _to_boolean(term: Term) -> Term:
    if term.sort is Sort.INTEGER and not term.constant:
        return Term(Sort.BOOLEAN, term.expr != 0)
    return Term(Sort.BOOLEAN, boolean(term))


def _to_date(term: Term) -> Term:
    match term.sort:
        case Sort.DATE:
            return term
        case Sort.STAMP:
            return Term(Sort.DATE, term.expr.dt.date())
        case Sort.TEXT:
            return Term(Sort.DATE, term.expr.str.to_date("%Y-%m-%d", strict=False))
    raise Refused(f"{term.sort} is no date")


def _to_stamp(term: Term) -> Term:
    match term.sort:
        case Sort.STAMP:
            return term
        case Sort.DATE:
            return Term(Sort.STAMP, term.expr.cast(pl.Datetime("us")))
        case Sort.TEXT:
            plain = term.expr.str.replace("T", " ", literal=True).str.strip_suffix("Z")
            return Term(Sort.STAMP, plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False))
    raise Refused(f"{term.sort} is no timestamp")


_WHOLE, _REAL = _to_number(Sort.INTEGER, pl.Int64()), _to_number(Sort.FLOAT, pl.Float64())
CASTS: Mapping[str, Callable[[Term], Term]] = {
    "String": _to_text,
    "Boolean": _to_boolean,
    **dict.fromkeys(("Int8", "Int16", "Int32", "Int64"), _WHOLE),
    **dict.fromkeys(("Float32", "Float64", "Decimal"), _REAL),
    "Date": _to_date,
    "Datetime": _to_stamp,
}

# Functions ------------------------------------------------------------------------------------------------------------

_Rule = Callable[[list[Term], Any], Term]


def _constant_text(term: Term, what: str) -> str:
    if term.constant and term.sort is Sort.TEXT:
        return str(term.value)
    raise Refused(f"{what} must be a text in quotes")


def _of_text(make: Callable[[pl.Expr], pl.Expr], sort: Sort = Sort.TEXT) -> _Rule:
    return lambda terms, _: Term(sort, make(text(terms[0])))


def _stripped(make: Callable[[pl.Expr, str | None], pl.Expr]) -> _Rule:
    def rule(terms: list[Term], _: Any) -> Term:
        characters = None if terms[1].sort is Sort.NULL else _constant_text(terms[1], "what is trimmed")
        return Term(Sort.TEXT, make(text(terms[0]), characters))

    return rule


def _found(make: Callable[[pl.Expr, str], pl.Expr]) -> _Rule:
    return lambda terms, _: Term(Sort.BOOLEAN, make(text(terms[0]), _constant_text(terms[1], "what is looked for")))


def _matches(terms: list[Term], options: Any) -> Term:
    """LIKE, ~, REGEXP_LIKE."""
    pattern = _constant_text(terms[1], "a pattern")
    if options is True:  # literal
        return Term(Sort.BOOLEAN, text(terms[0]).str.contains(pattern, literal=True))
    return Term(Sort.BOOLEAN, text(terms[0]).str.contains(regular(pattern)))


def regular(pattern: str) -> str:
    """The pattern, when it is a regular expression of Rust's `regex`: linear in time, without look-around.

    Raises:
        Refused: it is none.
    """
    try:
        pl.Series(["x"]).str.contains(pattern)
    except pl.exceptions.PolarsError:
        raise Refused("the regular expression does not compile (RE2's syntax: no look-around, no back-references)") from None
    return pattern


def _sliced(terms: list[Term], _: Any) -> Term:
    """SUBSTR, LEFT."""
    begin, length = terms[1], terms[2]
    if begin.sort is not Sort.INTEGER or not begin.constant or begin.value < 0:
        raise Refused("a part of a text begins at a constant place from 1 (no RIGHT)")
    if length.sort is Sort.NULL:
        return Term(Sort.TEXT, text(terms[0]).str.slice(begin.value))
    if length.sort is not Sort.INTEGER or not length.constant or length.value < 0:
        raise Refused("a part of a text has a constant length")
    return Term(Sort.TEXT, text(terms[0]).str.slice(begin.value, length.value))


def _replaced(terms: list[Term], _: Any) -> Term:
    old, new = (_constant_text(one, "what is replaced, and by what,") for one in terms[1:3])
    return Term(Sort.TEXT, text(terms[0]).str.replace_all(old, new, literal=True))


def _joined(terms: list[Term], delimiter: Any) -> Term:
    """CONCAT, CONCAT_WS: NULL is left out."""
    return Term(Sort.TEXT, pl.concat_str([_to_text_or_null(one) for one in terms], separator=delimiter, ignore_nulls=True))


def _to_text_or_null(term: Term) -> pl.Expr:
    if term.sort is Sort.LIST:
        raise Refused("a list is no text")
    return text(term) if term.sort is Sort.NULL else _to_text(term).expr


def _first(terms: list[Term], _: Any) -> Term:
    sort, exprs = together(terms, exact=False)
    return Term(sort, pl.coalesce(exprs))


def _extreme(make: Callable[[list[pl.Expr]], pl.Expr]) -> _Rule:
    def rule(terms: list[Term], _: Any) -> Term:
        sort, exprs = together(terms, exact=False)
        return Term(sort, make(exprs))

    return rule


def _of_number(make: Callable[[pl.Expr, Any], pl.Expr]) -> _Rule:
    def rule(terms: list[Term], options: Any) -> Term:
        sort, (value,) = together(terms[:1], exact=False)
        if sort not in NUMBERS:
            raise Refused(f"{terms[0].sort} stands where a number is needed")
        return Term(sort, make(value, options))

    return rule


def _part(make: Callable[[pl.Expr], pl.Expr], *, of_day: bool = False) -> _Rule:
    def rule(terms: list[Term], _: Any) -> Term:
        if terms[0].sort is not Sort.STAMP and (of_day or terms[0].sort is not Sort.DATE):
            raise Refused(f"{terms[0].sort} has no such part: EXTRACT reads dates and timestamps")
        return Term(Sort.INTEGER, make(terms[0].expr).cast(pl.Int64))

    return rule


_INTERVAL = re.compile(r"(-?)((?:\d{1,7}(?:y|q|mo|w|d|h|m|s))+)")
_PART = re.compile(r"(\d+)(y|q|mo|w|d|h|m|s)")
_PART_DAYS = {"y": 366.0, "q": 92.0, "mo": 31.0, "w": 7.0, "d": 1.0, "h": 1 / 24, "m": 1 / 1440, "s": 1 / 86400}
_INTERVAL_DAYS_MAX = 400_000
"""What can be added to any date of four-digit years, and still is one that Polars can reckon with."""


def _shifted(terms: list[Term], _: Any) -> Term:
    """A date, or a timestamp, and an INTERVAL."""
    if terms[0].sort not in (Sort.DATE, Sort.STAMP):
        raise Refused(f"an interval is added to dates and timestamps, not to {terms[0].sort}")
    interval = _constant_text(terms[1], "an interval")
    parts = _INTERVAL.fullmatch(interval)
    if parts is None or sum(int(n) * _PART_DAYS[unit] for n, unit in _PART.findall(parts[2])) > _INTERVAL_DAYS_MAX:
        raise Refused("write an interval of at most 1000 years, in seconds or larger units")
    return Term(Sort.STAMP, terms[0].expr.cast(pl.Datetime("us")).dt.offset_by(interval))


def contains(terms: list[Term], _: Any) -> Term:
    listed, item = terms
    if listed.sort is not Sort.LIST or listed.items is None:
        raise Refused(f"{listed.sort} is no list")
    if item.sort is not listed.items or item.sort not in (Sort.TEXT, Sort.INTEGER, Sort.BOOLEAN, Sort.DATE):
        raise Refused(f"a list of {listed.items} is searched for {item.sort}")
    return Term(Sort.BOOLEAN, listed.expr.list.contains(item.expr))


def _length(terms: list[Term], _: Any) -> Term:
    if terms[0].sort is not Sort.LIST:
        raise Refused(f"{terms[0].sort} is no list")
    return Term(Sort.INTEGER, terms[0].expr.list.len().cast(pl.Int64))


def _member(terms: list[Term], name: Any) -> Term:
    """`document ->> 'name'`: a member of a JSON document, as text."""
    if not terms[0].json:
        raise Refused(f"{terms[0].sort} has no members (columns are named without their table)")
    if not isinstance(name, str) or not name.isprintable() or any(one in name for one in "\"'\\"):
        raise Refused("a member's name has no quotes")
    return Term(Sort.TEXT, terms[0].expr.str.json_path_match(f"$[{json.dumps(name, ensure_ascii=False)}]"), json=True)


FUNCTIONS: Mapping[str, _Rule] = {
    "Boolean.Not": lambda terms, _: Term(Sort.BOOLEAN, ~boolean(terms[0])),
    "Boolean.IsNull": lambda terms, _: Term(Sort.BOOLEAN, terms[0].expr.is_null()),
    "Boolean.IsNotNull": lambda terms, _: Term(Sort.BOOLEAN, terms[0].expr.is_not_null()),
    "StringExpr.Lowercase": _of_text(lambda value: value.str.to_lowercase()),
    "StringExpr.Uppercase": _of_text(lambda value: value.str.to_uppercase()),
    "StringExpr.LenChars": _of_text(lambda value: value.str.len_chars().cast(pl.Int64), Sort.INTEGER),
    "StringExpr.LenBytes": _of_text(lambda value: value.str.len_bytes().cast(pl.Int64), Sort.INTEGER),
    "StringExpr.StripChars": _stripped(lambda value, characters: value.str.strip_chars(characters)),
    "StringExpr.StripCharsStart": _stripped(lambda value, characters: value.str.strip_chars_start(characters)),
    "StringExpr.StripCharsEnd": _stripped(lambda value, characters: value.str.strip_chars_end(characters)),
    "StringExpr.StartsWith": _found(lambda value, start: value.str.starts_with(start)),
    "StringExpr.EndsWith": _found(lambda value, end: value.str.ends_with(end)),
    "StringExpr.Contains": lambda terms, options: _matches(terms, options["literal"]),
    "StringExpr.Slice": _sliced,
    "StringExpr.Replace": _replaced,
    "StringExpr.ConcatHorizontal": lambda terms, options: _joined(terms, options["delimiter"]),
    "Coalesce": _first,
    "MaxHorizontal": _extreme(pl.max_horizontal),
    "MinHorizontal": _extreme(pl.min_horizontal),
    "Abs": _of_number(lambda value, _: value.abs()),
    "Floor": _of_number(lambda value, _: value.floor()),
    "Ceil": _of_number(lambda value, _: value.ceil()),
    "Sql.Round": _of_number(lambda value, options: value.round(options["decimals"])),
    "TemporalExpr.Year": _part(lambda value: value.dt.year()),
    "TemporalExpr.Quarter": _part(lambda value: value.dt.quarter()),
    "TemporalExpr.Month": _part(lambda value: value.dt.month()),
    "TemporalExpr.Week": _part(lambda value: value.dt.week()),
    "TemporalExpr.Day": _part(lambda value: value.dt.day()),
    "TemporalExpr.OrdinalDay": _part(lambda value: value.dt.ordinal_day()),
    "TemporalExpr.WeekDay": _part(lambda value: value.dt.weekday()),
    "TemporalExpr.Hour": _part(lambda value: value.dt.hour(), of_day=True),
    "TemporalExpr.Minute": _part(lambda value: value.dt.minute(), of_day=True),
    "TemporalExpr.Second": _part(lambda value: value.dt.second(), of_day=True),
    "TemporalExpr.OffsetBy": _shifted,
    "ListExpr.Contains": contains,
    "ListExpr.Length": _length,
    "StructExpr.FieldByName": _member,
}
