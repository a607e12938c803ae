"""Processors: what they are given, what they may add, what becomes of rows that they drop."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from chronicle.engine import Engine, Flood
from chronicle.errors import TransientError
from chronicle.model.dead_letters import Reason
from chronicle.processors import INPUT, Counter, field, label, processor, read, run_processors
from chronicle.processors.step import Processing
from chronicle.sinks.memory import MemorySink
from chronicle.stages.path import Path as PurePath
from chronicle.testing import IDENTITY_KEY, Record, assert_audited, change, chunks, rules, run
from chronicle.testing.changes import Change, records, sources
from tests.unit.processing import ORDERS, PEOPLE, SECRET, alarmed, made, order, person, raises, spy

# What it is given ------------------------------------------------------------------------------------------------------


def test_a_processor_sees_its_tables_and_no_other() -> None:
    """Patterns are the policy's."""
    seen: list[str] = []
    one = made(spy(lambda changes: seen.extend(changes["table"])), tables=["shop.*.orders", "bank.**"])
    run([person(1), order(1), person(2), order(2)], processors=[one])
    assert seen == ["orders", "orders"]


def test_a_processor_without_rows_is_not_called() -> None:
    """No empty frames to think of."""
    run([person(1)], processors=[made(raises, tables="bank.**")])


def test_it_is_given_the_columns_that_are_documented() -> None:
    """Names and types of `INPUT`."""
    found: list[pl.DataFrame] = []
    run([person(1)], processors=[made(spy(found.append))])
    assert dict(found[0].schema) == {name: dtype() if isinstance(dtype, type) else dtype for name, dtype in INPUT.items()}
    assert found[0]["actor_id"].to_list() == ["ann"]


def test_it_sees_values_as_the_policy_leaves_them() -> None:
    """Whatever column it looks at."""
    policy = '[[tables]]\nmatch = "**"\ncolumns = { id = "clear", name = "redact", note = "drop", mail = "token" }'
    found: list[str] = []
    one = made(spy(lambda changes: found.append(str(changes.to_dicts()))))
    run([person(1, name=SECRET, note=SECRET, mail=SECRET), person(1, "delete", name=SECRET)], policy=policy, processors=[one])
    assert SECRET not in found[0]
    assert "[FILTERED]" in found[0]


def test_it_sees_no_stubs() -> None:
    """What the policy leaves out is nobody's business."""
    policy = '[[tables]]\nmatch = "**"\ncolumns = { "*" = "clear" }\nwhere = "name != \'n1\'"'
    names: list[str] = []
    one = made(spy(lambda changes: names.extend(changes.select(field("after", "name")).to_series())))
    outcome = run([person(1), person(2)], policy=policy, processors=[one])
    assert names == ["n2"]
    assert outcome.changes["stub"].to_list() == ["filtered", ""]


def test_a_change_that_came_twice_is_one_row_and_both_get_what_it_says() -> None:
    """A redelivery within a batch must not be counted twice."""
    (record,) = run_records([person(1)])
    counted = Counter("twice", "x")

    def count(changes: pl.DataFrame) -> pl.DataFrame:
        counted.inc(n=len(changes))
        return changes.with_columns(x=pl.lit(1))

    one = made(count, metrics=[counted])
    outcome = run([record, replace(record, offset=5), *run_records([order(1)])], processors=[one])
    assert outcome.changes["extra"].to_list() == ['{"x":1}'] * 3
    assert counted.value() == 2


def run_records(changes: list[Change]) -> list[Record]:
    return [one for one in records(changes) if not one.topic.endswith(".transaction")]


# Reading images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (5, pl.Int64, 5),
        (Decimal("61250.50"), pl.Decimal(12, 2), Decimal("61250.50")),
        (Decimal("12.00"), pl.Int64, 12),
        (Decimal("12.5"), pl.Int64, None),
        (1.5, pl.Float64, 1.5),
        (True, pl.Boolean, True),
        (date(2026, 2, 28), pl.Date, date(2026, 2, 28)),
        ("[FILTERED]", pl.Int64, None),
        ("[FILTERED]", pl.Datetime("us"), None),
        ("[FILTERED]", pl.Boolean, None),
        ("x\n\"'é", pl.String, "x\n\"'é"),
        (["a", None], pl.List(pl.String), ["a", None]),
        (None, pl.Int64, None),
    ],
)
def test_a_field_has_its_type_or_is_null(value: Any, dtype: Any, expected: Any) -> None:
    """What the policy hid is no number, and no error either; alone and together."""
    found: list[Any] = []

    def look(changes: pl.DataFrame) -> pl.DataFrame:
        frame = read(changes, after={"v": dtype, "id": pl.Int64}, before={"v": dtype})
        found.extend([changes.select(field("after", "v", dtype)).item(), frame["after.v"].item(), frame["before.v"].item()])
        return frame

    run([change(PEOPLE, after={"id": 1, "v": value})], processors=[made(look)])
    found = [one.to_list() if isinstance(one, pl.Series) else one for one in found]
    assert found == [expected, expected, None]


