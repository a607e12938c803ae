"""What was spilled goes to the broker when it is back: in order, confirmed piece by piece, and only then forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from chronicle.config import Kafka
from chronicle.errors import ChronicleError
from chronicle.events.event import EventRefused, decoded
from chronicle.journal.outgoing import key_of
from chronicle.journal.spill import Spill, SpillLocked
from chronicle.observe import explain
from chronicle.sinks.producer import ConfirmedProducer

SLOTS_MAX = 64
"""Processes of one directory: each has a spill of its own."""
ORPHANS_EVERY_S = 10.0
"""How often spills of processes that are gone are looked for."""
AGAIN_S = 0.5
"""Between two attempts while the broker is away."""


class Spills:
    """The spill of this process, a numbered directory of `root`, and those that processes before it left behind."""

    def __init__(self, root: Path, bytes_max: int) -> None:
        self._root, self._bytes_max = root, bytes_max
        self._own: Spill | None = None
        self._left: list[Spill] = []

    def open(self) -> None:
        """Take the first free directory, and all others that hold something and belong to nobody.

        Raises:
            ConfigError: all are taken.
        """
        for slot in range(SLOTS_MAX):
            try:
                self._own = Spill(self._root / f"{slot:02}", bytes_max=self._bytes_max)
                break
            except SpillLocked:
                continue
        else:
            raise SpillLocked(f"set api.spill_directory to another directory: {SLOTS_MAX} processes have {self._root}")
        self.adopt()

    def adopt(self) -> None:
        """Take what others left behind."""
        if self._own is None:
            return
        mine = {self._own.directory, *(one.directory for one in self._left)}
        for path in sorted(self._root.iterdir()):
            if path in mine or not any(path.glob("*.spill")):
                continue
            try:
                found = Spill(path, bytes_max=self._bytes_max)
            except SpillLocked:
                continue  # its process lives
            if found.count:
                self._left.append(found)
            else:
                found.close()

    def append(self, records: list[bytes]) -> None:
        """Keep these; as `Spill.append`."""
        assert self._own is not None  # noqa: S101  (opened at the start)
        self._own.append(records)

    def oldest(self) -> Spill | None:
        """The one to empty next: what others left comes before what this process has."""
        while self._left:
            if self._left[0].count:
                return self._left[0]
            self._left.pop(0).close()
        return self._own if self._own is not None and self._own.count else None

    @property
    def count(self) -> int:
        """Records in all of them."""
        return sum(one.count for one in (self._own, *self._left) if one is not None)

    @property
    def bytes(self) -> int:
        """Of all of them, on the disk."""
        return sum(one.bytes for one in (self._own, *self._left) if one is not None)

    def close(self) -> None:
        """Let go; what is there stays."""
        for one in (self._own, *self._left):
            if one is not None:
                one.close()


class Recovery:
    """A thread that empties the spills whenever there is something in them and the broker answers."""

    def __init__(self, kafka: Kafka, topic: str, spills: Spills, *, back: Callable[[], None]) -> None:
        """`back`: called when all is delivered; it may be called again when more came meanwhile."""
        self._topic, self._spills, self._back = topic, spills, back
        self._producer = ConfirmedProducer(kafka)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spill-recovery", daemon=True)
        self._log = structlog.get_logger("chronicle.api")
        self.recovered = 0
        """Records that the broker has confirmed since the start."""

    def start(self, *, awake: bool) -> None:
        """Begin; `awake`: there is something already."""
        if awake:
            self._wake.set()
        self._thread.start()

    def wake(self) -> None:
        """There is something."""
        self._wake.set()

    def close(self) -> None:
        """Stop after the piece that is under way."""
        self._closing.set()
        self._wake.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        said = ""
        while not self._closing.is_set():
            asked = self._wake.wait(ORPHANS_EVERY_S)
            self._wake.clear()
            try:
                self._spills.adopt()
                while not self._closing.is_set() and (spill := self._spills.oldest()) is not None:
                    self._empty(spill)
                    said = ""
                if asked:
                    self._back()
            except (ChronicleError, OSError) as error:
                told = explain(error)
                if told["reason"] != said and not self._closing.is_set():
                    said = told["reason"]
                    self._log.warning("spill.waits", records=self._spills.count, **told)
                self._closing.wait(AGAIN_S)
                self._wake.set()

    def _empty(self, spill: Spill) -> None:
        for position, records in spill.read():
            for text in records:
                self._producer.produce_raw(self._topic, text, _key(text), ())
            self._producer.confirm()
            spill.forget(position)
            self.recovered += len(records)
            if self._closing.is_set():
                return
        self._log.info("spill.recovered", records=self.recovered)


def _key(text: bytes) -> bytes | None:
    try:
        return key_of(decoded(text))
    except EventRefused:  # of another version: it was accepted, so it goes on
        return None
