"""Log lines as events: levels, places, exceptions without their values, and never a line about a line."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from chronicle.events.catalogue import Catalogue
from chronicle.events.event import Event
from chronicle.journal import Journal
from chronicle.journal.journaled import Journaled, recording
from chronicle.journal.logger import EXTRA_MAX, Logger
from chronicle.journal.logging_handler import JournalHandler
from chronicle.journal.structlog_processor import JournalProcessor
from chronicle.journal.transports.memory import Memory

SECRET = "Zq7XvKp92LmW"


@pytest.fixture
def journaled(monkeypatch: pytest.MonkeyPatch) -> Journaled:
    found = Journaled()
    recording(found, monkeypatch.setattr)
    return found


@pytest.fixture
def journal() -> Journal:
    return Journal(source="shop", transport="memory://", strict=True)


@pytest.fixture
def log(journal: Journal) -> Logger:
    return Logger(journal)


@pytest.fixture
def logger(journal: Journal) -> Iterator[logging.Logger]:
    made = logging.getLogger("shop.checkout")
    handler = JournalHandler(journal)
    made.addHandler(handler)
    made.setLevel(logging.DEBUG)
    yield made
    made.removeHandler(handler)


def only(journaled: Journaled) -> Event:
    [one] = journaled
    assert Catalogue.shipped().problems(one.event) == ()
    return one.event


def payload(journaled: Journaled) -> dict[str, Any]:
    found = only(journaled).payload
    assert found is not None
    return found


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "fatal"])
def test_a_line_is_an_event(log: Logger, journaled: Journaled, level: str) -> None:
    """Its message the description, its fields `extra`, and the place that it was logged at."""
    getattr(log, level)("payment.retried", attempt=2, order="o-7")
    event = only(journaled)
    assert (event.type, event.description) == (f"log.{level}", "payment.retried")
    said = payload(journaled)
    assert said["extra"] == {"attempt": 2, "order": "o-7"}
    assert (said["module"], said["logger"]) == (__name__, __name__)
    assert said["function"] == "test_a_line_is_an_event"
    assert said["line"] > 0
    assert event.priority == ("high" if level in ("error", "fatal") else "normal")


def raises() -> None:
    local = SECRET
    raise ValueError(f"cannot use {local}")


def caught() -> Exception:
    try:
        raises()
    except ValueError as error:
        return error
    raise AssertionError


def test_an_exception_is_told_by_class_and_place(log: Logger, journaled: Journaled) -> None:
    """Neither its text nor a local variable; the same place has the same fingerprint."""
    log.error("checkout.failed", error=caught())
    try:
        raises()
    except ValueError:
        log.error("checkout.failed again")
    first, second = (one.event.payload or {} for one in journaled)
    assert first["error_type"] == "ValueError"
    assert first["function"] == "raises"
    assert first["module"] == __name__
    assert len(first["fingerprint"]) == 16
    assert second["error_type"] == "ValueError"
    log.error("other", error=KeyError("x"))
    assert len({(one.event.payload or {})["fingerprint"] for one in journaled}) == 3
    assert all(SECRET.encode() not in one.event.__repr__().encode() for one in journaled)


def test_a_line_without_an_exception_has_none(log: Logger, journaled: Journaled) -> None:
    """The place is the caller's then."""
    log.error("checkout.failed")
    assert "error_type" not in payload(journaled)
    assert payload(journaled)["function"] == "test_a_line_without_an_exception_has_none"


def test_assertions_that_hold_say_nothing(log: Logger, journaled: Journaled) -> None:
    """And are true."""
    assert log.assert_true(1, "x")
    assert log.assert_equal([1], [1], "x")
    assert log.assert_no_error(None, "x")
    assert len(journaled) == 0


def test_assertions_that_fail_are_told_without_values(log: Logger, journaled: Journaled) -> None:
    """By the types of what was expected and found; the program goes on."""
    assert not log.assert_true([], "lines.there", order=7)
    assert not log.assert_equal(SECRET, 7, "total.equal")
    assert not log.assert_no_error(caught(), "charge.went_through")
    true, equal, error = ((one.event, one.event.payload or {}) for one in journaled)
    assert {one.event.type for one in journaled} == {"log.assertion_failed"}
    assert (true[1]["assertion"], true[1]["actual_type"], true[1]["extra"]) == ("true", "list", {"order": 7})
    assert (equal[1]["assertion"], equal[1]["expected_type"], equal[1]["actual_type"]) == ("equal", "int", "str")
    assert (error[1]["assertion"], error[1]["error_type"], error[1]["function"]) == ("no_error", "ValueError", "raises")
    assert (true[0].description, true[1]["function"]) == ("lines.there", "test_assertions_that_fail_are_told_without_values")
    assert all(SECRET not in repr(one) for one in journaled)


