"""Conditions of a policy: Polars' SQL expressions over a row, checked against its schema and compiled once.

`pl.sql_expr` parses; the tree it makes is walked here, and only what has a rule in this package goes through, so that no
file, clock, aggregate or other row can be reached, and nothing can raise on any row: a value without an answer gives
null, and null is not true.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

import polars as pl

from chronicle.codec.columns import Column
from chronicle.codec.debezium import OPERATIONS
from chronicle.codec.flat import BLOCKS
from chronicle.errors import ConfigError
from chronicle.stages.row_view import Sort, row_value, seen
from chronicle.stages.sql_tree import Tree, compiled
from chronicle.stages.terms import Refused, Term, literal

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_TEXT = re.compile(r"'((?:[^']|'')*)'")
_REFUSED = (
    # (what stands outside of quotes, what to do): what the parser would follow, or fold into the tree unseen
    (
        re.compile(r"\bselect\b|\(\s*(from|with|values|table)\b", re.I),
        "a condition looks at one row: take the subquery out",
    ),
    (re.compile(r"[\w&]''"), "write texts without a prefix, as 'text', and dates as DATE 'text'"),
    (
        re.compile(r"\b(current_date|current_time|current_timestamp|localtime|localtimestamp)\b|\bnow\s*\(", re.I),
        "the same row must always have one answer: write a date instead of the time of day",
    ),
    (re.compile(r"\bis\s+not\s+(true|false)\b", re.I), "write coalesce(…, false) instead of IS NOT TRUE"),
    (re.compile(r"\$"), "quote texts with '"),
)


def compile_condition(
    sql: str,
    columns: Sequence[Column],
    *,
    rule: str,
    place: tuple[str, str, str] | None = None,
    unavailable: str | None = None,
) -> pl.Expr:
    """A Boolean expression over flat columns (`codec.flat`): the row is the new one, of a delete the old one.

    Args:
        sql: may name the row's columns and, where the row has no such column, `operation` (snapshot, create, update,
            delete, truncate) and, with `place`, `source`, `schema` and `table`.
        rule: where it stands, for messages: `where of shop.public.orders`.
        place: source, schema and table.
        unavailable: placeholder of values that the database did not send; they are null.

    Raises:
        ConfigError: no expression, an unknown column, types that do not fit, not a condition, or something that is not
            allowed. Names the rule, and never shows a text of the condition.
    """
    try:
        tree = _parsed(sql)
        term = compiled(tree, _Scope(columns, place, unavailable))
        if term.sort is not Sort.BOOLEAN:
            raise Refused(f"it gives {term.sort}: compare it with something")
        if not any(True for _ in _names(tree)):
            raise Refused("it names no column")
        _tried(term.expr, columns)
    except Refused as error:
        raise ConfigError(f"correct {rule}: {error}") from None
    return term.expr


def referenced(sql: str) -> frozenset[str]:
    """Names of the columns that a condition reads; `operation`, `source`, `schema` and `table` may be among them.

    Raises:
        ConfigError: it is no SQL expression.
    """
    try:
        return frozenset(_names(_parsed(sql)))
    except Refused as error:
        raise ConfigError(f"correct the condition: {error}") from None


class _Scope:
    """What names mean in a condition."""

    def __init__(self, columns: Sequence[Column], place: tuple[str, str, str] | None, unavailable: str | None) -> None:
        self._columns = {column.name: column for column in columns}
        self._unavailable = unavailable
        self._virtual: dict[str, Term] = {"operation": Term(Sort.TEXT, _operation())}
        for name, value in zip(("source", "schema", "table"), place or (), strict=False):
            self._virtual[name] = Term(Sort.TEXT, pl.lit(value))

    def column(self, name: str) -> Term:
        """The row's column of this name, or what stands for it."""
        found = self._columns.get(name)
        if found is not None:
            return Term.of(seen(found, row_value(name), self._unavailable))
        if name in self._virtual:
            return self._virtual[name]
        known = [*self._columns, *self._virtual]
        close = get_close_matches(name, known, 1)
        raise Refused(f"there is no column {name}" + (f" (did you mean {close[0]}?)" if close else f": {', '.join(known)}"))

    @staticmethod
    def literals(tree: Tree) -> list[Term]:
        """The constants of a list, which Polars writes as a series."""
        whole = pl.Expr.deserialize(io.StringIO(json.dumps(tree)), format="json")
        series = pl.select(whole.alias("v")).to_series()
        values = series.explode() if isinstance(series.dtype, pl.List) else series
        return [literal(value) for value in values.to_list()]


def _operation() -> pl.Expr:
    codes, words = list(OPERATIONS), list(OPERATIONS.values())
    return pl.col("op").replace_strict(codes, words, default=None, return_dtype=pl.String)


def _parsed(sql: str) -> Tree:
    bare = _QUOTED.sub(lambda match: "''" if match[0].startswith("'") else '"q"' if match[0][0] in '"`' else " ", sql)
    for pattern, advice in _REFUSED:
        if pattern.search(bare):
            raise Refused(advice)
    try:
        return json.loads(pl.sql_expr(sql).meta.serialize(format="json"))
    except pl.exceptions.PolarsError as error:
        hint = "put (document ->> 'member') in parentheses" if "->" in bare else _reason(str(error), sql)
        raise Refused(f"it is no SQL expression that Polars knows ({hint})") from None


def _reason(message: str, sql: str) -> str:
    """The parser's words, where they repeat no text of the condition: it may be somebody's."""
    line = message.partition("\n")[0]
    repeats = any(found[1] in line for found in _TEXT.finditer(sql) if found[1])
    return "look at its texts, operators and functions" if repeats or "{" in line or len(line) > 160 else line


def _names(tree: Tree) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "Column" and isinstance(value, str):
                yield value
            elif key != "Literal":
                yield from _names(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _names(value)


def _tried(expr: pl.Expr, columns: Sequence[Column]) -> None:
    """What Polars refuses whatever the row is told now, and not by the first batch."""
    read = set(expr.meta.root_names())
    flat = {prefix + column.name: column.dtype for prefix in (BLOCKS["before"], BLOCKS["after"]) for column in columns}
    schema = {"op": pl.String(), **{name: dtype for name, dtype in flat.items() if name in read}}
    nothing = pl.DataFrame({name: ["c" if name == "op" else None] for name in schema}, schema=schema)
    try:
        dtype = nothing.select(expr.alias("?")).to_series().dtype
    except pl.exceptions.PolarsError as error:
        raise Refused(f"Polars cannot compute it ({type(error).__name__})") from None
    if dtype != pl.Boolean:
        raise Refused(f"it gives {dtype}: compare it with something")
