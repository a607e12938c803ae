"""Which processor runs now, and what it has said besides its frame: alerts, and metrics that count when all went well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chronicle.processors.faults import ProcessorFault

if TYPE_CHECKING:
    from chronicle.processors.alerts import Raised
    from chronicle.processors.metrics import Metric


@dataclass(slots=True)
class Said:
    """What one processor says of one batch."""

    metrics: frozenset[Metric]
    """That it declared."""
    alerts: list[Raised] = field(default_factory=list)
    counted: list[Callable[[], None]] = field(default_factory=list)


_current: ContextVar[Said | None] = ContextVar("chronicle_processor", default=None)


@contextmanager
def said(metrics: frozenset[Metric]) -> Iterator[Said]:
    """While a processor runs."""
    what = Said(metrics)
    token = _current.set(what)
    try:
        yield what
    finally:
        _current.reset(token)


def later(metric: Metric, count: Callable[[], None]) -> None:
    """Count when the batch is through; at once outside of a processor, in somebody's own test."""
    current = _current.get()
    if current is None:
        count()
    elif metric in current.metrics:
        current.counted.append(count)
    else:
        raise ProcessorFault(f"name {metric.name} in the processor's metrics=[…]")


def raised(alert: Raised) -> None:
    """Take an alert."""
    current = _current.get()
    if current is None:
        raise ProcessorFault("an alert is raised by a processor, while it runs")
    current.alerts.append(alert)
