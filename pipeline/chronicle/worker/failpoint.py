"""For tests only: the process kills itself at a named point, as a machine that loses power would."""

from __future__ import annotations

import os
import signal

from chronicle.errors import ConfigError

NAMES = ("before_sinks", "between_sinks", "before_ack", "rebalance")


class Failpoint:
    """Call it with each point's name as it is passed; `name:3` dies at the third passing of `name`."""

    def __init__(self, setting: str) -> None:
        """Empty: never."""
        name, _, count = setting.partition(":")
        if (name and name not in NAMES) or (count and not count.isdigit()):
            raise ConfigError(f"correct worker.failpoint: one of {', '.join(NAMES)}, with `:N` for the N-th passing")
        self._name = name
        self._left = int(count or 1)

    def __call__(self, name: str) -> None:
        if name != self._name:
            return
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
