"""Readings of original bytes as audit records: OCSF names, who and where and when, one record a reading, never content."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from chronicle.codec import access

SCHEMAS = Path(__file__).parents[2] / "schemas"
READING = access.Reading(
    id=uuid.UUID("6d9f1d5e-3c0a-4d0e-9a57-0f6c1a1f2b3c"),
    at=datetime(2026, 2, 1, 0, 59, 59, tzinfo=UTC),
    user='ann "ü"',
    uid=1000,
    host="ops-1",
    bucket="chronicle.dead-letters",
    topic="shop.public.customers",
    partition=2,
    offset=151,
)


def schema() -> Any:
    return json.loads((SCHEMAS / "access-record.schema.json").read_text(encoding="utf-8"))


def test_a_reading_is_a_record_of_the_published_schema() -> None:
    """Which forbids unknown fields, so that it describes the record whole; the numbers belong together as OCSF wants."""
    key, value = access.record(READING, version="1.2.3")
    record = json.loads(value)
    jsonschema.validate(record, schema())
    core = record["core"]
    assert core["metadata"]["uid"].encode() == key == b"access:6d9f1d5e-3c0a-4d0e-9a57-0f6c1a1f2b3c"
    assert core["type_uid"] == core["class_uid"] * 100 + core["activity_id"]
    assert (core["actor"]["user"], core["src_endpoint"]) == ({"name": 'ann "ü"', "uid": "1000"}, {"hostname": "ops-1"})
    assert [core["unmapped"][name] for name in ("topic", "partition", "offset")] == ["shop.public.customers", 2, 151]
    assert (core["time"], core["unmapped"]["occurred_at"]) == (1_769_907_599_000, "2026-02-01T00:59:59.000000Z")


def test_keys_are_sorted_and_the_text_is_canonical() -> None:
    """As in the topic's other records."""
    _, value = access.record(READING, version="1")
    assert value == json.dumps(json.loads(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_a_reading_sent_again_is_the_same_record_and_another_reading_another() -> None:
    """The key follows from the reading alone."""
    assert access.record(READING, version="1") == access.record(READING, version="1")
    assert access.record(replace(READING, id=uuid.uuid4()), version="1")[0] != access.record(READING, version="1")[0]


def test_a_time_is_written_in_utc() -> None:
    """Whatever its zone."""
    east = READING.at.astimezone(timezone(timedelta(hours=9)))
    assert access.record(replace(READING, at=east), version="1") == access.record(READING, version="1")


def test_the_published_example_fits_the_published_schema_and_is_what_is_written() -> None:
    """An example that does not validate misleads."""
    jsonschema.Draft202012Validator.check_schema(schema())
    example = json.loads((SCHEMAS / "access-record.example.json").read_text(encoding="utf-8"))
    jsonschema.validate(example, schema())
    assert json.loads(access.record(replace(READING, user="ann"), version="0.1.0")[1]) == example


@pytest.mark.parametrize("name", ["actor", "src_endpoint"])
def test_a_reading_without_a_reader_is_no_reading(name: str) -> None:
    """The schema asks for both, as OCSF does."""
    record = json.loads(access.record(READING, version="1")[1])
    del record["core"][name]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, schema())
