"""Two applications that write to the demo's databases: seeded, at a steady rate, and telling when each commit returned."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from chronicle.errors import ChronicleError

PEOPLE = (
    "Ada Lovelace", "Zoë Åström", "李小龍", "José Nuñez", "Søren Kierkegård", "Ольга Иванова", "Grace Hopper", "Łukasz Żak",
    "محمد علي", "Chloë O'Neill", "山田 太郎", "Nguyễn Thị Minh", "Owl 🦉 Smith", "Katalin Karikó", "René \"Le Vieux\" Dupont",
)  # fmt: skip
CLERKS = ("alice@example.org", "bob@example.org", "carol@example.org", "nightly-job")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much, how fast, and from which seed: on fresh databases the same seed writes the same rows."""

    seed: int = 7
    seconds: float = 30.0
    transactions_per_second: float = 40.0


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed transaction."""

    source: str
    transaction_id: str
    """As in a change: Postgres' 32-bit xid, MariaDB's GTID."""
    returned_at: float
    """Seconds since 1970, when `COMMIT` had returned to the application."""


@dataclass(slots=True)
class Told:
    """What an application has done so far; another thread may read it at any time."""

    commits: list[Commit] = field(default_factory=list)
    rollbacks: int = 0
    by_action: dict[str, int] = field(default_factory=dict)


class Application(Protocol):
    """One application with one connection. Each method is one transaction."""

    source: str
    written_before: int
    """Differs from run to run on the same database, so that a second run does not repeat the first."""

    def act(self, chosen: random.Random, step: float) -> tuple[str, str | None]:
        """Do something; `step` goes from 0 to 1 over the run. Returns what it did, and the transaction's id or None when
        it was rolled back."""

    def finish(self, chosen: random.Random) -> str:
        """A last transaction that certainly changes a row; returns its id. When it is queryable, so is all before it."""

    def close(self) -> None:
        """Give the connection back."""


def run(
    applications: Mapping[str, Callable[[], Application]],
    plan: Plan,
    told: Mapping[str, Told],
    progress: Callable[[float], None] = lambda _share: None,
) -> None:
    """Let all applications write side by side for the plan's time.

    Args:
        applications: by source, what opens each one, in the thread that uses it.
        told: by source, filled as the applications go.
        progress: called with the share of time gone by (0 to 1), from the calling thread.

    Raises:
        ChronicleError: an application failed; names its source and the error's class.
    """
    stop = threading.Event()
    failed: dict[str, Exception] = {}

    def work(source: str) -> None:
        try:
            _write(applications[source], plan, told[source], stop)
        except Exception as error:  # noqa: BLE001  (any failure of a thread is carried to the caller)
            failed[source] = error
            stop.set()

    threads = [threading.Thread(target=work, args=(source,), name=f"traffic-{source}") for source in applications]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            threads[0].join(0.25)
            for thread in threads:
                thread.join(0.05)
            progress(min(1.0, (time.monotonic() - began) / plan.seconds))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for source, error in failed.items():
        raise ChronicleError(f"see why the demo's {source} application failed: {type(error).__name__}") from error


def _write(open_application: Callable[[], Application], plan: Plan, told: Told, stop: threading.Event) -> None:
    application = open_application()
    try:
        chosen = random.Random(f"{plan.seed} {application.source} {application.written_before}")  # noqa: S311  (repeatable on purpose)
        total = max(1, round(plan.seconds * plan.transactions_per_second))
        began = time.monotonic()
        for number in range(total):
            late = began + number / plan.transactions_per_second - time.monotonic()
            if stop.wait(max(0.0, late)):
                return
            action, transaction_id = application.act(chosen, number / total)
            told.by_action[action] = told.by_action.get(action, 0) + 1
            if transaction_id is None:
                told.rollbacks += 1
            else:
                told.commits.append(Commit(application.source, transaction_id, time.time()))
        told.commits.append(Commit(application.source, application.finish(chosen), time.time()))
    finally:
        application.close()


def email_of(name: str, number: int) -> str:
    """An address that is made from a name, in ASCII."""
    letters = "".join(one for one in name.lower() if one.isascii() and one.isalpha()) or "guest"
    return f"{letters}.{number}@example.org"


def weighted(chosen: random.Random, actions: Sequence[tuple[int, str]]) -> str:
    """One of the actions, by weight."""
    return chosen.choices([name for _, name in actions], [weight for weight, _ in actions])[0]
