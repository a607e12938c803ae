"""Columns that a processor was granted: in clear for it alone, and beside the changes, never in them."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import polars as pl

from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.processors import field
from chronicle.processors.step import Processing
from chronicle.testing import Record, change, run
from tests.unit.processing import ORDERS, PEOPLE, made, order, raises, spy

HIDING = '[[tables]]\nmatch = "**"\ncolumns = { id = "clear", salary = "redact", grade = "drop" }'


def test_a_granted_column_is_seen_in_clear_by_that_processor_alone() -> None:
    """As people see it: a decimal is a number; of a delete, the old row's."""
    seen: dict[str, Any] = {}

    def clear(changes: pl.DataFrame) -> pl.DataFrame:
        seen["granted"] = changes.select("clear.salary", "clear.grade").rows()
        return changes.with_columns(band=(pl.col("clear.salary") // 10_000).cast(pl.Int64))

    def other(changes: pl.DataFrame) -> pl.DataFrame:
        seen["other"] = [name for name in changes.columns if name.startswith("clear.")], str(changes.to_dicts())
        return changes

    row = {"id": 1, "salary": Decimal("61250.50"), "grade": "G7"}
    outcome = run(
        [change(PEOPLE, after=row), change(PEOPLE, "delete", before=row), order(1)],
        policy=HIDING,
        processors=[made(clear, grants={"shop.*.people": ["salary", "grade"]}), made(other, name="other")],
    )
    assert seen["granted"] == [(Decimal("61250.50"), "G7"), (Decimal("61250.50"), "G7"), (None, None)]
    assert seen["other"][0] == []
    assert "61250" not in seen["other"][1]
    assert [json.loads(text or "{}").get("band") for text in outcome.changes["extra"]] == [6, 6, None]
    assert "61250" not in str(outcome.changes.to_dicts()) + str([table.frame for table in outcome.tables])
    assert not outcome.granted


def test_a_value_that_the_database_did_not_send_is_not_granted() -> None:
    """Of a deleted row without REPLICA IDENTITY FULL Debezium makes the columns up: only the key is true."""
    seen: list[Any] = []
    one = made(spy(lambda c: seen.extend(c.select("clear.id", "clear.salary").rows())), grants={"**": ["id", "salary"]})
    careful = SourceSpec("shop", "postgresql")
    run([change(PEOPLE, "delete", before={"id": 1, "salary": 0})], policy=HIDING, processors=[one], sources=[careful])
    assert seen == [(1, None)]


def test_a_column_of_two_types_is_granted_as_text() -> None:
    """Two writer schemas of one table in a batch."""
    seen: list[Any] = []
    one = made(spy(lambda c: seen.extend(c["clear.salary"])), grants={"**": ["salary", "gone"]})
    source = {"connector": "postgresql", "schema": "public", "table": "people", "txId": 1, "sequence": '["1","1"]', "ts_us": 1}
    rows: list[dict[str, Any]] = [{"id": 1, "salary": 10}, {"id": 2, "salary": "ten"}]
    values = [
        {"before": None, "after": row, "op": "c", "source": source | {"lsn": 1 + at}, "ts_ms": 1} | ({"more": 1} if at else {})
        for at, row in enumerate(rows)
    ]
    records = [Record(PEOPLE, json.dumps(value).encode()) for value in values]
    run(records, policy=HIDING, processors=[one])
    assert seen == ["10", "ten"]


def test_granted_values_stay_beside_their_rows_when_others_fail() -> None:
    """The engine renumbers rows; a value on the wrong row would be a leak."""
    seen: list[Any] = []
    first = made(raises, name="first", tables=ORDERS)
    second = made(
        spy(lambda c: seen.extend(c.select("clear.salary", field("after", "id", pl.Int64)).rows())), grants={"**": ["salary"]}
    )
    given = [order(1), change(PEOPLE, after={"id": 1, "salary": 10}), order(2), change(PEOPLE, after={"id": 2, "salary": 20})]

    class FirstStep(Processing):
        name = "first"

        def __call__(self, batch: Batch) -> Any:
            granted = batch.granted
            done, failed = super().__call__(batch)
            return replace(done, granted=granted), failed

    run(given, policy=HIDING, processors=[second], steps=[FirstStep([first])])
    assert seen == [(10, 1), (20, 2)]
