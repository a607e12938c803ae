"""The whole pure path: every record accounted for once, whatever it is and however batches are cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.model.columns import CHANGES, TRANSACTIONS
from chronicle.model.dead_letters import LIMITS, Limits, Reason, Stage
from chronicle.stages.path import Path
from chronicle.stages.validate import MARGIN_BYTES
from chronicle.testing import IDENTITY_KEY, Record, chunks, rules, run
from tests.unit.envelopes import ENVELOPE, Table, recorded

NULLABLE = ["null", "string"]
ITEMS = Table([("id", "long"), ("v", NULLABLE)])
KEYLESS = Table([("v", NULLABLE)], key=(), name="log", schema_id=400)
SCHEMAS = ITEMS.schemas | KEYLESS.schemas
SHOP = SourceSpec("shop", "postgresql", full_identity=None, keyless=frozenset({"public.log"}))
SOURCES = [
    SHOP,
    SourceSpec(
        "b_shop",
        "postgresql",
        unavailable_value_placeholder="0123456789abcdef" * 2,
        full_identity=frozenset({"public.customers"}),
    ),
    SourceSpec("b_hiring", "mariadb"),
    SourceSpec("b_mysql", "mysql"),
    SourceSpec("pga", "postgresql", full_identity=frozenset({"shop.orders"}), signal_tables=frozenset({"signals"})),
    SourceSpec("mya", "mysql", signal_tables=frozenset({"dbz_signals"})),
]
GOLDEN = ("captured_postgres", "captured_mariadb", "captured_mysql", "events_postgres", "events_mysql")


def process(*records: Record, schemas: dict[int, Any] | None = None) -> Batch:
    return run(records, schemas=SCHEMAS | (schemas or {}), sources=SOURCES)


def as_json(key: bytes | None = b'{"id":1}', **source: Any) -> Record:
    """A create of ITEMS by a JsonConverter without schemas; None leaves a field of the source block out."""
    block = {name: value for name, value in (ENVELOPE["source"] | source).items() if value is not None}
    return Record(ITEMS.topic, json.dumps(ENVELOPE | {"source": block}).encode(), key)


def created(id_: int, **more: Any) -> Record:
    return ITEMS.change("c", after={"id": id_, "v": f"v{id_}"}, lsn=100 + id_, **more)


def replaced(record: Record, **fields: Any) -> Record:
    return Record(**{name: fields.get(name, getattr(record, name)) for name in Record.__slots__})


@pytest.mark.parametrize("name", GOLDEN)
def test_every_recorded_record_has_one_disposition(name: str) -> None:
    """Nothing lost, nothing doubled, no dead letter among good records."""
    data = recorded(name)
    batch = run(data.records, schemas=data.schemas, sources=SOURCES)
    assert batch.rows() == len(data.records)
    assert batch.dead_letters == ()
    placed = [
        (topic, partition, offset) for topic, partition, offset in batch.changes.select("topic", "partition", "offset").rows()
    ]
    assert len(set(placed)) == len(placed)
    assert batch.changes.schema == pl.Schema({column.name: column.dtype for column in CHANGES})
    assert batch.transactions.schema == pl.Schema({column.name: column.dtype for column in TRANSACTIONS})
    assert batch.changes["event_id"].n_unique() == len(batch.changes)


def test_what_is_left_out_is_left_out_by_a_named_rule() -> None:
    """Counted per topic, so that every offset is explained."""
    data = recorded("captured_postgres")
    left_out = run(data.records, schemas=data.schemas, sources=SOURCES).left_out
    assert {rule for _, rule in left_out} == {"tombstone", "heartbeat", "signal", "notification", "message"}
    assert left_out["__debezium-heartbeat.b_shop", "heartbeat"] == 3
    data = recorded("events_mysql")
    assert ("mya", "schema_change") in run(data.records, schemas=data.schemas, sources=SOURCES).left_out


BAD: list[tuple[str, Record, Reason, Stage]] = [
    ("magic byte", Record(ITEMS.topic, b"\x05\0\0\0\x64abc", created(1).key), Reason.WRONG_FRAME, Stage.DECODE),
    ("empty value", Record(ITEMS.topic, b"", created(1).key), Reason.WRONG_FRAME, Stage.DECODE),
    ("short frame", Record(ITEMS.topic, b"\0\0\0", created(1).key), Reason.WRONG_FRAME, Stage.DECODE),
    ("wrong key frame", replaced(created(1), key=b"\x07abc"), Reason.WRONG_FRAME, Stage.DECODE),
    ("unknown id", Record(ITEMS.topic, b"\0\0\0\x27\x0fabc", created(1).key), Reason.UNKNOWN_SCHEMA, Stage.DECODE),
    ("unknown key id", replaced(created(1), key=b"\0\0\0\x27\x0f\x02"), Reason.UNKNOWN_SCHEMA, Stage.DECODE),
    ("no schema", Record(ITEMS.topic, b"\0\0\0\x27\x10abc", created(1).key), Reason.UNSUPPORTED_SCHEMA, Stage.DECODE),
    ("truncated", replaced(created(1), value=(created(1).value or b"")[:-9]), Reason.NOT_DECODABLE, Stage.DECODE),
    ("trailing", replaced(created(1), value=(created(1).value or b"") + b"\0"), Reason.NOT_DECODABLE, Stage.DECODE),
    ("truncated key", replaced(created(1), key=(created(1).key or b"")[:5]), Reason.NOT_DECODABLE, Stage.DECODE),
    ("no JSON", Record(ITEMS.topic, b'{"op":', None), Reason.NOT_DECODABLE, Stage.DECODE),
    ("no envelope", Record(ITEMS.topic, created(1).key, created(1).key), Reason.NOT_AN_ENVELOPE, Stage.DECODE),
    ("unknown op", ITEMS.change("x", after={"id": 1, "v": None}), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("create without after", ITEMS.change("c", key={"id": 1}), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("update without after", ITEMS.change("u", before={"id": 1, "v": None}), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("delete without before", ITEMS.change("d", key={"id": 1}), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("no key", replaced(created(1), key=None), Reason.MISSING_KEY, Stage.VALIDATE),
    ("no connector", as_json(connector=None), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("no table", as_json(table=None), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("year 30000", as_json(ts_us=10**18), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("year 300000", as_json(ts_us=None, ts_ms=9 * 10**15), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("wraps around", as_json(ts_us=None, ts_ms=2**63 // 1000 * 2), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("before Christ", as_json(ts_us=-(10**17)), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("no record time", replaced(created(1), timestamp_ms=2**62), Reason.BAD_ENVELOPE, Stage.VALIDATE),
    ("no source", replaced(created(1), topic="elsewhere.public.t", offset=2), Reason.UNKNOWN_SOURCE, Stage.DECODE),
    ("no source, deleted", replaced(created(1), topic="elsewhere", value=None, offset=2), Reason.UNKNOWN_SOURCE, Stage.DECODE),
    (
        "no position",
        ITEMS.change("c", after={"id": 1, "v": None}, lsn=None, sequence=None),
        Reason.BAD_POSITION,
        Stage.VALIDATE,
    ),
    ("negative LSN", ITEMS.change("c", after={"id": 1, "v": None}, lsn=-1, sequence=None), Reason.BAD_POSITION, Stage.VALIDATE),
    (
        "huge seq0",
        ITEMS.change("c", after={"id": 1, "v": None}, sequence=f'["{1 << 60}","1"]'),
        Reason.BAD_POSITION,
        Stage.VALIDATE,
    ),
]


@pytest.mark.parametrize(("bad", "reason", "stage"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_record_leaves_alone(bad: Record, reason: Reason, stage: Stage) -> None:
    """One dead letter with its reason and original bytes; its neighbours go through, their mirror rows point at them."""
    records = [created(10), created(11), bad, created(12)]
    batch = process(*records, schemas={10000: '{"type":"recordd"}'})
    assert batch.rows() == 4
    assert [(letter.reason, letter.stage, letter.offset) for letter in batch.dead_letters] == [(reason, stage, 2)]
    assert (batch.dead_letters[0].key, batch.dead_letters[0].value) == (bad.key, bad.value)
    assert batch.changes["key"].to_list() == ['{"id":10}', '{"id":11}', '{"id":12}']
    mirror = batch.tables[0].frame
    assert batch.changes["key"].gather(mirror["_row"]).to_list() == [f'{{"id":{id_}}}' for id_ in mirror["id"]]


def limited(records: Sequence[Record], **limits: int) -> Batch:
    return Path(SOURCES, IDENTITY_KEY, rules(), Limits(**limits)).run(chunks(records), SCHEMAS, 1)


def test_a_record_above_the_limit_is_too_large_whatever_is_in_it() -> None:
    """Eight MiB of key and value pass, one byte more does not: valid, garbage, JSON or with a large key; unread."""
    frame = ITEMS.change("c", after={"id": 1, "v": ""})
    assert frame.key is not None
    assert frame.value is not None
    room = LIMITS.record - len(frame.key) - len(frame.value) - 3  # a longer text's length takes three bytes more
    fits, above = (ITEMS.change("c", after={"id": id_, "v": "x" * (room + id_)}) for id_ in (0, 1))
    large = LIMITS.record + 1
    bad = [above, *(replaced(above, value=(head + b"\xff" * large)[:large]) for head in (b"\0\0\0\0\x64", b"\x07", b"{"))]
    bad.append(replaced(created(1), key=b"\0" * large))
    records = [created(10)]
    for one in bad:
        records += [one, created(len(records) + 10)]
    batch = process(*records, fits)
    assert batch.rows() == len(records) + 1
    assert [letter.offset for letter in batch.dead_letters] == [1, 3, 5, 7, 9]
    assert {(letter.reason, letter.stage, letter.schema_id) for letter in batch.dead_letters} == {
        (Reason.TOO_LARGE, Stage.DECODE, None)
    }
    assert [(letter.key, letter.value) for letter in batch.dead_letters] == [(one.key, one.value) for one in bad]
    assert batch.changes["offset"].to_list() == [0, 2, 4, 6, 8, 10, 11]


def test_the_verdict_on_a_size_does_not_depend_on_the_batch() -> None:
    """A redelivery may stand in another batch."""
    records = [created(1), ITEMS.change("c", after={"id": 2, "v": "x" * 500}), created(3)]
    together = limited(records, record=400)
    alone = [limited([replaced(one, offset=at)], record=400) for at, one in enumerate(records)]
    assert [letter.offset for letter in together.dead_letters] == [1]
    assert [[letter.offset for letter in one.dead_letters] for one in alone] == [[], [1], []]


def test_a_change_that_outgrows_the_audit_topic_as_json_is_a_dead_letter_before_any_sink() -> None:
    """Control characters grow sixfold, and both images count: validated, not decoded, and gone from its mirror too."""
    audit = MARGIN_BYTES + 60_000
    grown = {"id": 2, "v": "\x01" * 9_900}
    plain = {"id": 3, "v": "x" * 40_000}
    records = [
        created(1),
        ITEMS.change("c", after=grown, lsn=200),
        ITEMS.change("c", after=grown | {"v": "\x01" * 10_000}, lsn=201),
        ITEMS.change("u", before=plain, after=plain | {"v": None}, lsn=202),
        ITEMS.change("u", before=plain, after=plain, lsn=203),
        created(4),
    ]
    batch = limited(records, audit=audit)
    assert batch.rows() == len(records)
    assert [(letter.offset, letter.reason, letter.stage) for letter in batch.dead_letters] == [
        (offset, Reason.TOO_LARGE, Stage.VALIDATE) for offset in (2, 4)
    ]
    assert batch.dead_letters[0].value == records[2].value
    assert batch.changes["offset"].to_list() == [0, 1, 3, 5]
    assert batch.tables[0].frame["id"].to_list() == [1, 2, 3, 4]


@pytest.mark.parametrize("broken", [{"file": "binlog"}, {"pos": -1}, {"pos": 1 << 44}])
def test_a_binlog_position_that_cannot_be_is_refused(broken: dict[str, Any]) -> None:
    """A position that wrapped around would put the row behind its own past."""
    table = Table([("id", "long")], connector="mariadb", source="b_hiring", schema_id=800)
    batch = run([table.change("c", after={"id": 1}), table.change("c", after={"id": 2}, **broken)], schemas=table.schemas)
    assert [letter.reason for letter in batch.dead_letters] == [Reason.BAD_POSITION]
    assert batch.changes["key"].to_list() == ['{"id":1}']


def test_a_table_without_a_key_needs_none() -> None:
    """And has no mirror."""
    batch = process(KEYLESS.change("c", after={"v": "x"}), KEYLESS.change("t"))
    assert batch.changes.select("operation", "key").rows() == [("create", ""), ("truncate", "")]
    assert batch.tables == ()


@pytest.mark.parametrize(("keyless", "letters"), [(None, 0), (frozenset({"public.t"}), 0), (frozenset(), 1)])
def test_the_verdict_on_a_null_key_does_not_depend_on_earlier_batches(keyless: frozenset[str] | None, letters: int) -> None:
    """After a kill the same record stands in another batch of another process: it must not become the other thing."""
    source = SourceSpec("shop", "postgresql", full_identity=None, keyless=keyless)
    fresh, used = Path([source], IDENTITY_KEY, rules()), Path([source], IDENTITY_KEY, rules())
    used.run(chunks([as_json()]), {}, 1)
    verdicts = [path.run(chunks([as_json(key=None)]), {}, 1) for path in (fresh, used)]
    assert [len(batch.dead_letters) for batch in verdicts] == [letters, letters]


def test_a_topic_of_no_source_asks_for_no_schema() -> None:
    """The registry is waited for: a foreign record must not hold the batch up."""
    foreign = chunks([replaced(created(1), topic="elsewhere.public.t")])
    assert Path([SHOP], IDENTITY_KEY, rules()).schema_ids(foreign) == frozenset()


def test_a_truncate_needs_no_key_and_has_no_mirror_row() -> None:
    """In a table that has keys, too."""
    batch = process(created(1), ITEMS.change("t", lsn=200))
    assert batch.dead_letters == ()
    assert batch.changes["operation"].to_list() == ["create", "truncate"]
    assert batch.tables[0].frame["_row"].to_list() == [0]


def test_mirror_rows_hold_the_last_state() -> None:
    """A deleted row is its key and the mark."""
    row = {"id": 1, "v": "x"}
    batch = process(
        ITEMS.change("c", after=row),
        ITEMS.change("u", before=row, after=row | {"v": None}, lsn=101),
        ITEMS.change("d", before=row, lsn=102),
    )
    (table,) = batch.tables
    assert [(column.name, column.clickhouse_type, column.key) for column in table.columns] == [
        ("id", "Int64", True),
        ("v", "Nullable(String)", False),
    ]
    assert table.frame.columns == ["id", "v", "_row", "_deleted", "_unavailable", "_flags", "_nulls"]
    assert table.frame.select("id", "v", "_row", "_deleted").rows() == [(1, "x", 0, 0), (1, None, 1, 0), (1, None, 2, 1)]


def test_a_source_column_never_collides_with_the_mirrors_own() -> None:
    """A table may have a column called _row."""
    table = Table([("id", "long"), ("_row", "int"), ("_deleted", NULLABLE)], name="odd", schema_id=500)
    batch = run([table.change("c", after={"id": 1, "_row": 5, "_deleted": "no"})], schemas=table.schemas)
    assert batch.tables[0].frame.select("_row__column", "_deleted__column", "_row", "_deleted").rows() == [(5, "no", 0, 0)]


SECRET = "correct horse battery"

# Cutting batches ----------------------------------------------------------------------------------------------------

CORE = [column.name for column in CHANGES if column.name != "processed_at"]


def core(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    rows = [row for batch in batches for row in batch.changes.select(CORE).to_dicts()]
    return sorted(rows, key=lambda row: (row["topic"], row["partition"], row["offset"]))


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(GOLDEN), st.lists(st.integers(0, 400), max_size=6))
def test_the_same_records_in_any_batches_are_the_same_changes(name: str, cuts: list[int]) -> None:
    """Ids, images, positions: nothing depends on where a batch ends, or on what else was in it."""
    data = recorded(name)
    whole = Path(SOURCES, IDENTITY_KEY, rules()).run(chunks(data.records), data.schemas, 1)
    path = Path(SOURCES, IDENTITY_KEY, rules())
    bounds = sorted({0, len(data.records), *(cut for cut in cuts if cut < len(data.records))})
    parts = [path.run(chunks(data.records[lo:hi]), data.schemas, 2) for lo, hi in pairwise(bounds)]
    assert core(parts) == core([whole])
    assert sum(batch.rows() for batch in parts) == whole.rows()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_garbage_never_takes_a_neighbour_along(data: st.DataObject) -> None:
    """Arbitrary bytes, and good records with bytes flipped or cut, as value or key: each record has one disposition."""
    good = [created(id_) for id_ in range(4)]
    spoilt = []
    for _ in range(data.draw(st.integers(1, 3))):
        victim = created(data.draw(st.integers(10, 20)))
        raw = bytearray(victim.value or b"")
        match data.draw(st.sampled_from(["garbage", "json", "flip", "cut", "key"])):
            case "garbage":
                spoilt.append(replaced(victim, value=data.draw(st.binary(max_size=40))))
            case "json":
                text = data.draw(
                    st.sampled_from(
                        [
                            b"{}",
                            b'{"op":"c"}',
                            b'{"a":1}',
                            b"{]",
                            b'{"schema":{},"payload":{}}',
                            b'{"schema":null,"payload":null}',
                        ]
                    )
                )
                spoilt.append(replaced(victim, value=text))
            case "flip":
                at = data.draw(st.integers(5, len(raw) - 1))
                raw[at] ^= 1 << data.draw(st.integers(0, 7))
                spoilt.append(replaced(victim, value=bytes(raw)))
            case "cut":
                spoilt.append(replaced(victim, value=bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])))
            case "key":
                spoilt.append(replaced(victim, key=data.draw(st.one_of(st.none(), st.binary(max_size=12)))))
    at = data.draw(st.integers(0, 4))
    records = [*good[:at], *spoilt, *good[at:]]
    batch = process(*records)
    assert batch.rows() == len(records)
    keys = set(batch.changes["key"])
    assert {f'{{"id":{id_}}}' for id_ in range(4)} <= keys
    assert len(batch.changes) + len(batch.dead_letters) + sum(batch.left_out.values()) == len(records)


def test_details_hold_no_data() -> None:
    """What a dead letter says is made of schema facts alone."""
    poison = replaced(created(1), value=(created(1).value or b"")[:5] + SECRET.encode())
    batch = process(
        created(2), poison, Record(ITEMS.topic, b'{"password":"' + SECRET.encode()), Record(ITEMS.topic, SECRET.encode())
    )
    assert len(batch.dead_letters) == 3
    assert not any(SECRET in letter.detail for letter in batch.dead_letters)


def test_a_detail_never_quotes_a_schema_that_is_none() -> None:
    """Any JSON with these two keys is taken for a schema with its payload."""
    (letter,) = process(Record(ITEMS.topic, json.dumps({"schema": {"type": SECRET}, "payload": {}}).encode())).dead_letters
    assert SECRET not in letter.detail


def json_record(record: Record, envelope: dict[str, Any]) -> Record:
    return Record(record.topic, json.dumps(envelope).encode(), b'{"id":1}', record.headers)


def test_json_topics_take_the_same_path() -> None:
    """Debezium's JsonConverter without schemas: the same change, typed by what is there."""
    envelope = {
        "before": None,
        "after": {"id": 1, "v": "v1"},
        "source": {
            "connector": "postgresql",
            "name": "shop",
            "ts_ms": 1,
            "ts_us": 1000,
            "snapshot": "false",
            "db": "d",
            "sequence": '["90","101"]',
            "schema": "public",
            "table": "t",
            "txId": 7,
            "lsn": 101,
        },
        "transaction": {"id": "7:101", "total_order": 1},
        "op": "c",
        "ts_ms": 2,
    }
    (as_json,) = process(json_record(created(1), envelope)).changes.to_dicts()
    (as_avro,) = process(created(1)).changes.to_dicts()
    same = [name for name in CORE if name not in ("schema_id", "committed_at", "captured_at")]
    assert {name: as_json[name] for name in same} == {name: as_avro[name] for name in same}


