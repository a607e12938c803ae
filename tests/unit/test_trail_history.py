"""Changes of one row in any order become its life: what changed, from what to what, and how the old value is known."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from chronicle.trail.changes import Change
from chronicle.trail.history import ABSENT, ColumnChange, Known, told
from chronicle.trail.tables import TableName

START = datetime(2026, 11, 23, tzinfo=UTC)
NAME = TableName("shop", "public", "customers")


def change(position: int, operation: str, *, entity: str = "e", **given: Any) -> Change:
    """A change whose other facts do not matter here."""
    at = START + timedelta(seconds=position)
    facts: dict[str, Any] = {
        "event_id": f"{position}-{operation}-{entity}",
        "name": NAME,
        "connector": "postgresql",
        "entity": entity,
        "operation": operation,
        "key": {"id": 7},
        "previous_key": None,
        "previous_entity": None,
        "before": None,
        "after": None,
        "before_known": True,
        "changed": (),
        "unavailable": (),
        "labels": (),
        "violations": (),
        "stub": "",
        "policy": "",
        "attribution": "none",
        "actor": None,
        "request_id": None,
        "reason": None,
        "ip": None,
        "session": None,
        "tenant": None,
        "tags": None,
        "attributed_at": None,
        "attributed_late": False,
        "enriched": None,
        "extra": None,
        "epoch": 0,
        "position": position,
        "transaction_id": str(position),
        "transaction_order": None,
        "topic": str(NAME),
        "partition": 0,
        "offset": position,
        "committed_at": at,
        "captured_at": at,
        "received_at": at,
        "processed_at": at,
        "inserted_at": at,
    }
    return Change(**{**facts, **given})


def test_position_orders_whatever_order_they_came_in() -> None:
    """Arrival, time and event id say nothing about order."""
    changes = [
        change(1, "create", after={"id": 7, "n": 1}),
        change(2, "update", before={"id": 7, "n": 1}, after={"id": 7, "n": 2}, changed=("n",)),
        change(3, "delete", before={"id": 7, "n": 2}),
    ]
    for seed in range(5):
        random.Random(seed).shuffle(changes)
        assert [entry.change.position for entry in told(changes)] == [1, 2, 3]


def test_an_update_tells_only_the_columns_that_changed() -> None:
    """From the old row that the database sent, NULL included."""
    before, after = {"id": 7, "tier": "gold", "n": 1}, {"id": 7, "tier": None, "n": 1}
    [entry] = told([change(1, "update", before=before, after=after, changed=("tier",))])
    assert entry.columns == (ColumnChange("tier", "gold", None, Known.DATABASE),)


def test_a_create_tells_every_column_and_a_delete_what_was_lost() -> None:
    """On the side without a row there is no value, which is not NULL."""
    row = {"id": 7, "tier": None}
    created, deleted = told([change(1, "create", after=row), change(2, "delete", before=row)])
    assert created.columns == (
        ColumnChange("id", ABSENT, 7, Known.DATABASE),
        ColumnChange("tier", ABSENT, None, Known.DATABASE),
    )
    assert deleted.columns == (
        ColumnChange("id", 7, ABSENT, Known.DATABASE),
        ColumnChange("tier", None, ABSENT, Known.DATABASE),
    )


def test_an_old_row_that_was_not_sent_comes_from_the_trail_and_says_so() -> None:
    """Replica identity DEFAULT: the update is compared with what was last recorded."""
    entries = told(
        [
            change(1, "create", after={"id": 7, "n": 1, "m": 5}),
            change(2, "update", after={"id": 7, "n": 2, "m": 5}, before_known=False),
            change(3, "delete", before={"id": 7}, before_known=False),
        ]
    )
    assert entries[1].columns == (ColumnChange("n", 1, 2, Known.TRAIL),)
    assert entries[2].columns[1:] == (ColumnChange("n", 2, ABSENT, Known.TRAIL), ColumnChange("m", 5, ABSENT, Known.TRAIL))


def test_an_old_row_that_nobody_knows_is_unknown() -> None:
    """Nothing is invented: the old value is absent and marked unknown."""
    [entry] = told([change(1, "update", after={"id": 7, "n": 2}, before_known=False)])
    assert entry.columns == (ColumnChange("id", ABSENT, 7, Known.UNKNOWN), ColumnChange("n", ABSENT, 2, Known.UNKNOWN))


def test_a_snapshot_of_a_known_row_says_nothing_new() -> None:
    """A second observation of the same values is marked; the first one, and one that differs, are not."""
    row = {"id": 7, "n": 1}
    entries = told([change(n, "snapshot", after=row if n < 3 else {"id": 7, "n": 9}) for n in (1, 2, 3)])
    assert [entry.says_nothing_new for entry in entries] == [False, True, False]
    assert entries[2].columns == (ColumnChange("n", 1, 9, Known.TRAIL),)


def test_a_snapshot_after_a_delete_says_something_new() -> None:
    """The row is there again."""
    row = {"id": 7}
    entries = told([change(1, "create", after=row), change(2, "delete", before=row), change(3, "snapshot", after=row)])
    assert [entry.says_nothing_new for entry in entries] == [False, False, False]


def test_an_unavailable_column_keeps_its_recorded_value() -> None:
    """A large value that was not sent is not a change to nothing."""
    entries = told(
        [
            change(1, "create", after={"id": 7, "big": "x" * 9, "n": 1}),
            change(2, "update", after={"id": 7, "n": 2}, before_known=False, unavailable=("big",)),
            change(3, "delete", before={"id": 7}, before_known=False),
        ]
    )
    assert [one.column for one in entries[1].columns] == ["n"]
    assert ("big", "x" * 9) in [(one.column, one.before) for one in entries[2].columns]


def test_a_key_change_is_one_story_with_the_difference_only() -> None:
    """The old key's half is marked as given up; the new key's half tells what differs, and nothing else."""
    old = change(5, "delete", entity="old", key={"id": 3}, before={"id": 3, "n": 1})
    new = change(5, "create", entity="e", after={"id": 7, "n": 1}, previous_key={"id": 3}, previous_entity="old")
    entries = told([new, change(1, "create", entity="old", key={"id": 3}, after={"id": 3, "n": 1}), old])
    assert [entry.given_up for entry in entries] == [False, True, False]
    assert entries[2].columns == (ColumnChange("id", 3, 7, Known.DATABASE),)


def test_a_key_change_is_compared_with_the_trail_when_the_old_row_was_not_sent() -> None:
    """Replica identity DEFAULT: the deleted half has only its key."""
    old = change(5, "delete", entity="old", before={"id": 3}, before_known=False)
    new = change(5, "create", after={"id": 7, "n": 2}, previous_key={"id": 3}, previous_entity="old")
    entries = told([change(1, "create", entity="old", after={"id": 3, "n": 1}), old, new])
    assert entries[2].columns == (ColumnChange("id", 3, 7, Known.TRAIL), ColumnChange("n", 1, 2, Known.TRAIL))


def test_a_truncate_counts_only_while_the_row_was_there() -> None:
    """Before its creation and after its deletion the table's emptying is not this row's story."""
    row = {"id": 7}
    entries = told(
        [
            change(1, "truncate", entity="table"),
            change(2, "create", after=row),
            change(3, "truncate", entity="table"),
            change(4, "truncate", entity="table"),
        ]
    )
    assert [entry.change.position for entry in entries] == [2, 3]


def test_what_an_update_does_not_hold_is_unchanged() -> None:
    """Images may hold only what changed, ignored columns too: the row keeps the rest, up to its end."""
    entries = told(
        [
            change(1, "create", after={"id": 7, "n": 1, "m": 5}),
            change(2, "update", before={"id": 7, "n": 1, "at": 1}, after={"id": 7, "n": 2, "at": 2}, changed=("n",)),
            change(3, "update", after={"id": 7, "n": 2, "m": 6, "at": 2}, before_known=False),
            change(4, "delete", before={"id": 7}),
        ]
    )
    assert entries[1].columns == (ColumnChange("n", 1, 2, Known.DATABASE),)
    assert entries[2].columns == (ColumnChange("m", 5, 6, Known.TRAIL),)
    assert [(one.column, one.before, one.known) for one in entries[3].columns] == [
        ("id", 7, Known.DATABASE),
        ("n", 2, Known.TRAIL),
        ("m", 6, Known.TRAIL),
        ("at", 2, Known.TRAIL),
    ]


def test_a_column_that_a_whole_last_row_lacks_is_not_lost_by_the_deletion() -> None:
    """The database dropped it before: only a row of which no more than the key is kept is completed from the trail."""
    entries = told([change(1, "create", after={"id": 7, "n": 1, "old": 5}), change(2, "delete", before={"id": 7, "n": 1})])
    assert [one.column for one in entries[1].columns] == ["id", "n"]


def test_a_change_that_the_policy_hides_is_still_a_change() -> None:
    """Redacted on both sides, or left out with its name: `changed` names it, and so does the history, without a value."""
    before = {"id": 7, "mail": "[FILTERED]", "n": 1}
    after = {**before, "n": 2}
    [entry] = told([change(1, "update", before=before, after=after, changed=("mail", "n", "secret"))])
    assert entry.columns == (
        ColumnChange("mail", "[FILTERED]", "[FILTERED]", Known.DATABASE, hidden=True),
        ColumnChange("n", 1, 2, Known.DATABASE),
        ColumnChange("secret", ABSENT, ABSENT, Known.DATABASE, hidden=True),
    )
    assert not entry.bare


def test_a_value_written_in_another_way_is_not_hidden() -> None:
    """A document's 1 is not its 1.0, nor its true, although Python takes them for equal."""
    for old, new in ((1, 1.0), (1, True), ({"a": 1}, {"a": True}), ([0], [0.0])):
        [entry] = told([change(1, "update", before={"doc": old}, after={"doc": new}, changed=("doc",))])
        assert [one.hidden for one in entry.columns] == [False]