def test_times_are_read_with_and_without_a_zone() -> None:
    """As the images have them."""
    local, zoned = datetime(2026, 3, 1, 9, 30, 0, 123_000), datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    found: list[Any] = []

    def look(changes: pl.DataFrame) -> pl.DataFrame:
        frame = read(changes, after={"local": pl.Datetime("us"), "zoned": pl.Datetime("us", "UTC")})
        found.extend(frame.select("after.local", "after.zoned").row(0))
        return frame

    run([change(PEOPLE, after={"id": 1, "local": local, "zoned": zoned})], processors=[made(look)])
    assert found == [local, zoned]


def test_what_was_read_is_not_kept() -> None:
    """Nor is scratch."""
    one = made(lambda changes: read(changes, after={"id": pl.Int64}).with_columns(_tmp=pl.lit(1), kept=pl.lit(2)))
    outcome = run([person(1)], processors=[one])
    assert outcome.changes["extra"].to_list() == ['{"kept":2}']


# What it adds ----------------------------------------------------------------------------------------------------------


def test_added_columns_are_canonical_json_with_their_types() -> None:
    """Keys sorted; times, decimals and bytes as in images; what is no number is null."""

    def add(changes: pl.DataFrame) -> pl.DataFrame:
        at = pl.col("committed_at")
        return changes.with_columns(
            z=pl.lit(1.5).cast(pl.Int64),
            a=at,
            b=at.dt.replace_time_zone(None).dt.date(),
            d=pl.lit("1.50").cast(pl.Decimal(5, 2)),
            n=pl.lit(float("nan")),
            y=pl.lit(b"ab"),
            t=pl.lit('"é'),
        )

    outcome = run([person(1)], processors=[made(add, extra={"z": pl.Int16})])
    assert outcome.changes["extra"].item() == (
        '{"a":"2026-01-05T12:00:00.000000Z","b":"2026-01-05","d":"1.50","n":null,"t":"\\"é","y":"YWI=","z":1}'
    )


def test_extras_of_several_processors_are_one_object_each_row_its_own() -> None:
    """Of one name the last that says it; rows of other tables have none of it."""
    first = made(lambda c: c.with_columns(a=pl.lit(1), both=pl.lit("first")), name="first", tables=PEOPLE)
    second = made(lambda c: c.with_columns(b=pl.lit(2), both=pl.lit("second")), name="second")
    third = made(lambda c: c.with_columns(c=pl.lit(3)), name="third", tables=ORDERS)
    outcome = run([person(1), person(2), order(1)], processors=[first, second, third])
    assert outcome.changes["extra"].to_list() == [
        '{"a":1,"b":2,"both":"second"}',
        '{"a":1,"b":2,"both":"second"}',
        '{"b":2,"both":"second","c":3}',
    ]


def test_a_row_that_no_processor_added_to_has_no_extra() -> None:
    """NULL, not {}."""
    outcome = run(
        [person(1), order(1)], processors=[made(spy(len)), made(lambda c: c.with_columns(x=pl.lit(1)), name="q", tables=ORDERS)]
    )
    assert outcome.changes["extra"].to_list() == [None, '{"x":1}']


def test_a_later_processor_sees_what_earlier_ones_added() -> None:
    """Typed, as `extra.<name>`; labels and tags in place."""
    seen: list[Any] = []
    first = made(
        lambda c: c.with_columns(n=pl.lit(7), **{"tags.risk": pl.lit("high")}).with_columns(label("l", pl.lit(True))),
        name="first",
        tables=PEOPLE,
    )
    other = made(lambda c: c.with_columns(n=pl.lit(8)), name="other", tables=ORDERS)
    last = made(spy(lambda c: seen.extend(c.select("extra.n", "labels", "tags").rows())), name="last")
    run([person(1), order(1)], processors=[first, other, last])
    assert seen == [(7, ["l"], '{"risk":"high"}'), (8, [], None)]


def test_reordered_rows_keep_their_own_values() -> None:
    """`event_id` says which is which."""
    one = made(lambda c: c.with_columns(id=field("after", "id", pl.Int64)).reverse().select("event_id", "id"))
    outcome = run([person(n) for n in range(50)], processors=[one])
    assert outcome.changes["extra"].to_list() == [f'{{"id":{n}}}' for n in range(50)]


def test_labels_are_added_and_never_taken() -> None:
    """What the policy says stays."""
    policy = (
        '[[tables]]\nmatch = "**"\ncolumns = { "*" = "clear" }\n[[tables.label]]\ncolumns = ["name"]\nas = "identity_change"'
    )
    wipes = made(lambda c: c.with_columns(labels=pl.lit(["new", "new"], pl.List(pl.String))), tables=PEOPLE)
    outcome = run([person(1), order(1)], policy=policy, processors=[wipes])
    assert outcome.changes["labels"].to_list() == [["identity_change", "new"], []]


