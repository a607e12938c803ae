"""From the tree that Polars' SQL parser makes to typed terms, node by node; a node without a rule here is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

import polars as pl

from chronicle.stages.row_view import Sort
from chronicle.stages.sql_functions import CASTS, FUNCTIONS, contains
from chronicle.stages.terms import (
    COMPARISONS,
    NULL,
    Refused,
    Term,
    among,
    boolean,
    both,
    compared,
    literal,
    reckoned,
    text,
    together,
)

Tree = Any
_DEPTH_MAX = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Scope(Protocol):
    """What names and lists of constants mean."""

    def column(self, name: str) -> Term:
        """Raises Refused for a name that is none."""

    def literals(self, tree: Tree) -> list[Term]:
        """The constants of a list."""


def compiled(tree: Tree, scope: Scope, depth: int = 0) -> Term:
    """The term of a tree.

    Raises:
        Refused: something in it is not allowed, or types do not fit.
    """
    if depth > _DEPTH_MAX:
        raise Refused("it is nested too deep")
    if not isinstance(tree, dict) or len(tree) != 1:
        raise Refused(f"{_words(tree)} is not allowed: a condition looks at one row")
    ((node, inside),) = tree.items()
    rule = _NODES.get(node)
    if rule is None:
        raise Refused(_NOT_ALLOWED.get(node, f"{_words(node)} is not allowed"))
    return rule(inside, _Below(scope, depth + 1))


_NOT_ALLOWED = {
    "Agg": "a condition looks at one row: aggregates are not allowed",
    "Over": "a condition looks at one row: window functions are not allowed",
    "SubPlan": "a condition looks at one row: subqueries are not allowed",
    "Alias": "a condition has no alias (AS …)",
}


_INSTEAD = {
    "Strptime": "write TRY_CAST(text AS DATE), or AS TIMESTAMP",
    "ToString": "compare dates with dates, or EXTRACT a part of them",
}


class _Below:
    """What a node needs to compile the nodes below it."""

    def __init__(self, scope: Scope, depth: int) -> None:
        self.scope, self._depth = scope, depth

    def __call__(self, tree: Tree) -> Term:
        return compiled(tree, self.scope, self._depth)


def _words(node: Any) -> str:
    """A node's name as a person may know it: `ListExpr` → `list expr`."""
    name = node if isinstance(node, str) else next(iter(node), "it") if isinstance(node, dict) else "it"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(name)).lower()


# Nodes --------------------------------------------------------------------------------------------------------------


def _column(name: Tree, below: _Below) -> Term:
    return below.scope.column(str(name))


def _literal(inside: Tree, _: _Below) -> Term:
    ((form, value),) = inside.items()
    if form == "Dyn":
        return _dynamic(value)
    if form == "Scalar":
        return _scalar(value)
    raise Refused("a list stands where one value is needed")


def _dynamic(value: Tree) -> Term:
    ((form, number),) = value.items()
    if form not in ("Int", "Float") or number is None:
        raise Refused("a number is too large")
    return literal(int(number) if form == "Int" else float(number))


def _scalar(value: Tree) -> Term:
    ((form, inside),) = value.items()
    match form:
        case "Null":
            return NULL
        case "String" | "Boolean" | "Int8" | "Int16" | "Int32" | "Int64" | "Float64":
            return literal(inside)
        case "Decimal":
            unscaled, _, scale = inside
            return literal(Decimal(unscaled).scaleb(-scale) if scale else int(unscaled))
        case "Date":
            return literal(date(1970, 1, 1) + timedelta(days=inside))
        case "Datetime" if inside[1] == "Microseconds":
            return literal((_EPOCH + timedelta(microseconds=inside[0])).replace(tzinfo=None))
    raise Refused(f"a constant of the type {form.lower()} is not allowed")


def _binary(inside: Tree, below: _Below) -> Term:
    return _operation(inside["op"], below(inside["left"]), below(inside["right"]))


def _operation(operator: str, left: Term, right: Term) -> Term:
    if operator in COMPARISONS:
        return compared(operator, left, right)
    if operator in ("And", "Or", "Xor"):
        return both(operator, left, right)
    if operator == "Plus" and left.sort is Sort.TEXT:
        return Term(Sort.TEXT, text(left) + text(right))
    if operator in ("Plus", "Minus", "Mul", "Div", "IntDiv", "Rem"):
        return reckoned(operator, left, right)
    raise Refused(f"the operator {_words(operator)} is not allowed")


def _choice(inside: Tree, below: _Below) -> Term:
    """CASE, IF, NULLIF."""
    condition = boolean(below(inside["predicate"]))
    sort, (yes, no) = together([below(inside["truthy"]), below(inside["falsy"])], exact=False)
    return Term(sort, pl.when(condition).then(yes).otherwise(no))


def _cast(inside: Tree, below: _Below) -> Term:
    term = below(inside["expr"])
    name = inside["dtype"].get("Literal") if isinstance(inside["dtype"], dict) else None
    target = name if isinstance(name, str) else next(iter(name), "") if isinstance(name, dict) else ""
    if term.sort is Sort.NULL or term.sort is Sort.LIST:
        if term.sort is Sort.NULL and target == "Boolean":
            return NULL
        raise Refused(f"{term.sort} cannot be cast")
    rule = CASTS.get(target)
    if rule is None:
        raise Refused(f"a cast to {target.lower() or 'this type'} is not allowed")
    return rule(term)


def _function(inside: Tree, below: _Below) -> Term:
    function = inside["function"]
    name, options = (function, None) if isinstance(function, str) else next(iter(function.items()))
    if name == "Sql" and isinstance(options, dict):
        ((operator, detail),) = options.items()
        if operator == "Binary":
            left, right = inside["input"]
            return _operation(detail, below(left), below(right))
        if operator == "IsIn":
            return _is_in(inside["input"], below)
    if isinstance(options, dict):
        detail_name, detail = next(iter(options.items()))
        key = f"{name}.{detail_name}"
    else:
        key, detail = (f"{name}.{options}", None) if options is not None else (name, None)
    rule = FUNCTIONS.get(key)
    if rule is None:
        last = key.rpartition(".")[2]
        raise Refused(_INSTEAD.get(last, f"the function {_words(last)} is not allowed"))
    return rule([below(one) for one in inside["input"]], detail)


def _is_in(inputs: list[Tree], below: _Below) -> Term:
    term = below(inputs[0])
    there = inputs[1]["Alias"][0] if "Alias" in inputs[1] else inputs[1]
    if "Literal" in there:
        values = [value for value in below.scope.literals(there) if value.sort is not Sort.NULL]
        return among(term, values) if values else Term(Sort.BOOLEAN, pl.lit(False))
    return contains([below(there), term], None)


_NODES: Mapping[str, Callable[[Tree, _Below], Term]] = {
    "Column": _column,
    "Literal": _literal,
    "BinaryExpr": _binary,
    "Ternary": _choice,
    "Cast": _cast,
    "Function": _function,
}