class Opaque:
    def __repr__(self) -> str:
        return SECRET


HOSTILE: dict[str, Any] = {
    **{"big": 2**80, "nan": float("nan"), "decimal": Decimal("1.50"), "uuid": UUID(int=7), "bytes": b"\xff"},
    **{"opaque": Opaque(), "list": [1, {"password": SECRET}], "error": ValueError(SECRET), "half": "\ud800", "none": None},
    **{"long": "x" * 100_000, "set": {1}, "class": Opaque, "function": len},
}


def test_any_value_can_be_a_field(log: Logger, journaled: Journaled) -> None:
    """What JSON has not is told by its type; nothing raises, and the event fits its schema."""
    log.info("hostile", **HOSTILE)
    extra = payload(journaled)["extra"]
    assert extra.keys() == HOSTILE.keys()
    assert SECRET not in repr(only(journaled))
    assert (extra["big"], extra["nan"], extra["decimal"], extra["none"]) == (str(2**80), "nan", "1.50", None)
    assert extra["opaque"].endswith("Opaque>")
    assert extra["list"] == '[1,{"password":"[FILTERED]"}]'


@given(
    st.text(),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), max_size=4),
)
def test_any_text_can_be_a_message(message: str, fields: dict[str, Any]) -> None:
    """Lone surrogates, NULs, anything: the line is written, or the journal has counted that it was not."""
    with pytest.MonkeyPatch.context() as patch:
        journaled = Journaled()
        recording(journaled, patch.setattr)
        Logger(Journal(source="s", transport="memory://"), "name").info(
            message, **{f"f{name}": value for name, value in fields.items()}
        )
        assert len(journaled) == 1


def test_what_is_too_long_is_cut(log: Logger, journaled: Journaled) -> None:
    """A message, a field, the number of fields: the line is there."""
    log.info("x" * 100_000, **{f"field_{number}": number for number in range(EXTRA_MAX + 7)})
    assert len(only(journaled).description or "") == 8_192
    assert payload(journaled)["extra"]["more_fields"] == 7


def test_fatal_waits_for_delivery() -> None:
    """The program may end after it: the transport has the event when it returns."""
    memory = Memory()
    Logger(Journal(source="s", transport=memory)).fatal("out.of.memory")
    assert [out.event.type for out in memory.sent] == ["log.fatal"]


def test_a_closed_journal_stops_no_program(log: Logger, journal: Journal) -> None:
    """A logger never raises."""
    journal.close()
    log.error("too.late")
    JournalHandler(journal).emit(logging.makeLogRecord({"msg": "too late", "levelno": 40, "name": "x"}))


@pytest.mark.parametrize(
    ("number", "type_"),
    [
        (5, "log.debug"),
        (10, "log.debug"),
        (20, "log.info"),
        (25, "log.info"),
        (30, "log.warning"),
        (40, "log.error"),
        (50, "log.fatal"),
    ],
)
def test_a_record_is_an_event_of_its_level(logger: logging.Logger, journaled: Journaled, number: int, type_: str) -> None:
    """Levels of one's own fall to the one below."""
    logger.setLevel(1)
    logger.log(number, "order %s of %s", 7, "ann", extra={"attempt": 2})
    event = only(journaled)
    assert (event.type, event.description) == (type_, "order 7 of ann")
    said = payload(journaled)
    assert (said["logger"], said["module"]) == ("shop.checkout", "test_journal_logger")
    assert said["extra"] == {"attempt": 2}


def test_templates_hold_no_values(journal: Journal, journaled: Journaled) -> None:
    """The message before its arguments are put in."""
    JournalHandler(journal, templates=True, extra=lambda name: name == "a").emit(
        logging.makeLogRecord({"msg": "order %s", "args": (SECRET,), "levelno": 20, "name": "x", "a": 1, "b": SECRET})
    )
    assert only(journaled).description == "order %s"
    assert payload(journaled)["extra"] == {"a": 1}
    assert SECRET not in repr(only(journaled))


