"""The example for compliance: what is bulk, what is out of hours, what touches privileges."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from chronicle.errors import ConfigError
from chronicle.examples import compliance
from chronicle.examples.compliance import watch_bulk_deletes, watch_out_of_hours, watch_privileges
from chronicle.processors import load
from chronicle.testing import Change, assert_alerted, assert_audited, assert_not_alerted, assert_not_audited, change, run

TABLE = "hiring.hiring.candidates"
BULK = watch_bulk_deletes(3)
ZURICH = watch_out_of_hours("Europe/Zurich")


def deletes(count: int, **more: Any) -> list[Change]:
    return [change(TABLE, "delete", before={"id": number}, **more) for number in range(count)]


def test_the_modules_own_processors_are_found_by_its_name() -> None:
    """`processors = ["chronicle.examples.compliance"]`."""
    assert [one.name for one in load(["chronicle.examples.compliance"])] == ["bulk_deletes", "out_of_hours", "privileges"]
    assert [one.name for one in load(["chronicle.examples.recruitment", "chronicle.examples.archival"])] == [
        *("funnel", "spending", "archival")
    ]


def test_many_deletes_of_one_transaction_are_one_alert() -> None:
    """With their number; each of them is labelled."""
    outcome = run(deletes(4, transaction="x", actor="eve"), processors=[BULK])
    assert_alerted(
        outcome,
        rule="bulk_deletes.transaction",
        severity="high",
        title="4 rows deleted in one transaction of hiring by eve",
        times=1,
    )
    assert_audited(outcome, operation="delete", labels=["bulk_operation"], times=4)


def test_many_deletes_of_one_actor_are_one_alert_over_transactions() -> None:
    """None of which is bulk by itself."""
    outcome = run(deletes(4, actor="eve"), processors=[BULK])
    assert_alerted(outcome, rule="bulk_deletes.actor", title="4 rows of hiring deleted at once by eve", times=1)
    assert_not_alerted(outcome, rule="bulk_deletes.transaction")
    assert_audited(outcome, labels=["bulk_operation"], times=4)


@pytest.mark.parametrize(
    "given",
    [
        deletes(3, transaction="x", actor="eve"),
        deletes(9),
        [*deletes(2, actor="eve"), *deletes(2, actor="ann")],
        [change(TABLE, after={"id": n}, transaction="x", actor="eve") for n in range(9)],
    ],
    ids=["as many as allowed", "nobody known, one each", "two people", "creates"],
)
def test_what_is_not_bulk_is_left_alone(given: list[Change]) -> None:
    """No label, no alert."""
    outcome = run(given, processors=[BULK])
    assert len(outcome.alerts) == 0
    assert_not_audited(outcome, labels=["bulk_operation"])


def test_actors_of_two_sources_are_two() -> None:
    """The same name may be two people."""
    given = [change(f"{source}.public.t", "delete", before={"id": n}, actor="eve") for n in range(2) for source in ("a", "b")]
    assert len(run(given, processors=[BULK]).alerts) == 0


def test_a_truncate_is_always_bulk() -> None:
    """It says nothing of how many."""
    outcome = run([change(TABLE, "truncate")], processors=[BULK])
    assert_alerted(outcome, rule="bulk_deletes.truncate", title="candidates was emptied by (unknown)", times=1)
    assert_audited(outcome, operation="truncate", labels=["bulk_operation"])


def test_the_parts_of_one_transaction_are_one_alert() -> None:
    """Read in two batches, both above the limit."""
    given = deletes(8, transaction="x", actor="eve")
    first, second = run(given[:4], processors=[BULK]), run(given[4:], processors=[BULK])
    ids = [one.alerts.filter(rule="bulk_deletes.transaction")["alert_id"].to_list() for one in (first, second)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("at", "outside"),
    [
        (datetime(2026, 1, 5, 12, 0, tzinfo=UTC), False),
        (datetime(2026, 1, 5, 6, 0, tzinfo=UTC), False),  # seven o'clock in Zürich
        (datetime(2026, 1, 5, 5, 59, 59, tzinfo=UTC), True),
        (datetime(2026, 1, 5, 17, 59, 59, tzinfo=UTC), False),
        (datetime(2026, 1, 5, 18, 0, tzinfo=UTC), True),  # nineteen o'clock
        (datetime(2026, 7, 6, 5, 30, tzinfo=UTC), False),  # summer time
        (datetime(2026, 1, 4, 12, 0, tzinfo=UTC), True),  # a Sunday
        (datetime(2026, 1, 4, 23, 30, tzinfo=UTC), True),  # Monday in Zürich, in the night
    ],
)
def test_hours_are_those_of_the_place(at: datetime, outside: bool) -> None:
    """Time zone, summer time and weekday."""
    outcome = run(deletes(1, at=at, actor="eve"), processors=[ZURICH])
    assert outcome.changes["labels"].to_list() == [["out_of_hours"] if outside else []]
    assert len(outcome.alerts) == outside
    assert (outcome.audited()[0]["extra"]["local_time"] is not None) == outside


def test_a_night_of_deletes_is_one_alert_for_each_actor() -> None:
    """However many there are; other operations may be done at any time."""
    night = datetime(2026, 1, 6, 1, 30, tzinfo=UTC)
    others = [change(TABLE, after={"id": 9}, at=night, actor="bob")]
    outcome = run([*deletes(5, at=night, actor="eve"), *deletes(2, at=night, actor="ann"), *others], processors=[ZURICH])
    assert_alerted(outcome, rule="out_of_hours", severity="medium", times=2)
    assert_alerted(outcome, rule="out_of_hours", title="eve deleted rows of hiring at 2026-01-06T02:30:00+01:00", times=1)
    assert_audited(outcome, labels=["out_of_hours"], times=7)


@pytest.mark.parametrize("wrong", [{"zone": "Mars/Olympus"}, {"opens": 19, "closes": 7}, {"closes": 25}, {"zone": "../etc"}])
def test_a_place_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    """When the module is imported."""
    with pytest.raises(ConfigError):
        watch_out_of_hours(**wrong)


def test_an_update_of_a_privilege_is_an_alert_even_where_its_value_is_hidden() -> None:
    """Names suffice."""
    policy = '[[tables]]\nmatch = "**"\ncolumns = { id = "clear", role = "drop", name = "clear" }'
    row = {"id": 1, "role": "user", "name": "Ada"}
    given = [
        change(TABLE, "update", before=row, after=row | {"role": "admin"}, actor="eve"),
        change(TABLE, "update", before=row, after=row | {"name": "Eda"}, actor="eve"),
    ]
    outcome = run(given, policy=policy, processors=[compliance.privileges])
    assert outcome.changes["labels"].to_list() == [["privilege_change"], []]
    assert_alerted(
        outcome, rule="privileges", severity="high", title="privileges of a row of candidates changed by eve", times=1
    )
    assert outcome.alerts["extra"].to_list() == ['{"columns":"role"}']
    assert "admin" not in str(outcome.changes.to_dicts()) + str(outcome.alerts.to_dicts())


def test_a_label_of_the_policy_makes_an_insert_a_privilege_change() -> None:
    """An insert names no changed columns."""
    policy = '[[tables]]\nmatch = "**"\ncolumns = { "*" = "clear" }\n[[tables.label]]\ncolumns = ["level"]\nas = "grant"\n'
    one = watch_privileges((), labels=["grant"])
    outcome = run([change(TABLE, after={"id": 1, "level": 9})], policy=policy, processors=[one])
    assert_alerted(outcome, rule="privileges", times=1)
    assert_audited(outcome, labels=["grant", "privilege_change"])
