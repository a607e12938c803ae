"""Value rules as a policy file writes them: what the good values of a column are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time
from math import isfinite
from typing import Any

from chronicle.policy.blocks import RuleEntry
from chronicle.policy.fields import Fields
from chronicle.policy.rules import OnBreak, ValueRule

NAMES = ("not_null", "in", "between", "matches", "length", "unique_key")
ROW_BREAKS = (OnBreak.DEADLETTER, OnBreak.FLAG)


def rule_entries(fields: Fields) -> Iterator[RuleEntry]:
    """The rules of one `[[tables.rule]]`: one for each of `NAMES` that it has."""
    column, off = fields.text("column", required=True), fields.flag("off")
    on_break = fields.word("on_break", OnBreak, ROW_BREAKS) or OnBreak.DEADLETTER
    given = [name for name in NAMES if name in fields]
    arguments = {name: _argument(fields, name) for name in given}
    for name in NAMES:
        fields.take(name)
    named = fields.take("rule")
    if named is not None and (not off or named not in NAMES):
        fields.wrong("rule", f"with off = true, choose from {', '.join(NAMES)}")
    fields.done()
    if off and given:
        fields.wrong("", "switched off, and says what good values are")
    if not off and not given:
        fields.wrong("", f"say what good values are: {', '.join(NAMES)}")
    if column is None:
        return
    if off:
        yield RuleEntry(column, named if named in NAMES else None)
        return
    for name, argument in arguments.items():
        if argument is not None:
            yield RuleEntry(column, name, ValueRule(column, name, argument, on_break))


def _argument(fields: Fields, name: str) -> tuple[object, ...] | None:
    value = fields.take(name)
    if name in ("not_null", "unique_key"):
        if value is True:
            return ()
        fields.wrong(name, 'write true; to switch an inherited rule off: rule = "…", off = true')
    elif name == "in":
        if isinstance(value, list) and value and all(map(_scalar, value)):
            return tuple(value)
        fields.wrong(name, "write a list of texts, numbers or dates")
    elif name == "between":
        if _ordered(value):
            return tuple(value)
        fields.wrong(name, "write the lowest and the highest value, both of one type")
    elif name == "matches":
        if isinstance(value, str) and value:
            return (value,)
        fields.wrong(name, "write a regular expression")
    else:
        bounds = [0, value] if _count(value) else value
        if isinstance(bounds, list) and len(bounds) == 2 and all(map(_count, bounds)) and bounds[0] <= bounds[1]:
            return tuple(bounds)
        fields.wrong(name, "write the most characters, or the least and the most")
    return None


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _scalar(value: Any) -> bool:
    return isinstance(value, str | bool | int | date | time) or (isinstance(value, float) and isfinite(value))


def _ordered(value: Any) -> bool:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(map(_scalar, value))
        or any(isinstance(one, bool) for one in value)
    ):
        return False
    low, high = value
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    if not numbers and (type(low) is not type(high)):
        return False
    if isinstance(low, datetime) and isinstance(high, datetime) and (low.tzinfo is None) != (high.tzinfo is None):
        return False
    return bool(low <= high)
