"""The journal: an application says what happened, and goes on."""

from __future__ import annotations

import sys
import threading
import time

from chronicle.journal import threads
from chronicle.journal.context import process_actor
from chronicle.journal.receipt import JournalClosed, PublishDropped, Receipt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Literal, NoReturn, Self, Unpack

    from chronicle.events.catalogue import Catalogue
    from chronicle.events.event import Event
    from chronicle.events.payload import Payload
    from chronicle.journal.composing import Said
    from chronicle.journal.listening import Handler
    from chronicle.journal.outbox import TransactionJournal
    from chronicle.journal.outgoing import Outgoing
    from chronicle.journal.routes import Route
    from chronicle.journal.sending import Sender
    from chronicle.journal.transports import Transport


ROOM_LOOK_S = 0.01  # how often a coroutine that waits for room in the queue looks


class Journal:
    """Events of one application, by a queue and threads of its own to a transport.

        journal = Journal(source="shop", transport="http://localhost:8080", spill="/var/lib/shop/spill")
        journal.publish("security.login", actor="ann", outcome="success", payload={"method": "passkey"})

    Guarantees. Each event has one disposition, which `counts` counts. What is confirmed, is with whom the transport stands
    for; it may arrive twice, with the same id. With a spill directory no event is dropped until `spill_bytes` are full: what
    cannot be queued or sent is on the disk, in order, and is sent first when the transport is back, also by the next process;
    what is queued in memory is lost with a killed process, and `publish_sync` has not returned for that. Events of one
    partition key keep their order among those of one priority.

    Any number of threads and tasks may use it. A forked child has a queue, threads and a part of the spill of its own, and
    none of the parent's events. It closes itself when the program ends.

    Args:
        source: the application; None: `CHRONICLE_JOURNAL_SOURCE`, else the program's name.
        transport: an object (`transports.Transport`), or a URL; None: `CHRONICLE_JOURNAL_TRANSPORT`.
        routes: topic, priority and partition key by type: `{"security.**": {"topic": …, "priority": "high", "key": "actor"}}`.
        sample: shares by type: `{"http.**": 0.1}`.
        kafka: more of librdkafka's settings.
        protect: called with each complete event before anything else sees it; gives the event that is sent, or raises. None:
            what the settings say, which is `protection.DEFAULT`; False: nothing is hidden.
        catalogue: of types, for `strict`; None: the shipped one.
        on_error: called with each error, and the event that it is about or None, in whatever thread; else it is logged.
        settings: any other of `chronicle.journal.settings`, in lower case.

    Raises:
        ConfigError: a setting is wrong or missing; in production, the transport keeps nothing.
        OSError: the spill directory cannot be used.
    """

    def __init__(
        self,
        *,
        source: str | None = None,
        transport: Transport | str | None = None,
        routes: Mapping[str, Route | Mapping[str, Any]] | str | None = None,
        sample: Mapping[str, float] | str | None = None,
        kafka: Mapping[str, str] | str | None = None,
        protect: Callable[[Event], Event] | Literal[False] | None = None,
        catalogue: Catalogue | None = None,
        on_error: Callable[[Exception, Event | None], object] | None = None,
        **settings: Any,
    ) -> None:
        from chronicle.errors import ConfigError
        from chronicle.journal import settings as settings_module
        from chronicle.journal.counting import Counting
        from chronicle.journal.listening import History, Subscribers
        from chronicle.journal.preparing import Preparing
        from chronicle.journal.transports import opened

        if kafka is not None and not isinstance(kafka, str):
            kafka = " ".join(f"{name}={value}" for name, value in kafka.items())
        url = transport if isinstance(transport, str) else None
        self.settings = settings_module.read(source=source, transport=url, kafka=kafka, **settings)
        self.source = self.settings.source or process_actor()["name"]
        self._preparing = Preparing(
            self.settings, self.source, routes=routes, sample=sample, protect=protect, catalogue=catalogue
        )
        if transport is None or isinstance(transport, str):
            transport = opened(self.settings.transport, self.settings)
        self.transport: Transport = transport
        if self.settings.production and not self.transport.durable:
            raise ConfigError(f"in production a journal needs a transport that keeps events: {self.transport.name} does not")
        self._on_error = on_error
        self._counting = Counting(on_error)
        if mistyped := settings_module.unknown():
            self._counting.tell(ConfigError(f"correct or unset {', '.join(mistyped)}: there is no such setting of a journal"))
        self._subscribers = Subscribers(self._counting, events_max=self.settings.queue_events)
        self._history = History(events_max=self.settings.history_events, bytes_max=self.settings.history_bytes)
        self._hooks: list[Handler] = []
        self._in_hooks = threading.local()
        self._sent_hooks: list[Callable[[float, int], object]] = []
        self._lock = threading.RLock()
        self._closed = False
        self._sender: Sender | None = None
        if self.settings.metrics:
            from chronicle.journal import metrics

            metrics.attach(self, self.settings.metrics)
        if self.settings.spill:
            try:
                self._sending()  # what an earlier process left is sent now, and a directory that cannot be used is said now
            except BaseException:
                self.transport.close()
                raise
        threads.journals.add(self)

    def publish(self, what: Event | Payload | str = "", /, *, timeout: float | None = None, **said: Unpack[Said]) -> Receipt:
        """Say that something happened. Returns at once; the receipt tells later what became of it.

        Args:
            what: the type (`security.login`), a payload of the catalogue, or an `Event`.
            timeout: wait so many seconds for the confirmation (or for the event being on this machine's disk).
            said: fields of the event (`Said`); they win over those of the event given and of the context.

        Raises:
            EventRefused: it is no event, or the catalogue refuses it (`strict`). Nothing is sent.
            JournalClosed: too late.
            PublishTimeout, PublishRefused, PublishDropped: with `timeout` only.
        """
        if timeout is None:
            return self._accept(*self._made(what, said))
        deadline = time.monotonic() + timeout
        receipt = self._accept(*self._made(what, said), wait=True, deadline=deadline)
        return receipt.wait(max(0.0, deadline - time.monotonic()))

    def publish_sync(self, what: Event | Payload | str = "", /, **said: Unpack[Said]) -> Receipt:
        """`publish`, and wait for the confirmation for as long as it takes. Not from the handler of a signal: what it
        interrupts cannot go on meanwhile. In `on_error`, called by a thread that sends, it does not wait (`PublishTimeout`)."""
        receipt = self._accept(*self._made(what, said), wait=True)
        return receipt.wait(0.0 if self._sender is not None and self._sender.is_here else None)

    async def apublish(
        self, what: Event | Payload | str = "", /, *, timeout: float | None = None, **said: Unpack[Said]
    ) -> Receipt:
        """`publish` for coroutines: with a timeout it is the coroutine that waits, not the thread."""
        out, receipt = self._made(what, said)
        if timeout is None:
            return await self._aaccept(out, receipt, wait=False)
        deadline = time.monotonic() + timeout
        await self._aaccept(out, receipt, deadline=deadline)
        return await receipt.awaited(max(0.0, deadline - time.monotonic()))

    async def apublish_sync(self, what: Event | Payload | str = "", /, **said: Unpack[Said]) -> Receipt:
        """`publish_sync` for coroutines."""
        receipt = await self._aaccept(*self._made(what, said))
        return await receipt.awaited()

    def prepared(self, what: Event | Payload | str = "", /, **said: Unpack[Said]) -> Outgoing | None:
        """The event as it would be sent: complete, routed, protected, checked. None: it is left out by sampling.

        Raises:
            EventRefused: as `publish`.
        """
        return self._made(what, said)[0]

    def in_transaction(self, connection: Any, **options: Any) -> TransactionJournal:
        """A journal whose events are delivered if and only if the connection's transaction commits: see `journal.outbox`."""
        from chronicle.journal.outbox import TransactionJournal

        return TransactionJournal(self, connection, **options)

    def subscribe(self, pattern: str, handler: Handler) -> Callable[[], None]:
        """Call the handler with each accepted event of the pattern (`*` one word, `**` any), in order, in a thread of the
        journal's. The function returned ends that. See `listening.Subscribers` for what happens to slow ones."""
        return self._subscribers.add(pattern, handler)

    def on_enqueue(self, hook: Handler) -> Callable[[], None]:
        """Call the hook with each event once it is accepted, in the thread that publishes: it must be quick. The function
        returned ends that. What a hook raises goes to `on_error`; what it publishes is not handed to hooks."""
        self._hooks = [*self._hooks, hook]

        def remove() -> None:
            self._hooks = [one for one in self._hooks if one is not hook]

        return remove

    def on_sent(self, hook: Callable[[float, int], object]) -> None:
        """Call the hook with the seconds that a batch took and its number of events, in a sending thread."""
        self._sent_hooks = [*self._sent_hooks, hook]

    def history(self, pattern: str = "**", *, access: str, limit: int | None = None) -> list[Event]:
        """The last events that this process published (as many as the settings say), the oldest first; with a limit the last
        so many. Reading is an event too, `chronicle.history.read`, which is not in the history.

        Args:
            access: who reads: the actor of that event.

        Raises:
            EventRefused: nobody is named.
        """
        from chronicle.events.event import EventRefused
        from chronicle.events.types.trail import ChronicleHistoryRead

        if not access or not isinstance(access, str):
            raise EventRefused("access", "name who reads the history")
        filters = [*(["type"] if pattern != "**" else []), *(["limit"] if limit is not None else [])]
        found = self._history.read(pattern, limit)
        self._counting.add("history_reads")
        self.publish(ChronicleHistoryRead(endpoint="journal.history", filters=filters or None), actor=access)
        return found

    @property
    def counts(self) -> Mapping[str, int]:
        """Events by what became of them: see `counting.NAMES`."""
        return self._counting.counts()

    def count(self, name: str, count: int = 1) -> None:
        """For parts of the journal that deliver in other ways: count under one of `counting.NAMES`."""
        self._counting.add(name, count)

    @property
    def queued(self) -> int:
        """Events in memory."""
        return 0 if self._sender is None else self._sender.queued

    @property
    def spilled(self) -> tuple[int, int]:
        """Events in this process's spill that are still to be sent, and its bytes."""
        spill = None if self._sender is None else self._sender.spill
        return (0, 0) if spill is None else (spill.count, spill.bytes)

    @property
    def breaker_open(self) -> bool:
        """Whether the transport is left alone for now, after failures."""
        return self._sender is not None and self._sender.delivery.breaker.open

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was published before is confirmed, spilled, refused or dropped, and subscribers have heard it.
        False: not in time."""
        deadline = _deadline(timeout)
        sent = self._sender is None or self._sender.flush(deadline)
        return self._subscribers.flush(deadline) and sent

    def recover(self, timeout: float | None = None) -> int:
        """Send what is in the spill, this process's and those of processes that are gone, and wait until that is done, at
        most `timeout` seconds. Returns how many events that were; it happens in the background anyway, at the start and
        whenever the transport is back."""
        sender = self._sending()
        before = self.counts["recovered"]
        sender.adopt()
        sender.wait_until_recovered(_deadline(timeout))
        return self.counts["recovered"] - before

    def close(self, timeout: float | None = None) -> None:
        """Take no more events, send what is queued (and, if the transport is there, what is spilled), at most `timeout`
        seconds (None: the setting). What is left stays in the spill; without one it is dropped and counted. Once is enough."""
        timeout = self.settings.close_timeout_s if timeout is None else timeout
        deadline = time.monotonic() + timeout
        half = deadline - timeout / 2  # a subscriber that hangs does not take the time that sending needs
        self._subscribers.flush(half)  # they may still publish
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._subscribers.close(half)
        if self._sender is not None:
            self._sender.close(max(0.0, deadline - time.monotonic()))
        else:
            self.transport.close()
        threads.journals.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _made(self, what: Event | Payload | str, said: Mapping[str, Any]) -> tuple[Outgoing | None, Receipt]:
        return self._preparing.made(what, said, self._counting)

    def _accept(self, out: Outgoing | None, receipt: Receipt, *, wait: bool = False, deadline: float | None = None) -> Receipt:
        if out is not None and self._permitted(out, receipt):
            self._put(out, wait, deadline)
        return receipt

    async def _aaccept(
        self, out: Outgoing | None, receipt: Receipt, *, wait: bool = True, deadline: float | None = None
    ) -> Receipt:
        """`_accept`; the coroutine waits for room in the queue, and a thread for the spill's disk."""
        if out is None or not self._permitted(out, receipt):
            return receipt
        sender = self._sending()
        if sender.offer(out, urgent=wait):
            self._accepted(out)
            return receipt
        import asyncio

        if sender.spills:
            await asyncio.to_thread(self._put, out, wait, deadline)
            return receipt
        try:
            while wait and (deadline is None or time.monotonic() < deadline):
                await asyncio.sleep(ROOM_LOOK_S)  # in a thread each, waiting tasks would use up the application's executor
                if sender.offer(out, urgent=wait):
                    self._accepted(out)
                    return receipt
        except BaseException:
            sender.delivery.drop([out], "cancelled before there was room in the queue")
            raise
        sender.delivery.drop([out], "the queue is full")
        return receipt

    def _permitted(self, out: Outgoing, receipt: Receipt) -> bool:
        if self._sending().delivery.permitted():
            return True
        self._counting.add("rate_limited")
        receipt.settle("rate_limited", "the rate limit")
        self._counting.tell(PublishDropped("an event is over the rate limit", receipt), out.event)
        return False

    def _put(self, out: Outgoing, wait: bool, deadline: float | None) -> None:
        if self._sending().put(out, wait=wait, deadline=deadline):
            self._accepted(out)

    def _accepted(self, out: Outgoing) -> None:
        self._counting.add("accepted")
        self.heard(out)

    def heard(self, out: Outgoing) -> None:
        """Have history, subscribers, hooks and OpenTelemetry know of an event: for parts of the journal that deliver in other
        ways, once its transaction is committed."""
        event = out.event
        if not event.type.startswith("chronicle."):
            self._history.add(event, len(out.text))
        self._subscribers.hear(event)
        if self._hooks and not getattr(self._in_hooks, "now", False):
            self._in_hooks.now = True
            try:
                for hook in self._hooks:
                    self._call(hook, event)
            finally:
                self._in_hooks.now = False
        if self.settings.span_events and (trace := sys.modules.get("opentelemetry.trace")) is not None:
            span = trace.get_current_span()
            if span.is_recording():
                span.add_event("chronicle.event", {"chronicle.event.id": event.id, "chronicle.event.type": event.type})

    def _call(self, hook: Handler, event: Event) -> None:
        try:
            hook(event)
        except Exception as error:  # noqa: BLE001 (others' code cannot break the application's)
            self._counting.tell(error, event)

    def _sending(self) -> Sender:
        sender = self._sender
        if sender is not None and not self._closed:
            return sender
        with self._lock:
            if self._closed:
                raise JournalClosed("the journal is closed: it takes no events any more")
            if self._sender is None:
                from chronicle.journal.sending import Sender

                self._sender = Sender(self.transport, self.settings, self._counting)
                self._sender.delivery.on_sent = self._on_sent
                threads.close_with_the_process(self)
            return self._sender

    def _on_sent(self, seconds: float, events: int) -> None:
        for hook in self._sent_hooks:
            hook(seconds, events)

    def _forked(self) -> None:
        from chronicle.journal.counting import Counting

        sender, self._sender = self._sender, None
        self._lock = threading.RLock()
        self._counting = Counting(self._on_error)
        self._subscribers.forked(self._counting)
        self._history.forked()
        try:
            getattr(self.transport, "forked", lambda: None)()
        except Exception as error:  # noqa: BLE001 (others' code)
            self._counting.tell(error)
        if sender is not None:
            sender.forget_parent()

    def __reduce__(self) -> NoReturn:
        raise TypeError("make a journal in each process: it cannot be pickled or copied")


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
