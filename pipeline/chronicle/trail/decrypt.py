"""One change with its encrypted columns opened, for those who hold the key ring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from clickhouse_connect.driver.client import Client

from chronicle.errors import ChronicleError
from chronicle.stages.ciphers import EncryptionKeys, Image, is_sealed, opened
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


def stored(client: Client, database: str, event_id: UUID) -> Stored:
    """The change with this id.

    Raises:
        ChronicleError: there is none; or as `trail.reading.rows`.
    """
    sql = """
        SELECT source, schema, table, operation, key, before, after FROM {database:Identifier}.changes FINAL
        WHERE event_id = {event_id:UUID} LIMIT 1
    """
    found = rows(client, sql, {"database": database, "event_id": str(event_id)})
    if not found:
        raise ChronicleError(f"take an event id from `chronicle changes --json`: there is no change {event_id}")
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
