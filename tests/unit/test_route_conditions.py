"""`where` of routes: tried by the pure path on clear rows, taken by routes that see none."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.policy.file import parse
from chronicle.stages.deliveries import CONDITIONS, Router
from chronicle.stages.path import Path
from chronicle.testing import IDENTITY_KEY, Record, chunks, rules
from tests.unit.envelopes import Table

PEOPLE = Table([("id", "long"), ("tier", ["null", "string"]), ("phone", ["null", "string"])], name="people", schema_id=700)
THINGS = Table([("id", "long"), ("size", ["null", "long"])], name="things", schema_id=720)
POLICY = """
[[tables]]
match = "**"
columns = { id = "clear", tier = "clear", size = "clear", phone = "redact" }
[[routes]]
name = "gold"
match = "#.people.#"
where = "tier = 'gold' and phone like '+44%'"
to = "gold"
[[routes]]
name = "all"
match = "#"
to = "all"
"""
GOLD = {"id": 1, "tier": "gold", "phone": "+44 20"}


def process(policy: str, *records: Record, full: frozenset[str] | None = None) -> Batch:
    spec = SourceSpec("shop", "postgresql", full_identity=full)
    return Path([spec], IDENTITY_KEY, rules(parse(policy))).run(chunks(records), PEOPLE.schemas | THINGS.schemas, 1)


def gold(policy: str, batch: Batch) -> list[tuple[str, int]]:
    """Table and offset of what the route `gold` takes."""
    routes = [route for route in parse(policy).routes if route.name == "gold"]
    flags = next(iter(Router(routes).taken(batch.changes).values()))
    return batch.changes.filter(pl.Series(flags)).select("table", "offset").rows()


def change(op: str, **others: Any) -> Record:
    row = GOLD | others
    before = row if op == "d" else GOLD if op == "u" else None
    return PEOPLE.change(op, before=before, after=None if op == "d" else row)


def test_a_condition_is_about_the_clear_row_and_leaves_nothing_of_it() -> None:
    """A redacted column decides, and stays redacted; the table's own columns are all that sinks get beside it."""
    batch = process(POLICY, change("c"), change("c", id=2, tier="silver"), change("c", id=3, phone=None), change("u", id=4))
    assert gold(POLICY, batch) == [("people", 0), ("people", 3)]
    assert batch.changes[CONDITIONS].to_list() == [["gold"], [], [], ["gold"]]
    assert "+44" not in str(batch.changes.to_dicts())


def test_a_part_of_a_batch_keeps_what_was_said_of_its_rows() -> None:
    """The engine halves batches."""
    batch = process(POLICY, change("c", tier="silver"), change("c", id=2), change("c", id=3))
    assert gold(POLICY, batch.select(1, 3)) == [("people", 1), ("people", 2)]


def test_a_table_without_the_columns_is_left_out_and_told() -> None:
    """The trail does not wait for a route."""
    wide = POLICY.replace('"#.people.#"', '"#"')
    batch = process(wide, change("c"), THINGS.change("c", after={"id": 1, "size": 3}), THINGS.change("d", before={"id": 1}))
    assert len(batch.changes) == 3 and not batch.dead_letters
    assert gold(wide, batch) == [("people", 0)]
    (warning,) = batch.warnings
    assert "shop.public.things" in warning and "where of route gold" in warning


@pytest.mark.parametrize(("full", "taken"), [(None, False), (frozenset[str](), True)])
def test_a_delete_is_tried_only_when_asked_for_and_known(full: frozenset[str] | None, taken: bool) -> None:
    """Of an old row that the database did not send, nothing can be said: then the delete goes through."""
    asked = POLICY.replace('to = "gold"', 'to = "gold"\nwhere_deletes = true')
    batch = process(asked, change("d", tier="silver"), full=full)
    assert (gold(asked, batch) != []) is taken
    assert gold(POLICY, process(POLICY, change("d", tier="silver"), full=full)) != []


def test_without_a_condition_the_frame_is_as_it_always_is() -> None:
    """Who does not use it does not pay for it."""
    plain = POLICY.replace("where = \"tier = 'gold' and phone like '+44%'\"\n", "")
    assert CONDITIONS not in process(plain, change("c")).changes.columns
