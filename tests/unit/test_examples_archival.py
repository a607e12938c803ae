"""The example for archival: from when on a closed requisition may go."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from chronicle.errors import ConfigError
from chronicle.examples.archival import archival, mark_archivable
from chronicle.testing import Outcome, change, run

TABLE = "hiring.hiring.campaigns"
CLOSES = datetime(2025, 1, 10, 8, 0)


def outcome(was: str, is_: str, closes_at: datetime | None = CLOSES, *, operation: str = "update", **more: Any) -> Outcome:
    old = {"id": 1, "status": was, "closes_at": closes_at}
    before = old if operation == "update" else None
    return run(
        [change(TABLE, operation, before=before, after=old | {"status": is_}, kind="mariadb", **more)], processors=[archival]
    )


def after(found: Outcome) -> Any:
    return found.audited()[0]["extra"]["archive_after"]


def test_a_closed_campaign_says_from_when_on_it_may_go() -> None:
    """A year after it closed."""
    assert after(outcome("open", "closed")) == "2026-01-10"


@pytest.mark.parametrize("status", ["draft", "open", "[FILTERED]"])
def test_what_is_not_closed_stays(status: str) -> None:
    """Nor what is not known to be."""
    found = outcome("closed", status)
    assert after(found) is None
    assert found.changes["labels"].to_list() == [[]]


def test_without_a_date_the_commit_that_closed_it_counts() -> None:
    """A later change of it does not move the day, because it does not know it."""
    assert after(outcome("open", "closed", None)) == "2027-01-05"
    assert after(outcome("closed", "closed", None, operation="snapshot")) is None


@pytest.mark.parametrize(("day", "labels"), [(9, []), (10, ["archivable"]), (11, ["archivable"])])
def test_a_change_after_the_day_is_labelled(day: int, labels: list[str]) -> None:
    """On the day itself, too; and there is never an alert."""
    found = outcome("open", "closed", at=datetime(2026, 1, day, tzinfo=UTC))
    assert found.changes["labels"].to_list() == [labels]
    assert len(found.alerts) == 0


def test_the_number_of_days_is_ones_own() -> None:
    """And not negative."""
    given = [change(TABLE, "snapshot", after={"id": 1, "status": "closed", "closes_at": CLOSES})]
    assert after(run(given, processors=[mark_archivable(0)])) == "2025-01-10"
    with pytest.raises(ConfigError):
        mark_archivable(-1)
