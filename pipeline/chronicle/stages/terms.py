"""Typed parts of a condition, and how they combine: comparing and reckoning without an error on any row.

Decimals are exact where they are compared. Where they are reckoned with they become doubles (15 digits), because a sum of
38 digits has no place. Whole numbers have 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import reduce
from operator import and_, or_
from typing import Any, Final

import polars as pl

from chronicle.codec.columns import DECIMAL_DIGITS_MAX
from chronicle.errors import ChronicleError
from chronicle.stages.row_view import NUMBERS, Seen, Sort

_INT64: Final = 2**63


class Refused(ChronicleError):
    """A condition, or a value rule, cannot be compiled; its text says why, for the one who wrote it."""


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a condition."""

    sort: Sort
    expr: pl.Expr
    value: Any = None
    """Of a constant: in Python."""
    constant: bool = False
    items: Sort | None = None
    json: bool = False

    @staticmethod
    def of(column: Seen) -> Term:
        """A column as a term."""
        return Term(column.sort, column.value, items=column.items, json=column.json)


NULL = Term(Sort.NULL, pl.lit(None, pl.Boolean), constant=True)


def literal(value: Any) -> Term:
    """A constant."""
    if value is None:
        return NULL
    sort, held = _constant(value)
    return Term(sort, pl.lit(held), held if sort is Sort.STAMP else value, constant=True)


_OF_TYPE: dict[type, Sort] = {
    bool: Sort.BOOLEAN,
    int: Sort.INTEGER,
    float: Sort.FLOAT,
    Decimal: Sort.DECIMAL,
    str: Sort.TEXT,
    date: Sort.DATE,
    datetime: Sort.STAMP,
}


def _constant(value: Any) -> tuple[Sort, Any]:
    """A constant's sort, and what Polars takes for it."""
    sort = _OF_TYPE.get(type(value))
    if sort is None:
        raise Refused("write texts, numbers, dates or timestamps")
    if sort is Sort.STAMP and value.tzinfo is not None:
        return sort, value.astimezone(UTC).replace(tzinfo=None)
    if sort is Sort.INTEGER and not -_INT64 <= value < _INT64:
        return Sort.FLOAT, float(value)
    return sort, float(value) if sort is Sort.DECIMAL else value


def boolean(term: Term) -> pl.Expr:
    """The term where true or false is needed."""
    if term.sort is Sort.BOOLEAN or term.sort is Sort.NULL:
        return term.expr
    raise Refused(f"{term.sort} stands where true or false is needed")


def text(term: Term) -> pl.Expr:
    """The term where text is needed."""
    if term.sort is Sort.TEXT:
        return term.expr
    if term.sort is Sort.NULL:
        return pl.lit(None, pl.String)
    raise Refused(f"{term.sort} stands where text is needed")


# Terms of one sort --------------------------------------------------------------------------------------------------


def together(terms: Sequence[Term], *, exact: bool = True) -> tuple[Sort, list[pl.Expr]]:
    """The terms as values of one sort.

    Args:
        exact: to be compared; otherwise to be reckoned with, or to stand in for each other.
    """
    sorts = _sorts(terms)
    if not sorts:
        return Sort.NULL, [term.expr for term in terms]
    if sorts <= set(NUMBERS):
        return _numbers(terms, exact)
    if Sort.TEXT in sorts and sorts & {Sort.DATE, Sort.STAMP}:
        terms = [_moment(term) if term.sort is Sort.TEXT else term for term in terms]
        sorts = _sorts(terms)
    if sorts == {Sort.DATE, Sort.STAMP}:
        return Sort.STAMP, [_as_stamp(term) for term in terms]
    if sorts == {Sort.BOOLEAN, Sort.INTEGER}:
        return Sort.BOOLEAN, [_as_boolean(term) for term in terms]
    if len(sorts) > 1 or Sort.LIST in sorts:
        raise Refused(_misfit(sorts))
    sort = sorts.pop()
    return sort, [pl.lit(None, _DTYPE[sort]) if term.sort is Sort.NULL else term.expr for term in terms]


def _sorts(terms: Sequence[Term]) -> set[Sort]:
    return {term.sort for term in terms} - {Sort.NULL}


_DTYPE: dict[Sort, pl.DataType] = {
    Sort.BOOLEAN: pl.Boolean(),
    Sort.TEXT: pl.String(),
    Sort.DATE: pl.Date(),
    Sort.STAMP: pl.Datetime("us"),
}


def _misfit(sorts: set[Sort]) -> str:
    if Sort.LIST in sorts:
        return "a list is asked with array_contains(list, value)"
    names = " and ".join(sorted(str(sort) for sort in sorts))
    fix = ": write numbers without quotes, or TRY_CAST(text AS DOUBLE)" if Sort.TEXT in sorts and sorts & set(NUMBERS) else ""
    return f"{names} do not fit together{fix}"


