"""Values that were not sent, on a real ClickHouse: what was said of a value goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.model.batch import MirrorColumn
from chronicle.sinks.clickhouse import ClickHouseSink
from tests.sinks.test_mirror import ID, Mirror

pytestmark = pytest.mark.stack
COLUMNS = (ID, MirrorColumn("day", "Nullable(Date32)"), MirrorColumn("tags", "Array(Nullable(String))"))
LOST = ["day", "tags"]
DTYPES: dict[str, Any] = {"day": pl.Date, "tags": pl.List(pl.String)}


@pytest.fixture
def mirror(clickhouse: config.ClickHouse, store: Client) -> Iterator[Mirror]:
    """The mirror of shop.public.customers, not there yet."""
    sink = ClickHouseSink(clickhouse)
    yield Mirror(sink, store, clickhouse.mirror_database)
    sink.close()


@pytest.mark.parametrize("together", [True, False])
def test_a_null_that_was_flagged_stays_flagged_when_it_is_carried_on(mirror: Mirror, together: bool) -> None:
    """Out of range, or an array that is NULL: the row that takes the value over says so too, in any batch."""
    first: dict[str, Any] = {"id": 1, "_flags": ["day"], "_nulls": ["tags"]}
    then: dict[str, Any] = {"id": 1, "_unavailable": LOST}
    for rows in ([first, then],) if together else ([first], [then]):
        mirror.write(COLUMNS, *rows, **DTYPES)
    assert mirror.rows("day, tags, _unavailable, _flags, _nulls") == [(None, [], LOST, ["day"], ["tags"])]


def test_a_value_that_nobody_knew_stays_flagged(mirror: Mirror) -> None:
    """The first row after a late start could not be filled, and neither can those after it."""
    for _ in range(3):
        mirror.write(COLUMNS, {"id": 1, "_unavailable": ["day"]}, **DTYPES)
    assert mirror.rows("day, _unavailable, _flags") == [(None, ["day"], ["day"])]


def test_a_value_is_not_carried_over_a_later_one_that_the_mirror_has(mirror: Mirror) -> None:
    """A dead letter sent back stands in one batch with a much later change: what was in between is in the mirror."""
    columns = (ID, MirrorColumn("name", "Nullable(String)"), MirrorColumn("note", "Nullable(String)"))
    kinds: dict[str, Any] = {"note": pl.String}
    mirror.write(columns, {"id": 1, "name": "new", "note": None, "_flags": ["note"], "_at": 8}, **kinds)
    old: dict[str, Any] = {"id": 1, "name": "old", "note": "old", "_at": 5}
    newest: dict[str, Any] = {"id": 1, "_unavailable": ["name", "note"], "_at": 10}
    mirror.write(
        columns, old, newest, {"id": 2, "name": "x", "_at": 11}, {"id": 2, "_unavailable": ["name"], "_at": 12}, **kinds
    )
    assert mirror.rows("id, name, note, _flags") == [(1, "new", None, ["note"]), (2, "x", None, [])]


def test_a_captured_column_may_have_any_of_the_names_used_here(mirror: Mirror) -> None:
    """Filling in values needs columns of its own, beside those of the table."""
    names = ["position_hi", "position_lo", "_missing", "_carried", "_from_hi"]
    columns = (ID, *(MirrorColumn(name, "Nullable(String)") for name in names))
    kinds: dict[str, Any] = dict.fromkeys(names, pl.String)
    mirror.write(columns, {"id": 1} | {name: name for name in names}, **kinds)
    mirror.write(columns, {"id": 1, "_unavailable": ["_carried"], "_missing": "m", "position_hi": "p"}, **kinds)
    assert mirror.rows("position_hi, _missing__column, _carried") == [("p", "m", "_carried")]
