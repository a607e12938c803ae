"""The user's own logic inside the stream: what a module of processors imports.

from chronicle.processors import Counter, alerts, field, label, processor
"""

from __future__ import annotations

from chronicle.processors import alerts
from chronicle.processors.alerts import Severity
from chronicle.processors.faults import ProcessorFault
from chronicle.processors.frame import INPUT, field, label, read
from chronicle.processors.metrics import Counter, Gauge, Histogram
from chronicle.processors.registry import OnError, Processor, load, processor
from chronicle.processors.run import ProcessorResult, run_processors

__all__ = [
    "INPUT",
    "Counter",
    "Gauge",
    "Histogram",
    "OnError",
    "Processor",
    "ProcessorFault",
    "ProcessorResult",
    "Severity",
    "alerts",
    "field",
    "label",
    "load",
    "processor",
    "read",
    "run_processors",
]
