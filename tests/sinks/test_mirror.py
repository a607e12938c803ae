"""Mirror tables on a real ClickHouse: names, types that change, deletes, truncates, values that were not sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from chronicle import config
from chronicle.model.batch import MirrorColumn, TableRows
from chronicle.sinks.clickhouse import ClickHouseSink
from chronicle.sinks.mirror_names import current_name, mirror_name
from tests.sinks import batches

pytestmark = pytest.mark.stack
ID = MirrorColumn("id", "Int64", key=True)


@pytest.fixture
def sink(clickhouse: config.ClickHouse) -> Iterator[ClickHouseSink]:
    """The sink over the test's own databases."""
    made = ClickHouseSink(clickhouse)
    yield made
    made.close()


class Mirror:
    """One mirrored table: writes rows with rising positions, reads the view."""

    def __init__(self, sink: ClickHouseSink, store: Client, database: str, table: str = "customers") -> None:
        self.sink, self.store, self.database, self.table = sink, store, database, table
        self.at = 0

    def write(self, columns: tuple[MirrorColumn, ...], *rows: dict[str, Any], **dtypes: Any) -> None:
        """One batch; a row may say `operation`, and with `_at` its position."""
        changes, values = [], []
        for row in rows:
            self.at += 1
            at = row.pop("_at", self.at)
            operation = row.pop("operation", "delete" if row.get("_deleted") else "update")
            changes.append(batches.change("shop", at, table=self.table, key=row.get("id", 0), operation=operation))
            values.append({"_row": len(changes) - 1} | row)
        tables = [batches.mirror("shop", values, table=self.table, columns=columns, dtypes=dtypes)]
        self.sink.write(batches.batch(changes, tables))

    def truncate(self) -> None:
        """A truncate of the table: a change without a mirror row."""
        self.at += 1
        self.sink.write(batches.batch([batches.change("shop", self.at, table=self.table, operation="truncate")]))

    def rows(self, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
        """The rows as they are now."""
        view = current_name("shop", "public", self.table)
        result = self.store.query(f"SELECT {columns} FROM `{self.database}`.`{view}` WHERE {where} ORDER BY id").result_rows
        return [tuple(row) for row in result]

    def types(self, table: str | None = None) -> dict[str, str]:
        """Column → type of a mirror table."""
        name = table or mirror_name("shop", "public", self.table)
        query = f"SELECT name, type FROM system.columns WHERE database = '{self.database}' AND table = '{name}'"
        return {row[0]: row[1] for row in self.store.query(query).result_rows}


@pytest.fixture
def customers(sink: ClickHouseSink, store: Client, clickhouse: config.ClickHouse) -> Mirror:
    """The mirror of shop.public.customers, not there yet."""
    return Mirror(sink, store, clickhouse.mirror_database)


def test_event_ids_and_positions_arrive_bit_by_bit(sink: ClickHouseSink, store: Client) -> None:
    """A UUID's text is the digest's hex in order; a position is its halves put together, the epoch's top bits too."""
    change = batches.change(
        "shop", 1, position_hi=(255 << 56) + 7, position_lo=2**64 - 1, previous_entity=batches.digest("old")
    )
    sink.write(batches.batch([change]))
    (row,) = store.query("SELECT toString(event_id), toString(previous_entity), position FROM changes FINAL").result_rows
    assert row[0].replace("-", "") == change["event_id"].hex()
    assert row[1].replace("-", "") == batches.digest("old").hex()
    assert row[2] == (((255 << 56) + 7) << 64) + 2**64 - 1


def test_every_column_of_a_change_arrives_as_it_was(sink: ClickHouseSink, store: Client) -> None:
    """No column is forgotten, shifted or rounded."""
    change = batches.change("shop", 3, operation="update", changed=["a", "b"], unavailable=["c"], transaction_order=None)
    sink.write(batches.batch([change]))
    (row,) = store.query("SELECT * FROM changes FINAL").named_results()
    ids = ("event_id", "entity", "previous_entity", "position_hi", "position_lo")
    naive = {name: value.replace(tzinfo=None) if hasattr(value, "tzinfo") else value for name, value in change.items()}
    assert {name: value for name, value in row.items() if name in naive and name not in ids} == {
        name: value for name, value in naive.items() if name not in ids
    }


def test_the_view_shows_the_latest_of_each_key_whatever_order_it_came_in(customers: Mirror) -> None:
    """Position decides, not arrival."""
    columns = (ID, MirrorColumn("name", "Nullable(String)"))
    customers.write(columns, {"id": 1, "name": "new", "_at": 9}, {"id": 2, "name": "b", "_at": 1})
    customers.write(columns, {"id": 1, "name": "old", "_at": 5})
    assert customers.rows("id, name") == [(1, "new"), (2, "b")]


def test_a_deleted_row_is_hidden_until_it_is_inserted_again(customers: Mirror) -> None:
    """Also when delete and insert come in one batch."""
    columns = (ID, MirrorColumn("name", "Nullable(String)"))
    customers.write(columns, {"id": 1, "name": "a"}, {"id": 2, "name": "b"})
    customers.write(columns, {"id": 1, "_deleted": 1}, {"id": 2, "_deleted": 1}, {"id": 2, "name": "again"})
    assert customers.rows("id, name") == [(2, "again")]


def test_rows_from_before_a_truncate_are_hidden_and_rows_after_it_shown(customers: Mirror) -> None:
    """A late redelivery of an old row stays hidden, too."""
    columns = (ID, MirrorColumn("name", "Nullable(String)"))
    customers.write(columns, {"id": 1, "name": "a"}, {"id": 2, "name": "b"})
    customers.truncate()
    customers.write(columns, {"id": 2, "name": "after"}, {"id": 3, "name": "late", "_at": 1})
    assert customers.rows("id, name") == [(2, "after")]


def test_an_added_column_appears_with_the_first_row_that_has_it(customers: Mirror) -> None:
    """Within the batch, in the table and in the view."""
    customers.write((ID, MirrorColumn("name", "Nullable(String)")), {"id": 1, "name": "a"})
    customers.write(
        (ID, MirrorColumn("name", "Nullable(String)"), MirrorColumn("age", "Nullable(Int32)")),
        {"id": 2, "age": 7},
        age=pl.Int32,
    )
    assert customers.rows("id, name, age") == [(1, "a", None), (2, None, 7)]


def test_a_dropped_column_stays_and_gets_null(customers: Mirror) -> None:
    """What was known of old rows is kept."""
    customers.write((ID, MirrorColumn("name", "Nullable(String)")), {"id": 1, "name": "a"})
    customers.write((ID,), {"id": 2})
    assert customers.rows("id, name") == [(1, "a"), (2, None)]


def test_a_widened_type_widens_the_column_and_rows_of_the_old_schema_still_fit(customers: Mirror) -> None:
    """int → bigint, numeric(10,2) → numeric(12,4), an enum with a value added in the middle."""
    old = (
        ID,
        MirrorColumn("n", "Nullable(Int32)"),
        MirrorColumn("m", "Nullable(Decimal(10, 2))"),
        MirrorColumn("e", "Nullable(Enum16('a' = 1, 'c' = 2))"),
    )
    new = (
        ID,
        MirrorColumn("n", "Nullable(Int64)"),
        MirrorColumn("m", "Nullable(Decimal(12, 4))"),
        MirrorColumn("e", "Nullable(Enum16('a' = 1, 'b' = 2, 'c' = 3))"),
    )
    narrow: dict[str, Any] = {"n": pl.Int32, "m": pl.Decimal(10, 2), "e": pl.String}
    wide: dict[str, Any] = {"n": pl.Int64, "m": pl.Decimal(12, 4), "e": pl.String}
    customers.write(old, {"id": 1, "n": 1, "m": Decimal("1.50"), "e": "c"}, **narrow)
    customers.write(new, {"id": 2, "n": 2**40, "m": Decimal("12345678.1234"), "e": "b"}, **wide)
    customers.write(old, {"id": 3, "n": 3, "m": Decimal("3.25"), "e": "c"}, **narrow)
    assert customers.rows("id, n, m, e") == [
        (1, 1, Decimal("1.50"), "c"),
        (2, 2**40, Decimal("12345678.1234"), "b"),
        (3, 3, Decimal("3.25"), "c"),
    ]


def test_an_incompatible_type_takes_a_column_of_its_own_and_no_row_is_lost(customers: Mirror) -> None:
    """Both columns stay readable side by side, and rows of either schema find theirs."""
    number, text = (ID, MirrorColumn("v", "Nullable(Int32)")), (ID, MirrorColumn("v", "Nullable(String)"))
    customers.write(number, {"id": 1, "v": 5}, v=pl.Int32)
    customers.write(text, {"id": 2, "v": "five"}, v=pl.String)
    customers.write(number, {"id": 3, "v": 6}, v=pl.Int32)
    customers.write(text, {"id": 4, "v": "six"}, v=pl.String)
    assert customers.rows("id, v, v__string") == [(1, 5, None), (2, None, "five"), (3, 6, None), (4, None, "six")]


def test_values_written_in_another_way_take_a_column_of_their_own(customers: Mirror) -> None:
    """Clear texts and tokens never stand in one column, and each way finds its own column again."""
    customers.write((ID, MirrorColumn("email", "Nullable(String)")), {"id": 1, "email": "a@x"}, email=pl.String)
    customers.write(
        (ID, MirrorColumn("email", "Nullable(String)", how="token people")), {"id": 2, "email": "t1.a"}, email=pl.String
    )
    customers.write((ID, MirrorColumn("email", "Nullable(String)")), {"id": 3, "email": "b@x"}, email=pl.String)
    customers.write(
        (ID, MirrorColumn("email", "Nullable(String)", how="token people")), {"id": 4, "email": "t1.b"}, email=pl.String
    )
    assert customers.rows("id, email, email__token_people") == [
        *((1, "a@x", None), (2, None, "t1.a"), (3, "b@x", None), (4, None, "t1.b")),
    ]


def test_a_key_written_in_another_way_makes_a_new_generation_without_the_old_rows(customers: Mirror) -> None:
    """A clear key is never copied beside tokens."""
    customers.write((MirrorColumn("id", "String", key=True),), {"id": "ann"}, id=pl.String)
    customers.write((MirrorColumn("id", "String", key=True, how="token default"),), {"id": "t1.x"}, id=pl.String)
    assert customers.rows("id") == [("t1.x",)]


def test_a_changed_primary_key_makes_a_new_generation_with_the_rows_there_were(customers: Mirror) -> None:
    """The view moves to it; rows that still come with the old key do not fail."""
    old = (ID, MirrorColumn("tenant", "Nullable(Int32)"), MirrorColumn("name", "Nullable(String)"))
    new = (ID, MirrorColumn("tenant", "Int32", key=True), MirrorColumn("name", "Nullable(String)"))
    customers.write(old, {"id": 1, "tenant": 7, "name": "a"}, tenant=pl.Int32)
    customers.write(new, {"id": 1, "tenant": 8, "name": "b"}, tenant=pl.Int32)
    customers.write(old, {"id": 2, "tenant": 7, "name": "late"}, tenant=pl.Int32)
    assert customers.rows("id, tenant, name") == [(1, 7, "a"), (1, 8, "b")]
    assert customers.types(f"{mirror_name('shop', 'public', 'customers')}__2")["tenant"] == "Int32"


def test_a_widened_key_column_keeps_the_rows_there_were(customers: Mirror) -> None:
    """A sorting key cannot be altered in ClickHouse: a new generation takes them over."""
    small, large = (MirrorColumn("id", "Int32", key=True),), (MirrorColumn("id", "Int64", key=True),)
    customers.write(small, {"id": 1}, {"id": 2}, id=pl.Int32)
    customers.write(large, {"id": 2, "_deleted": 1}, {"id": 2**40}, id=pl.Int64)
    assert customers.rows("id") == [(1,), (2**40,)]


def test_another_workers_mirror_is_found_and_a_dropped_one_made_again(
    sink: ClickHouseSink, store: Client, clickhouse: config.ClickHouse
) -> None:
    """What a process remembers of the tables may be old."""
    other = ClickHouseSink(clickhouse)
    mine, theirs = (Mirror(each, store, clickhouse.mirror_database) for each in (sink, other))
    columns = (ID, MirrorColumn("name", "Nullable(String)"))
    mine.write(columns, {"id": 1, "name": "a"})
    theirs.write(
        (ID, MirrorColumn("name", "Nullable(String)"), MirrorColumn("age", "Nullable(Int32)")),
        {"id": 2, "age": 3, "_at": 50},
        age=pl.Int32,
    )
    store.command(f"DROP TABLE `{clickhouse.mirror_database}`.`{mirror_name('shop', 'public', 'customers')}`")
    mine.write(columns, {"id": 3, "name": "c"})
    other.close()
    assert mine.rows("id, name") == [(3, "c")]


def test_two_captured_tables_never_share_a_mirror(sink: ClickHouseSink, store: Client, clickhouse: config.ClickHouse) -> None:
    """Names that would read the same are kept apart, and any name works."""
    names = ["a__b", "a_b", "weird täb-`le'", "_a_b", "customers__current", "customers__2"]
    assert len({mirror_name("shop", "public", name) for name in names}) == len(names)
    for i, name in enumerate(names):
        mirror = Mirror(sink, store, clickhouse.mirror_database, name)
        mirror.write((ID,), {"id": i})
        assert mirror.rows("id") == [(i,)]


def test_any_column_name_is_mirrored(customers: Mirror) -> None:
    """Quotes, dots, and the mirror's own names."""
    names = ["we`ird \\ 'cöl", "a.b", "a_b", "_position", "_missing"]
    columns = (ID, *(MirrorColumn(name, "Nullable(String)") for name in names))
    dtypes = dict.fromkeys(names, pl.String)
    customers.write(columns, {"id": 1} | {name: name for name in names}, **dtypes)
    types = customers.types()
    assert {"we`ird \\ 'cöl", "a_b", "a_b__2", "_position__column", "_missing__column"} <= set(types)
    assert customers.rows("a_b, a_b__2, _position__column") == [("a.b", "a_b", "_position")]


def test_a_value_that_was_not_sent_comes_from_an_earlier_row_of_the_batch_or_else_from_the_mirror(customers: Mirror) -> None:
    """Unchanged TOAST: NULL would be a lie; the row says which values were filled, and flags what nobody knows."""
    columns = (
        ID,
        MirrorColumn("name", "Nullable(String)"),
        MirrorColumn("tags", "Array(Nullable(String))"),
        MirrorColumn("n", "Nullable(Decimal(10, 2))"),
    )
    kinds: dict[str, Any] = {"n": pl.Decimal(10, 2)}
    customers.write(
        columns, {"id": 1, "name": "big", "tags": ["x", None], "n": Decimal("1.25")}, {"id": 2, "name": None}, **kinds
    )
    lost = ["name", "tags", "n"]
    customers.write(
        columns,
        {"id": 1, "_unavailable": lost},
        {"id": 2, "_unavailable": ["name"], "n": Decimal("2.00")},
        {"id": 3, "name": "fresh", "n": Decimal("3.00")},
        {"id": 3, "_unavailable": ["name"], "n": Decimal("3.50")},
        {"id": 4, "_unavailable": ["name"], "n": Decimal("4.00")},
        {"id": 4, "_unavailable": ["name"], "n": Decimal("4.50")},
        **kinds,
    )
    assert customers.rows("id, name, tags, n, _unavailable, _flags") == [
        (1, "big", ["x", None], Decimal("1.25"), lost, []),
        (2, None, [], Decimal("2.00"), ["name"], []),
        (3, "fresh", [], Decimal("3.50"), ["name"], []),
        (4, None, [], Decimal("4.50"), ["name"], ["name"]),
    ]


def test_a_hundred_quiet_tables_are_written_at_the_same_time(
    sink: ClickHouseSink, store: Client, clickhouse: config.ClickHouse
) -> None:
    """Their inserts overlap: several threads write, and every row is there."""
    count = 100
    names = [f"quiet{i}" for i in range(count)]
    changes = [batches.change("shop", i, table=name, key=i) for i, name in enumerate(names)]
    tables = [batches.mirror("shop", [{"_row": i, "id": i}], table=name, columns=(ID,)) for i, name in enumerate(names)]
    sink.write(batches.batch(changes, tables))
    total = store.query(f"SELECT count(), sum(id) FROM merge('{clickhouse.mirror_database}', '^shop__public__quiet[0-9]+$')")
    assert tuple(total.result_rows[0]) == (count, sum(range(count)))
    assert sum(thread.name.startswith("clickhouse") for thread in threading.enumerate()) > 1


def test_transactions_are_open_complete_partial_or_uncertain(sink: ClickHouseSink, store: Client) -> None:
    """Counts are a hint: a transaction whose BEGIN came twice is never called partial."""
    record = batches.transaction_record
    sink.write(batches.batch([batches.change("shop", i, key=i, transaction_id=str(i)) for i in range(1, 5)]))
    records = [
        *(record("shop", str(i), i, "begin") for i in range(1, 5)),
        record("shop", "3", 30, "begin"),
        record("shop", "1", 11, "end", event_count=1, tables=[{"table": "public.customers", "count": 1}]),
        record("shop", "2", 12, "end", event_count=2, tables=[]),
        record("shop", "3", 13, "end", event_count=2, tables=None),
    ]
    sink.write(batches.batch(records=records))
    sink.write(batches.batch(records=records))
    found = store.query(
        "SELECT transaction_id, status, expected, seen FROM transaction_status ORDER BY transaction_id"
    ).result_rows
    assert [tuple(row) for row in found] == [
        ("1", "complete", 1, 1),
        ("2", "partial", 2, 1),
        ("3", "uncertain", 2, 1),
        ("4", "open", None, 1),
    ]


def test_the_best_and_latest_context_of_a_transaction_is_kept(sink: ClickHouseSink, store: Client) -> None:
    """A logical message is a better rung than a context-table row; of equal rungs the later one wins."""
    contexts = [
        batches.context("shop", "1", 3, '{"actor":"message"}'),
        batches.context("shop", "1", 9, '{"actor":"table"}', rung="table"),
        batches.context("shop", "2", 4, '{"actor":"first"}', rung="table"),
        batches.context("shop", "2", 5, '{"actor":"second"}', rung="table"),
    ]
    for each in reversed(contexts):
        sink.write(batches.batch(records=[each]))
    found = store.query("SELECT context, rung FROM transaction_status ORDER BY transaction_id").result_rows
    assert [tuple(row) for row in found] == [('{"actor":"message"}', "message"), ('{"actor":"second"}', "table")]


def test_a_null_over_a_time_out_of_range_can_be_read_by_any_client(customers: Mirror) -> None:
    """What lies under a NULL is zero: a client that converts before it looks for NULL must not fail on it."""
    columns = (ID, MirrorColumn("seen", "Nullable(DateTime64(6, 'UTC'))"), MirrorColumn("day", "Nullable(Date32)"))
    kinds: dict[str, Any] = {"seen": pl.Datetime("us", "UTC"), "day": pl.Date}
    rows = batches.mirror("shop", [{"_row": 0, "id": 1}, {"_row": 1, "id": 2}], columns=columns, dtypes=kinds)
    beyond = pl.DataFrame({"seen": [2**62, 0], "day": [2**30, 0]}, schema={"seen": pl.Int64, "day": pl.Int32})
    hidden = beyond.select(
        pl.when(pl.col(name) == 0).then(pl.col(name)).cast(kinds[name]).alias(name) for name in beyond.columns
    )
    frame = rows.frame.with_columns(hidden["seen"], hidden["day"])
    tables = [TableRows("shop", "public", "customers", columns, frame)]
    customers.sink.write(batches.batch([batches.change("shop", 1, key=1), batches.change("shop", 2, key=2)], tables))
    epoch = datetime(1970, 1, 1)
    assert customers.rows("id, seen, day") == [(1, None, None), (2, epoch, epoch.date())]
