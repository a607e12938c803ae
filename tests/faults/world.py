"""One deployment for fault tests on the real stack: two databases with a workload, connectors, settings, workers, checks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pymysql
from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, TopicPartition

from chronicle import setup
from chronicle.capture.apply import Deployment, apply, change_state, delete
from chronicle.capture.connect import ConnectClient
from chronicle.capture.sources import load_source
from chronicle.config import Settings
from chronicle.dev.stack import Stack
from chronicle.errors import ConfigError
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.mirror_names import mirror_name
from tests.faults import load
from tests.faults.catalog import Tables
from tests.faults.checker import Allowance, check
from tests.faults.expectation import expected, snapshot_rows
from tests.faults.observation import AuditContext, AuditRecord, DeadLetter, Observation, TruthContext, TruthRow, Work
from tests.faults.processes import WorkerProcess, environment, until
from tests.faults.raw import RawTopics, TopicReader
from tests.faults.report import Report
from tests.faults.workload_mariadb import MariadbWorkload
from tests.faults.workload_postgres import PostgresWorkload
from tests.own_settings import own_settings, remove

CONNECTORS = Path(__file__).parents[2] / "connectors"
PLACEHOLDER = "d41c0f6e8b7a49539a2f0c1e5b6d7788"
CAPTURE_DEADLINE_S = 120.0


class World:
    """Everything of one test module, named by `name`; `close` leaves nothing behind on the stack."""

    def __init__(self, stack: Stack, name: str, directory: Path, seed: int) -> None:
        self.stack, self.name, self.directory, self.seed = stack, name, directory, seed
        self.sources = (f"g_{name}_pg", f"g_{name}_my")
        self.databases = (f"g_{name}_pg", f"g_{name}_my")
        self.settings = self._settings()
        self.observed = dict.fromkeys(self.sources, 0)
        self.planted: list[DeadLetter] = []
        self.raw = RawTopics(stack.kafka, stack.registry_url)
        self.audit: list[AuditRecord] = []
        self.contexts: list[AuditContext] = []
        self.audit_reader = TopicReader(stack.kafka)
        self.workers: list[WorkerProcess] = []
        self.last: tuple[Tables, list[TruthRow], list[TruthContext], Observation] | None = None
        self._create_databases()
        self.postgres = PostgresWorkload(stack.postgres_dsn(self.databases[0]), self.sources[0], seed)
        self.mariadb = MariadbWorkload(stack.mariadb_params(), self.databases[1], self.sources[1], seed)

    def _settings(self) -> Settings:
        found = own_settings(self.stack, f"g_{self.name}", self.directory)
        return found.model_copy(update={"worker": found.worker.model_copy(update={"discovery_interval_s": 1.0})})

    @property
    def environment(self) -> dict[str, str]:
        """The settings as a worker process reads them."""
        return environment(self.settings)

    # -- up and down ---------------------------------------------------------------------------------------------------

    def _create_databases(self) -> None:
        with psycopg.connect(self.stack.postgres_dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.databases[0]}".encode())
        with pymysql.connect(**self.stack.mariadb_params(), autocommit=True) as other, other.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {self.databases[1]} CHARACTER SET utf8mb4")

    def create(self, seeded: int) -> None:
        """Tables with `seeded` transactions in each database, Chronicle's topics and tables, running connectors."""
        for workload in (self.postgres, self.mariadb):
            workload.create()
            workload.run(seeded)
            self.observed[workload.source] = workload.last_seq()
        self._write_sources()
        setup.run(self.settings)
        with ConnectClient(self.settings.connect) as client:
            deployment = self._deployment(client)
            for source in self.sources:
                apply(load_source(self.settings.connect.directory / f"{source}.toml"), deployment)

    def _write_sources(self) -> None:
        directory = self.settings.connect.directory
        shutil.copytree(CONNECTORS / "templates", directory / "templates")
        for source, kind, name, prefix, tables in (
            (self.sources[0], "postgres", self.databases[0], "SHOP", self.postgres.tables()),
            (self.sources[1], "mariadb", self.databases[1], "HIRING", self.mariadb.tables()),
        ):
            schema = "public" if kind == "postgres" else name
            lines = [f'template = "{kind}"', f"tables = {[f'{schema}.{table.name}' for table in tables]!r}"]
            lines.append(f'context_table = "{schema}.chronicle_context"')
            lines.append(f"keyless = {[f'{schema}.{table.name}' for table in tables if not table.key]!r}")
            if kind == "postgres":
                lines.append(f'unavailable_value_placeholder = "{PLACEHOLDER}"')
                lines.append(f"full_identity = {[f'{schema}.{table.name}' for table in tables if table.full]!r}")
            lines += ["[database]", f'name = "{name}"']
            lines += [f'{key} = "${{env:{prefix}_DB_{key.upper()}}}"' for key in ("host", "port", "user", "password")]
            (directory / f"{source}.toml").write_text("\n".join(lines) + "\n")

    def _deployment(self, client: ConnectClient) -> Deployment:
        return Deployment(client, self.settings.kafka, self.settings.registry, self.stack.environment)

    def close(self) -> None:
        """Connectors, slots, topics, databases: all gone."""
        with ConnectClient(self.settings.connect) as client:
            for source in self.sources:
                file = self.settings.connect.directory / f"{source}.toml"
                if file.is_file():
                    delete(load_source(file), self._deployment(client), drop=True)
        self.postgres.close()
        self.mariadb.close()
        with psycopg.connect(self.stack.postgres_dsn(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {self.databases[0]} WITH (FORCE)".encode())
        with pymysql.connect(**self.stack.mariadb_params(), autocommit=True) as other, other.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {self.databases[1]}")
        remove(self.settings)

    def clickhouse(self) -> Client:
        """A client of one's own."""
        return connect(self.settings.clickhouse)

    # -- work ----------------------------------------------------------------------------------------------------------

    def write(self, transactions: int) -> None:
        """Work in both databases, in turns."""
        for done in range(0, transactions, 20):
            self.postgres.run(min(20, transactions - done))
            self.mariadb.run(min(20, transactions - done))

    def keep_columns(self) -> None:
        """From now on no table grows columns: a registry that is killed forgets schemas that it got a moment before."""
        for workload in (self.postgres, self.mariadb):
            workload.columns_max = workload.columns_added

    def worker(self, *options: str, **settings: str) -> WorkerProcess:
        """Start a worker; `settings` like FAILPOINT="before_ack" go into its section."""
        more = {f"CHRONICLE_WORKER__{name}": value for name, value in settings.items()}
        started = WorkerProcess(self.directory, self.environment | more, f"worker-{len(self.workers):03d}", *options)
        self.workers.append(started)
        return started

    def end_workers(self) -> None:
        """What a failed test left running."""
        for worker in self.workers:
            worker.kill()

    def revive(self, part: str) -> None:
        """Start a part of the stack that was killed; its port may be held for a moment by connections that end."""

        def started() -> bool:
            try:
                self.stack.start(part)
            except ConfigError:
                return False
            return True

        until(started, 60, f"{part} is back")

    def drain(self, deadline_s: float = 120) -> Work:
        """Process everything there is with one fresh worker; what it says it did."""
        before = self.acknowledged()
        worker = self.worker("--until-drained", "--json")
        code = worker.wait(deadline_s)
        assert code == 0, worker.tail(f"ended with {code}")
        ranges = {place: (before.get(place, 0), after) for place, after in self.acknowledged().items()}
        return Work(json.loads(worker.output()), ranges, len(worker.events("partitions.assigned")))

    def acknowledged(self) -> dict[tuple[str, int], int]:
        """How far the group has acknowledged each partition of the sources' topics."""
        settings = {"bootstrap.servers": self.stack.kafka, "group.id": self.settings.worker.group}
        consumer = Consumer(settings)  # never subscribes, so it is no member
        try:
            known = consumer.list_topics(timeout=10).topics
            names = [name for name in known if name.startswith(tuple(f"{source}." for source in self.sources))]
            places = [TopicPartition(name, partition) for name in names for partition in known[name].partitions]
            found = consumer.committed(places, timeout=10)
        finally:
            consumer.close()
        return {(str(at.topic), int(at.partition)): at.offset for at in found if at.offset >= 0}

    # -- truth and check -----------------------------------------------------------------------------------------------

    def tables(self) -> Tables:
        """The captured tables as they are now."""
        return Tables({table.topic: table for table in (*self.postgres.tables(), *self.mariadb.tables())})

    def truth(self) -> list[TruthRow]:
        """Everything that was written."""
        return [
            *self.postgres.truth(self.observed[self.sources[0]]),
            *self.mariadb.truth(self.observed[self.sources[1]]),
        ]

    def said(self) -> list[TruthContext]:
        """Every context that was written."""
        return [
            *self.postgres.said(self.observed[self.sources[0]]),
            *self.mariadb.said(self.observed[self.sources[1]]),
        ]

    def expected_changes(self, tables: Tables, truth: Sequence[TruthRow]) -> int:
        """Changes and snapshot rows."""
        return len(expected(tables, truth)) + sum(map(len, snapshot_rows(tables, truth).values()))

    def await_captured(self) -> int:
        """Until the raw topics hold every change and every context that was written; how many changes that is."""
        tables, truth = self.tables(), self.truth()
        wanted = self.expected_changes(tables, truth)
        said = {(one.source, one.rung, one.text) for one in self.said() if not one.observed}

        def there() -> bool:
            self.raw.refresh(tables)
            return len(self.raw.signatures) >= wanted and said <= self.raw.said

        until(there, CAPTURE_DEADLINE_S, f"{wanted} changes and {len(said)} contexts in the raw topics", every_s=0.3)
        return wanted

    def await_queryable(self, wanted: int, deadline_s: float = 120) -> None:
        """Until ClickHouse has that many changes."""
        with self.clickhouse() as client:
            statement = f"SELECT uniqExact(event_id) FROM {self.settings.clickhouse.database}.changes"
            until(lambda: load.count(client, statement) >= wanted, deadline_s, f"{wanted} changes in ClickHouse", every_s=0.3)

    def statuses(self) -> set[tuple[str, str]]:
        """(source, status) of the transactions, as the view of expected and seen counts says it."""
        with self.clickhouse() as client:
            return load.statuses(client, self.settings.clickhouse.database)

    def restart_failed_tasks(self) -> list[str]:
        """Connectors whose task failed, after they run again."""
        restarted = []
        with ConnectClient(self.settings.connect) as client:
            for source in self.sources:
                state = client.state(source)
                if state is not None and state.failure:
                    change_state(load_source(self.settings.connect.directory / f"{source}.toml"), "restart", client)
                    restarted.append(source)
        return restarted

    def held(self) -> tuple[int, int]:
        """Different events in ClickHouse and in the audit topic now."""
        self._read_audit()
        with self.clickhouse() as client:
            stored = load.count(client, f"SELECT uniqExact(event_id) FROM {self.settings.clickhouse.database}.changes")
        return stored, len({record.event_id for record in self.audit})

    def _read_audit(self) -> None:
        changes, contexts = load.audit(self.audit_reader, self.settings.kafka.audit_topic)
        self.audit += changes
        self.contexts += contexts

    def observe(self, tables: Tables, work: Work | None = None) -> Observation:
        """Everything that came out until now."""
        self.raw.refresh(tables)
        self._read_audit()
        read = self.acknowledged()  # heartbeats and the last END may have come after the worker's end
        database = self.settings.clickhouse.database
        with self.clickhouse() as client:
            return Observation(
                changes=load.changes(client, database),
                changes_raw_rows=load.count(client, f"SELECT count() FROM {database}.changes"),
                audit=list(self.audit),
                mirrors=load.mirrors(client, self.settings.clickhouse.mirror_database, tables),
                source_rows=self._source_rows(tables),
                dead_letters=load.dead_letters(client, database),
                raw=list(self.raw.records),
                marks=[mark for mark in self.raw.marks if mark.offset < read.get((mark.topic, mark.partition), 0)],
                transactions=load.transactions(client, database),
                contexts=list(self.contexts),
                work=work,
            )

    def _source_rows(self, tables: Tables) -> dict[str, list[dict[str, Any]]]:
        rows = {}
        for table in tables.by_topic.values():
            workload = self.postgres if table.source == self.sources[0] else self.mariadb
            rows[table.topic] = workload.rows(table.name) if table.key else []
        return rows

    def check(self, allowance: Allowance | None = None, work: Work | None = None) -> Report:
        """Every law over everything so far."""
        tables, truth, said = self.tables(), self.truth(), self.said()
        seen = self.observe(tables, work)
        self.last = (tables, truth, said, seen)
        return check(tables, truth, seen, self.planted, allowance, said)

    def last_observed(self, names: Collection[str]) -> tuple[Tables, list[TruthRow], list[TruthContext], Observation]:
        """What the last check looked at, of the first source's tables of these names only."""
        if self.last is None:
            self.write(60)
            self.settle()
        assert self.last is not None
        tables, truth, said, seen = self.last
        source = self.sources[0]
        kept = Tables(
            {topic: table for topic, table in tables.by_topic.items() if table.source == source and table.name in names}
        )
        changes = [change for change in seen.changes if change.topic in kept.by_topic]
        narrowed = replace(
            seen,
            changes=changes,
            changes_raw_rows=len(changes),
            audit=[record for record in seen.audit if kept.of(record.source, record.schema, record.table)],
            mirrors={topic: rows for topic, rows in seen.mirrors.items() if topic in kept.by_topic},
            raw=[record for record in seen.raw if record.topic in kept.by_topic],
            marks=[mark for mark in seen.marks if mark.source == source],
            transactions=[row for row in seen.transactions if row.source == source],
            contexts=[record for record in seen.contexts if record.source == source],
            work=None,
        )
        rows = [row for row in truth if kept.of(row.source, row.schema, row.table)]
        return kept, rows, [context for context in said if context.source == source], narrowed

    def plant(self, letters: Iterable[DeadLetter]) -> None:
        """Records that must become these dead letters were written into raw topics."""
        for letter in letters:
            self.planted.append(letter)
            self.raw.bad.add((letter.topic, letter.partition, letter.offset))

    def refuse(self, topic: str, condition: str) -> None:
        """From now on ClickHouse refuses rows of this table's mirror that do not meet the condition."""
        table = self.tables().by_topic[topic]
        mirror = f"{self.settings.clickhouse.mirror_database}.`{mirror_name(table.source, table.schema, table.name)}`"
        with self.clickhouse() as client:
            client.command(f"ALTER TABLE {mirror} ADD CONSTRAINT IF NOT EXISTS refused CHECK {condition}")

    def settle(self, allowance: Allowance | None = None) -> Report:
        """What each fault test ends with: all captured, all drained, every law holds."""
        self.await_captured()
        work = self.drain()
        report = self.check(allowance, work)
        assert report.ok, report.text()
        return report

    def excuse(self, topics: Iterable[str]) -> Allowance:
        """The allowance for a killed Connect: keyless tables among these raw topics may hold doubles."""
        tables = self.tables()
        return replace(Allowance(), doubled_keyless=frozenset(topic for topic in topics if not tables.by_topic[topic].key))
