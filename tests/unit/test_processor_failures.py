"""A processor that fails: its rows are dead letters or the worker stops, and nothing that it said is kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from chronicle.errors import StopWorker, TransientError
from chronicle.model.dead_letters import Reason, Stage
from chronicle.processors import Counter, alerts
from chronicle.processors.step import Processing
from chronicle.testing import run
from tests.unit.processing import OTHER_EVENT, PEOPLE, SECRET, made, order, person, raises, spy

# Failing ---------------------------------------------------------------------------------------------------------------


def says(what: Callable[[pl.DataFrame], object]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Says something wrong besides a frame that is right."""
    return lambda changes: spy(what)(changes).with_columns(n=pl.lit(1))


def alert(**said: Any) -> Callable[[pl.DataFrame], None]:
    usual: dict[str, Any] = {"rule": "r", "severity": "low", "title": "t"}
    return lambda changes: alerts.raise_(**usual | {"changes": changes} | said)


def add(**columns: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda changes: changes.with_columns(n=pl.lit(1)).with_columns(**columns)


BREAKING: dict[str, tuple[Callable[[pl.DataFrame], Any], str]] = {
    "no frame": (lambda c: None, "no pl.DataFrame"),
    "a lazy frame": (lambda c: c.lazy(), "no pl.DataFrame"),
    "fewer rows": (lambda c: c.head(1), "fewer rows"),
    "more rows": (lambda c: pl.concat([c, c]), "a row twice"),
    "other rows": (add(event_id=pl.lit(OTHER_EVENT)), "not given"),
    "null rows": (add(event_id=pl.lit(None, pl.Binary)), "not given"),
    "no event_id": (lambda c: c.drop("event_id"), "without their event_id"),
    "no declared column": (lambda c: c, "no column n"),
    "another type": (lambda c: c.with_columns(n=pl.lit(SECRET)), "column n is not Int64"),
    "an object": (lambda c: add()(c).with_columns(pl.Series("o", [object()] * len(c), pl.Object)), "JSON cannot hold"),
    "labels that are none": (add(labels=pl.struct("table")), "column labels is not List(String)"),
    "tags that are none": (lambda c: add()(c).with_columns(pl.lit(b"\xff").alias("tags.x")), "column tags.x is not String"),
    "its own exception": (raises, "ValueError at processing.py:"),
    "a polars error": (lambda c: c.select(pl.col(SECRET)), "ColumnNotFoundError at test_processor_failures.py:"),
    "an alert of another row": (
        says(lambda c: alert(changes=c.with_columns(event_id=pl.lit(OTHER_EVENT)))(c)),
        "rows that the processor was given",
    ),
    "an alert with a clear value": (
        says(lambda c: alert(changes=c.with_columns(pl.lit(1).alias("clear.x")), extra=["clear.x"])(c)),
        "no column clear.x that it may show",
    ),
    "a title with an image": (says(alert(title="{after}")), "extra does not declare"),
    "a title that is none": (says(alert(title="{")), "braces"),
    "an unknown severity": (says(alert(severity="bad")), "severity is"),
    "a long rule": (says(alert(rule="r" * 100)), "short name"),
    "an undeclared metric": (says(lambda _: Counter("undeclared", "x").inc()), "name undeclared in"),
    "a counter that falls": (says(lambda _: Counter("falling", "x").inc(n=-1)), "only rises"),
}


@pytest.mark.parametrize("how", BREAKING)
def test_a_failure_is_dead_letters_of_its_rows_alone(how: str) -> None:
    """Original bytes, the processor named, no value; the rows of other tables go through with all that others added."""
    function, said = BREAKING[how]
    bad = made(function, name="bad", tables=PEOPLE, extra={"n": pl.Int64})
    good = made(lambda c: c.with_columns(x=pl.lit(1)), name="good")
    outcome = run([person(1), order(1), person(2)], processors=[bad, good], raising=False)
    assert outcome.changes["table"].to_list() == ["orders"]
    assert outcome.changes["extra"].to_list() == ['{"x":1}']
    assert [(one.topic, one.offset, one.stage, one.reason) for one in outcome.dead_letters] == [
        (PEOPLE, offset, Stage.PROCESS, Reason.PROCESSOR_FAILED) for offset in (0, 1)
    ]
    for letter in outcome.dead_letters:
        assert letter.value is not None
        assert b'"name"' in letter.value
        assert letter.detail.startswith("processor bad: ")
        assert said in letter.detail
        assert SECRET not in letter.detail
    assert [table.table for table in outcome.tables] == ["orders"]
    assert outcome.rows() == 5  # and two contexts


def test_the_detail_names_the_class_and_the_place_in_the_users_code() -> None:
    """And never the exception's text."""
    outcome = run([order(1)], processors=[made(raises)], raising=False)
    assert re.fullmatch(r"processor p: ValueError at processing\.py:\d+", outcome.dead_letters[0].detail)


def test_a_failure_stops_the_worker_where_it_is_declared_so() -> None:
    """Unacknowledged, and without the exception's text."""
    with pytest.raises(StopWorker, match="processor p: ValueError") as caught:
        run([order(1)], processors=[made(raises, on_error="stop")], raising=False)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_processor_may_ask_to_be_tried_again() -> None:
    """A declared retry with the same batch: nothing is said, counted or raised by the attempt that failed."""
    counted, tries = Counter("tries", "x"), []

    def impatient(changes: pl.DataFrame) -> pl.DataFrame:
        tries.append(1)
        counted.inc()
        if len(tries) == 1:
            raise TransientError(SECRET)
        return changes

    step = Processing([made(impatient, metrics=[counted])], lambda: 7)
    batch = run([order(1)])
    with pytest.raises(TransientError, match="processor p") as caught:
        step(batch)
    assert SECRET not in str(caught.value)
    step(batch)
    assert counted.value() == 1


def test_a_processor_that_fails_counts_and_raises_nothing() -> None:
    """Half of what it said would be wrong."""
    counted = Counter("half", "x")

    def half(changes: pl.DataFrame) -> pl.DataFrame:
        counted.inc()
        alerts.raise_(rule="r", severity="low", title="t", changes=changes)
        return raises(changes)

    outcome = run([order(1)], processors=[made(half, metrics=[counted])], raising=False)
    assert counted.value() == 0
    assert len(outcome.alerts) == 0


def test_a_test_sees_the_exception_itself() -> None:
    """`chronicle.testing` is for people who look for it."""
    with pytest.raises(ValueError, match=SECRET):
        run([order(1)], processors=[made(raises)])


def test_a_panic_of_polars_is_a_failure_like_any_other(capfd: pytest.CaptureFixture[str]) -> None:
    """It is no Exception in Python's sense."""

    def panics(changes: pl.DataFrame) -> pl.DataFrame:
        return changes.with_columns(x=pl.struct(pl.lit(b"x")).struct.json_encode())

    outcome = run([order(1)], processors=[made(panics)], raising=False)
    assert "PanicException" in outcome.dead_letters[0].detail
    capfd.readouterr()
