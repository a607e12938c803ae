"""The example for recruiting, on rows as the demo's source has them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from chronicle.examples import recruitment
from chronicle.examples.recruitment import days_to_hire, funnel, spending, spent_total, stages_total
from chronicle.model.batch import Batch
from chronicle.testing import NOON, Change, assert_audited, assert_not_audited, change, run

APPLICATIONS, CAMPAIGNS = recruitment.APPLICATIONS, recruitment.CAMPAIGNS
KEY = ("campaign_id", "candidate_id")
APPLIED = datetime(2025, 12, 22, 9, 0)
APPLICATION = {
    "campaign_id": 3,
    "candidate_id": 12,
    "stage": "received",
    "rating": 5,
    "salary": Decimal("61250.50"),
    "note": None,
    "applied_at": APPLIED,
}
CAMPAIGN = {
    **{"id": 3, "title": "Engineers", "budget": Decimal("12000.00"), "status": "open", "opens_on": date(2026, 1, 1)},
    **{"settings": '{"channel":"fair"}', "closes_at": None},
}


def application(operation: str = "create", *, was: str | None = None, kind: str = "mariadb", **columns: Any) -> Change:
    new = APPLICATION | columns
    old = None if was is None else APPLICATION | {"stage": was}
    if operation == "delete":
        return change(APPLICATIONS, operation, before=new, key=KEY, kind=kind)
    return change(APPLICATIONS, operation, before=old, after=new, key=KEY, kind=kind, actor="recruiter")


def extra(*changes: Change, **more: Any) -> list[dict[str, Any]]:
    return [row["extra"] for row in run(changes, processors=[funnel, spending], **more).audited()]


def test_an_application_has_its_place_in_the_funnel() -> None:
    """A new one is at the first position, and has nowhere it came from."""
    assert extra(application()) == [
        {
            **{"stage": "received", "previous_stage": None, "funnel_position": 1, "moved": None, "time_to_hire_days": None},
            **{"campaign_id": 3, "campaign": None, "quality_score": 70.0},
        }
    ]


@pytest.mark.parametrize(
    ("was", "is_", "position", "moved"),
    [
        ("received", "interview", 2, 1),
        ("received", "hired", 4, 3),
        ("offer", "interview", 2, -1),
        ("offer", "rejected", None, None),
    ],
)
def test_a_move_says_from_where_and_how_far(was: str, is_: str, position: int | None, moved: int | None) -> None:
    """Back is negative; out of the funnel is nowhere."""
    (found,) = extra(application("update", was=was, stage=is_))
    assert [found[name] for name in ("previous_stage", "stage", "funnel_position", "moved")] == [was, is_, position, moved]


def test_time_to_hire_runs_from_application_to_the_commit_that_hired() -> None:
    """In days; on that change alone."""
    hired = application("update", was="offer", stage="hired")
    later = change(
        APPLICATIONS,
        "update",
        before=APPLICATION | {"stage": "hired"},
        after=APPLICATION | {"stage": "hired", "rating": 4},
        key=KEY,
    )
    before = days_to_hire.count()
    found = extra(hired, later)
    expected = (NOON.replace(tzinfo=None) - APPLIED) / timedelta(days=1)
    assert [one["time_to_hire_days"] for one in found] == [round(expected, 2), None]
    assert round(expected, 2) == 14.12
    assert days_to_hire.count() == before + 1


def test_a_hire_and_a_rejection_are_labelled() -> None:
    """When they happen, not when they are seen again; a snapshot finds, it does not hire."""
    outcome = run(
        [
            application("update", was="offer", stage="hired"),
            application("update", was="offer", stage="rejected"),
            application("snapshot", stage="hired"),
            application("update", was="hired", stage="hired", rating=1),
        ],
        processors=[funnel],
    )
    assert outcome.changes["labels"].to_list() == [["hired"], ["rejected"], [], []]
    assert_audited(outcome, table="applications", operation="update", actor="recruiter", labels=["hired"], times=1)
    assert_not_audited(outcome, operation="snapshot", labels=["hired"])


@pytest.mark.parametrize(
    ("rating", "stage", "score"),
    [(5, "hired", 100.0), (-5, "rejected", 0.0), (0, "interview", 50.0), (9, "hired", 100.0), (None, "hired", None)],
)
def test_quality_is_the_rating_and_the_position(rating: int | None, stage: str, score: float | None) -> None:
    """0 to 100; unknown without a rating."""
    (found,) = extra(application(rating=rating, stage=stage))
    assert found["quality_score"] == score


def test_a_withdrawn_application_says_where_it_stood() -> None:
    """Out of the deleted row."""
    (found,) = extra(application("delete", stage="offer"))
    assert [found[name] for name in ("stage", "funnel_position", "campaign_id", "moved")] == ["offer", 3, 3, None]


def test_a_campaign_is_named_where_the_policy_joins_it() -> None:
    """`into = "campaign"`."""

    class Joined:
        name = "enrich"

        def __call__(self, batch: Batch) -> tuple[Any, tuple[()]]:
            text = pl.lit('{"campaign":{"id":"campaign:3","metadata":{},"name":"Engineers"}}')
            from dataclasses import replace

            return replace(batch, changes=batch.changes.with_columns(text.alias("enriched"))), ()

    assert extra(application(), steps=[Joined()])[0]["campaign"] == "Engineers"


def test_stages_are_counted_when_they_are_reached() -> None:
    """Not when another column changes, not in a snapshot."""
    before = {stage: stages_total.value({"stage": stage}) for stage in ("received", "interview")}
    extra(
        application(),
        application("update", was="received", stage="interview"),
        application("update", was="interview", stage="interview", rating=2),
        application("snapshot", stage="interview"),
        application("delete", stage="interview"),
    )
    assert {stage: stages_total.value({"stage": stage}) - count for stage, count in before.items()} == {
        "received": 1,
        "interview": 1,
    }


def test_a_hidden_column_gives_nothing_and_no_error() -> None:
    """Fail closed is not fail."""
    policy = '[[tables]]\nmatch = "**"\ncolumns = { campaign_id = "clear", candidate_id = "clear", stage = "clear" }'
    (found,) = extra(application("update", was="offer", stage="hired"), policy=policy)
    assert [found[name] for name in ("time_to_hire_days", "quality_score", "funnel_position")] == [None, None, 4]


def test_an_old_row_that_is_not_known_hires_nobody_twice() -> None:
    """Postgres without REPLICA IDENTITY FULL: where it stood before is not known."""
    outcome = run([application("update", stage="hired", kind="postgres")], processors=[funnel])
    (row,) = outcome.audited()
    assert row["labels"] == []
    assert row["extra"]["previous_stage"] is None


def campaign(operation: str = "update", *, was: dict[str, Any] | None = None, **columns: Any) -> Change:
    return change(
        CAMPAIGNS, operation, before=None if was is None else CAMPAIGN | was, after=CAMPAIGN | columns, kind="mariadb"
    )


def test_spending_is_what_the_budget_fell_by() -> None:
    """Raising a budget is not spending; the counter has the sum."""
    before = spent_total.value()
    found = extra(
        campaign(was={}, budget=Decimal("11999.95")),
        campaign(was={}, budget=Decimal("13000.00")),
        campaign("create"),
        campaign(was={}, title="Other"),
    )
    assert [one["spent"] for one in found] == ["0.05", None, None, None]
    assert {one["campaign_id"] for one in found} == {3}
    assert round(spent_total.value() - before, 2) == 0.05


def test_a_campaign_opens_and_closes_once() -> None:
    """When its status changes to that."""
    found = extra(campaign(was={"status": "draft"}), campaign(was={}, status="closed"), campaign(was={}), campaign("snapshot"))
    assert [(one["opened"], one["closed"]) for one in found] == [(True, False), (False, True), (False, False), (False, False)]
