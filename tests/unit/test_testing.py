"""`chronicle.testing`: changes written as dicts take the real path, and a failed assertion says what there was."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from chronicle.errors import ConfigError
from chronicle.testing import (
    NOON,
    Change,
    Record,
    assert_alerted,
    assert_audited,
    assert_not_alerted,
    assert_not_audited,
    change,
    run,
)
from chronicle.testing.changes import records
from tests.unit.processing import alarmed

KINDS = ("postgres", "mysql", "mariadb")
TABLE = "hiring.hiring.applications"
ROW = {"campaign_id": 1, "candidate_id": 7, "stage": "received", "salary": Decimal("61250.50")}
KEY = ("campaign_id", "candidate_id")


def image(value: Any) -> Any:
    (row,) = run([change(TABLE, after={"id": 1, "v": value})]).audited()
    return row["after"]["v"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, True),
        (7, 7),
        (1.5, 1.5),
        ("naïve ✨", "naïve ✨"),
        (b"\xff", "/w=="),
        (Decimal("12.50"), "12.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.001"), "-0.001"),
        (date(2024, 2, 29), "2024-02-29"),
        (datetime(2026, 3, 1, 9, 30, 0, 123_000), "2026-03-01T09:30:00.123000"),
        (datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=1))), "2026-03-01T08:30:00.000000Z"),
        (datetime(1950, 1, 1, 0, 0, 0, 1), "1950-01-01T00:00:00.000001"),
        (time(9, 30), "09:30:00.000000"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"b": 1, "a": [2]}, '{"a":[2],"b":1}'),
        ([1, None], [1, None]),
        ([Decimal("1.5"), Decimal("2.5")], ["1.5", "2.5"]),
        ([{"a": 1}], '[{"a":1}]'),
        (None, None),
    ],
)
def test_a_value_stands_in_the_image_as_a_connector_would_write_it(value: Any, written: Any) -> None:
    """Connect's types with Debezium's names, decoded by the real decoder."""
    assert image(value) == written


def test_a_column_has_one_type_in_a_run() -> None:
    """The larger scale of decimals; a NULL has any."""
    outcome = run(
        [change(TABLE, after={"id": n, "v": value}) for n, value in enumerate([None, Decimal("1.5"), Decimal("1.25")])]
    )
    assert [row["after"]["v"] for row in outcome.audited()] == [None, "1.50", "1.25"]
    with pytest.raises(ConfigError, match=r"applications\.v values of one type.*int and str"):
        run([change(TABLE, after={"id": 1, "v": 1}), change(TABLE, after={"id": 2, "v": "1"})])


@pytest.mark.parametrize("value", [object(), 2**64, [object()]])
def test_what_no_column_holds_is_refused(value: Any) -> None:
    """Naming the column."""
    with pytest.raises(ConfigError, match=r"give hiring\.hiring\.applications\.v"):
        run([change(TABLE, after={"v": value})])


@pytest.mark.parametrize("kind", KINDS)
def test_each_operation_of_each_database_is_audited(kind: str) -> None:
    """Through the real path: images, key, changed columns, mirror, transaction, nothing dead."""
    new = ROW | {"stage": "hired"}
    outcome = run(
        [
            change(TABLE, "snapshot", after=ROW, key=KEY, kind=kind),
            change(TABLE, "create", after=ROW, key=KEY, kind=kind),
            change(TABLE, "update", before=ROW, after=new, key=KEY, kind=kind),
            change(TABLE, "delete", before=new, key=KEY, kind=kind),
            change(TABLE, "truncate", kind=kind),
        ]
    )
    assert outcome.dead_letters == ()
    assert outcome.changes["operation"].to_list() == ["snapshot", "create", "update", "delete", "truncate"]
    assert outcome.changes["changed"].to_list() == [[], [], ["stage"], [], []]
    assert set(outcome.changes["before_known"]) == {True}
    assert outcome.changes["key"].to_list() == ['{"campaign_id":1,"candidate_id":7}'] * 4 + [""]
    assert outcome.changes["transaction_id"].n_unique() == 5
    assert outcome.changes["event_id"].n_unique() == 5
    assert [len(table.frame) for table in outcome.tables] == [4]


@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_comes_by_the_transactions_context(kind: str) -> None:
    """As an application says it on that database; changes of one transaction share it, others have none."""
    outcome = run(
        [
            change(
                TABLE,
                after={"id": 1},
                actor={"id": "alice", "type": "user"},
                reason="interview",
                tags={"k": "v"},
                transaction="a",
                kind=kind,
            ),
            change("hiring.hiring.notes", after={"id": 1}, transaction="a", kind=kind),
            change(TABLE, after={"id": 2}, kind=kind),
        ]
    )
    assert outcome.changes.select("actor_id", "actor_type", "reason", "tags", "attribution").rows() == [
        ("alice", "user", "interview", '{"k":"v"}', "message" if kind == "postgres" else "table"),
        (None, None, None, None, "none"),
        ("alice", "user", "interview", '{"k":"v"}', "message" if kind == "postgres" else "table"),
    ]
    assert outcome.transactions["kind"].to_list() == ["context"]


def test_a_change_is_committed_when_it_says() -> None:
    """A Monday noon otherwise."""
    at = datetime(2026, 7, 4, 23, 0, 0, 5, tzinfo=UTC)
    outcome = run([change(TABLE, after={"id": 1}), change(TABLE, after={"id": 2}, at=at)])
    assert outcome.changes["committed_at"].to_list() == [NOON, at]
    assert NOON.isoweekday() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"table": "applications", "after": {"id": 1}},
        {"table": TABLE},
        {"table": TABLE, "operation": "delete", "after": {"id": 1}},
        {"table": TABLE, "operation": "create", "before": {"id": 1}, "after": {"id": 1}},
        {"table": TABLE, "operation": "upsert", "after": {"id": 1}},
        {"table": TABLE, "after": {"id": 1}, "kind": "oracle"},
        {"table": TABLE, "after": {"id": 1}, "key": "nr"},
        {"table": TABLE, "after": {"id": 1}, "at": datetime(2026, 1, 1)},
    ],
)
def test_a_change_that_no_connector_sends_is_refused(wrong: dict[str, Any]) -> None:
    """A test of something impossible proves nothing."""
    with pytest.raises(ConfigError):
        change(**wrong)


def test_a_policy_is_applied_and_its_keys_are_made() -> None:
    """The same in every run."""
    policy = """
