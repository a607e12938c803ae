"""Debezium's quirks: what a record says, what it only seems to say, and what it does not say."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from chronicle.codec import diff
from chronicle.codec.headers import read
from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.testing import Record, run
from tests.unit.envelopes import Table, recorded

PLACEHOLDER = "0f1e2d3c"
NULLABLE = ["null", "string"]
ITEMS = Table([("id", "long"), ("name", NULLABLE), ("qty", ["null", "int"])])


def spec(*, full: frozenset[str] | None = frozenset(), **more: Any) -> SourceSpec:
    return SourceSpec("shop", "postgresql", unavailable_value_placeholder=PLACEHOLDER, full_identity=full, **more)


def process(*records: Record, table: Table = ITEMS, source: SourceSpec | None = None) -> Batch:
    return run(records, schemas=table.schemas, sources=[source or spec()])


def only(batch: Batch) -> dict[str, Any]:
    assert not batch.dead_letters
    (row,) = batch.changes.to_dicts()
    return row


def golden(name: str, source: SourceSpec) -> Batch:
    data = recorded(name)
    return run(data.records, schemas=data.schemas, sources=[source])


EVENTS_POSTGRES = SourceSpec(
    "pga",
    "postgresql",
    unavailable_value_placeholder="__dbz_unavailable__",
    full_identity=frozenset({"shop.orders", "shop.toast_full", "shop.nopk_full"}),
    signal_tables=frozenset({"signals"}),
    heartbeat_tables=frozenset({"hb"}),
)


def test_an_update_names_what_changed() -> None:
    """With the old row known, changed has exactly the columns that differ."""
    old, new = {"id": 1, "name": "a", "qty": 1}, {"id": 1, "name": "a", "qty": None}
    row = only(process(ITEMS.change("u", before=old, after=new), source=spec(full=None)))
    assert row["changed"] == ["qty"]
    assert json.loads(row["before"]) == old
    assert json.loads(row["after"]) == new
    assert row["before_known"]


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 200])
def test_any_number_of_columns_is_compared(columns: int) -> None:
    """A pattern of changed columns is as long as the table is wide."""
    table = Table([("id", "long"), *((f"c{i}", "int") for i in range(columns))])
    old = {"id": 1} | {f"c{i}": 0 for i in range(columns)}
    names = {f"c{i}" for i in range(columns) if i % 3 == 0} | {f"c{columns - 1}"}
    new = old | dict.fromkeys(names, 1)
    row = only(process(table.change("u", before=old, after=new), table=table, source=spec(full=None)))
    assert set(row["changed"]) == names


def test_patterns_are_joined_across_groups() -> None:
    """Equal lists of names of several groups become one."""
    first = diff.name_lists(["a", "b"], pl.DataFrame({"a": [True, False], "b": [False, False]}).to_numpy())
    joined = diff.concat([first, diff.none_marked(1), first])
    assert joined.series("x").to_list() == [["a"], [], [], ["a"], []]
    assert len(joined.lists) == 2


def test_without_full_identity_an_update_says_nothing_about_the_old_row() -> None:
    """Debezium sends before = null there."""
    row = only(process(ITEMS.change("u", after={"id": 1, "name": "b", "qty": 2})))
    assert (row["before"], row["before_known"], row["changed"]) == (None, False, [])


def test_without_full_identity_invented_old_values_are_never_recorded() -> None:
    """A delete carries "" and 0 for what the database did not send: only the key is kept."""
    row = only(process(ITEMS.change("d", before={"id": 1, "name": "", "qty": 0})))
    assert (row["before"], row["before_known"], row["after"]) == ('{"id":1}', False, None)
    update = only(process(ITEMS.change("u", before={"id": 1, "name": "", "qty": 0}, after={"id": 1, "name": "n", "qty": 0})))
    assert (update["before"], update["before_known"], update["changed"]) == (None, False, [])


def test_with_full_identity_a_delete_keeps_the_row() -> None:
    """Declared per table."""
    old = {"id": 1, "name": "", "qty": 0}
    row = only(process(ITEMS.change("d", before=old), source=spec(full=frozenset({"public.t"}))))
    assert json.loads(row["before"]) == old
    assert row["before_known"]


def test_a_wrong_declaration_is_noticed() -> None:
    """An update without the old row disproves full identity: the group's deletes keep only the key, and a warning says so."""
    deleted = ITEMS.change("d", before={"id": 1, "name": "", "qty": 0}, lsn=101)
    updated = ITEMS.change("u", after={"id": 2, "name": "x", "qty": 1})
    batch = process(deleted, updated, source=spec(full=frozenset({"public.t"})))
    assert batch.changes["before"].to_list() == ['{"id":1}', None]
    assert batch.changes["before_known"].to_list() == [False, False]
    assert len(batch.warnings) == 1
    assert "shop.public.t" in batch.warnings[0]


