"""What waiting for contexts costs: real connectors, a context in every transaction, the follower, and batches as the worker
makes them. `python -m tests.bench.attribution --rate 100 --seconds 20`. Never a timed test.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import psycopg
import pymysql
import typer
from confluent_kafka import Consumer
from rich.console import Console

from chronicle import setup
from chronicle.capture.apply import Deployment, apply, delete
from chronicle.capture.connect import ConnectClient
from chronicle.capture.sources import load_source
from chronicle.dev.stack import Stack
from chronicle.model.chunk import Chunk, SourceSpec
from chronicle.registry import Registry
from chronicle.stages.attribute import attributed, wanted
from chronicle.stages.path import Path as PurePath
from chronicle.testing import IDENTITY_KEY, rules
from chronicle.wiring import spec
from chronicle.worker.follower import Follower
from chronicle.worker.transaction_log import TransactionLog
from tests.bench.figures import Figures
from tests.bench.meter import machine, percentile
from tests.bench.site import CONNECTORS, Site

FLUSH_S = 0.25
"""As the worker: a batch is closed so long after its first record."""
LATE_S = 60.0
SOURCE_FILE = """template = "{kind}"
tables = ["{schema}.noted"]
context_table = "{schema}.chronicle_context"
{more}
[database]
host = "${{env:{prefix}_DB_HOST}}"
port = "${{env:{prefix}_DB_PORT}}"
user = "${{env:{prefix}_DB_USER}}"
password = "${{env:{prefix}_DB_PASSWORD}}"
name = "{database}"
"""
POSTGRES = 'unavailable_value_placeholder = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"\nfull_identity = ["public.noted"]'
_NEVER = threading.Event()
err = Console(stderr=True)


@dataclass(slots=True)
class Seen:
    """What one way of waiting gave. Seconds."""

    waits: list[float] = field(default_factory=list)
    """One a batch."""
    captured: list[float] = field(default_factory=list)
    """One a change: from the return of COMMIT until the row was in Kafka, which is before anything measured here."""
    latencies: list[float] = field(default_factory=list)
    """One a change: from the return of COMMIT until who did it was joined."""
    rungs: dict[str, int] = field(default_factory=dict)
    wrong: int = 0
    """Changes with another transaction's actor."""


