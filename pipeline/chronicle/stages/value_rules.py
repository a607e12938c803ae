"""Value rules: which rows are not as the policy says good ones are, by rule and column and never by value.

A rule looks at the clear new row of a create, an update or a snapshot row; of a delete there is nothing to correct. NULL, a
value that the database did not send, and one that no calendar shows (infinity) pass every rule but `not_null` (and
`unique_key`), of which only a real NULL fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from chronicle.codec import diff
from chronicle.codec.columns import Column
from chronicle.codec.flat import after
from chronicle.errors import ConfigError
from chronicle.policy.rules import OnBreak, ValueRule
from chronicle.stages.row_view import Seen, Sort, seen
from chronicle.stages.sql_functions import regular
from chronicle.stages.terms import Refused, Term, among, compared, literal

_CHECKED = ("c", "u", "r")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say about a group's rows."""

    refused: npt.NDArray[np.int64] | None
    """Index into `RulePlan.details` of the first rule that makes the row a dead letter; -1: none. None: no row at all."""
    violations: diff.NameLists
    """`rule:column` of the rules that only flag."""


class RulePlan:
    """A table's value rules, compiled for one writer schema."""

    def __init__(
        self, columns: Sequence[Column], rules: Sequence[ValueRule], *, table: str = "", unavailable: str | None = None
    ) -> None:
        """Compile the rules.

        A rule on a column that the schema does not have is broken by every row: what it says cannot be known.

        Args:
            table: what the rules are about, for messages.
            unavailable: placeholder of values that the database did not send, if such can come.

        Raises:
            ConfigError: a rule does not fit its column's type, or its expression does not compile; names rule and column.
        """
        by_name = {column.name: column for column in columns}
        letters = [rule for rule in rules if rule.on_break is OnBreak.DEADLETTER]
        flags = [rule for rule in rules if rule.on_break is not OnBreak.DEADLETTER]
        self.details: Sequence[str] = [_detail(rule, by_name) for rule in letters]
        self._flag_names = [f"{rule.name}:{rule.column}" for rule in flags]
        self.exprs: list[pl.Expr] = [
            _broken(rule, by_name.get(rule.column), table, unavailable).alias(f"?{rule.name}:{rule.column}:{index}")
            for index, rule in enumerate((*letters, *flags))
        ]

    def verdicts(self, made: list[pl.Series], ops: pl.Series) -> Verdict:
        """What `exprs` gave for a group, and its rows' operation codes, as a verdict."""
        rows = len(ops)
        if not any(one.any() for one in made):
            return Verdict(None, diff.none_marked(rows))
        marks = diff.matrix(made, rows)
        marks &= ops.is_in(_CHECKED).fill_null(False).to_numpy()[:, np.newaxis]
        letters, flags = marks[:, : len(self.details)], marks[:, len(self.details) :]
        refused = np.where(letters.any(axis=1), letters.argmax(axis=1), -1) if letters.any() else None
        return Verdict(refused, diff.name_lists(self._flag_names, flags))


def _detail(rule: ValueRule, columns: Mapping[str, Column]) -> str:
    lacking = "" if rule.column in columns else " (the schema has no such column)"
    return f"{rule.name}: {rule.column}{lacking}"


def _broken(rule: ValueRule, column: Column | None, table: str, unavailable: str | None) -> pl.Expr:
    """True where a row breaks the rule; null, or false, where it does not."""
    if column is None:
        return pl.col("op").is_not_null()
    raw = after(rule.column)
    try:
        return (
            raw.is_null() if rule.name == "not_null" else _RULES[rule.name](seen(column, raw, unavailable), rule.argument, raw)
        )
    except Refused as error:
        about = f" of {table}" if table else ""
        raise ConfigError(f"correct the rule {rule.name} of {rule.column}{about}: {error}") from None


def _in(column: Seen, argument: tuple[Any, ...], _: pl.Expr) -> pl.Expr:
    return ~among(Term.of(column), [_given(one) for one in argument]).expr


def _between(column: Seen, argument: tuple[Any, ...], _: pl.Expr) -> pl.Expr:
    low, high = map(_given, argument)
    value = Term.of(column)
    return compared("Lt", value, low).expr | compared("Gt", value, high).expr


def _matches(column: Seen, argument: tuple[Any, ...], _: pl.Expr) -> pl.Expr:
    """Somewhere in the value: `^…$` for the whole of it."""
    if column.sort is not Sort.TEXT:
        raise Refused(f"it reads text, and the column is {column.sort}")
    return ~column.value.str.contains(regular(argument[0]))


def _length(column: Seen, argument: tuple[Any, ...], _: pl.Expr) -> pl.Expr:
    """Characters of a text, elements of a list."""
    if column.sort not in (Sort.TEXT, Sort.LIST):
        raise Refused(f"it counts characters, or elements of a list, and the column is {column.sort}")
    count = column.value.list.len() if column.sort is Sort.LIST else column.value.str.len_chars()
    return ~count.is_between(*argument)


def _unique_key(column: Seen, _: tuple[Any, ...], raw: pl.Expr) -> pl.Expr:
    """What other systems know the row by: it is there, and it is not blank.

    Whether another row has the same value cannot be told from one record, and must not depend on which records happen to
    be in one batch: the same change has one outcome whenever it is processed.
    """
    if column.sort is Sort.LIST:
        raise Refused("a list is no key")
    return raw.is_null() | (column.value.str.strip_chars() == "") if column.sort is Sort.TEXT else raw.is_null()


def _given(value: Any) -> Term:
    """A value as TOML has it. A float stands for the decimal that was written."""
    if isinstance(value, float):
        return literal(Decimal(repr(value)))
    return literal(value.strftime("%H:%M:%S.%f") if isinstance(value, time) else value)


_Rule = Callable[[Seen, tuple[Any, ...], pl.Expr], pl.Expr]
_RULES: Mapping[str, _Rule] = {
    "in": _in,
    "between": _between,
    "matches": _matches,
    "length": _length,
    "unique_key": _unique_key,
}
