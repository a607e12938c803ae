"""The demo's proof: what counts as equal rows, how the audit topic folds to final rows, how latency is counted."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from chronicle.dev.latency import latencies, percentile
from chronicle.dev.proof import audit_rows, canonical, side
from chronicle.dev.traffic import Commit
from chronicle.trail.tables import TableName

NAME = TableName("shop", "public", "orders")
AT = datetime(2026, 3, 1, 9, 30, 0, 120_000)
SAME = [
    (Decimal("12.30"), "12.30"),
    (AT, "2026-03-01T09:30:00.12"),
    (AT.replace(tzinfo=UTC), "2026-03-01T09:30:00.120000Z"),
    (AT.replace(tzinfo=timezone(timedelta(hours=2))), "2026-03-01T07:30:00.120000Z"),
    (date(2026, 3, 1), "2026-03-01"),
    (uuid.UUID(int=7), str(uuid.UUID(int=7))),
    ({"b": 1, "a": None}, '{"a":null, "b":1}'),
    (["x", None], ["x", None]),
    (12.0, 12),
]


@pytest.mark.parametrize(("native", "imaged"), SAME)
def test_a_value_is_the_same_from_a_driver_and_from_an_image(native: Any, imaged: Any) -> None:
    """A driver's own types and the canonical JSON of the trail meet in one text."""
    assert canonical({"v": native}, {"v"}) == canonical({"v": imaged}, {"v"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, ""),
        (None, 0),
        (Decimal("12.30"), Decimal("12.3")),
        (True, 1),
        ("1", 1),
        ("a", "A"),
        (AT, AT + timedelta(microseconds=1)),
    ],
)
def test_a_difference_is_a_difference(one: Any, other: Any) -> None:
    """NULL is neither empty nor zero, scale counts, and so does a microsecond."""
    assert side([{"v": one}], {"v"}) != side([{"v": other}], {"v"})


def test_secret_columns_are_left_out_and_order_does_not_count() -> None:
    """The mirror has no such column; the order of rows and columns is nobody's promise."""
    rows = [{"id": 1, "n": "a", "password": "x"}, {"id": 2, "n": "b", "password": "y"}]
    assert side(rows, {"id", "n"}) == side([{"n": "b", "id": 2}, {"n": "a", "id": 1}], {"id", "n"})


def test_a_missing_and_a_doubled_row_change_the_digest() -> None:
    """Each row counts once."""
    rows = [{"id": 1}, {"id": 2}]
    assert len({side(some, {"id", "n"}).digest for some in (rows, rows[:1], [*rows, rows[0]])}) == 3


def record(position: int, operation: str, entity: str, after: dict[str, Any] | None, table: str = "orders") -> dict[str, Any]:
    """The part of an audit record that folding looks at."""
    named = {"source": "shop", "schema": "public", "table": table}
    return {**named, "position": str(position), "operation": operation, "entity": entity, "after": after}


def test_the_audit_topic_folds_by_position_and_not_by_arrival() -> None:
    """The newest position of each row wins; a deletion ends it; other tables are not looked at."""
    records = [
        record(3, "update", "a", {"id": 1, "n": 3}),
        record(1, "create", "a", {"id": 1, "n": 1}),
        record(1, "create", "b", {"id": 2}),
        record(1 << 100, "delete", "b", None),
        record(9, "create", "c", {"id": 3}, table="other"),
    ]
    assert audit_rows(records, NAME) == [{"id": 1, "n": 3}]


def test_a_truncate_ends_every_earlier_row_wherever_it_stands() -> None:
    """It has no row of its own, and later rows live."""
    records = [
        record(5, "create", "b", {"id": 2}),
        record(4, "truncate", "table", None),
        record(3, "create", "a", {"id": 1}),
    ]
    assert audit_rows(records, NAME) == [{"id": 2}]


def test_latency_counts_each_transaction_once_and_only_what_was_seen_anew() -> None:
    """A repeated id is the first commit's; what was there before the poller started, or never came, is not measured."""
    commits = [Commit("shop", "1", 10.0), Commit("shop", "1", 10.5), Commit("shop", "2", 11.0), Commit("shop", "3", 12.0)]
    [found] = latencies(commits, {("shop", "1"): 10.2, ("shop", "2"): 0.0})
    assert (found.measured, round(found.p50_ms)) == (1, 200)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """The smallest one that the share of all is not above."""
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50.0, 99.0, 7.0)
