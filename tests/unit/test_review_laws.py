"""Laws that an independent review found broken; each mark goes with the repair of what its reason names."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from chronicle.codec import audit
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk, SourceSpec
from chronicle.model.columns import TRANSACTIONS
from chronicle.stages.identify import Processing
from chronicle.stages.path import Path
from chronicle.worker.replay import restore

IDENTITY_KEY = b"a key of the review, not a secret"
SHOP = SourceSpec("shop", "postgresql", full_identity=None)
KEY = b'{"id":1}'


def change(**source: Any) -> bytes:
    """A create as JSON without a schema; `source` overrides fields of the source block, None leaves one out."""
    block = {
        "connector": "postgresql",
        "ts_ms": 1_700_000_000_000,
        "schema": "public",
        "table": "t",
        "txId": 1,
        "lsn": 5,
        "sequence": '["4","5"]',
    } | source
    block = {name: value for name, value in block.items() if value is not None}
    return json.dumps({"before": None, "after": {"id": 1}, "source": block, "op": "c", "ts_ms": 1}).encode()


def one(topic: str, value: bytes, key: bytes | None = KEY, headers: tuple[tuple[str, bytes], ...] = ()) -> Chunk:
    """A chunk of one record."""
    return Chunk(topic, 0, [7], [1], [key], [value], [headers])


def run(path: Path, *chunks: Chunk) -> Batch:
    """One batch."""
    return path.run(chunks, {}, 1)


@pytest.mark.xfail(strict=True, reason="codec/audit.py joins on a null connector; stages/validate.py has no rule for it")
def test_every_change_has_an_audit_record() -> None:
    """One without a value is a tombstone: compaction then removes the change from the record of audit."""
    batch = run(Path([SHOP], IDENTITY_KEY), one("shop.public.t", change(connector=None)))
    records = audit.changes(batch.changes, partitions=4, version="1")
    assert len(records.values) + len(batch.dead_letters) == 1
    assert all(value is not None for value in records.values)


@pytest.mark.xfail(strict=True, raises=pl.exceptions.PanicException, reason="stages/validate.py does not bound the times")
def test_a_commit_time_beyond_all_calendars_is_one_dead_letter() -> None:
    """A time that cannot be written must not stop the worker again and again."""
    batch = run(Path([SHOP], IDENTITY_KEY), one("shop.public.t", change(ts_ms=9_000_000_000_000_000)))
    assert len(audit.changes(batch.changes, partitions=4, version="1").values) + len(batch.dead_letters) == 1


@pytest.mark.xfail(strict=True, reason="stages/changes.py: `keyed` is what this process happens to have seen before")
def test_the_verdict_on_a_null_key_does_not_depend_on_earlier_batches() -> None:
    """After a kill the same record stands in another batch of another process: it must not become the other thing."""
    fresh, used = Path([SHOP], IDENTITY_KEY), Path([SHOP], IDENTITY_KEY)
    run(used, one("shop.public.t", change()))
    verdicts = [len(run(path, one("shop.public.t", change(), None)).dead_letters) for path in (fresh, used)]
    assert verdicts[0] == verdicts[1]


@pytest.mark.xfail(strict=True, reason="stages/path.py `_spec` makes up a source; worker/replay.py promises a dead letter")
@pytest.mark.parametrize("topic", ["chronicle.retry", "hiring.public.t"])
def test_a_record_of_no_source_is_no_change(topic: str) -> None:
    """Guessed settings lose old rows and take placeholders for values, and as the latest processing they win."""
    chunks, _ = restore([one(topic, change())], "chronicle.retry")
    batch = run(Path([SHOP], IDENTITY_KEY), *chunks)
    assert (len(batch.changes), len(batch.dead_letters)) == (0, 1)


@pytest.mark.xfail(strict=True, raises=OverflowError, reason="worker/replay.py `_origin` bounds partition and offset only")
def test_a_foreign_record_in_the_retry_topic_does_not_stop_the_worker() -> None:
    """Its headers are whatever somebody wrote."""
    coordinates = {"topic": b"shop.public.t", "partition": b"0", "offset": b"5", "timestamp": b"9" * 25}
    headers = tuple((f"chronicle.original.{name}", value) for name, value in coordinates.items())
    chunks, _ = restore([one("chronicle.retry", change(), KEY, headers)], "chronicle.retry")
    assert run(Path([SHOP], IDENTITY_KEY), *chunks).rows() == 1


@pytest.mark.xfail(strict=True, reason="codec/schema.py quotes the record in UnsupportedSchema")
def test_a_detail_never_quotes_the_record() -> None:
    """Any JSON with these two keys is taken for a schema with its payload."""
    value = json.dumps({"schema": {"type": "ada@example.com"}, "payload": {}}).encode()
    (letter,) = run(Path([SHOP], IDENTITY_KEY), one("shop.public.t", value)).dead_letters
    assert "ada" not in letter.detail


@pytest.mark.xfail(strict=True, reason="stages/identify.py: Processing.identity_key needs field(repr=False)")
def test_the_identity_key_is_in_no_repr() -> None:
    """Whoever has it can guess keys back from event ids."""
    assert "review" not in repr(Processing(IDENTITY_KEY, 1))


@pytest.mark.xfail(strict=True, reason="codec/audit.py keys contexts by transaction alone, so compaction drops the better one")
def test_a_transactions_contexts_do_not_replace_each_other() -> None:
    """A message (rung 2) and a row of the context table (rung 1) of one transaction are two statements of who did it."""
    base = {"source": "shop", "epoch": 0, "transaction_id": "7", "kind": "context", "topic": "shop.transaction", "partition": 0}
    rows = [base | {"context": "{}", "rung": rung, "offset": offset} for offset, rung in enumerate(("message", "table"))]
    frame = pl.DataFrame(rows, schema={column.name: column.dtype for column in TRANSACTIONS}).with_columns(
        pl.lit(0, pl.Int64).cast(pl.Datetime("us", "UTC")).alias(name) for name in ("occurred_at", "processed_at")
    )
    assert len(set(audit.contexts(frame, partitions=4, version="1").keys)) == 2
