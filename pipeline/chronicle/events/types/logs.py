"""Payloads of `log.…`: where in the program something was logged. The message stands in the event's description."""

from __future__ import annotations

from typing import Annotated, ClassVar

from chronicle.events.payload import Kind, Payload, said

Value = bool | int | float | str | None


class _Logged(Payload, frozen=True):
    """What every level says."""

    logger: Annotated[str | None, said("Name of the logger.", "shop.checkout")] = None
    code: Annotated[str | None, said("Name of what happened, the same every time.", "payment.retried")] = None
    module: Annotated[str | None, said("Module of the program.", "shop.checkout.payment")] = None
    function: Annotated[str | None, said("Function of the program.", "charge")] = None
    line: Annotated[int | None, said("Line of the program.", 118)] = None
    process_id: Annotated[int | None, said("Number of the process.", 4711)] = None
    thread: Annotated[str | None, said("Name of the thread.", "MainThread")] = None
    error_type: Annotated[str | None, said("Class of the exception, where there was one.", "TimeoutError")] = None
    fingerprint: Annotated[str | None, said("Equal for exceptions from the same place.", "a3f1c2d4")] = None
    extra: Annotated[dict[str, Value] | None, said("What else was logged, by name: anything.", {"attempt": 2}, "redact")] = None


class LogInfo(_Logged, frozen=True):
    """Something that is as it should be."""

    KIND: ClassVar[Kind] = Kind.of("log.info")


class LogWarning(_Logged, frozen=True):
    """Something to look at, some day."""

    KIND: ClassVar[Kind] = Kind.of("log.warning")


class LogDebug(_Logged, frozen=True):
    """Something for who writes the program."""

    KIND: ClassVar[Kind] = Kind.of("log.debug")


class LogError(_Logged, frozen=True):
    """Something failed."""

    KIND: ClassVar[Kind] = Kind.of("log.error")


class LogFatal(_Logged, frozen=True):
    """Something failed, and the program ends."""

    KIND: ClassVar[Kind] = Kind.of("log.fatal")


class LogAssertionFailed(_Logged, frozen=True):
    """Something that has to be true is not. What was expected and what was found are said by their types only."""

    KIND: ClassVar[Kind] = Kind.of("log.assertion_failed")

    assertion: Annotated[str | None, said("Which check: true, equal, no_error …", "equal")] = None
    expected_type: Annotated[str | None, said("Type of what was expected.", "int")] = None
    actual_type: Annotated[str | None, said("Type of what was found.", "str")] = None
