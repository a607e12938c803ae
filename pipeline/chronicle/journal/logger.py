"""A logger whose lines are events: `log.info` to `log.fatal`, and assertions that tell when something is not as it must be.

    log = Logger(journal, "shop.checkout")
    log.info("payment.retried", attempt=2)
    log.assert_equal(order.total, sum(lines), "order.total")

The message is the event's description; fields go to `extra` in its payload. An exception is told by its class and the place it
comes from: never its text, arguments, source lines or local variables. Values go through the journal's protection like all
others.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import threading
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from chronicle.errors import ChronicleError
from chronicle.events.event import DESCRIPTION_LENGTH_MAX, TEXT_LENGTH_MAX
from chronicle.events.types import payload_of
from chronicle.journal.counting import THREADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chronicle.journal import Journal

Level = Literal["debug", "info", "warning", "error", "fatal"]
EXTRA_MAX = 100
"""Fields of one line; the rest is counted in `more_fields`."""
FATAL_FLUSH_S = 5.0
"""How long `fatal` waits for the event to be delivered (or spilled): the program may end after it."""
_WHOLE = range(-(2**63), 2**63)
_writing: ContextVar[bool] = ContextVar("chronicle_journal_writing", default=False)


class Logger:
    """Writes to a journal; safe in threads. It never raises: what the journal refuses is counted there (`refused`).

    Args:
        journal: where to.
        name: as loggers are named; None: the module that logs.
    """

    def __init__(self, journal: Journal, name: str | None = None) -> None:
        self._journal, self._name = journal, name

    def debug(self, message: str, /, **fields: object) -> None:
        """Something for who writes the program."""
        self._log("debug", message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Something that is as it should be."""
        self._log("info", message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Something to look at, some day."""
        self._log("warning", message, fields)

    def error(self, message: str, /, error: BaseException | None = None, **fields: object) -> None:
        """Something failed; without `error`, the exception that is being handled is told, if there is one."""
        self._log("error", message, fields, error or sys.exception())

    def fatal(self, message: str, /, error: BaseException | None = None, **fields: object) -> None:
        """Something failed and the program ends: waits up to `FATAL_FLUSH_S` until it is told. Ends nothing itself."""
        self._log("fatal", message, fields, error or sys.exception())
        self._journal.flush(FATAL_FLUSH_S)

    def assert_true(self, value: object, message: str, /, **fields: object) -> bool:
        """Whether the value is true; if not, an event says so."""
        return bool(value) or self._failed("true", message, fields, actual=value)

    def assert_equal(self, actual: object, expected: object, message: str, /, **fields: object) -> bool:
        """Whether both are equal; if not, an event says so. Of the values it tells the types alone."""
        return bool(actual == expected) or self._failed("equal", message, fields, actual=actual, expected=expected)

    def assert_no_error(self, error: BaseException | None, message: str, /, **fields: object) -> bool:
        """Whether there is no error; if there is, an event tells its class and place."""
        return error is None or self._failed("no_error", message, fields, error=error)

    def _log(self, level: Level, message: str, fields: Mapping[str, object], error: BaseException | None = None) -> None:
        said = caller(sys._getframe(2)) if error is None else of_error(error)
        write(self._journal, f"log.{level}", message, {"logger": self._name or said.get("module"), **said}, fields)

    def _failed(
        self,
        assertion: str,
        message: str,
        fields: Mapping[str, object],
        *,
        error: BaseException | None = None,
        **values: object,
    ) -> Literal[False]:
        said = caller(sys._getframe(2)) if error is None else of_error(error)
        types = {f"{name}_type": type_name(type(value)) for name, value in values.items()}
        whole = {"logger": self._name or said.get("module"), **said, **types, "assertion": assertion}
        write(self._journal, "log.assertion_failed", message, whole, fields)
        return False


def write(
    journal: Journal,
    type: str,
    message: str,
    said: Mapping[str, Any],
    fields: Mapping[str, object],
    **envelope: Any,
) -> bool:
    """Publish one line; whether it was taken. Never raises, and never writes a line about writing a line.

    Args:
        journal: where to.
        type: `log.…`.
        message: the description; cut where it is longer than an event's.
        said: the payload's fields; None is left out.
        fields: `extra`.
        envelope: further arguments of `publish`.
    """
    if _writing.get() or threading.current_thread().name.startswith(THREADS):
        return False  # of what the journal does itself
    token = _writing.set(True)
    try:
        known = {name: text(value) if isinstance(value, str) else value for name, value in said.items() if value is not None}
        payload = payload_of(type)(**known, extra=extra(fields), process_id=os.getpid(), thread=threading.current_thread().name)
        priority = "high" if type in ("log.error", "log.fatal", "log.assertion_failed") else "normal"
        journal.publish(payload, description=text(message, DESCRIPTION_LENGTH_MAX), **{"priority": priority, **envelope})
    except ChronicleError:  # refused, or there is no room: the journal has counted it
        return False
    finally:
        _writing.reset(token)
    return True


def caller(frame: FrameType | None) -> dict[str, Any]:
    """The place that a frame is at."""
    if frame is None:
        return {}
    return {"module": frame.f_globals.get("__name__"), "function": frame.f_code.co_qualname, "line": frame.f_lineno}


def of_error(error: BaseException) -> dict[str, Any]:
    """An exception's class, the place it comes from, and a fingerprint that is equal for those from the same place."""
    frames = list(_frames(error.__traceback__))
    kind = type_name(type(error))
    way = [kind, *(f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}" for frame, _ in frames)]
    place = {**caller(frames[-1][0]), "line": frames[-1][1]} if frames else {}
    return {**place, "error_type": kind, "fingerprint": hashlib.sha256("\n".join(way).encode()).hexdigest()[:16]}


def extra(fields: Mapping[str, object]) -> dict[str, bool | int | float | str | None] | None:
    """Fields as a payload's `extra` has them: plain values; lists and objects as JSON text, what JSON has not as its type."""
    if not fields:
        return None
    shown = {text(str(name)): _plain(value) for name, value in list(fields.items())[:EXTRA_MAX]}
    if len(fields) > EXTRA_MAX:
        shown["more_fields"] = len(fields) - EXTRA_MAX
    return shown


def text(value: str, length_max: int = TEXT_LENGTH_MAX) -> str:
    """Whole characters, and not more than an event takes."""
    whole = value if value.isascii() else value.encode(errors="replace").decode()
    return whole if len(whole) <= length_max else f"{whole[: length_max - 1]}…"


def type_name(kind: type) -> str:
    """A class by module and name; a built-in one by name."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _frames(trace: TracebackType | None) -> Any:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _plain(value: object) -> bool | int | float | str | None:
    if isinstance(value, BaseException):
        return type_name(type(value))
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
        if isinstance(plain, dict | list | tuple):
            plain = msgspec.json.encode(plain).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return f"<{type_name(type(value))}>"
    if isinstance(plain, bool) or plain is None or (isinstance(plain, float) and math.isfinite(plain)):
        return plain
    if isinstance(plain, int) and plain in _WHOLE:
        return int(plain)
    return text(str(plain), DESCRIPTION_LENGTH_MAX)