def _numbers(terms: Sequence[Term], exact: bool) -> tuple[Sort, list[pl.Expr]]:
    variable = {term.sort for term in terms if not term.constant}
    given = [term.value for term in terms if term.constant and term.sort is not Sort.NULL]
    whole = all(isinstance(value, int) and -_INT64 <= value < _INT64 for value in given)
    if variable <= {Sort.INTEGER} and whole:
        return Sort.INTEGER, [pl.lit(None, pl.Int64) if term.sort is Sort.NULL else term.expr for term in terms]
    if exact and Sort.FLOAT not in variable and all(map(_is_decimal, given)):
        return Sort.DECIMAL, [_exactly(term) for term in terms]
    return Sort.FLOAT, [_as_float(term) for term in terms]


def _is_decimal(value: Any) -> bool:
    """Whether a number can be compared as a decimal."""
    if isinstance(value, float):
        return False
    number = Decimal(value)
    exponent = number.as_tuple().exponent
    digits = len(number.as_tuple().digits)
    return isinstance(exponent, int) and digits + max(exponent, 0) <= DECIMAL_DIGITS_MAX and -exponent <= DECIMAL_DIGITS_MAX


def _exactly(term: Term) -> pl.Expr:
    if term.sort is Sort.NULL:
        return pl.lit(None, pl.Int64)
    return pl.lit(Decimal(term.value)) if term.constant else term.expr


def _as_float(term: Term) -> pl.Expr:
    if term.sort is Sort.NULL:
        return pl.lit(None, pl.Float64)
    if term.constant:
        return pl.lit(float(term.value))
    return term.expr if term.sort is Sort.FLOAT else term.expr.cast(pl.Float64, strict=False)


def _as_boolean(term: Term) -> pl.Expr:
    if term.sort is not Sort.INTEGER:
        return boolean(term)
    if term.constant and term.value in (0, 1):
        return pl.lit(bool(term.value))
    raise Refused(_misfit({Sort.BOOLEAN, Sort.INTEGER}))


def _as_stamp(term: Term) -> pl.Expr:
    if term.sort is Sort.NULL:
        return pl.lit(None, pl.Datetime("us"))
    return term.expr.cast(pl.Datetime("us"))


def _moment(term: Term) -> Term:
    """A text among dates, as the date or the instant it says."""
    if not term.constant:
        raise Refused("text and a date do not fit together: write TRY_CAST(text AS DATE)")
    try:
        return literal(date.fromisoformat(term.value))
    except ValueError:
        pass
    try:
        return literal(datetime.fromisoformat(term.value))
    except ValueError:
        raise Refused("write dates as '2024-02-29' and timestamps as '2024-02-29 23:59:59' (UTC)") from None


# Combining ----------------------------------------------------------------------------------------------------------

_COMPARE: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "Eq": lambda left, right: left == right,
    "NotEq": lambda left, right: left != right,
    "Lt": lambda left, right: left < right,
    "LtEq": lambda left, right: left <= right,
    "Gt": lambda left, right: left > right,
    "GtEq": lambda left, right: left >= right,
    "EqValidity": lambda left, right: left.eq_missing(right),
    "NotEqValidity": lambda left, right: left.ne_missing(right),
}
COMPARISONS = frozenset(_COMPARE)


def compared(operator: str, left: Term, right: Term) -> Term:
    """One of `COMPARISONS`; null where a side is (but for the last two)."""
    if Sort.NULL in (left.sort, right.sort) and not operator.endswith("Validity"):
        raise Refused("a comparison with NULL is never true: write IS NULL")
    _, (a, b) = together([left, right])
    return Term(Sort.BOOLEAN, _COMPARE[operator](a, b))


def among(term: Term, values: Sequence[Term]) -> Term:
    """Whether the term is one of some constants."""
    sort, exprs = together([term, *values])
    if sort in (Sort.INTEGER, Sort.TEXT) and all(value.sort is sort for value in values):
        return Term(Sort.BOOLEAN, exprs[0].is_in([value.value for value in values]))
    return Term(Sort.BOOLEAN, reduce(or_, (exprs[0] == one for one in exprs[1:])))


def reckoned(operator: str, left: Term, right: Term) -> Term:
    """`Plus`, `Minus`, `Mul`, `Div`, `IntDiv` or `Rem` of numbers; null where there is no answer."""
    sort, (a, b) = together([left, right], exact=False)
    if sort is Sort.NULL or sort not in NUMBERS:
        raise Refused(f"{left.sort} and {right.sort} cannot be reckoned with")
    match operator:
        case "Plus":
            return Term(sort, a + b)
        case "Minus":
            return Term(sort, a - b)
        case "Mul":
            return Term(sort, a * b)
        case "Div":
            return Term(Sort.FLOAT, a.cast(pl.Float64) / pl.when(b != 0).then(b).cast(pl.Float64))
        case "IntDiv":
            return Term(sort, a // pl.when(b != 0).then(b))
        case _:
            return Term(sort, a % pl.when(b != 0).then(b))


def both(operator: str, left: Term, right: Term) -> Term:
    """`And`, `Or`, `Xor` of conditions, with SQL's three values."""
    a, b = boolean(left), boolean(right)
    return Term(Sort.BOOLEAN, and_(a, b) if operator == "And" else or_(a, b) if operator == "Or" else a ^ b)
