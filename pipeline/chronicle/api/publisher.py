"""Accepted events to Kafka: confirmed by the broker before anybody is told so; while it is away, to the spill, in order.

Two ways, one at a time. `direct`: each event is produced at once, librdkafka makes batches of what comes within the linger,
and an answer waits for its own events' confirmations. When one is not confirmed in time, it goes to the spill, and so does
everything that comes after it, until a thread has brought all of it back in order: only then is the way direct again. So an
event that was answered before another one was handed in stays before it, per key.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from chronicle.api.parts import Durability, Record, Unavailable
from chronicle.api.recovery import Recovery
from chronicle.config import Kafka
from chronicle.errors import ConfigError
from chronicle.journal.spill import SpillFull

if TYPE_CHECKING:
    from chronicle.api.recovery import Spills

LINGER_MS = 5
QUEUE_MESSAGES_MAX = 200_000
QUEUE_KBYTES_MAX = 256 * 1024
POLL_S = 0.2
CLOSE_S = 10.0
RETRY_AFTER_S = 5.0


def producer_settings(kafka: Kafka, confirm_timeout_s: float) -> dict[str, Any]:
    """An idempotent producer that gives up on a record after `confirm_timeout_s`."""
    return kafka.client_config() | {
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": LINGER_MS,
        "compression.type": "lz4",
        "message.timeout.ms": int(confirm_timeout_s * 1000),
        "queue.buffering.max.messages": QUEUE_MESSAGES_MAX,
        "queue.buffering.max.kbytes": QUEUE_KBYTES_MAX,
        # short, for a topic that is not there: it otherwise looks like a broker that does not answer
        "topic.metadata.propagation.max.ms": 3000,
        "reconnect.backoff.max.ms": 1000,
    }


class _Waiting:
    """The records of one `publish` that the broker has not confirmed yet.

    Two threads count, each its own number, so that none of them needs a lock: who produces says how many there are, who
    polls how many are through. The last one to count sees that both are equal; both may, which does no harm.
    """

    __slots__ = ("failed", "future", "produced", "records", "refused", "through")

    def __init__(self, records: Sequence[Record], future: asyncio.Future[None]) -> None:
        self.records, self.future = records, future
        self.produced = -1
        self.through = 0
        self.failed: list[int] = []
        """Numbers of those that the broker did not confirm."""
        self.refused: list[int] = []
        """Numbers of those that librdkafka did not take."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where to, and how long to wait for a confirmation."""

    topic: str
    confirm_timeout_s: float


