"""One change or event with what is encrypted in it opened, for those who hold the key ring."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from clickhouse_connect.driver.client import Client

from chronicle.errors import ChronicleError
from chronicle.policy.events import PAYLOAD
from chronicle.stages.ciphers import EncryptionKeys, Image, is_sealed, opened, place_of_event
from chronicle.trail.changes import parsed
from chronicle.trail.reading import rows
from chronicle.trail.tables import TableName


@dataclass(frozen=True, slots=True)
class Stored:
    """A change as it is stored: ciphertexts in its images."""

    event_id: UUID
    name: TableName
    operation: str
    key: Mapping[str, Any] | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """A row with its encrypted columns as clear text. Its `repr` has no value."""

    row: Mapping[str, Any] | None = field(repr=False)
    """None: the change has no such image."""
    columns: tuple[str, ...]
    """Those that were opened."""
    failed: Mapping[str, str]
    """Those that could not be, which the row holds as they are stored → why. Never a value."""


@dataclass(frozen=True, slots=True)
class OpenedChange:
    """Both images of a change."""

    before: OpenedImage
    after: OpenedImage

    @property
    def failed(self) -> Mapping[str, str]:
        """`before.<column>`, `after.<column>` → why it could not be opened."""
        images = (("before", self.before), ("after", self.after))
        return {f"{name}.{column}": why for name, image in images for column, why in image.failed.items()}


def stored(client: Client, database: str, event_id: UUID) -> Stored | None:
    """The change with this id; None: there is none. Raises as `trail.reading.rows`."""
    sql = """
        SELECT source, schema, table, operation, key, before, after FROM {database:Identifier}.changes FINAL
        WHERE event_id = {event_id:UUID} LIMIT 1
    """
    found = rows(client, sql, {"database": database, "event_id": str(event_id)})
    if not found:
        return None
    row = found[0]
    name = TableName(row["source"], row["schema"], row["table"])
    return Stored(event_id, name, row["operation"], parsed(row["key"]), parsed(row["before"]), parsed(row["after"]))


def opened_change(change: Stored, ring: EncryptionKeys, column: str | None = None) -> OpenedChange:
    """The change with all encrypted columns opened, or with one.

    Raises:
        ChronicleError: neither image has an encrypted value, or none in this column.
    """
    before, after = (_opened(change, image, ring, column) for image in ("before", "after"))
    if not (before.columns or before.failed or after.columns or after.failed):
        where = "the change" if column is None else f"column {column} of the change"
        raise ChronicleError(f"choose another change or column: {where} holds nothing encrypted")
    return OpenedChange(before, after)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is stored: ciphertexts in its payload."""

    event_id: UUID
    source: str
    type: str
    tenant: str | None
    payload: Mapping[str, Any] = field(repr=False)


def stored_event(
    client: Client,
    database: str,
    event_id: UUID,
    *,
    source: str | None = None,
    type_: str | None = None,
    tenant: str | None = None,
) -> StoredEvent:
    """The event with this id, of this source, type and tenant where they are given: applications choose ids. An empty tenant:
    of none.

    Raises:
        ChronicleError: there is none, or more than one; or as `trail.reading.rows`.
    """
    sql = """
        SELECT source, type, tenant, payload FROM {database:Identifier}.events FINAL
        WHERE event_id = {event_id:UUID}
            AND ({source:Nullable(String)} IS NULL OR source = {source:Nullable(String)})
            AND ({type:Nullable(String)} IS NULL OR type = {type:Nullable(String)})
            AND ({tenant:Nullable(String)} IS NULL OR ifNull(tenant, '') = {tenant:Nullable(String)})
        LIMIT 2
    """
    parameters = {"database": database, "event_id": str(event_id), "source": source, "type": type_, "tenant": tenant}
    found = rows(client, sql, parameters)
    if not found:
        raise ChronicleError(
            f"take an event id from `chronicle changes --json` or the table events: there is no change or event {event_id}"
        )
    if len(found) > 1:
        raise ChronicleError(f"name --source, --type and --tenant as well: several events have the id {event_id}")
    row = found[0]
    return StoredEvent(event_id, row["source"], row["type"], row["tenant"], parsed(row["payload"]) or {})


def opened_event(event: StoredEvent, ring: EncryptionKeys, name: str | None = None) -> OpenedImage:
    """The payload with all encrypted fields opened, or with one (`name`, or `payload.name`).

    Raises:
        ChronicleError: the payload has no encrypted field, or not this one.
    """
    only = None if name is None else name.removeprefix(PAYLOAD)
    clear: dict[str, Any] = dict(event.payload)
    columns: list[str] = []
    failed: dict[str, str] = {}
    for one, value in event.payload.items():
        if not is_sealed(value) or only not in (None, one):
            continue
        place = place_of_event(event.source, event.type, one)
        try:
            clear[one] = json.loads(opened(value, ring, event_id=event.event_id.bytes, **place))
            columns.append(one)
        except ChronicleError as error:
            failed[one] = str(error)
    if not columns and not failed:
        where = "the event" if only is None else f"field {only} of the event"
        raise ChronicleError(f"choose another event or field: {where} holds nothing encrypted")
    return OpenedImage(clear, tuple(columns), failed)


def _opened(change: Stored, image: str, ring: EncryptionKeys, only: str | None) -> OpenedImage:
    which: Image = "before" if image == "before" else "after"
    row = change.before if which == "before" else change.after
    clear: dict[str, Any] = dict(row or {})
    columns: list[str] = []
    failed: dict[str, str] = {}
    for column, value in (row or {}).items():
        if not is_sealed(value) or only not in (None, column):
            continue
        try:
            clear[column] = opened(
                value, ring, table=str(change.name), column=column, image=which, event_id=change.event_id.bytes
            )
            columns.append(column)
        except ChronicleError as error:
            failed[column] = str(error)
    return OpenedImage(None if row is None else clear, tuple(columns), failed)
