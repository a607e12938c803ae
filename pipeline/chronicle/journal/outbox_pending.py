"""The events of one connection's transaction: kept in memory, and what has become of them when it commits or rolls back.

Decided without a driver: the adapters (`outbox_psycopg`, …) call this around what the application does, and run what it asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from chronicle.attribution.statements import Dialect, Statement, read
from chronicle.journal import outbox_table
from chronicle.journal.outbox_table import OutboxError, Row

Fate = Literal["written", "rolled_back", "lost"]
Settle = Callable[[Fate], None]
"""Told once what became of an event: written into its transaction (which then commits, or the application hears of it); rolled
back; or lost, which an `OutboxError` has said."""
Mark = Callable[[int], str]
"""A driver's placeholder of the nth parameter."""
_WORD = re.compile(r"(?>\s++|/\*.*?\*/|--[^\n]*+|#[^\n]*+|\()*+([A-Za-z]*)", re.DOTALL)
_RELEASE = re.compile(r"\s*RELEASE\s+(?:SAVEPOINT\s+)?([^\s;]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ask:
    """A statement to run now, in the transaction."""

    sql: str
    values: tuple[str, ...]
    answers: bool
    """Whether it answers with rows, whose first columns are to be sent back."""


Asking = Generator[Ask, list[str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """An event that was published."""

    table: str
    row: Row
    settle: Settle


@dataclass(frozen=True, slots=True)
class _Savepoint:
    name: str
    published: int
    written: int


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of the application's: flush first when it says so, run it, then call `Pending.after`."""

    flush: bool = False
    """The statement may end the transaction, or begin another."""
    statement: Statement | None = None
    word: str = ""
    released: str | None = None


class Pending:
    """What one transaction has to tell.

    Protocol: `add` for each event; `before` and `after` around each statement that the application runs (a failed one: no
    `after`); `flush` before whatever commits; `committed` after it; `rolled_back` after a rollback. `savepoint`, `back` and
    `release` for libraries whose savepoints are no statements. Flushing too early costs a second INSERT, never an event.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.speaking = False
        """Set while the statements that `flush` asks for are run: they are not the application's."""
        self.begun = False
        """Whether a transaction was open when an event was added. Then one that is none any more ended unseen."""
        self._entries: list[Entry] = []
        self._written = 0
        """So many of the first entries are in the database, as part of the transaction."""
        self._savepoints: list[_Savepoint] = []

    def __len__(self) -> int:
        """Events that are not in the database yet."""
        return len(self._entries) - self._written

    def add(self, entry: Entry, *, begun: bool) -> None:
        """Keep an event until its transaction commits."""
        self._entries.append(entry)
        self.begun = self.begun or begun

    def flush(self, mark: Mark) -> Asking:
        """The statements that write all events, and leave the table empty: run each and send back what it answers.

        An event that is there twice, by its id, is written once. When a statement fails, the events are kept: the application
        hears of it, and rolls back.
        """
        waiting: dict[tuple[str, str], Entry] = {}
        for entry in self._entries[self._written :]:
            waiting.setdefault((entry.table, entry.row.id), entry)
        for table, entries in groupby(waiting.values(), key=lambda one: one.table):
            for rows in outbox_table.parts([one.row for one in entries]):
                yield from (_postgres if self.dialect == "postgres" else _mysql)(table, rows, mark)
        self._written = len(self._entries)

    def committed(self) -> None:
        """The transaction is over, and what was flushed is part of it."""
        self._end("written")

    def rolled_back(self) -> None:
        """The transaction is over, and nothing of it happened."""
        self._end("rolled_back")

    def found_over(self) -> None:
        """No transaction is open. Raises OutboxError when there was one and it ended unseen, with events that were not sent."""
        if not self.begun or not self._entries:
            return
        waiting = len(self)
        self._end("lost" if waiting else "written")
        if waiting:
            raise OutboxError(
                f"commit by the connection's own methods: a transaction ended unseen, and {waiting} events of it were not sent"
            )

    def savepoint(self, name: str) -> None:
        """The savepoint was set."""
        if self._entries:  # of one that was set before any event nothing has to be remembered
            self._savepoints.append(_Savepoint(name, len(self._entries), self._written))

    def back(self, name: str) -> None:
        """Rolled back to the savepoint: what was published since then did not happen, what was written since then is not."""
        at = self._place(name)
        point = _Savepoint(name, 0, 0) if at is None else self._savepoints[at]
        gone = self._entries[point.published :]
        del self._entries[point.published :]
        self._written = min(point.written, len(self._entries))
        del self._savepoints[0 if at is None else at + 1 :]
        for entry in gone:
            entry.settle("rolled_back")

    def release(self, name: str) -> None:
        """The savepoint, and those set since, are no more; what happened since them stays."""
        at = self._place(name)
        if at is not None:
            del self._savepoints[at:]

    def before(self, sql: str, *, several: bool = True, backslashes: bool = True) -> Step:
        """What to do about a statement; arguments as in `statements.read`."""
        if self.speaking or not self._entries:
            return Step()
        statement = read(sql, self.dialect, several=several, backslashes=backslashes)
        found = _WORD.match(sql)
        word = found[1].upper() if found and not statement.several else ""
        if statement.savepoint or statement.rollback_to:
            return Step(statement=statement, word=word)
        if word == "RELEASE" and (named := _RELEASE.match(sql)):
            return Step(statement=statement, word=word, released=named[1].upper())
        if word in ("ROLLBACK", "ABORT"):
            return Step(statement=statement, word=word)
        return Step(flush=statement.ends and len(self) > 0, statement=statement, word=word)

    def after(self, step: Step) -> None:
        """The statement went through."""
        statement = step.statement
        if statement is None or self.speaking:
            return
        if statement.savepoint is not None:
            self.savepoint(statement.savepoint)
        elif statement.rollback_to is not None:
            self.back(statement.rollback_to)
        elif step.released is not None:
            self.release(step.released)
        elif step.word in ("ROLLBACK", "ABORT"):
            self.rolled_back()
        elif step.word in ("COMMIT", "END") or (self.dialect == "mysql" and statement.ends and not statement.writes):
            self.committed()

    def _place(self, name: str) -> int | None:
        """Of the newest savepoint of this name."""
        return next((at for at in reversed(range(len(self._savepoints))) if self._savepoints[at].name == name), None)

    def _end(self, rest: Fate) -> None:
        entries, written = self._entries, self._written
        self._entries, self._written, self._savepoints, self.begun = [], 0, [], False
        for at, entry in enumerate(entries):
            entry.settle("written" if rest == "lost" and at < written else rest)


def _postgres(table: str, rows: Any, mark: Mark) -> Asking:
    found = yield Ask(outbox_table.postgres_insert(table, mark(0)), (outbox_table.as_json(rows),), answers=True)
    yield Ask(outbox_table.postgres_delete(table, mark(0)), (outbox_table.places(found),), answers=False)


def _mysql(table: str, rows: Any, mark: Mark) -> Asking:
    width = len(outbox_table.COLUMNS)
    marks = [[mark(at * width + place) for place in range(width)] for at in range(len(rows))]
    yield Ask(outbox_table.mysql_insert(table, marks), tuple(outbox_table.mysql_values(rows)), answers=False)
    ids = tuple(one.id for one in rows)
    yield Ask(outbox_table.mysql_delete(table, [mark(at) for at in range(len(ids))]), ids, answers=False)


def drive(asking: Asking, run: Callable[[Ask], list[str]]) -> None:
    """Run what is asked for, one after the other."""
    try:
        ask = next(asking)
        while True:
            ask = asking.send(run(ask))
    except StopIteration:
        return


def committing(method: Callable[[], Any], pending: Pending) -> Any:
    """A driver's commit, once everything is written: what fails has rolled back."""
    try:
        result = method()
    except BaseException:
        pending.rolled_back()
        raise
    pending.committed()
    return result


def ending(method: Callable[..., Any], pending: Pending) -> Callable[..., Any]:
    """A driver's method after which nothing of the transaction is left: rollback, close, a new connection."""

    def end(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        finally:
            pending.rolled_back()

    return end
