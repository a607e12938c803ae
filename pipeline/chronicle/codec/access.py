"""Readings of original bytes as records of the audit topic: who looked at which dead letter, never what is in it.

Like changes and contexts (`codec.audit`) a record is `{"core": …, "meta": …}`, UTF-8, keys sorted; `core` is an OCSF 1.3
Datastore Activity (class 6005), here with OCSF's actor and src_endpoint, which are known for once. Readers of the topic
tell it from the other kinds by its key, which begins with `access:`, and by `core.unmapped.kind`. Described by
`schemas/access-record.schema.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

OCSF_VERSION = "1.3.0"
KEY_PREFIX = "access:"
KIND = "dead_letter_raw"
_CATEGORY = 6
_CLASS = 6005
_READ = 1
_BUCKET = 2
_OTHER = 99


@dataclass(frozen=True, slots=True)
class Reading:
    """Someone looks at the original bytes of one dead letter."""

    id: UUID
    """Of this reading: it is one record, however often it is sent."""
    at: datetime
    """With its time zone."""
    user: str
    uid: int
    """The operating system's user, by name and number."""
    host: str
    bucket: str
    """The dead-letter topic, where the bytes are."""
    topic: str
    partition: int
    offset: int
    """Where the original record stands, or stood."""


def record(reading: Reading, *, version: str) -> tuple[bytes, bytes]:
    """Key and value of a reading's record; `version` is Chronicle's."""
    key = f"{KEY_PREFIX}{reading.id}"
    at = reading.at.astimezone(UTC)
    core = {
        "activity_id": _READ,
        "activity_name": "Read",
        "actor": {"user": {"name": reading.user, "uid": str(reading.uid)}},
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "databucket": {"name": reading.bucket, "type": "Kafka topic", "type_id": _OTHER},
        "metadata": {
            "product": {"name": "Chronicle", "vendor_name": "Chronicle"},
            "uid": key,
            "version": OCSF_VERSION,
        },
        "severity_id": 1,
        "src_endpoint": {"hostname": reading.host},
        "time": int(at.timestamp() * 1000),
        "type_id": _BUCKET,
        "type_uid": _CLASS * 100 + _READ,
        "unmapped": {
            "kind": KIND,
            "occurred_at": at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z",
            "offset": reading.offset,
            "partition": reading.partition,
            "topic": reading.topic,
        },
    }
    meta = {"processor": {"name": "chronicle", "version": version}}
    text = json.dumps({"core": core, "meta": meta}, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return key.encode(), text.encode()