def test_an_empty_batch_is_a_batch() -> None:
    """No record, no row, all columns."""
    batch = process()
    assert (batch.rows(), batch.changes.columns) == (0, [column.name for column in CHANGES])


def test_schema_ids_are_those_of_keys_and_values() -> None:
    """Nothing that lacks the frame names a schema."""
    records = [
        created(1),
        KEYLESS.change("c", after={"v": None}),
        Record("shop.t", b"{}"),
        Record("shop.t", None, b"\0\0"),
        Record("shop.t", b"\x01\0\0\0\x09"),
    ]
    assert Path([SHOP], IDENTITY_KEY, rules()).schema_ids(chunks(records)) == {100, 101, 400}


def test_a_truncate_alone_in_json_is_a_truncate() -> None:
    """No row anywhere in the batch tells the types of the table's columns."""
    truncates = [json.dumps(ENVELOPE | {"after": None, "op": "t", "ts_ms": index}).encode() for index in range(3)]
    changes = process(*(Record("shop.public.t", one) for one in truncates)).changes
    assert changes.select("operation", "before", "after").rows() == [("truncate", None, None)] * 3


def test_changes_of_a_partition_keep_their_order() -> None:
    """Although records are decoded schema by schema: the order of the audit topic follows from it."""
    newer = Table([("id", "long"), ("v", NULLABLE), ("w", "int")], schema_id=700)
    records = [
        created(1),
        newer.change("c", after={"id": 2, "v": None, "w": 1}, lsn=150),
        created(3),
        newer.change("c", after={"id": 4, "v": None, "w": 1}, lsn=160),
    ]
    batch = process(*records, schemas=dict(newer.schemas))
    assert batch.changes["key"].to_list() == [f'{{"id":{id_}}}' for id_ in (1, 2, 3, 4)]
    for table in batch.tables:
        assert [f'{{"id":{id_}}}' for id_ in table.frame["id"]] == batch.changes["key"].gather(table.frame["_row"]).to_list()
