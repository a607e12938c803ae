"""A worker process around the real transport whose path and sink are doubles, for tests of the transport alone.

`python -m tests.stack.worker_double FILE`: settings from the environment, one line `topic partition offset` for each
record in FILE, on disk before the batch is acknowledged.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from chronicle import config
from chronicle.engine import Engine, Flood
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk
from chronicle.model.columns import CHANGES, TRANSACTIONS, empty
from chronicle.observe import HttpServer, Metrics, configure_logging
from chronicle.worker.failpoint import Failpoint
from chronicle.worker.run import Job, run
from chronicle.worker.status import Status
from chronicle.worker.topics import Broker


class NoFollower:
    """Nobody asks who did what here."""

    def need_from(self, timestamp_ms: int) -> None:
        """Nothing is read."""

    def close(self) -> None:
        """Nothing is open."""


class EveryRecordIsAChange:
    """A path without a codec: one change a record, only its coordinates filled in."""

    def schema_ids(self, chunks: Sequence[Chunk]) -> frozenset[int]:
        return frozenset()

    def run(self, chunks: Sequence[Chunk], schemas: Mapping[int, str | None], now_us: int) -> Batch:
        rows = [(chunk.topic, chunk.partition, offset) for chunk in chunks for offset in chunk.offsets]
        frame = pl.DataFrame(rows, schema={"topic": pl.String, "partition": pl.UInt32, "offset": pl.UInt64}, orient="row")
        fixed = {
            "source": "double", "schema": "s", "table": "t", "operation": "snapshot", "connector": "postgresql",
        }  # fmt: skip
        columns = [
            pl.col(spec.name) if spec.name in frame.columns else pl.lit(fixed.get(spec.name), dtype=spec.dtype).alias(spec.name)
            for spec in CHANGES
        ]
        return Batch(frame.select(columns), (), empty(TRANSACTIONS))


class NoSchemas:
    def resolve(self, ids: Iterable[int]) -> dict[int, str | None]:
        return dict.fromkeys(ids)


class FileSink:
    name = "file"

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", encoding="utf-8")

    def write(self, batch: Batch) -> None:
        for row in batch.changes.select("topic", "partition", "offset").rows():
            self.file.write("{} {} {}\n".format(*row))
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def main() -> None:
    settings = config.load()
    configure_logging(settings.worker.log_level)
    status, metrics = Status(), Metrics()
    failpoint = Failpoint(settings.worker.failpoint)
    HttpServer(settings.worker.http_host, settings.worker.http_port, metrics, status.not_alive, status.not_ready)
    engine = Engine(
        EveryRecordIsAChange(), NoSchemas(), [FileSink(Path(sys.argv[1]))],
        watch=status, flood=Flood(0.5, 100), failpoint=failpoint,
    )  # fmt: skip
    job = Job(
        kafka=settings.kafka,
        worker=settings.worker,
        engine=engine,
        broker=Broker({"bootstrap.servers": settings.kafka.bootstrap_servers}),
        status=status,
        metrics=metrics,
        sources=settings.worker.sources,
        events_topic=None,
        needed_topics=(settings.kafka.retry_topic,),
        failpoint=failpoint,
        follower=NoFollower(),
        until_drained="--until-drained" in sys.argv,
    )
    code = run(job)
    sys.stderr.write(f"{job.totals.summary()}\n")
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
