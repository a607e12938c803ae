"""Audit records: OCSF names, deterministic core, exact JSON, against the published schema."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.codec import audit
from chronicle.model.columns import CHANGES
from tests.sinks import batches

SCHEMAS = Path(__file__).parents[2] / "schemas"
OPERATIONS = ("snapshot", "create", "update", "delete", "truncate")


def _schema() -> Any:
    return json.loads((SCHEMAS / "audit-record.schema.json").read_text(encoding="utf-8"))


def _records(*changes: dict[str, Any]) -> list[Any]:
    return [json.loads(value) for value in audit.changes(batches.frame(changes), partitions=4, version="1.2.3").values]


def _canonical(record: Any) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("connector", ["postgresql", "mysql", "mariadb"])
def test_every_operation_gives_a_record_of_the_published_schema(operation: str, connector: str) -> None:
    """The JSON Schema forbids unknown fields, so it describes the record whole."""
    changes = [
        batches.change("shop", 1, operation=operation, connector=connector),
        batches.change("shop", 2, operation=operation, connector=connector, transaction_id=None, transaction_order=None),
        batches.change(
            "shop", 3, operation=operation, connector=connector, previous_key='{"id":9}', previous_entity=batches.digest("x")
        ),
    ]
    for record in _records(*changes):
        jsonschema.validate(record, _schema())


def test_a_record_is_valid_ocsf_in_its_numbers() -> None:
    """Activity, class and type belong together: type_uid = class_uid * 100 + activity_id."""
    for record in _records(*(batches.change("shop", i, operation=each) for i, each in enumerate(OPERATIONS))):
        core = record["core"]
        assert core["type_uid"] == core["class_uid"] * 100 + core["activity_id"]
        assert core["category_uid"] == core["class_uid"] // 1000


def test_keys_are_sorted_and_the_text_is_canonical() -> None:
    """Two writers of the same record give the same bytes."""
    frame = batches.frame([batches.change("shop", i, operation=each) for i, each in enumerate(OPERATIONS)])
    for value in audit.changes(frame, partitions=4, version="1").values:
        assert value == _canonical(json.loads(value))


def test_core_is_the_same_bytes_on_every_delivery() -> None:
    """Offsets, times of processing and Debezium's hints are in meta only."""
    once = batches.change("shop", 1, operation="update")
    again = once | {
        "offset": 99,
        "partition": 3,
        "transaction_order": 5,
        "captured_at": once["captured_at"] + timedelta(hours=1),
        "received_at": once["received_at"] + timedelta(hours=1),
        "processed_at": once["processed_at"] + timedelta(hours=1),
        "schema_id": 8,
    }
    first, second = _records(once, again)
    assert _canonical(first["core"]) == _canonical(second["core"])
    assert first["meta"] != second["meta"]


def test_no_column_of_a_change_is_left_out_of_its_record() -> None:
    """A column added to the model must be added here, or decided against."""
    (record,) = _records(batches.change("shop", 1))
    elsewhere = {"event_id", "position_hi", "position_lo", "actor_id", "actor_name", "actor_type", "session", "ip"}
    no_record = {"stub", "attributed_at"}  # a stub has none; when it was known is when it was processed
    named = set(record["core"]["unmapped"]) | set(record["meta"]) | elsewhere | no_record
    assert {spec.name for spec in CHANGES} <= named
    assert uuid.UUID(record["core"]["metadata"]["uid"]).bytes == batches.digest("event", "shop", "customers", 1)