def test_a_logged_exception_shows_no_values(logger: logging.Logger, journaled: Journaled) -> None:
    """`logger.exception` with an exception whose text and frames hold a secret; one without any is no failure."""
    try:
        raises()
    except ValueError:
        logger.exception("failed")
    logger.error("failed", exc_info=True)
    first, second = (one.event.payload or {} for one in journaled)
    assert (first["error_type"], first["function"]) == ("ValueError", "raises")
    assert "error_type" not in second
    assert all(SECRET not in repr(one.event) for one in journaled)


def test_a_message_that_cannot_be_made_stops_no_program(
    logger: logging.Logger, journaled: Journaled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong arguments: as logging has it, told on standard error, not raised."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.info("order %d", "seven")
    assert len(journaled) == 0


class Noisy(Memory):
    """A transport whose library logs, also in threads of its own making."""

    def send(self, batch: Any) -> Any:
        logging.getLogger("some.library").error("sending %d", len(batch))
        return super().send(batch)


def test_the_journal_s_own_lines_are_not_journaled() -> None:
    """What sending logs does not make the next line to be sent; nor does a subscriber or a hook that logs."""
    memory = Noisy()
    journal = Journal(source="s", transport=memory)
    root = logging.getLogger()
    handler = JournalHandler(journal)
    root.addHandler(handler)
    try:
        journal.subscribe("**", lambda event: logging.getLogger("shop").error("heard %s", event.type))
        journal.on_enqueue(lambda event: logging.getLogger("shop").error("enqueued %s", event.type))
        logging.getLogger("shop").error("one")
        logging.getLogger("chronicle.journal").error("not this")
        assert journal.flush(10)
        assert journal.flush(10)
    finally:
        root.removeHandler(handler)
        journal.close()
    assert [out.event.description for out in memory.sent] == ["one"]


def test_threads_log_at_the_same_time() -> None:
    """The guard against recursion is each thread's own: nobody's line is lost."""
    memory = Memory()
    journal = Journal(source="s", transport=memory)
    log = Logger(journal, "x")

    def write() -> None:
        for _ in range(50):
            log.info("line")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert len(memory.sent) == 200


def test_structlog_lines_are_events(journal: Journal, journaled: Journaled) -> None:
    """And go on to the renderer as they were."""
    rendered: list[Any] = []

    def render(_: Any, __: str, line: Any) -> str:
        rendered.append(dict(line))
        return ""

    log = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr), processors=[structlog.processors.add_log_level, JournalProcessor(journal), render]
    ).bind(order=7)
    log.warning("payment.retried", attempt=2)
    event = only(journaled)
    assert (event.type, event.description) == ("log.warning", "payment.retried")
    assert payload(journaled)["code"] == "payment.retried"
    assert payload(journaled)["extra"] == {"attempt": 2, "order": 7}
    assert rendered == [{"event": "payment.retried", "attempt": 2, "order": 7, "level": "warning"}]


@pytest.mark.parametrize("how", ["exception", "error", "instance", "triple"])
def test_structlog_exceptions_show_no_values(journal: Journal, journaled: Journaled, how: str) -> None:
    """However `exc_info` is given."""
    log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr), processors=[JournalProcessor(journal, only=True)])
    try:
        raises()
    except ValueError as error:
        if how == "exception":
            log.exception("failed badly")
        else:
            log.error("failed badly", exc_info={"error": True, "instance": error, "triple": sys.exc_info()}[how])
    said = payload(journaled)
    assert (said["error_type"], said["function"]) == ("ValueError", "raises")
    assert "code" not in said
    assert SECRET not in repr(only(journaled))


def test_structlog_can_end_at_the_journal(journal: Journal, journaled: Journaled, capsys: pytest.CaptureFixture[str]) -> None:
    """`only=True`: nothing is rendered."""
    log = structlog.wrap_logger(
        structlog.PrintLogger(), processors=[JournalProcessor(journal, only=True), structlog.dev.ConsoleRenderer()]
    )
    log.info("one")
    assert len(journaled) == 1
    assert capsys.readouterr().out == ""
