"""A binlog that goes back while GTIDs rise stops its source; redelivery does not."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from chronicle.errors import StopWorker
from chronicle.model.batch import Batch
from chronicle.model.columns import CHANGES, TRANSACTIONS, empty
from chronicle.worker.order import PositionGuard

Row = tuple[str, tuple[int, int]]


def batch(*rows: Row, connector: str = "mariadb", operation: str = "update", epoch: int = 0) -> Batch:
    columns: dict[str, list[Any]] = {
        "source": ["hiring"] * len(rows),
        "connector": [connector] * len(rows),
        "operation": [operation] * len(rows),
        "epoch": [epoch] * len(rows),
        "transaction_id": [gtid for gtid, _ in rows],
        "position_hi": [position[0] for _, position in rows],
        "position_lo": [position[1] for _, position in rows],
    }
    types = {column.name: column.dtype for column in CHANGES}
    frame = pl.DataFrame({name: pl.Series(name, values, types[name]) for name, values in columns.items()})
    return Batch(frame, (), empty(TRANSACTIONS))


def test_a_server_that_started_over_stops_the_source() -> None:
    """RESET MASTER: the next GTID stands at a lower position."""
    guard = PositionGuard()
    guard(batch(("0-1-100", (7, 5000)), ("0-1-101", (7, 6000))))
    with pytest.raises(StopWorker, match=r"hiring.*--new-epoch"):
        guard(batch(("0-1-102", (1, 400))))


def test_a_server_that_started_over_is_seen_within_one_batch() -> None:
    """Both sides may arrive together."""
    with pytest.raises(StopWorker):
        PositionGuard()(batch(("0-1-100", (7, 5000)), ("0-1-101", (1, 400))))


def test_the_old_side_may_arrive_last() -> None:
    """A topic that lags shows the old positions after the new ones."""
    guard = PositionGuard()
    guard(batch(("0-1-102", (1, 400))))
    with pytest.raises(StopWorker):
        guard(batch(("0-1-100", (7, 5000))))


def test_redelivery_and_lagging_topics_are_no_alarm() -> None:
    """Old numbers with their old positions, in any order, in any split; several rows of one transaction."""
    guard = PositionGuard()
    guard(batch(("0-1-100", (7, 5000)), ("0-1-101", (7, 6000)), ("0-1-101", (7, 6100))))
    guard(batch(("0-1-99", (7, 4000)), ("0-1-100", (7, 5000))))
    guard(batch(("0-1-101", (7, 6000)), ("0-1-102", (8, 4))))
    guard(batch(("0-1-98", (6, 9000))))


def test_domains_epochs_snapshots_and_postgres_are_judged_apart_or_not_at_all() -> None:
    """Positions of different streams do not compare."""
    guard = PositionGuard()
    guard(batch(("0-1-100", (7, 5000))))
    guard(batch(("1-1-200", (1, 1))))
    guard(batch(("0-1-101", (1, 1)), epoch=1))
    guard(batch(("0-1-101", (1, 1)), operation="snapshot"))
    guard(batch(("0-1-101", (1, 1)), connector="postgresql"))
    guard(batch(("file=a,pos=1", (1, 1)), connector="mysql"))


def test_mysql_gtids_are_judged_by_server_uuid() -> None:
    """`uuid:number` is MySQL's form."""
    uuid = "3E11FA47-71CA-11E1-9E33-C80AA9429562"
    guard = PositionGuard()
    guard(batch((f"{uuid}:23", (7, 5000)), connector="mysql"))
    with pytest.raises(StopWorker):
        guard(batch((f"{uuid}:24", (1, 400)), connector="mysql"))


def test_an_accepted_start_is_warned_of_once() -> None:
    """`--accept-gap` goes on from the new positions."""
    warnings: list[str] = []
    guard = PositionGuard(accept=True, warn=warnings.append)
    guard(batch(("0-1-100", (7, 5000))))
    guard(batch(("0-1-101", (1, 400))))
    guard(batch(("0-1-102", (1, 500))))
    assert len(warnings) == 1