class Bench:
    """Two databases with their connectors."""

    def __init__(self, stack: Stack, name: str, directory: Path) -> None:
        self.stack = stack
        self.site = Site(stack, name, directory)
        self.names = {"postgres": f"{self.site.source}_pg", "mariadb": f"{self.site.source}_my"}
        self.files = {kind: self.site.settings.connect.directory / f"{name}.toml" for kind, name in self.names.items()}
        self.committed: dict[int, float] = {}
        self.next_id = 1

    def create(self) -> None:
        """Databases, source files, connectors."""
        with psycopg.connect(self.stack.postgres_dsn(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {self.names['postgres']}".encode())
        with psycopg.connect(self.stack.postgres_dsn(self.names["postgres"]), autocommit=True) as postgres:
            postgres.execute(b"CREATE TABLE noted (id bigint PRIMARY KEY, note text)")
            postgres.execute(b"ALTER TABLE noted REPLICA IDENTITY FULL")
            postgres.execute(b"CREATE TABLE chronicle_context (id bigint PRIMARY KEY, context text NOT NULL)")
            postgres.execute(
                b"CREATE TABLE chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32), data varchar(2048))"
            )
        with pymysql.connect(**self.stack.mariadb_params(), autocommit=True) as mariadb, mariadb.cursor() as cursor:
            name = self.names["mariadb"]
            cursor.execute(f"CREATE DATABASE {name}")
            for table in (
                "noted (id bigint PRIMARY KEY, note varchar(200))",
                "chronicle_context (id bigint AUTO_INCREMENT PRIMARY KEY, context longtext NOT NULL)",
                "chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32), data varchar(2048))",
            ):
                cursor.execute(f"CREATE TABLE {name}.{table}")
        shutil.copytree(CONNECTORS / "templates", self.site.settings.connect.directory / "templates")
        for kind, prefix, schema in (("postgres", "SHOP", "public"), ("mariadb", "HIRING", self.names["mariadb"])):
            more = POSTGRES if kind == "postgres" else ""
            self.files[kind].write_text(
                SOURCE_FILE.format(kind=kind, schema=schema, more=more, prefix=prefix, database=self.names[kind])
            )
        setup.run(self.site.settings)
        with ConnectClient(self.site.settings.connect) as client:
            for file in self.files.values():
                apply(load_source(file), self._deployment(client))

    def close(self) -> None:
        """Remove it all."""
        with ConnectClient(self.site.settings.connect) as client:
            for file in self.files.values():
                if file.is_file():
                    delete(load_source(file), self._deployment(client), drop=True)
        with psycopg.connect(self.stack.postgres_dsn(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {self.names['postgres']} WITH (FORCE)".encode())
        with pymysql.connect(**self.stack.mariadb_params(), autocommit=True) as mariadb, mariadb.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {self.names['mariadb']}")
        self.site.close()

    def _deployment(self, client: ConnectClient) -> Deployment:
        return Deployment(client, self.site.settings.kafka, self.site.settings.registry, self.stack.environment)

    @property
    def specs(self) -> list[SourceSpec]:
        """As the pure path wants the sources."""
        return [spec(load_source(file)) for file in self.files.values()]

    def run(self, reader: Reader, rate: float, seconds: float, bound_s: float) -> Seen:
        """Write to both databases at this rate each, and attribute what arrives, until all of it has."""
        first, each = self.next_id, int(rate * seconds)
        self.next_id += 2 * each
        self.committed.clear()
        writers = []
        for number, make in enumerate((self._postgres, self._mariadb)):
            start = first + number * each
            writers.append(threading.Thread(target=self._write, args=(make(), range(start, start + each), rate), daemon=True))
        for writer in writers:
            writer.start()
        seen = reader.run(range(first, first + 2 * each), bound_s, seconds + LATE_S)
        for writer in writers:
            writer.join()
        return seen

    def _write(self, write: Callable[[int, str], None], ids: range, rate: float) -> None:
        began = time.perf_counter()
        for number, identifier in enumerate(ids):
            ahead = began + number / rate - time.perf_counter()
            if ahead > 0:
                _NEVER.wait(ahead)
            write(identifier, json.dumps({"actor": f"actor {identifier}", "request_id": f"r{identifier}"}))
            self.committed[identifier] = time.time()

    def _postgres(self) -> Callable[[int, str], None]:
        connection = psycopg.connect(self.stack.postgres_dsn(self.names["postgres"]))

        def write(identifier: int, context: str) -> None:
            connection.execute(b"SELECT pg_logical_emit_message(true, 'chronicle', %s)", (context,))
            connection.execute(b"INSERT INTO noted VALUES (%s, 'with a message')", (identifier,))
            connection.commit()

        return write

    def _mariadb(self) -> Callable[[int, str], None]:
        connection = pymysql.connect(**self.stack.mariadb_params(self.names["mariadb"]))
        cursor = connection.cursor()

        def write(identifier: int, context: str) -> None:
            cursor.execute("INSERT INTO chronicle_context (context) VALUES (%s)", (context,))
            cursor.execute("INSERT INTO noted VALUES (%s, 'with a row of the context table')", (identifier,))
            connection.commit()

        return write


class Reader:
    """Batches of rows as the worker makes them, each waited for and attributed."""

    def __init__(self, bench: Bench) -> None:
        settings, specs = bench.site.settings, bench.specs
        self.bench = bench
        self.path, self.registry = PurePath(specs, IDENTITY_KEY, rules()), Registry(settings.registry)
        log = TransactionLog(settings.kafka, [each.name for each in specs])
        self.follower = Follower(log, PurePath(specs, IDENTITY_KEY, rules()), Registry(settings.registry))
        self.follower.need_from(time.time_ns() // 1_000_000)
        options = {"group.id": f"{bench.site.source}-{time.time_ns()}", "auto.offset.reset": "earliest"}
        self.consumer = Consumer({**settings.kafka.client_config(), **options, "topic.metadata.refresh.interval.ms": 1000})
        schemas = {"postgres": "public", "mariadb": bench.names["mariadb"]}
        self.consumer.subscribe([f"{name}.{schemas[kind]}.noted" for kind, name in bench.names.items()])

    def run(self, ids: range, bound_s: float, deadline_s: float) -> Seen:
        """Until all of these were seen."""
        seen, left = Seen(), set(ids)
        end = time.monotonic() + deadline_s
        while left:
            if time.monotonic() > end:
                raise RuntimeError(f"{len(left)} of {len(ids)} rows never came")
            chunks = self._chunks()
            batch = self.path.run(chunks, self.registry.resolve(self.path.schema_ids(chunks)), time.time_ns() // 1000)
            changes = batch.changes.with_columns(
                pl.col("after").str.json_path_match("$.id").cast(pl.Int64).alias("_id")
            ).filter(pl.col("_id").is_in(list(left)))
            if not len(changes):
                continue
            began = time.monotonic()
            contexts, open_ = self.follower.wait(wanted(changes), bound_s)
            seen.waits.append(time.monotonic() - began)
            done, now = attributed(changes, contexts, open_), time.time()
            rows = done.select("_id", "actor_id", "attribution", pl.col("received_at").dt.epoch("ms"))
            for identifier, actor, rung, received_ms in rows.iter_rows():
                left.discard(identifier)
                committed = self.bench.committed.get(identifier, now)
                seen.captured.append(received_ms / 1000 - committed)
                seen.latencies.append(now - committed)
                seen.rungs[rung] = seen.rungs.get(rung, 0) + 1
                seen.wrong += actor is not None and actor != f"actor {identifier}"
        return seen

    def _chunks(self) -> list[Chunk]:
        """Everything of 250 ms, from the first record on."""
        first = self.consumer.poll(1.0)
        messages: list[Any] = [first] if first is not None else []
        until = time.monotonic() + FLUSH_S
        while messages and time.monotonic() < until:
            messages += self.consumer.consume(10_000, timeout=max(0.0, until - time.monotonic()))
        places: dict[tuple[str, int], list[Any]] = {}
        for message in messages:
            if message.error() is None:
                places.setdefault((message.topic(), message.partition()), []).append(message)
        return [
            Chunk(
                *place,
                [each.offset() for each in found],
                [each.timestamp()[1] for each in found],
                [each.key() for each in found],
                [each.value() for each in found],
                [tuple(each.headers() or ()) for each in found],
            )
            for place, found in places.items()
        ]

    def close(self) -> None:
        """Leave the broker."""
        self.consumer.close()
        self.follower.close()
        self.registry.close()


def main(
    stack: Annotated[Path, typer.Option(help="Directory of a running stack.")],
    rate: Annotated[float, typer.Option(help="Transactions a second on each database.")] = 100.0,
    seconds: Annotated[float, typer.Option(help="How long each bound is written at.")] = 20.0,
    bounds: Annotated[str, typer.Option(help="Bounds of the wait in ms, by commas.")] = "500,0,250,1000",
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes.")] = None,
) -> None:
    """Measure. Example: python -m tests.bench.attribution --stack .chronicle --rate 100"""
    figures = Figures(0, machine())
    with tempfile.TemporaryDirectory(prefix="chronicle-bench-") as directory:
        bench = Bench(Stack(stack), f"who{time.time_ns() % 10**6}", Path(directory))
        reader = None
        try:
            bench.create()
            reader = Reader(bench)
            bench.run(reader, 20, 2, 5.0)  # the first rows make topics and compiled plans
            for bound in bounds.split(","):
                err.print(f"bound {bound} ms, {rate:.0f} transactions/s on each database")
                seen = bench.run(reader, rate, seconds, float(bound) / 1000)
                total = sum(seen.rungs.values())
                name = f"attribution.{bound}_ms"
                for what, values, note in (
                    ("wait", seen.waits, "a batch"),
                    ("commit_to_kafka", seen.captured, "a change"),
                    ("commit_to_attributed", seen.latencies, "a change; with the worker's 250 ms of gathering, without sinks"),
                ):
                    for share in (0.5, 0.99, 1.0):
                        shown = "max" if share == 1.0 else f"p{share * 100:.0f}"
                        figures.add(f"{name}.{what}.{shown}", percentile(values, share) * 1000, "ms", note=note)
                figures.add(
                    f"{name}.pending", seen.rungs.get("pending", 0) / total, "share", note=f"of {total:,}; {seen.rungs}"
                )
                figures.add(f"{name}.wrong", seen.wrong, "changes")
        finally:
            if reader is not None:
                reader.close()
            bench.close()
    figures.show(Console() if sys.stdout.isatty() else Console(width=150))
    if output is not None:
        figures.write(output)


if __name__ == "__main__":
    typer.run(main)
