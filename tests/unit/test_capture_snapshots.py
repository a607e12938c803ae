"""What a connector says about its snapshots, read from its notifications."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest

from chronicle.capture.snapshots import NOTIFICATION, Scan, scan_of

KEY = "a key value, 4711"


def said(type_: str, aggregate: str = "Incremental Snapshot", **more: str) -> dict[str, Any]:
    return {"id": "a signal", "type": type_, "aggregate_type": aggregate, "additional_data": more, "timestamp": 1}


def avro(notification: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    fastavro.schemaless_writer(written, NOTIFICATION, notification)
    return b"\x00\x00\x00\x00\x07" + written.getvalue()


CASES = [
    (said("STARTED", data_collections="public.later"), None),
    (said("COMPLETED"), None),
    (said("TABLE_SCAN_COMPLETED", "Initial Snapshot", scanned_collection="public.people", status="SUCCEEDED"), None),
    (
        said("IN_PROGRESS", current_collection_in_progress="public.later", last_processed_key=KEY, maximum_key=KEY),
        Scan("public.later", "begun"),
    ),
    (said("TABLE_SCAN_COMPLETED", scanned_collection="public.later", status="SUCCEEDED"), Scan("public.later", "done")),
    (said("TABLE_SCAN_COMPLETED", scanned_collection="public.later", status="EMPTY"), Scan("public.later", "done")),
    (
        said("TABLE_SCAN_COMPLETED", scanned_collection="public.later", status="SQL_EXCEPTION"),
        Scan("public.later", "failed", "SQL_EXCEPTION"),
    ),
]


@pytest.mark.parametrize(("notification", "scan"), CASES)
def test_a_notification_means_the_same_in_every_format(notification: dict[str, Any], scan: Scan | None) -> None:
    """Avro, JSON with its schema, and JSON alone; and no key value is kept."""
    wrapped = {"schema": {}, "payload": notification}
    for value in (avro(notification), json.dumps(wrapped).encode(), json.dumps(notification)):
        assert scan_of(value) == scan
    assert KEY not in repr(scan)


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"\x00\x00\x00\x00\x07", b"\x00\x00\x00\x00\x07\x7f" + b"x" * 9])
def test_what_is_no_notification_says_nothing(value: bytes | None) -> None:
    """A record of somebody else in the topic does not stop the reader."""
    assert scan_of(value) is None