class KafkaPublisher:
    """Implements `parts.Publisher`. Without a spill an event that the broker does not confirm in time is `Unavailable`."""

    def __init__(self, kafka: Kafka, route: Route, spills: Spills | None) -> None:
        self._kafka, self._route = kafka, route
        self._spills = spills
        self._recovery = None if spills is None else Recovery(kafka, route.topic, spills, back=self._back)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spill")
        self._direct = True
        self._full = self._dead = self._unconfirmed = False
        self._appending = 0
        self._closing = threading.Event()
        self._done: list[_Waiting] = []
        self._retired: list[Producer] = []
        self._log = structlog.get_logger("chronicle.api")

    async def start(self) -> None:
        """Open the spill and the producer; what was spilled before comes first."""
        self._loop = asyncio.get_running_loop()
        self._producer = self._made()
        self._poller = threading.Thread(target=self._poll, name="kafka-confirmations", daemon=True)
        self._poller.start()
        if self._spills is not None and self._recovery is not None:
            await self._loop.run_in_executor(self._disk, self._spills.open)
            self._direct = not self._spills.count
            self._recovery.start(awake=not self._direct)

    async def publish(self, records: Sequence[Record]) -> Durability:
        """As `parts.Publisher.publish`."""
        if not self._direct:
            return await self._spill(records)
        waiting = _Waiting(records, self._loop.create_future())
        self._produce(waiting)
        await waiting.future
        failed = sorted(waiting.failed + waiting.refused)
        return await self._spill([records[number] for number in failed]) if failed else "confirmed"

    def problem(self) -> str | None:
        """As `parts.Publisher.problem`."""
        if self._full:
            return "the broker is away and the spill is full"
        if self._unconfirmed and self._spills is None:
            return "the broker is away and there is no spill"
        return None

    @property
    def spilled(self) -> int:
        """Records that wait for the broker."""
        return 0 if self._spills is None else self._spills.count

    @property
    def spilled_bytes(self) -> int:
        """What the spill has of the disk."""
        return 0 if self._spills is None else self._spills.bytes

    async def close(self) -> None:
        """Wait a moment for confirmations, then stop. What is spilled stays on the disk."""
        if self._recovery is not None:
            await self._loop.run_in_executor(None, self._recovery.close)
        self._closing.set()
        await self._loop.run_in_executor(None, self._poller.join, CLOSE_S)
        if len(self._producer):
            self._log.warning("publisher.closed_unconfirmed", records=len(self._producer))
        self._disk.shutdown(wait=True)
        if self._spills is not None:
            self._spills.close()

    # --- direct

    def _made(self) -> Producer:
        try:
            return Producer(producer_settings(self._kafka, self._route.confirm_timeout_s))
        except KafkaException as error:
            raise ConfigError(f"correct the settings in [kafka] (Kafka: {error.args[0].name()})") from None

    def _produce(self, waiting: _Waiting) -> None:
        produce, topic = self._producer.produce, self._route.topic
        for number, (key, value) in enumerate(waiting.records):
            try:
                produce(topic, value, key, on_delivery=_Confirmation(self, waiting, number))
            except (BufferError, KafkaException):
                waiting.refused.append(number)
        waiting.produced = len(waiting.records) - len(waiting.refused)
        if waiting.through == waiting.produced:
            self._resolve([waiting])

    def _confirmed(self, waiting: _Waiting, number: int, error: KafkaError | None) -> None:
        """Called in the thread that polls."""
        if error is not None:
            waiting.failed.append(number)
            self._dead = self._dead or error.fatal() or error.code() == KafkaError._FATAL
        waiting.through += 1
        if waiting.through == waiting.produced:
            self._done.append(waiting)

    def _poll(self) -> None:
        """In a thread of its own: take confirmations from librdkafka, and tell the event loop once for all of them."""
        while True:
            self._producer.poll(POLL_S if not self._retired else POLL_S / 10)
            for old in self._retired:
                old.poll(0)
            if self._done:
                done, self._done = self._done, []
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._resolve, done)
            self._retired = [old for old in self._retired if len(old)]
            if self._closing.is_set() and not len(self._producer):
                return

    def _resolve(self, done: Sequence[_Waiting]) -> None:
        """In the event loop: these are through. When one of them failed, the spill takes what comes from now on."""
        failed = any(waiting.failed or waiting.refused for waiting in done)
        if failed and self._direct and self._recovery is not None:
            self._direct = False
            self._log.warning("publisher.spilling", reason="the broker does not confirm")
        elif failed and not self._unconfirmed and self._recovery is None:
            self._log.warning("publisher.away", reason="the broker does not confirm, and there is no spill")
        self._unconfirmed = failed
        if self._dead:
            self._renew()
        for waiting in done:
            if not waiting.future.done():
                waiting.future.set_result(None)

    def _renew(self) -> None:
        """An idempotent producer does nothing more after a fatal error: a fresh one takes over, the old one is emptied."""
        self._dead = False
        old, self._producer = self._producer, self._made()
        self._retired = [*self._retired, old]

    # --- spilled

    async def _spill(self, records: Sequence[Record]) -> Durability:
        if self._spills is None or self._recovery is None:
            raise Unavailable("the broker does not confirm, and there is no spill", RETRY_AFTER_S)
        self._appending += 1
        try:
            await self._loop.run_in_executor(self._disk, self._spills.append, [value for _, value in records])
        except SpillFull:
            self._full = True
            raise Unavailable("the broker is away and the spill is full", RETRY_AFTER_S) from None
        except OSError as error:
            self._log.error("spill.failed", error=type(error).__name__, errno=error.errno)
            raise Unavailable("the broker is away and the spill's disk refuses", RETRY_AFTER_S) from None
        finally:
            self._appending -= 1
        self._full = False
        self._direct = False  # also when these failed after all others had been brought back: they come first
        self._recovery.wake()
        return "spilled"

    def _back(self) -> None:
        """Called in the recovery's thread: the spill was empty a moment ago."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._go_direct)

    def _go_direct(self) -> None:
        """In the event loop, where nothing is appended between looking and deciding."""
        if self._direct or self._spills is None or self._recovery is None:
            return
        if self._appending or self._spills.count:
            self._recovery.wake()
            return
        self._direct, self._full, self._unconfirmed = True, False, False
        self._log.info("publisher.direct")


class _Confirmation:
    """What librdkafka calls for one record."""

    __slots__ = ("number", "publisher", "waiting")

    def __init__(self, publisher: KafkaPublisher, waiting: _Waiting, number: int) -> None:
        self.publisher, self.waiting, self.number = publisher, waiting, number

    def __call__(self, error: KafkaError | None, _message: object) -> None:
        self.publisher._confirmed(self.waiting, self.number, error)
