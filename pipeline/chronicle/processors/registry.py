"""What a processor is: a function over a batch with its declaration; and how those that the settings name are found."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import polars as pl

from chronicle.errors import ChronicleError, ConfigError
from chronicle.policy.patterns import TablePattern
from chronicle.processors.frame import INPUT, Dtype
from chronicle.processors.metrics import Metric

PROCESSORS_MAX = 60
"""Of one worker: which of them a row has been through is kept in 64 bits."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,79}")

Function = Callable[[pl.DataFrame], pl.DataFrame]


class OnError(StrEnum):
    """What an exception of a processor does; the values are the words of `@processor(on_error=…)`."""

    DEADLETTER = "deadletter"  # the rows that it was given become dead letters
    STOP = "stop"  # the worker ends, nothing is acknowledged


@dataclass(frozen=True, slots=True, eq=False)
class Processor:
    """A declared processor. Calling it calls the function, as a test of the function alone would."""

    name: str
    function: Function
    tables: tuple[TablePattern, ...]
    extra: Mapping[str, Dtype]
    """Columns that it always returns, and their types."""
    drops: bool
    """Whether rows that it does not return are left out of the trail."""
    on_error: OnError
    grants: tuple[tuple[TablePattern, tuple[str, ...]], ...]
    """Columns of these tables that it sees in clear, whatever the policy says."""
    metrics: frozenset[Metric] = field(default=frozenset())

    def __call__(self, changes: pl.DataFrame) -> pl.DataFrame:
        """The function."""
        return self.function(changes)

    def takes(self, source: str, schema: str, table: str) -> bool:
        """Whether it is given the changes of this table."""
        return any(pattern.matches(source, schema, table) for pattern in self.tables)

    def granted(self, source: str, schema: str, table: str) -> tuple[str, ...]:
        """Columns of this table that it sees in clear."""
        if not self.takes(source, schema, table):
            return ()
        found = (columns for pattern, columns in self.grants if pattern.matches(source, schema, table))
        return tuple(dict.fromkeys(column for columns in found for column in columns))


def processor(
    *,
    tables: str | Sequence[str],
    extra: Mapping[str, Dtype] | None = None,
    drops: bool = False,
    on_error: str = OnError.DEADLETTER,
    grants: Mapping[str, Sequence[str]] | None = None,
    metrics: Sequence[Metric] = (),
    name: str | None = None,
) -> Callable[[Function], Processor]:
    """Declare a processor: a function that is given the changes of some tables, batch by batch, and returns them with more.

    It may be called again with the same changes and must then say the same: it has no clock but `committed_at`, and no
    memory but the batch. It returns one row for each row it was given (in any order; `event_id` tells them apart) with
    more columns: those of `extra`, others (kept with the type they have; names beginning with `_` are its own scratch
    columns), `labels` with more labels in it, and `tags.<name>` for more tags.

    Args:
        tables: `source.schema.table`, or several; `*` within a part, `**` for any parts, as in the policy.
        extra: columns it always returns, and their types.
        drops: rows that it does not return are left out of the trail (a stub stays); else that is an error.
        on_error: `deadletter` or `stop`: what becomes of the rows it was given when it raises.
        grants: columns of tables that it sees in clear as `clear.<name>`, whatever the policy says.
        metrics: those that it counts.
        name: in metrics and dead letters; the function's name, unless given.

    Raises:
        ConfigError: something in the declaration cannot be.
    """

    def declared(function: Function) -> Processor:
        title = name or function.__name__.lstrip("_")
        if not _NAME.fullmatch(title):
            raise ConfigError(f"name the processor {title} with letters, digits, . _ and -")
        if on_error not in set(OnError):
            raise ConfigError(f"processor {title}: on_error is deadletter or stop")
        for column in extra or {}:
            if column in INPUT or column.startswith("_") or "." in column or not column:
                raise ConfigError(f"processor {title}: give the column {column!r} of extra another name")
        return Processor(
            title,
            function,
            tuple(_pattern(one, title) for one in ([tables] if isinstance(tables, str) else tables)),
            dict(extra or {}),
            drops,
            OnError(on_error),
            tuple((_pattern(one, title), tuple(columns)) for one, columns in (grants or {}).items()),
            frozenset(metrics),
        )

    return declared


def _pattern(text: str, name: str) -> TablePattern:
    try:
        return TablePattern.parse(text)
    except ValueError as error:
        raise ConfigError(f"processor {name}: tables {text!r}: {error}") from None


def load(modules: Iterable[str], *, directory: Path | None = None) -> tuple[Processor, ...]:
    """The processors of these modules, in the order of the modules, and of what stands in each.

    Every processor that is an attribute of a module counts, also one that it imports or that a function made for it; not
    those whose names begin with `_`. `directory` is searched as well as the installed packages.

    Raises:
        ConfigError: a module that cannot be imported, or has none; two processors with one name.
    """
    if directory is not None and str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    return checked([one for module in modules for one in _of(module)])


def checked(processors: Iterable[Processor]) -> tuple[Processor, ...]:
    """Each once, in order.

    Raises:
        ConfigError: two with one name, two metrics with one name, or too many.
    """
    found = tuple(dict.fromkeys(processors))
    names: dict[str, Processor] = {}
    metrics: dict[str, Metric] = {}
    for one in found:
        if names.setdefault(one.name, one) is not one:
            raise ConfigError(f"rename one of the two processors {one.name}: @processor(name=…)")
        for metric in one.metrics:
            if metric.name in OWN or metrics.setdefault(metric.name, metric) is not metric:
                raise ConfigError(f"rename the metric {metric.name} of the processor {one.name}: there is another one")
    if len(found) > PROCESSORS_MAX:
        raise ConfigError(f"name fewer processors: there may be {PROCESSORS_MAX}, not {len(found)}")
    return found


OWN = frozenset({"seconds", "rows", "alerts"})
"""Metrics of the step itself."""


def _of(module: str) -> list[Processor]:
    try:
        loaded = importlib.import_module(module)
    except ChronicleError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever somebody's module does when it is imported
        raise ConfigError(f"correct processors: {module} cannot be imported ({_why(error)})") from None
    found = [one for name, one in vars(loaded).items() if isinstance(one, Processor) and not name.startswith("_")]
    if not found:
        raise ConfigError(f"correct processors: {module} has no function with @processor")
    return found


def _why(error: Exception) -> str:
    """Its class, and what names code: never its text."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"there is no module {error.name}"
    if isinstance(error, SyntaxError):
        return f"SyntaxError in {Path(error.filename or '?').name}, line {error.lineno}"
    return type(error).__name__
