"""The standard library's logging, to a journal: `logging.getLogger().addHandler(JournalHandler(journal))`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from chronicle.journal.logger import of_error, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from chronicle.journal import Journal

_OWN = ("chronicle", "confluent_kafka", "urllib3", "http.client")
"""Loggers of the journal, of what may be behind it in this process, and of what it sends with: their lines about sending lines
are for other handlers."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CHARACTERS_MAX = 100_000


class JournalHandler(logging.Handler):
    """Each record becomes an event `log.debug` … `log.fatal` (CRITICAL), its time the record's, its `extra` the record's own.

    The description is the formatted message, or with `templates=True` the message before its arguments are put in
    (`user %s logged in`): then no value is in it. Exceptions are told by class and place. Never raises, never recurses: what
    the journal itself logs is not taken.

    Args:
        journal: where to.
        level: the least that is taken.
        templates: messages without their arguments.
        extra: the names of a record's own attributes that are taken; None: all of them.
    """

    def __init__(
        self,
        journal: Journal,
        level: int | str = logging.NOTSET,
        *,
        templates: bool = False,
        extra: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__(level)
        self._journal, self._templates, self._wanted = journal, templates, extra

    def emit(self, record: logging.LogRecord) -> None:
        """Publish it; returns at once."""
        if any(record.name == own or record.name.startswith(f"{own}.") for own in _OWN):
            return
        try:
            message = str(record.msg) if self._templates else record.getMessage()
            said: dict[str, Any] = {"logger": record.name, "module": record.module, "function": record.funcName}
            said["line"] = record.lineno
            if record.exc_info and record.exc_info[1] is not None:
                said |= of_error(record.exc_info[1])
            given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
            fields = given if self._wanted is None else {name: given[name] for name in given if self._wanted(name)}
            write(self._journal, f"log.{_level(record.levelno)}", message[:_CHARACTERS_MAX], said, fields, time=_time(record))
        except Exception:  # noqa: BLE001 (a line that cannot be written must not stop the program)
            self.handleError(record)


def _level(number: int) -> str:
    bounds = ((logging.CRITICAL, "fatal"), (logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))
    return next((name for bound, name in bounds if number >= bound), "debug")


def _time(record: logging.LogRecord) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
