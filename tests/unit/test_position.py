"""Positions: the only order of changes within a source."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.model import position
from chronicle.testing import Record, run
from tests.unit.envelopes import Table, recorded

ITEMS = Table([("id", "long")])
CANDIDATES = Table([("id", "long")], connector="mariadb", source="hiring", schema_id=300)


def positions(*records: Record) -> list[int]:
    changes = run(records, schemas=ITEMS.schemas | CANDIDATES.schemas).changes
    return [hi << 64 | lo for hi, lo in zip(changes["position_hi"], changes["position_lo"], strict=True)]


def created(table: Table = ITEMS, op: str = "c", **source: Any) -> Record:
    return table.change(op, after={"id": 1}, **source)


def test_postgres_orders_by_commit_and_not_by_write() -> None:
    """The transaction that wrote first but committed last is the later one (fact 1)."""
    wrote_first, committed_first = created(sequence='["200","110"]', lsn=110), created(sequence='["100","120"]', lsn=120)
    first, second = positions(wrote_first, committed_first)
    assert second < first


def test_postgres_layout() -> None:
    """seq0 << 64 | lsn << 1 | streamed."""
    assert positions(created(sequence='["90","100"]', lsn=100)) == [90 << 64 | 100 << 1 | 1]


def test_seq0_falls_back_to_the_lsn() -> None:
    """Before the first commit that a slot has seen, the sequence's first element is null."""
    assert positions(created(sequence='[null,"100"]', lsn=100)) == [100 << 64 | 100 << 1 | 1]
    assert positions(created(sequence=None, lsn=100)) == [100 << 64 | 100 << 1 | 1]


def test_an_incremental_snapshot_row_stands_by_its_sequence() -> None:
    """There lsn and txId are null."""
    assert positions(created(op="r", sequence='["90","100"]', lsn=None, txId=None)) == [90 << 64 | 100 << 1]


def test_a_snapshot_row_loses_a_tie() -> None:
    """A change streamed from the very position of a snapshot is newer than what the snapshot saw."""
    snapshot, streamed = positions(created(op="r"), created(op="c"))
    assert snapshot < streamed


def test_binlog_layout() -> None:
    """File number << 64 | pos << 20 | row."""
    assert positions(created(CANDIDATES, file="mysql-bin.000012", pos=400, row=3)) == [12 << 64 | 400 << 20 | 3]


def test_a_row_number_beyond_its_bits_stays_in_its_event() -> None:
    """It must never carry into the position of the next event."""
    assert positions(created(CANDIDATES, pos=400, row=1 << 30)) == [3 << 64 | 400 << 20 | (1 << 20) - 1]


@pytest.mark.parametrize("epoch", [b"2", b'"2"', b'{"schema":{"type":"int8","optional":false},"payload":2}'])
def test_the_epoch_stands_before_everything(epoch: bytes) -> None:
    """A position of a new epoch is later than any of the old one, however the header's converter wrote it."""
    record = ITEMS.change("c", after={"id": 1}, headers=(("chronicle.epoch", epoch),), lsn=1, sequence='["1","1"]')
    old, new = positions(created(lsn=1 << 50, sequence=f'["{1 << 50}","{1 << 50}"]'), record)
    assert old < new
    assert new >> 120 == 2


@given(st.integers(0, (1 << 56) - 1), st.integers(0, (1 << 63) - 1), st.integers(0, 255))
def test_no_field_reaches_into_another(seq0: int, lsn: int, epoch: int) -> None:
    """Whatever the values, each can be read back out of the position."""
    frame = pl.DataFrame({"epoch": [epoch], "sequence": [f'["{seq0}","{lsn}"]'], "lsn": [lsn], "op": ["c"]})
    hi, lo = frame.select(*position.postgres()).row(0)
    assert (hi >> 56, hi & ((1 << 56) - 1), lo >> 1, lo & 1) == (epoch, seq0, lsn, 1)


def test_a_position_survives_its_text() -> None:
    """JSON carries it as a string."""
    assert position.parse(str(5 << 120 | 7 << 64 | 9)) == (5 << 56 | 7, 9)
    with pytest.raises(ValueError, match="128 bits"):
        position.parse(str(1 << 128))


def test_recorded_changes_of_one_row_have_rising_positions() -> None:
    """On the real connectors, in each partition, changes of one row stand in the order they were written."""
    for name in ("captured_postgres", "captured_mariadb", "captured_mysql"):
        data = recorded(name)
        changes = run(data.records, schemas=data.schemas).changes
        for _, rows in changes.filter(pl.col("operation") != "snapshot").group_by(
            "topic", "partition", "entity", maintain_order=True
        ):
            order = rows.select("position_hi", "position_lo").rows()
            assert order == sorted(order)