def test_tags_join_those_of_the_application() -> None:
    """A processor's wins; a null adds nothing."""
    kinds = pl.when(field("after", "id") == "1").then(pl.lit("high"))
    one = made(lambda c: c.with_columns(kinds.alias("tags.risk")))
    given = [change(PEOPLE, after={"id": n}, tags={"a": "b", "risk": "?"}) for n in (1, 2)]
    outcome = run([*given, change(PEOPLE, after={"id": 3})], processors=[one])
    assert outcome.changes["tags"].to_list() == ['{"a":"b","risk":"high"}', '{"a":"b","risk":"?"}', None]


def test_what_it_writes_over_its_input_is_not_taken() -> None:
    """Images, keys and actors are not a processor's to change."""
    one = made(
        lambda c: c.with_columns(pl.lit("{}").alias("after"), pl.lit("eve").alias("actor_id"), pl.lit("t").alias("table"))
    )
    before, after = run([person(1)]), run([person(1)], processors=[one])
    assert after.changes.equals(before.changes)


# Dropping --------------------------------------------------------------------------------------------------------------


def test_a_dropped_row_is_a_stub_without_images() -> None:
    """A transaction's counts still close; what the row held is gone; its neighbours are whole."""
    one = made(lambda c: c.with_columns(x=pl.lit(1)).filter(field("after", "id") != "1"), drops=True)
    seen: list[int] = []
    later = made(spy(lambda c: seen.append(len(c))), name="later")
    outcome = run([person(1), person(2)], processors=[one, later])
    stub, whole = outcome.changes.to_dicts()
    assert (stub["stub"], whole["stub"]) == ("dropped", "")
    assert [stub[name] for name in ("before", "after", "extra", "enriched")] == [None] * 4
    assert [stub[name] for name in ("changed", "labels", "unavailable", "violations")] == [[]] * 4
    assert stub["transaction_id"] is not None
    assert whole["extra"] == '{"x":1}'
    assert seen == [1]
    assert outcome.rows() == 4  # and two contexts
    assert outcome.changes.schema == run([person(1)]).changes.schema


def test_every_row_may_be_dropped() -> None:
    """An empty frame is a frame."""
    outcome = run([person(1), person(2)], processors=[made(lambda c: c.clear(), drops=True)])
    assert outcome.changes["stub"].to_list() == ["dropped", "dropped"]


# In the engine ---------------------------------------------------------------------------------------------------------


class Quiet:
    """A watch and a registry that nothing is asked of."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.retried = 0

    def retrying(self, name: str, error: BaseException) -> None:
        assert name == "processors"
        self.retried += 1

    def recovered(self, name: str) -> None:
        pass

    def resolve(self, ids: Any) -> dict[int, str | None]:
        return {}


def test_a_batch_reaches_the_sinks_with_what_processors_made_of_it() -> None:
    """Changes, alerts and dead letters; a retry in between is declared and leaves no trace."""
    tried: list[int] = []

    def first_time(changes: pl.DataFrame) -> pl.DataFrame:
        tried.append(1)
        if len(tried) == 1:
            raise TransientError("away")
        return changes.with_columns(tries=pl.lit(len(tried)))

    given = [person(1), order(1)]
    watch, sink = Quiet(), MemorySink()
    engine = Engine(
        PurePath(sources(given), IDENTITY_KEY, rules()),
        watch,
        (sink,),
        watch=watch,
        flood=Flood(0.0, 1),
        steps=(Processing([made(first_time), alarmed(), made(raises, name="bad", tables=PEOPLE)]),),
    )
    outcome = engine.process(chunks(records(given)))
    assert outcome.rows == 3
    assert watch.retried == 1
    assert [row["table"] for row in sink.changes.values()] == ["orders"]
    assert [row["extra"] for row in sink.changes.values()] == ['{"tries":2}']
    assert [row["table"] for row in sink.alerts.values()] == ["orders"]
    assert [one.reason for one in sink.dead_letters.values()] == [Reason.PROCESSOR_FAILED]
    assert "processors" in outcome.stages_s


def test_without_processors_a_batch_is_as_it_was() -> None:
    """Nothing is added but the loss of granted values."""
    batch = run([person(1)])
    done, failed = Processing([])(batch)
    assert failed == ()
    assert done.changes.equals(batch.changes)


def test_a_batch_without_changes_goes_through() -> None:
    """Heartbeats alone."""
    empty = run([])
    done, failed = Processing([made(raises)])(empty)
    assert (len(done.changes), list(failed)) == (0, [])
    assert run_processors([made(raises)], empty.changes, 0).dropped == ()


def test_the_example_of_the_documentation_works() -> None:
    """As in the README."""

    @processor(tables="shop.*.orders", extra={"large": pl.Boolean})
    def large_orders(changes: pl.DataFrame) -> pl.DataFrame:
        rows = read(changes, after={"total": pl.Decimal(12, 2)})
        return rows.with_columns(large=(pl.col("after.total") > 1_000).fill_null(False))

    outcome = run([change(ORDERS, after={"id": 1, "total": Decimal("2500.00")}, actor="ann")], processors=[large_orders])
    assert_audited(outcome, table="orders", operation="create", actor="ann", extra={"large": True})
