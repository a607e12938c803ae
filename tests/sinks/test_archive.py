"""The archive: Parquet files by source and day, whole or not there, and the same when a batch comes again."""

from __future__ import annotations

import resource
import signal
import uuid
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import polars as pl
import pytest

from chronicle import config
from chronicle.errors import ConfigError, TransientError
from chronicle.model.columns import CHANGES
from chronicle.model.event_columns import EVENTS
from chronicle.sinks.archive import ArchiveSink
from tests.sinks import batches


def sink(place: Path | str) -> ArchiveSink:
    """On a directory or a url."""
    return ArchiveSink(config.Archive(url=str(place)))


def files(place: Path) -> list[str]:
    """Every file there is, hidden ones too."""
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def test_files_are_by_source_and_day_of_commit(tmp_path: Path) -> None:
    """In UTC; a batch over midnight is in two files."""
    changes = [batches.change(source, at) for source in ("shop", "hiring") for at in (0, 1)]
    sink(tmp_path).write(batches.batch(changes))
    assert {name.rpartition("/")[0] for name in files(tmp_path)} == {
        f"source={source}/date={date}" for source in ("shop", "hiring") for date in ("2026-01-31", "2026-02-01")
    }


def test_every_column_of_a_change_is_there_with_its_type(tmp_path: Path) -> None:
    """Identifiers as UUID text, times as times, lists as lists."""
    change = batches.change("shop", 3, operation="update", changed=["a"], labels=["x"], previous_entity=batches.digest("old"))
    sink(tmp_path).write(batches.batch([change, batches.change("shop", 4)]))
    frame = pl.read_parquet(tmp_path / files(tmp_path)[0], hive_partitioning=False)
    text = ("event_id", "entity", "previous_entity")
    assert frame.schema == {spec.name: pl.String() if spec.name in text else spec.dtype for spec in CHANGES}
    row = frame.row(0, named=True)
    assert row["event_id"] == str(uuid.UUID(bytes=change["event_id"]))
    assert row["previous_entity"] == str(uuid.UUID(bytes=batches.digest("old")))
    assert {name: row[name] for name in change if name not in text} == {
        name: value.replace(tzinfo=row["committed_at"].tzinfo) if isinstance(value, datetime) else value
        for name, value in change.items()
        if name not in text
    }
    assert frame["previous_entity"][1] is None


def test_a_batch_that_comes_again_takes_its_own_place(tmp_path: Path) -> None:
    """The name follows from the changes; the latest processing is what it holds."""
    made = sink(tmp_path)
    made.write(batches.plain("shop", 20))
    before = files(tmp_path)
    again = batches.plain("shop", 20)
    changes = again.changes.with_columns(pl.col("processed_at") + pl.duration(days=1))
    made.write(batches.batch(changes.to_dicts()))
    assert files(tmp_path) == before
    assert (
        pl.read_parquet(tmp_path / before[0])["processed_at"].unique().to_list() == changes["processed_at"].unique().to_list()
    )


def test_readers_have_each_change_once_however_batches_were_cut(tmp_path: Path) -> None:
    """As the README says: one row per event id, the latest processing."""
    made, batch = sink(tmp_path), batches.plain("shop", 20)
    made.write(batch.select(0, 15))
    made.write(batch.select(10, 20))
    rows = pl.scan_parquet(f"{tmp_path}/**/*.parquet").sort("processed_at").unique("event_id", keep="last").collect()
    assert sorted(rows["offset"].to_list()) == list(range(20))


def test_a_stub_is_not_archived(tmp_path: Path) -> None:
    """The policy left it out; a batch of stubs makes no file."""
    sink(tmp_path).write(batches.batch([batches.change("shop", 1, stub="skipped")]))
    assert files(tmp_path) == []


def test_an_object_store_is_written_the_same_way() -> None:
    """Through fsspec: here its store in memory."""
    sink("memory://audit/archive").write(batches.batch([batches.change("shop", at) for at in (1, 2, 3)]))
    store = fsspec.filesystem("memory")
    (name,) = [one for one in store.find("/audit/archive") if one.endswith(".parquet")]
    assert name.startswith("/audit/archive/source=shop/date=2026-02-01/")
    assert pl.read_parquet(store.cat_file(name))["offset"].to_list() == [1, 2, 3]


def test_an_unknown_store_is_the_operators() -> None:
    """With what to do, and without the url, which may hold a key."""
    with pytest.raises(ConfigError) as refusal:
        sink("nosuch://key:secret@bucket/x")
    assert "secret" not in str(refusal.value)


def test_a_place_that_cannot_be_is_the_operators(tmp_path: Path) -> None:
    """A file where a directory must be."""
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ConfigError):
        sink(tmp_path / "taken").write(batches.plain("shop", 1))


def test_a_full_disk_is_waited_for_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The process may write files of 100 bytes only: the one that was begun is gone, the old one stays."""
    made = sink(tmp_path)
    made.write(batches.batch([batches.change("shop", 1)]))
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(TransientError):
            made.write(batches.batch([batches.change("shop", 1, after='{"id":2}'), batches.change("shop", 2)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_events_have_files_of_their_own_by_day_of_arrival(tmp_path: Path) -> None:
    """An application may say any time; a reader of changes meets no event."""
    events = [
        batches.event("shop", at, time=datetime(1900 + at, 1, 1, tzinfo=UTC), received_at=datetime(2026, 2, 1, at, tzinfo=UTC))
        for at in range(20)
    ]
    made = sink(tmp_path)
    for _ in range(2):
        made.write(batches.batch([batches.change("shop", 0)], events=events))
    said, changed = files(tmp_path)
    assert changed.startswith("source=shop/date=2026-01-31/")
    assert said.startswith("events/source=shop/date=2026-02-01/")
    frame = pl.read_parquet(tmp_path / said, hive_partitioning=False)
    assert frame.schema == {spec.name: pl.String() if spec.name == "event_id" else spec.dtype for spec in EVENTS}
    assert frame["event_id"].to_list() == [str(uuid.UUID(bytes=event["event_id"])) for event in events]
    assert frame["time"].to_list() == [event["time"] for event in events]


def test_an_application_with_a_long_name_has_a_directory(tmp_path: Path) -> None:
    """Names of files have 255 bytes; two names stay two."""
    names = ["ü" * 1000 + end for end in "ab"] + ["../../out"]
    sink(tmp_path / "archive").write(batches.batch(events=[batches.event(name, 1) for name in names]))
    found = list((tmp_path / "archive" / "events").iterdir())
    assert len(found) == len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