def test_a_create_has_nothing_unknown_before_it() -> None:
    """before_known is about old rows that exist."""
    row = only(process(ITEMS.change("c", after={"id": 1, "name": "a", "qty": 1})))
    assert (row["before"], row["before_known"]) == (None, True)


UNSENT = Table(
    [
        *(("id", "long"), ("t", NULLABLE), ("b", ["null", "bytes"]), ("n", ["null", "int"])),
        ("a", ["null", {"type": "array", "items": NULLABLE}]),
        ("i", ["null", {"type": "array", "items": ["null", "int"]}]),
        ("m", ["null", {"type": "map", "values": NULLABLE}]),
    ]
)
FORMS: list[tuple[str, Any]] = [
    ("t", PLACEHOLDER),
    ("t", json.dumps({PLACEHOLDER: PLACEHOLDER}, separators=(",", ":"))),
    ("b", PLACEHOLDER.encode()),
    ("a", [PLACEHOLDER]),
    ("i", list(PLACEHOLDER.encode())),
    ("m", {PLACEHOLDER: PLACEHOLDER}),
]


@pytest.mark.parametrize(("column", "form"), FORMS, ids=[f"{name}-{index}" for index, (name, _) in enumerate(FORMS)])
def test_a_value_that_was_not_sent_is_never_a_value(column: str, form: Any) -> None:
    """Left out of the image, named in unavailable, empty and named in the mirror; neighbours are untouched."""
    row = {"id": 1, "t": "x", "b": b"x", "n": 5, "a": ["x", None], "i": [1, None], "m": {"k": None}}
    batch = process(UNSENT.change("u", after=row | {column: form}), UNSENT.change("u", after=row, lsn=101), table=UNSENT)
    assert not batch.dead_letters
    unsent, sent = batch.changes.to_dicts()
    assert (unsent["unavailable"], sent["unavailable"]) == ([column], [])
    assert set(json.loads(unsent["after"])) == set(row) - {column}
    assert set(json.loads(sent["after"])) == set(row)
    assert json.loads(unsent["after"]).items() <= json.loads(sent["after"]).items()
    mirror = batch.tables[0].frame
    assert mirror["_unavailable"].to_list() == [[column], []]
    assert mirror[column][0] is None or len(mirror[column][0]) == 0
    assert mirror[column][1] is not None


@pytest.mark.parametrize("value", ["0f1e2d3", PLACEHOLDER + " ", "", None])
def test_a_value_like_the_placeholder_is_a_value(value: str | None) -> None:
    """Only the whole placeholder means that nothing was sent."""
    batch = process(ITEMS.change("u", after={"id": 1, "name": value, "qty": None}))
    assert only(batch)["unavailable"] == []


def test_recorded_unsent_values() -> None:
    """The toast section of the recorded events: unavailable without full identity, all values with it."""
    changes = golden("events_postgres", EVENTS_POSTGRES).changes
    default = changes.filter(pl.col("table") == "toast_default")
    assert default["unavailable"].to_list() == [
        [],
        ["big", "bigj", "bigarr"],
        *[["bigj", "bigarr"]] * 2,
        [],
        ["bigj", "bigarr"],
        [],
    ]
    full = changes.filter(pl.col("table") == "toast_full")
    assert full["unavailable"].to_list() == [[]] * 4
    assert full["changed"].to_list() == [[], ["n"], ["big"], []]
    assert not any("__dbz_unavailable__" in text for text in changes["after"].drop_nulls())


def test_a_key_change_links_its_halves() -> None:
    """The create half names the key and the entity before it."""
    changes = golden("events_postgres", EVENTS_POSTGRES).changes.filter(pl.col("table") == "order_items")
    create = changes.filter(pl.col("previous_key").is_not_null()).to_dicts()
    assert [(row["operation"], row["key"], row["previous_key"]) for row in create] == [
        ("create", '{"order_id":1,"line_no":3}', '{"order_id":1,"line_no":2}')
    ]
    deleted = changes.filter((pl.col("operation") == "delete") & (pl.col("key") == '{"order_id":1,"line_no":2}'))
    assert deleted["entity"].to_list() == [create[0]["previous_entity"]]
    assert deleted["previous_key"].to_list() == [None]


@pytest.mark.parametrize(
    ("name", "source"), [("captured_postgres", "b_shop"), ("captured_mariadb", "b_hiring"), ("captured_mysql", "b_mysql")]
)
def test_recorded_key_changes_are_linked(name: str, source: str) -> None:
    """On the project's own templates, decimal keys in base64 included."""
    changes = golden(name, SourceSpec(source, "postgresql" if "postgres" in name else "mariadb", full_identity=None)).changes
    linked = changes.filter(pl.col("previous_key").is_not_null())
    assert len(linked) >= 1
    entities = set(changes.filter(pl.col("operation") == "delete")["entity"])
    assert set(linked["previous_entity"]) <= entities


