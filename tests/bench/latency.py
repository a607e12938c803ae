"""Commit → queryable: two databases written to at a steady rate, and a poller that knows nothing of the pipeline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pymysql
from clickhouse_connect.driver.client import Client

from chronicle import setup
from chronicle.capture.apply import Deployment, apply, delete
from chronicle.capture.connect import ConnectClient
from chronicle.capture.sources import load_source
from chronicle.dev.stack import Stack
from chronicle.sinks.clickhouse_client import connect
from tests.bench.meter import percentile
from tests.bench.site import CONNECTORS, Site
from tests.faults.processes import WorkerProcess, until

SIGNALS = "CREATE TABLE {}chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32), data varchar(2048))"
PLACEHOLDER = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
PAUSE_S = 0.025
"""Between two polls: what the figures are uncertain by, beside the query's own time. Not less: the poller and its queries
share the cores with what they measure."""
LATE_S = 60.0
_NEVER = threading.Event()


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one database at one rate. Seconds from the return of COMMIT to the return of the query that showed the row."""

    kind: str
    rate: float
    """Transactions per second that were reached."""
    rows: int
    p50_s: float
    p99_s: float
    max_s: float


class Bench:
    """Databases, connectors and a running worker."""

    def __init__(self, stack: Stack, name: str, directory: Path) -> None:
        self.stack = stack
        self.site = Site(stack, name, directory)
        self.sources = {"postgres": f"{self.site.source}_pg", "mariadb": f"{self.site.source}_my"}
        self.next_id = 1

    @property
    def files(self) -> dict[str, Path]:
        """The source files."""
        return {kind: self.site.settings.connect.directory / f"{source}.toml" for kind, source in self.sources.items()}

    def deployment(self, client: ConnectClient) -> Deployment:
        """What applying needs."""
        return Deployment(client, self.site.settings.kafka, self.site.settings.registry, self.stack.environment)

    def create(self) -> None:
        """Everything but the worker."""
        with psycopg.connect(self.stack.postgres_dsn(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {self.sources['postgres']}".encode())
        with psycopg.connect(self.stack.postgres_dsn(self.sources["postgres"]), autocommit=True) as postgres:
            postgres.execute(b"CREATE TABLE latency (id bigint PRIMARY KEY, note text)")
            postgres.execute(b"ALTER TABLE latency REPLICA IDENTITY FULL")
            postgres.execute(
                b"CREATE TABLE chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32), data varchar(2048))"
            )
        with pymysql.connect(**self.stack.mariadb_params(), autocommit=True) as mariadb, mariadb.cursor() as cursor:
            name = self.sources["mariadb"]
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"CREATE TABLE {name}.latency (id bigint PRIMARY KEY, note varchar(200))")
            cursor.execute(
                f"CREATE TABLE {name}.chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32), data varchar(2048))"
            )
        shutil.copytree(CONNECTORS / "templates", self.site.settings.connect.directory / "templates")
        for kind, prefix, schema in (("postgres", "SHOP", "public"), ("mariadb", "HIRING", self.sources["mariadb"])):
            lines = [f'template = "{kind}"', f'tables = ["{schema}.latency"]']
            if kind == "postgres":
                lines += [
                    'unavailable_value_placeholder = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"',
                    'full_identity = ["public.latency"]',
                ]
            lines += ["[database]", f'name = "{self.sources[kind]}"']
            lines += [f'{key} = "${{env:{prefix}_DB_{key.upper()}}}"' for key in ("host", "port", "user", "password")]
            self.files[kind].write_text("\n".join(lines) + "\n")
        setup.run(self.site.settings)
        with ConnectClient(self.site.settings.connect) as client:
            for file in self.files.values():
                apply(load_source(file), self.deployment(client))

    def close(self) -> None:
        """Remove it all."""
        with ConnectClient(self.site.settings.connect) as client:
            for file in self.files.values():
                if file.is_file():
                    delete(load_source(file), self.deployment(client), drop=True)
        with psycopg.connect(self.stack.postgres_dsn(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {self.sources['postgres']} WITH (FORCE)".encode())
        with pymysql.connect(**self.stack.mariadb_params(), autocommit=True) as mariadb, mariadb.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {self.sources['mariadb']}")
        self.site.close()

    def run(self, rate: float, seconds: float) -> list[Latency]:
        """Write to both databases at this rate each, and poll until the last row was seen."""
        parameters: dict[str, Any] = {
            "postgres": {"dsn": self.stack.postgres_dsn(self.sources["postgres"])},
            "mariadb": self.stack.mariadb_params(self.sources["mariadb"]),
        }
        first, rows = self.next_id, int(rate * seconds)
        self.next_id += rows
        with connect(self.site.settings.clickhouse) as client:
            poller = _Poller(client, self.site.settings.clickhouse.database, list(self.sources.values()), first)
            writers = {kind: _writer(kind, parameters[kind], rate, seconds, first) for kind in self.sources}
            poller.poll(rows * len(writers), seconds + LATE_S)
        found = []
        for kind, process in writers.items():
            lines = process.communicate(timeout=LATE_S)[0].splitlines()
            committed = {int(line.split()[0]): float(line.split()[1]) for line in lines}
            seen = poller.seen[self.sources[kind]]
            missing = committed.keys() - seen.keys()
            if missing or len(committed) != rows:
                raise RuntimeError(f"{kind}: {len(committed)} of {rows} committed, {len(missing)} of them never queryable")
            took = [seen[identifier] - at for identifier, at in committed.items()]
            span = max(committed.values()) - min(committed.values())
            found.append(Latency(kind, (rows - 1) / span, rows, percentile(took, 0.5), percentile(took, 0.99), max(took)))
        return found


class _Poller:
    """Asks ClickHouse for new rows, as a user would, and notes when each was first shown."""

    def __init__(self, client: Client, database: str, sources: list[str], first: int) -> None:
        self.client, self.database, self.first = client, database, first
        self.seen: dict[str, dict[int, float]] = {source: {} for source in sources}
        self.offsets: dict[tuple[str, int], int] = {}

    def poll(self, rows: int, deadline_s: float) -> None:
        """Until this many rows were seen, or the deadline."""
        end = time.monotonic() + deadline_s
        while sum(map(len, self.seen.values())) < rows and time.monotonic() < end:
            known = " AND ".join(
                f"NOT (source = '{s}' AND partition = {p} AND offset <= {o})" for (s, p), o in self.offsets.items()
            )
            statement = f"SELECT source, partition, offset, key FROM {self.database}.changes WHERE {known or '1'}"
            result = self.client.query(statement).result_rows
            now = time.time()
            for source, partition, offset, key in result:
                identifier = json.loads(key)["id"]
                if identifier >= self.first:
                    self.seen[source].setdefault(identifier, now)
                place = (source, partition)
                self.offsets[place] = max(self.offsets.get(place, -1), offset)
            _NEVER.wait(PAUSE_S)


def _writer(kind: str, parameters: dict[str, Any], rate: float, seconds: float, first: int) -> subprocess.Popen[str]:
    arguments = [kind, json.dumps(parameters), str(rate), str(seconds), str(first)]
    return subprocess.Popen([sys.executable, "-m", "tests.bench.writer", *arguments], stdout=subprocess.PIPE, text=True)


def measure(stack: Stack, name: str, rates: list[float], seconds: float) -> dict[float, list[Latency]]:
    """Both databases at each rate, by one worker with default settings that runs all the time."""
    with tempfile.TemporaryDirectory(prefix="chronicle-bench-") as directory:
        bench = Bench(stack, name, Path(directory))
        worker = None
        try:
            bench.create()
            worker = WorkerProcess(bench.site.directory, bench.site.environment, "worker")
            worker.wait_ready()
            bench.run(20, 2)  # the first rows make topics, tables and compiled plans
            result = {rate: bench.run(rate, seconds) for rate in rates}
            until(worker.ready, 10, "the worker is still ready")
            return result
        finally:
            if worker is not None:
                worker.stop()
            bench.close()