def test_without_images_a_change_says_only_which_columns_changed() -> None:
    """And a snapshot without an image never says that nothing is new; a row that the database did not send is no policy."""
    changes = [
        change(1, "create"),
        change(2, "update", changed=("n",)),
        change(3, "snapshot"),
        change(4, "delete"),
    ]
    entries = told(changes)
    assert [entry.bare for entry in entries] == [True] * 4
    assert [entry.says_nothing_new for entry in entries] == [False] * 4
    assert [[(one.column, one.hidden) for one in entry.columns] for entry in entries] == [[], [("n", True)], [], []]
    assert not told([change(1, "delete", before_known=False)])[0].bare
    assert not told([change(1, "create", after={}), change(2, "truncate", entity="table")])[1].bare


def test_a_stub_tells_nothing_and_takes_nothing_from_the_row() -> None:
    """What the policy left out stands between the others; what the trail had recorded before stays recorded."""
    entries = told(
        [
            change(1, "create", after={"id": 7, "n": 1}),
            change(2, "update", stub="ignored"),
            change(3, "update", after={"id": 7, "n": 2}, before_known=False),
            change(4, "delete", stub="filtered"),
            change(5, "truncate", entity="table"),
        ]
    )
    assert [(entry.change.position, entry.columns) for entry in entries] == [
        (1, entries[0].columns),
        (2, ()),
        (3, (ColumnChange("n", 1, 2, Known.TRAIL),)),
        (4, ()),
    ]
    assert [entry.bare for entry in entries] == [False] * 4