def test_a_snapshot_row_belongs_to_no_transaction() -> None:
    """It is an observation."""
    row = only(process(ITEMS.change("r", after={"id": 1, "name": "a", "qty": 1})))
    assert (row["operation"], row["transaction_id"]) == ("snapshot", None)


def test_the_transaction_of_a_postgres_change_is_the_part_before_the_colon() -> None:
    """transaction.id differs for every change of one transaction."""
    rows = process(*(ITEMS.change("c", after={"id": i, "name": None, "qty": None}, lsn=100 + i) for i in range(3))).changes
    assert rows["transaction_id"].to_list() == ["7", "7", "7"]


def test_times_are_those_of_their_clocks() -> None:
    """Commit, capture, Kafka and processing, each to its own precision."""
    record = ITEMS.change("c", after={"id": 1, "name": None, "qty": None})
    batch = run(
        [Record(record.topic, record.value, record.key, timestamp_ms=1_700_000_001_000)], schemas=ITEMS.schemas, now_us=9
    )
    times = batch.changes.select(pl.col("committed_at", "captured_at", "received_at", "processed_at").to_physical()).row(0)
    assert times == (1_700_000_000_000_001, 1_700_000_000_500_000, 1_700_000_001_000, 9)


def test_names_come_from_the_source_block() -> None:
    """The topic's name is adjusted to what Kafka allows; the table's is not."""
    tables = set(golden("events_postgres", EVENTS_POSTGRES).changes["table"])
    assert "Odd Täble-1" in tables


def test_tables_that_share_a_topic_are_told_apart() -> None:
    """A router may join tables: each record goes by its own source block."""
    mixed = [ITEMS.change("c", after={"id": i, "name": None, "qty": None}, table=f"t{i % 2}", lsn=100 + i) for i in range(4)]
    batch = process(*mixed)
    assert batch.changes["table"].to_list() == ["t0", "t1", "t0", "t1"]
    assert {rows.table: rows.frame["id"].to_list() for rows in batch.tables} == {"t0": [0, 2], "t1": [1, 3]}


@pytest.mark.parametrize(
    ("headers", "epoch", "old_key"),
    [
        ((), None, None),
        ((("chronicle.epoch", b"7"),), 7, None),
        ((("chronicle.epoch", b'"7"'),), 7, None),
        ((("chronicle.epoch", b"256"),), None, None),
        ((("chronicle.epoch", b"-1"),), None, None),
        ((("chronicle.epoch", b"\xff\x00"),), None, None),
        ((("__debezium.oldkey", b'{"id":1}'),), None, '{"id":1}'),
        ((("__debezium.oldkey", b'{"schema":{},"payload":{"id":12345678901234567890}}'),), None, '{"id":12345678901234567890}'),
        ((("__debezium.oldkey", b"Struct{id=1}"),), None, None),
    ],
)
def test_headers_are_read_or_ignored(headers: Any, epoch: int | None, old_key: str | None) -> None:
    """An unreadable header never makes a dead letter of a good record."""
    facts = read(headers)
    assert (facts.epoch, facts.old_key) == (epoch, old_key)


def test_contexts_stand_in_their_transaction() -> None:
    """Recorded: a logical message and a row of the context table, between BEGIN and END of the rows they speak of."""
    batch = golden("captured_postgres", SourceSpec("b_shop", "postgresql"))
    contexts = batch.transactions.filter(pl.col("kind") == "context")
    assert contexts.select("rung", "context").rows() == [
        ("message", '{"actor":{"id":"ada"},"reason":"test"}'),
        ("table", '{"actor":{"id":"carol"}}'),
    ]
    for id_ in contexts["transaction_id"]:
        kinds = batch.transactions.filter(pl.col("transaction_id") == id_)["kind"].to_list()
        assert kinds == ["begin", "context", "end"]
        assert id_ in set(batch.changes["transaction_id"])


@pytest.mark.parametrize(
    ("name", "source", "connector"), [("captured_postgres", "b_shop", "postgresql"), ("captured_mysql", "b_mysql", "mysql")]
)
def test_ends_count_what_is_written_as_changes(name: str, source: str, connector: str) -> None:
    """Messages, context rows and signal rows are taken out, so that the count closes."""
    batch = golden(name, SourceSpec(source, connector))
    ends = batch.transactions.filter(pl.col("kind") == "end")
    seen = batch.changes.group_by("transaction_id").len("seen")
    joined = ends.join(seen, on="transaction_id", how="left").with_columns(pl.col("seen").fill_null(0))
    assert len(ends) > 10
    assert joined["event_count"].to_list() == joined["seen"].to_list()
    assert not any("LogicalDecodingMessageId" in one["table"] for tables in ends["tables"] for one in tables)
    assert (
        ends.select(pl.col("tables").list.eval(pl.element().struct.field("count")).list.sum()).to_series().to_list()
        == ends["event_count"].to_list()
    )
