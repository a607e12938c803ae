"""What every command shares at the terminal: two consoles, JSON output, how a command fails and how it is broken off."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import wraps
from threading import Thread
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from chronicle.errors import ChronicleError, ConfigError

out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
"""Data: tables and texts that a person or a pipe reads."""
err = Console(stderr=True, highlight=False)
"""Progress, warnings and errors."""

P = ParamSpec("P")
T = TypeVar("T")


def print_json(value: Any) -> None:
    """One JSON document on standard output, for a pipe: keys in their own order, times as ISO 8601."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def fail(error: ChronicleError) -> NoReturn:
    """Print the error (its first line is the fix) and exit: 2 when settings are wrong, else 1."""
    first, _, rest = str(error).partition("\n")
    err.print(Text.assemble(("error: ", "bold red"), first), soft_wrap=True)
    if rest:
        err.print(rest, soft_wrap=True, markup=False)
    raise typer.Exit(2 if isinstance(error, ConfigError) else 1)


def command(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a command: a `ChronicleError` becomes one readable line and an exit code, anything else is a bug and shows."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except ChronicleError as error:
            fail(error)

    return run


def interruptible(call: Callable[[], T]) -> T:
    """The result of `call`, run in a thread, so that Ctrl-C ends the command at once: Kafka's library waits many seconds
    for a broker without looking at signals. Only for what may be broken off anywhere and repeated.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 (it is raised in the caller's thread)
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    while not future.done():
        wait([future], timeout=0.1)  # not for ever: Polars has signals restart a wait instead of ending it
    return future.result()