def test_a_row_that_came_as_a_stub_was_there() -> None:
    """It is not known, so nothing is compared with it, and yet TRUNCATE ended it."""
    entries = told([change(1, "create", stub="filtered"), change(2, "truncate", entity="table")])
    assert [entry.change.operation for entry in entries] == ["create", "truncate"]
    changed = told([change(1, "create", stub="filtered"), change(2, "update", after={"id": 7}, before_known=False)])[1]
    assert changed.known is Known.UNKNOWN


def test_ciphertexts_are_not_compared() -> None:
    """Each is bound to its change: two that differ may be one value, so nothing is said of it but that."""
    old, new = {"id": 7, "iban": "e1.k.AAAA", "n": 1}, {"id": 7, "iban": "e1.k.BBBB", "n": 2}
    created, updated = told([change(1, "create", after=old), change(2, "update", after=new, before_known=False)])
    assert [one.column for one in updated.columns] == ["n"]
    assert (created.uncompared, updated.uncompared) == ((), ("iban",))
    assert told([change(1, "create", after=old), change(2, "snapshot", after={**old, "iban": "e1.k.C"})])[1].says_nothing_new
    [named] = told([change(1, "update", before=old, after=new, changed=("iban",))])
    assert named.columns == (ColumnChange("iban", "e1.k.AAAA", "e1.k.BBBB", Known.DATABASE),)
    assert named.uncompared == ()
    [_, moved] = told(
        [
            change(1, "delete", entity="old", key={"id": 3}, before={"id": 3, "iban": "e1.k.AAAA"}),
            change(1, "create", after={"id": 7, "iban": "e1.k.BBBB"}, previous_key={"id": 3}, previous_entity="old"),
        ]
    )
    assert [one.column for one in moved.columns] == ["id"]
    assert moved.uncompared == ("iban",)
