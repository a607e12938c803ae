"""Every error Chronicle raises, named by who must act.

    ChronicleError
    ├── ConfigError       the operator: misconfigured; exit 2 before starting, the message says the fix
    ├── TransientError    the world: network, a busy or absent service; retried, nothing is acknowledged
    ├── SinkRejected      the data: a sink refuses rows for good; the engine bisects down to those rows
    ├── StopWorker        the operator: going on could lose or corrupt; the process ends without acknowledging
    │   └── Interrupted   nobody: asked to stop while waiting; the batch comes again
    ├── UnsupportedSchema (`codec.columns`) the data: no decoder reads this schema; its records become dead letters
    └── StackError        the operator: a part of the local stack is missing or died

A record that fails is not an exception but a row of a `DeadLetters` frame with a `Reason`
(`chronicle.model.dead_letters`): its neighbours go through. Anything else that is raised is a bug
and ends the process without acknowledging.

No message of these errors ever holds a row value: they leave the process as log lines and exit texts.
"""

from __future__ import annotations


class ChronicleError(Exception):
    """Base of all; its text is safe to show and its first line says what to do."""


class ConfigError(ChronicleError):
    """The operator must change a setting. Commands end with exit code 2."""


class TransientError(ChronicleError):
    """A service is away or busy. Whoever catches it waits and repeats the same call; nothing was lost."""


class SinkRejected(ChronicleError):
    """A sink refuses this batch for good, because of the data in it.

    The engine calls the sink again with halves of the batch until the refused rows are alone,
    so a sink must be idempotent by `event_id` before it raises this.
    """

    def __init__(self, message: str, *, reason: str = "value_refused") -> None:
        """`reason`: a `model.dead_letters.Reason`, for the dead letter."""
        super().__init__(message)
        self.reason = reason


class StopWorker(ChronicleError):
    """Going on could lose, double or corrupt: the worker ends, unacknowledged, and says why."""


class Interrupted(StopWorker):
    """Asked to stop while waiting for the world: the batch is not acknowledged and will come again; no failure."""


class StackError(ChronicleError):
    """A part of the local stack could not be installed, started or stopped."""
