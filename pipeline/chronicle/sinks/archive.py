"""The archive sink: changes and events as Parquet files by source and day, in a directory or an object store.

`<url>/source=shop/date=2026-11-23/<name>.parquet`, the day being that of the commit in UTC: what Hive's partitioning is to
DuckDB, Spark, Polars and ClickHouse. Events have other columns, so they are under `<url>/events/source=…/date=…/`, the day
being that of their arrival: an application may say any time. A file's name follows from the rows in it, so that a batch that
comes again takes the place of itself. Batches may be cut differently when they come again: **readers keep one row per
`event_id` (of events: per `source`, `tenant`, `type` and `event_id`), the one with the latest `processed_at`**.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import fsspec
import polars as pl

from chronicle import config
from chronicle.codec.audit import uuid_text
from chronicle.errors import ConfigError, TransientError
from chronicle.model.batch import Batch
from chronicle.model.columns import CHANGES, ColumnSpec
from chronicle.model.event_columns import EVENTS

_IDS = ("event_id", "entity", "previous_entity")
"""16 bytes in a frame; UUID text in a file, as every other reader shows them."""
EVENTS_DIRECTORY = "events"
_DIRECTORY_MAX, _CUT = 200, 160
_LOCAL = frozenset({"file", "local"})


class ArchiveSink:
    """Holds a batch when its files are there, whole and under their final names.

    Columns as in `model.columns.CHANGES` and `model.event_columns.EVENTS`: identifiers as text, `position_hi` and
    `position_lo` as two numbers (order by both), the images and payloads as JSON text. Stubs, transactions, mirror rows and
    dead letters are not archived.
    """

    name = "archive"

    def __init__(self, archive: config.Archive) -> None:
        """Opens nothing yet.

        Raises:
            ConfigError: nothing is installed for this kind of url.
        """
        self._compression = archive.compression
        try:
            self._files, self._root = fsspec.core.url_to_fs(archive.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"install what fsspec needs for the archive's url, or correct it ({type(error).__name__})"
            ) from None
        protocols = self._files.protocol if isinstance(self._files.protocol, tuple) else (self._files.protocol,)
        self._local = not _LOCAL.isdisjoint(protocols)

    def write(self, batch: Batch) -> None:
        """As `Sink.write`; refuses no row. Raises ConfigError as well: the place may not be written."""
        changes = batch.changes.filter(pl.col("stub") == "")
        self._write(self._root, changes, CHANGES, "committed_at")
        self._write(f"{self._root}/{EVENTS_DIRECTORY}", batch.events, EVENTS, "received_at")

    def close(self) -> None:
        """Nothing is open between two calls of `write`."""

    def _write(self, root: str, rows: pl.DataFrame, columns: Sequence[ColumnSpec], moment: str) -> None:
        if not len(rows):
            return
        days = rows.with_columns(pl.col(moment).dt.date().alias("_date"))
        for (source, date), part in days.group_by("source", "_date", maintain_order=True):
            directory = f"{root}/source={_directory(str(source))}/date={date}"
            self._put(directory, f"{_name(part)}.parquet", self._parquet(part, columns))

    def _parquet(self, rows: pl.DataFrame, columns: Sequence[ColumnSpec]) -> bytes:
        readable = [_text(rows[spec.name]) if spec.name in _IDS else rows[spec.name] for spec in columns]
        buffer = io.BytesIO()
        pl.DataFrame(readable).write_parquet(buffer, compression=self._compression)
        return buffer.getvalue()

    def _put(self, directory: str, name: str, data: bytes) -> None:
        try:
            if self._local:
                _put_file(Path(directory), name, data)
            else:  # an object is there whole or not at all
                self._files.pipe_file(f"{directory}/{name}", data)
        except PermissionError as error:
            raise ConfigError(f"let Chronicle write into the archive's url ({type(error).__name__})") from None
        except (NotADirectoryError, FileNotFoundError) as error:
            raise ConfigError(f"correct the archive's url: there is no such place ({type(error).__name__})") from None
        except Exception as error:  # noqa: BLE001  # each store has errors of its own, and their texts may hold its keys
            raise TransientError(f"the archive is away or full ({type(error).__name__})") from None


def _put_file(directory: Path, name: str, data: bytes) -> None:
    """On the disk, and only then under its name."""
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f".{name}.{secrets.token_hex(4)}"
    try:
        with fresh.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(directory / name)
    finally:
        fresh.unlink(missing_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)  # the name, too
    finally:
        os.close(descriptor)


def _name(rows: pl.DataFrame) -> str:
    """Of the changes or events in it, whatever else a processing makes of them."""
    digest = hashlib.blake2b(digest_size=16)
    for event in rows["event_id"].to_list():
        digest.update(event)
    if "type" in rows.columns:  # an application's ids are its own: the rest of what names an event
        for type_, tenant in rows.select("type", "tenant").iter_rows():
            digest.update(f"\0{type_}\0{tenant or ''}".encode())
    return digest.hexdigest()


def _directory(source: str) -> str:
    """A directory's name of at most 255 bytes: an application may be named with 1,024 characters."""
    name = quote(source, safe="")
    if len(name) <= _DIRECTORY_MAX:
        return name
    return f"{name[:_CUT]}~{hashlib.blake2b(source.encode(), digest_size=16).hexdigest()}"


def _text(ids: pl.Series) -> pl.Series:
    """16-byte identifiers as UUID text; nulls stay."""
    known = ids.is_not_null()
    if known.all():
        return uuid_text(ids).alias(ids.name)
    text = pl.Series(ids.name, [None], dtype=pl.String).new_from_index(0, len(ids))
    return text.scatter(known.arg_true(), uuid_text(ids.drop_nulls())) if known.any() else text
