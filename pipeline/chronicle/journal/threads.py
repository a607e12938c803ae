"""The journal's threads, and the journals of this process: what a fork and the end of the program do to them."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref

from chronicle.journal.counting import THREADS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from chronicle.journal.counting import Counting
    from chronicle.journal.journal import Journal

journals: weakref.WeakSet[Journal] = weakref.WeakSet()
"""Those that are not closed."""


def started(counting: Counting, name: str, target: Callable[..., object], *args: Any) -> threading.Thread | None:
    """A thread at work; None: the system has no more, for now, which is told."""
    thread = threading.Thread(target=target, args=args, name=f"{THREADS}-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        counting.tell(error)
        return None
    return thread


def close_with_the_process(journal: Journal) -> None:
    """A process of multiprocessing ends without `atexit`."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and sys.modules["multiprocessing.process"].parent_process() is not None:
        util.Finalize(journal, type(journal).close, args=(journal,), exitpriority=10)


def _forked() -> None:
    for journal in list(journals):
        journal._forked()


def _close_all() -> None:
    for journal in list(journals):
        try:
            journal.close()
        except BaseException as error:  # noqa: BLE001 (the others are closed all the same)
            journal._counting.tell(error)


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forked)