[domains.person]
key = "persons"
[[tables]]
match = "**"
columns = { id = "clear", email = { class = "token", domain = "person" }, note = "encrypt" }
"""
    given = [change("shop.public.people", after={"id": 1, "email": "a@b.c", "note": "x", "new": "y"})]
    first, again = run(given, policy=policy), run(given, policy=policy)
    assert first.changes.equals(again.changes)
    (row,) = first.audited()
    assert row["after"]["email"].startswith("t1.")
    assert row["after"]["note"] not in ("x", None)
    assert row["after"]["new"] == "[FILTERED]"


def test_records_and_changes_go_together() -> None:
    """Bytes of a real connector beside dicts."""
    raw = json.dumps(
        {
            "after": {"id": 1},
            "before": None,
            "op": "c",
            "source": {
                "lsn": 1,
                "sequence": '["1","1"]',
                "connector": "postgresql",
                "schema": "s",
                "table": "t",
                "txId": 1,
                "ts_us": 1,
            },
            "ts_ms": 1,
        }
    ).encode()
    outcome = run([Record("shop.s.t", raw, b'{"id":1}'), change(TABLE, after={"id": 1})])
    assert outcome.changes["source"].to_list() == ["shop", "hiring"]
    assert outcome.rows() == 2


def test_the_same_changes_give_the_same_bytes() -> None:
    """No clock, no chance."""
    given = [change(TABLE, after=ROW, key=KEY, actor="alice")]
    assert records(given) == records(given)
    assert run(given).changes.equals(run(given).changes)


# Assertions ---------------------------------------------------------------------------------------------------------


def outcome() -> Any:
    return run(
        [
            change(TABLE, "create", after=ROW, key=KEY, actor="alice"),
            change(TABLE, "update", before=ROW, after=ROW | {"stage": "hired"}, key=KEY, actor="bob"),
            change(TABLE, "delete", before=ROW, key=KEY),
        ],
        processors=[alarmed(title="look", extra=[])],
    )


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"table": TABLE},
        {"table": "applications"},
        {"table": "hiring.*.app*", "operation": "create", "actor": "alice"},
        {"including": {"salary": Decimal("61250.50"), "stage": "hired"}},
        {"operation": "delete", "including": {"stage": "received"}},
        {"before": {"stage": "received"}, "changed": ["stage"], "including": {"stage": "hired"}},
        {"times": 3},
        {"operation": "delete", "times": 1},
        {"operation": "truncate", "times": 0},
    ],
)
def test_what_is_there_is_found(asked: dict[str, Any]) -> None:
    """By each argument."""
    assert_audited(outcome(), **asked)
    asked.pop("times", None)
    if asked.get("operation") != "truncate":
        with pytest.raises(AssertionError, match=r"^audited"):
            assert_not_audited(outcome(), **asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"table": "candidates"}, "table is hiring.hiring.applications"),
        ({"operation": "create", "actor": "bob"}, "actor is 'alice', not 'bob'"),
        ({"operation": "create", "including": {"stage": "hired"}}, "after.stage is 'received', not 'hired'"),
        ({"including": {"nothing": 1}}, "after has no 'nothing'"),
        ({"operation": "update", "before": {"stage": "hired"}}, "before.stage is 'received', not 'hired'"),
        ({"extra": {"x": 1}}, "extra has no 'x'"),
        ({"labels": ["hired"]}, "labels lacks 'hired'"),
        ({"operation": "update", "changed": "salary"}, "changed lacks 'salary'"),
        ({"operation": "delete", "times": 2}, "1 times, not 2"),
    ],
)
def test_what_is_not_there_is_not_found_and_the_failure_says_why(asked: dict[str, Any], said: str) -> None:
    """The nearest change, and all there are."""
    with pytest.raises(AssertionError) as caught:
        assert_audited(outcome(), **asked)
    text = str(caught.value)
    assert said in text
    assert "on the trail: 3" in text
    assert "[2] update of hiring.hiring.applications by bob" in text
    assert "alert (high) r: look" in text
    asked.pop("times", None)
    if asked != {"operation": "delete"}:
        assert_not_audited(outcome(), **asked)


def test_a_failure_lists_stubs_dead_letters_and_what_was_left_out() -> None:
    """Where a change went that is not on the trail."""
    policy = '[[tables]]\nmatch = "**"\nskip = true\ncolumns = { "*" = "clear" }'
    given: list[Record | Change] = [
        change(TABLE, after={"id": 1}),
        Record("hiring.hiring.x", b"?"),
        Record("hiring.hiring.x", None),
    ]
    with pytest.raises(AssertionError) as caught:
        assert_audited(run(given, policy=policy), table="applications")
    for line in (
        "on the trail: 0",
        "stub (skipped): create",
        "dead letter: hiring.hiring.x offset 0: decode wrong_frame",
        "left out: 1 of",
    ):
        assert line in str(caught.value)


def test_a_stub_is_not_audited() -> None:
    """It only keeps counts closed."""
    policy = '[[tables]]\nmatch = "**"\ncolumns = { "*" = "clear" }\nignore = ["stage"]'
    update = change(TABLE, "update", before=ROW, after=ROW | {"stage": "hired"}, key=KEY)
    assert_not_audited(run([update], policy=policy), operation="update")
    assert_audited(run([update]), operation="update", changed=["stage"])


def test_alerts_are_asserted_by_rule_severity_and_title() -> None:
    """And their absence."""
    found = outcome()
    assert_alerted(found, rule="r", severity="high", title="loo", times=3)
    assert_not_alerted(found, rule="s")
    assert_not_alerted(found, rule="r", severity="low")
    for wrong in ({"rule": "s"}, {"rule": "r", "times": 1}, {"rule": "r", "title": "x"}):
        with pytest.raises(AssertionError, match=r"alert \(high\) r: look"):
            assert_alerted(found, **wrong)
    with pytest.raises(AssertionError, match="alerted: r"):
        assert_not_alerted(found, rule="r")