@given(
    text=st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20),
    hi=st.integers(0, 2**64 - 1),
    lo=st.integers(0, 2**64 - 1),
    at_us=st.integers(-(2**50), 2**51),
)
def test_any_name_position_and_time_is_carried_exactly(text: str, hi: int, lo: int, at_us: int) -> None:
    """Quotes, control characters and 128-bit numbers survive the splicing."""
    committed = batches.START + timedelta(microseconds=at_us)
    change = batches.change(
        "shop", 1, table=text, schema=text, changed=[text, "b"], unavailable=[text], position_hi=hi, position_lo=lo,
        committed_at=committed, after=json.dumps({"v": text}), topic=f"t.{text}",
    )  # fmt: skip
    (record,) = _records(change)
    found = record["core"]["unmapped"]
    assert (found["table"], found["schema"], found["changed"], found["unavailable"]) == (text, text, [text, "b"], [text])
    assert found["position"] == str((hi << 64) + lo)
    assert found["after"] == {"v": text}
    assert found["committed_at"] == committed.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    assert record["meta"]["topic"] == f"t.{text}"


def test_an_entity_stays_in_its_partition_and_entities_spread() -> None:
    """The partition follows from the entity alone."""
    entities = pl.Series([batches.digest("entity", i) for i in range(400)], dtype=pl.Binary)
    numbers = audit.entity_partitions(entities, 4)
    assert numbers == [int.from_bytes(each[:8], "little") % 4 for each in entities.to_list()]
    assert all(60 < numbers.count(i) < 140 for i in range(4))


def test_a_context_becomes_a_record_keyed_by_its_transaction() -> None:
    """Markers are not written; the application's JSON is kept as it is."""
    frame = batches.transactions(
        [batches.transaction_record("shop", "5", 1, "begin"), batches.context("shop", "5", 2, '{"actor":"a\\"b","n":1.50}')]
    )
    records = audit.contexts(frame, partitions=4, version="1.2.3")
    (value,) = records.values
    jsonschema.validate(json.loads(value), _schema())
    assert records.keys[0].startswith(b"transaction:shop:0:5:message:shop.transaction:0:")
    record = json.loads(value)["core"]["metadata"]
    assert (record["correlation_uid"], record["uid"].encode()) == ("transaction:shop:0:5", records.keys[0])
    assert b'"context":{"actor":"a\\"b","n":1.50}' in value
    change = batches.change("shop", 1, transaction_id="5")
    assert _records(change)[0]["core"]["metadata"]["correlation_uid"] == "transaction:shop:0:5"


def test_a_transactions_contexts_do_not_replace_each_other() -> None:
    """A message (rung 1) and a row of the context table (rung 2) of one transaction are two statements of who did it."""
    rows = [batches.context("shop", "5", at, rung=rung) for at, rung in enumerate(("message", "table"))]
    again = [row | {"processed_at": row["processed_at"] + timedelta(hours=1)} for row in rows]
    first, second = (audit.contexts(batches.transactions(each), partitions=64, version="1") for each in (rows, again))
    assert len(set(first.keys)) == 2
    assert len(set(first.partitions)) == 1
    assert (second.keys, second.partitions) == (first.keys, first.partitions)


def test_every_change_has_a_record_whatever_is_null_in_it() -> None:
    """A record without a value is a tombstone: compaction would remove the change from the record of audit."""
    changes = [batches.change("shop", 1), batches.change("shop", 2, connector=None)]
    values = audit.changes(batches.frame(changes), partitions=4, version="1").values
    assert all(value is not None for value in values)


def test_no_rows_are_no_records() -> None:
    """A batch may have dead letters only."""
    assert audit.changes(batches.batch().changes, partitions=4, version="1").values == []
    assert audit.contexts(batches.batch().transactions, partitions=4, version="1").values == []


@pytest.mark.parametrize("name", ["audit-record.example.json", "audit-record-context.example.json"])
def test_the_published_examples_fit_the_published_schema(name: str) -> None:
    """An example that does not validate misleads."""
    schema = _schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((SCHEMAS / name).read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize("name", ["context", "transaction"])
def test_the_published_avro_examples_fit_their_schemas(name: str) -> None:
    """Strictly: no field missing, none too many."""
    text = json.loads((SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8"))
    schema = fastavro.parse_schema(text)
    example = json.loads((SCHEMAS / f"{name}.example.json").read_text(encoding="utf-8"))
    assert fastavro.validate(example, schema, strict=True)
    assert list(example) == [field["name"] for field in text["fields"]]
