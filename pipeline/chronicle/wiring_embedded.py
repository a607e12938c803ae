"""Settings to live objects for one process without a broker: the service, the pipeline and, mostly, chDB as the store."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from fastapi import FastAPI

    from chronicle.api.parts import Durability, Record
    from chronicle.codec.entity import Entity
    from chronicle.config import Settings
    from chronicle.embedded.letters import LetterSink
    from chronicle.embedded.pipeline import Pipeline
    from chronicle.engine import Engine
    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.settings import Settings as JournalSettings
    from chronicle.model.chunk import Chunk
    from chronicle.sinks.entities import EntityTable
    from chronicle.worker.status import Status

CONFIRM_S = 30.0
"""How long an answer waits for the store; then the caller is told to hand it in again."""
RETRY_AFTER_S = 5.0
POLICY = """\
# What may be seen of the events that applications hand in. Read at start; restart after a change.
#
# To begin with, payloads are kept as they come; names that look secret (password, token, ssn, ...) are [FILTERED]
# even so. For data that is not yours to show, delete the block below: what no rule names is [FILTERED].

[[events]]
match = "**"                # event types: * is one word, ** any words; more exact patterns win
[events.columns]
"payload.*" = "clear"       # or drop, redact, mask, token, generalize: as for columns of tables
"""


def first_start(settings: Settings) -> list[str]:
    """Make identity key, key ring and policy where the settings say, unless they are there; what was made, in lines.

    Raises:
        ConfigError: something cannot be written, or what is there is broken; there is a store, but one of them is gone.
    """
    from chronicle.policy.keyring import Purpose
    from chronicle.policy_files import add_key, read_key_ring
    from chronicle.setup import ensure_key, identity_key

    for path in (settings.identity_key_file, settings.key_ring_file, settings.policy_file):
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(
                f"make {path.parent} a directory you can write to, or name another --dir ({type(error).__name__})"
            ) from None
    made = []
    used = settings.store == "chdb" and (settings.chdb_path / "store").exists()
    if used:
        _check_whole(settings)
    if settings.identity_key is not None or settings.identity_key_file.exists():
        identity_key(settings)  # nothing is written: a store on a full disk can be read
    elif (key := ensure_key(settings)).action == "created":
        made.append(f"made {key.name}: the identity key; keep a copy, event ids follow from it")
    if settings.key_ring is None and not used:
        there, ours = set(read_key_ring(settings).keys), {f"{purpose}-1": purpose for purpose in Purpose}
        missing = {} if there - set(ours) else {id_: purpose for id_, purpose in ours.items() if id_ not in there}
        for id_, purpose in missing.items():  # one by one: a first start that was interrupted between them is finished
            add_key(settings.key_ring_file, id_, purpose, datetime.now(UTC).replace(microsecond=0))
        if missing:
            made.append(f"made {settings.key_ring_file}: keys for tokens and encryption; keep a copy")
    if not settings.policy_file.exists():
        # Beside, and then in its place: half a policy would be one, too.
        fresh = settings.policy_file.with_name(f".{settings.policy_file.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(POLICY)
                file.flush()
                os.fsync(file.fileno())
            os.link(fresh, settings.policy_file)
        except OSError as error:
            raise ConfigError(f"make {settings.policy_file} writable: {type(error).__name__}") from None
        finally:
            fresh.unlink(missing_ok=True)
        made.append(f"made {settings.policy_file}: what may be seen; payloads are clear, secret-looking names are not")
    return made


def _check_whole(settings: Settings) -> None:
    """What a store began with has to stay: another key is another identity, and the first policy shows more than many."""
    for what, file, elsewhere in (
        ("identity key", settings.identity_key_file, settings.identity_key is not None),
        ("key ring", settings.key_ring_file, settings.key_ring is not None),
        ("policy", settings.policy_file, False),
    ):
        if not elsewhere and not file.exists():
            raise ConfigError(f"restore the {what} to {file}: the store in {settings.chdb_path} has one")


@dataclass(frozen=True)
class Embedded:
    """What runs beside the service in its process."""

    pipeline: Pipeline
    engine: Engine
    letters: LetterSink
    status: Status
    client: Client

    def replay(self) -> tuple[int, int]:
        """Process again what could not be processed before; how many went through, and how many did not.

        Raises:
            StopWorker, ConfigError: as `Engine.process`.
        """
        through = failed = 0
        for chunk in self.letters.chunks():
            places = frozenset((chunk.topic, chunk.partition, offset) for offset in chunk.offsets)
            outcome = self.engine.process([chunk], places)
            again = {one.offset for one in outcome.batch.dead_letters}
            gone = [offset for offset in chunk.offsets if offset not in again]
            self.letters.forget(chunk.topic, chunk.partition, gone)
            through, failed = through + len(gone), failed + len(again)
        return through, failed

    def close(self) -> None:
        """Finish what was handed in and give everything back."""
        self.pipeline.close()
        self.engine.close()
        self.client.close()


def build(settings: Settings) -> Embedded:
    """The store with its tables, and the engine over it; the pipeline is not started.

    Raises:
        ConfigError: the first thing to correct before a start can succeed.
        TransientError: a ClickHouse server that is the store is away.
    """
    from chronicle.embedded.letters import LetterSink
    from chronicle.embedded.pipeline import Pipeline
    from chronicle.sinks.clickhouse import ClickHouseSink
    from chronicle.sinks.clickhouse_client import connect
    from chronicle.sinks.clickhouse_errors import translated
    from chronicle.sinks.migrations import migrate
    from chronicle.sinks.policies import Recording
    from chronicle.wiring import build_engine, rules
    from chronicle.worker.status import Status

    policy = rules(settings)
    client = connect(settings.clickhouse)
    try:
        migrate(client, settings.clickhouse)
        letters = LetterSink(client, settings.clickhouse.database, translated=translated)
        letters.prepare()
        status = Status()
        engine = build_engine(
            settings,
            (),
            status,
            rules=policy,
            steps=(Recording(settings.clickhouse, policy.policy, policy.policy.text),),
            into=(ClickHouseSink(settings.clickhouse), letters),
        )
        topic, first_offset = _place(client, settings)
        pipeline = Pipeline(
            lambda chunk: _processed(engine, status, chunk),
            topic,
            first_offset,
            stopping=status.stopping,
            failed=status.fail,
        )
    except BaseException:
        client.close()
        raise
    return Embedded(pipeline, engine, letters, status, client)


def application(settings: Settings, embedded: Embedded) -> FastAPI:
    """The HTTP service over these; its lifespan starts the pipeline, and finishes it."""
    from chronicle.api.app import create
    from chronicle.api.metrics import ApiMetrics
    from chronicle.sinks.entities import EntityTable
    from chronicle.wiring_api import connecting, parts

    metrics, pipeline = ApiMetrics(), embedded.pipeline
    metrics.gauges["chronicle_pipeline_waiting"] = (
        "Events handed in that the store has not yet.",
        lambda: float(pipeline.waiting),
    )
    query = f"SELECT toUnixTimestamp64Milli(max(put_at)) FROM `{settings.clickhouse.database}`.entities"  # noqa: S608
    last_ms = int(embedded.client.query(query).result_rows[0][0])
    made = parts(
        settings,
        publisher=PipelinePublisher(embedded),
        store=connecting(settings) if settings.store == "clickhouse" else embedded.client,  # a server has a user who reads
        entities=StoreEntities(EntityTable(settings.clickhouse), last_ms),
        metrics=metrics,
    )
    made.keys.refresh()  # the store is here: the first request need not find the door closed
    return create(made)


def _processed(engine: Engine, status: Status, chunk: Chunk) -> None:
    engine.process([chunk])
    status.progress()


def _place(client: Client, settings: Settings) -> tuple[str, int]:
    """The topic whose records these are, and the offset of the next one: dead letters are kept by them.

    On a server, which others may share, each process has a name of its own; in a store of its own it goes on after the highest.
    """
    database, topic = settings.clickhouse.database, settings.kafka.events_topic
    if settings.store == "clickhouse":
        return f"{topic}.memory-{secrets.token_hex(8)}", 0
    highest = [
        client.query(
            f"SELECT count(), max(offset) FROM `{database}`.{table} WHERE topic = {{topic:String}}",  # noqa: S608
            parameters={"topic": topic},
        ).result_rows[0]
        for table in ("events", "dead_letters", "dead_letter_records")
    ]
    return topic, max((offset + 1 for count, offset in highest if count), default=0)


class PipelinePublisher:
    """Implements `api.parts.Publisher`: an event is told as accepted when the store has it on its disk."""

    def __init__(self, embedded: Embedded) -> None:
        self._pipeline, self._status = embedded.pipeline, embedded.status

    async def start(self) -> None:
        """As the protocol says."""
        self._pipeline.start()

    async def publish(self, records: Sequence[Record]) -> Durability:
        """As the protocol says."""
        from chronicle.api.parts import Unavailable
        from chronicle.errors import TransientError

        try:
            held = self._pipeline.hand_in(records)
            await asyncio.wait_for(asyncio.wrap_future(held), CONFIRM_S)
        except TimeoutError:
            raise Unavailable("the store does not answer", RETRY_AFTER_S) from None
        except TransientError as error:
            raise Unavailable(str(error), RETRY_AFTER_S) from None
        return "confirmed"

    def problem(self) -> str | None:
        """As the protocol says."""
        if self._pipeline.ended:
            return "the pipeline has ended"
        waits = self._status.retries()
        return f"waiting for {', '.join(sorted(waits))}" if waits else None

    async def close(self) -> None:
        """As the protocol says: what was handed in is finished."""
        await asyncio.get_running_loop().run_in_executor(None, self._pipeline.close)


class StoreEntities:
    """Implements `api.parts.EntityWriter` without a topic: the store's table is the truth."""

    def __init__(
        self, table: EntityTable, last_ms: int, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        """`last_ms`: the latest time in the table. Whatever the clock does, each write is later than all before it."""
        self._table, self._last, self._now_ms = table, last_ms, now_ms
        self._lock = threading.Lock()

    def put(self, entities: Sequence[Entity]) -> None:
        """As the protocol says."""
        self._write([(one.id, one.body) for one in entities])

    def delete(self, ids: Sequence[str]) -> None:
        """As the protocol says."""
        from chronicle.codec.entity import check_id

        for id_ in ids:
            check_id(id_)
        self._write([(id_, None) for id_ in ids])

    def _write(self, states: Sequence[tuple[str, str | None]]) -> None:
        from chronicle.codec.entity import Record

        with self._lock:
            self._last = max(self._last + 1, self._now_ms())
            self._table.write([Record(id_, body, self._last, number) for number, (id_, body) in enumerate(states)])


class EmbeddedTransport:
    """Implements `journal.transports.Transport` in the application's own process: no service, no port.

    What it confirms is on the disk. One process has the store: a forked child's events wait in its spill, if it has one.
    """

    name = "embedded"

    def __init__(self, embedded: Embedded, *, durable: bool, timeout_s: float) -> None:
        """`embedded`: its pipeline not started yet; closed with the transport."""
        self._embedded, self.durable, self._timeout_s = embedded, durable, timeout_s
        self._forked = False
        embedded.pipeline.start()

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        """As the protocol says."""
        from chronicle.errors import ChronicleError, TransientError
        from chronicle.journal.transports import TransportAway

        if self._forked:
            raise TransportAway("a forked process cannot use its parent's embedded store: give it a transport by HTTP")
        try:
            self._embedded.pipeline.hand_in([(out.key, out.text) for out in batch]).result(self._timeout_s)
        except (TransientError, TimeoutError) as error:
            failure = self._embedded.status.failure
            if failure is not None:
                why = str(failure) if isinstance(failure, ChronicleError) else type(failure).__name__
                raise TransportAway(f"start the process again, the embedded store has ended: {why}") from None
            raise TransportAway(f"the embedded store does not take events now ({type(error).__name__})") from None
        return [None] * len(batch)

    def forked(self) -> None:
        """As the protocol says."""
        self._forked = True

    def close(self) -> None:
        """Finish what was handed in, and let other processes have the store."""
        if not self._forked:
            self._embedded.close()


def transport(url: str, journal: JournalSettings) -> EmbeddedTransport:
    """The transport of `embedded://DIRECTORY`: what `chronicle run --embedded --dir DIRECTORY` keeps there, and reads later.

    Raises:
        ConfigError: the first thing to correct before a start can succeed; another process has the store.
    """
    from chronicle import config

    place = url.partition("://")[2]
    if not place:
        raise ConfigError("name the directory of the embedded store, as embedded://.chronicle/embedded")
    settings = config.load().embedded(Path(place))
    first_start(settings)
    return EmbeddedTransport(build(settings), durable=settings.store != "memory", timeout_s=max(journal.timeout_s, CONFIRM_S))
