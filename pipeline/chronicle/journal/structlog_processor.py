"""structlog, to a journal: a processor that publishes each line and passes it on."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from chronicle.journal.logger import Level, of_error, write

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from chronicle.journal import Journal

_LEVELS: dict[str, Level] = {
    **{"debug": "debug", "info": "info", "msg": "info", "log": "info", "warning": "warning", "warn": "warning"},
    **{"error": "error", "err": "error", "exception": "error", "critical": "fatal", "fatal": "fatal"},
}
_PLACES = {"module": "module", "func_name": "function", "lineno": "line"}
"""As `CallsiteParameterAdder` names them, if it stands before."""
_NOT_FIELDS = frozenset(
    {"event", "level", "logger", "logger_name", "timestamp", "exc_info", "exception", "stack_info", "stack"}
)


class JournalProcessor:
    """Put it into `structlog.configure(processors=[…])` before anything renders, and before `format_exc_info`.

    The event's name becomes the description and the code, the other fields `extra`; an exception is told by class and place.
    The line goes on to the next processor as it was; with `only=True` it ends here. What the journal refuses is counted there.
    """

    def __init__(self, journal: Journal, *, only: bool = False) -> None:
        self._journal, self._only = journal, only

    def __call__(self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """structlog's protocol. Raises `structlog.DropEvent` where it ends here."""
        name = event_dict.get("logger") or event_dict.get("logger_name") or getattr(logger, "name", None)
        said: dict[str, Any] = {"logger": name if isinstance(name, str) else None}
        said |= {ours: event_dict[theirs] for theirs, ours in _PLACES.items() if theirs in event_dict}
        message = str(event_dict.get("event", ""))
        if message and message.isascii() and " " not in message:
            said["code"] = message
        error = _error(event_dict.get("exc_info"))
        if error is not None:
            said |= of_error(error)
        fields = {name: value for name, value in event_dict.items() if name not in _NOT_FIELDS and name not in _PLACES}
        write(self._journal, f"log.{_LEVELS.get(method_name, 'info')}", message, said, fields)
        if self._only:
            from structlog import DropEvent

            raise DropEvent
        return event_dict


def _error(given: object) -> BaseException | None:
    """What structlog takes as `exc_info`: an exception, a triple, or that the one being handled is meant."""
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple) and len(given) == 3:
        kind, error, trace = given
        return error if isinstance(error, BaseException) and isinstance(trace, TracebackType | None) and kind else None
    return sys.exception() if given else None
