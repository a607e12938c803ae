"""What tests of processors share: changes of two tables, and processors made of one expression."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import polars as pl

from chronicle.processors import Processor, alerts, field, processor
from chronicle.testing import Change, change

PEOPLE = "shop.public.people"
ORDERS = "shop.public.orders"
SECRET = "swordfish"
OTHER_EVENT = b"0123456789abcdef"


def person(number: int, operation: str = "create", **columns: Any) -> Change:
    row = {"id": number, "name": f"n{number}", **columns}
    if operation == "delete":
        return change(PEOPLE, operation, before=row, actor="ann")
    return change(PEOPLE, operation, after=row, actor="ann")


def order(number: int) -> Change:
    return change(ORDERS, after={"id": number, "total": Decimal("9.90")})


def made(function: Callable[[pl.DataFrame], Any], **declared: Any) -> Processor:
    return processor(**{"tables": "shop.**", "name": "p"} | declared)(function)


def spy(look: Callable[[pl.DataFrame], object]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Looks, or says something, and returns what it was given."""

    def looked(changes: pl.DataFrame) -> pl.DataFrame:
        look(changes)
        return changes

    return looked


def raises(_changes: pl.DataFrame) -> pl.DataFrame:
    raise ValueError(SECRET)


def alarmed(name: str = "alarm", **said: Any) -> Processor:
    """Raises an alert for each row, unless `said` says otherwise."""

    def alarm(changes: pl.DataFrame) -> pl.DataFrame:
        rows = changes.with_columns(id=field("after", "id", pl.Int64))
        usual: dict[str, Any] = {"rule": "r", "severity": "high", "title": "row {id} by {actor_id}", "extra": ["id"]}
        alerts.raise_(**usual | {"changes": rows} | said)
        return changes

    return made(alarm, name=name, tables="**")
