"""What routes take of a batch, what they send, and what a role's worker reads of it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.codec import audit, audit_reading
from chronicle.model.chunk import Chunk
from chronicle.model.columns import CHANGES
from chronicle.model.dead_letters import Reason
from chronicle.policy.rules import Route, RouteFormat
from chronicle.stages.deliveries import CONDITIONS, Router
from chronicle.stages.receive import Receiving
from tests.sinks import batches

ALL = ("#",)


def taken(route: Route, changes: pl.DataFrame) -> list[int]:
    """Offsets of the changes that a route takes."""
    found = Router([route]).taken(changes)
    flags = found.get((route.to, route.format))
    return [] if flags is None else changes.filter(pl.Series(flags))["offset"].to_list()


def changes(count: int = 40, **others: Any) -> pl.DataFrame:
    """Changes of two tables and all operations."""
    operations = ("create", "update", "delete", "snapshot", "truncate")
    return batches.frame(
        [
            batches.change("shop", at, table=("orders", "customers")[at % 2], key=at, operation=operations[at % 5], **others)
            for at in range(count)
        ]
    )


def test_a_route_takes_what_its_patterns_name() -> None:
    """Of every change, by table and operation, and of no other."""
    frame = changes()
    expected = frame.filter(pl.col("table") == "orders", pl.col("operation") == "delete")["offset"].to_list()
    assert taken(Route("r", ("#.orders.delete",), "t"), frame) == expected
    assert taken(Route("r", ("#.invoices.#",), "t"), frame) == []
    assert taken(Route("r", ALL, "t"), frame.clear()) == []


def test_a_stub_is_never_routed() -> None:
    """What the policy leaves out goes nowhere."""
    frame = changes(4).with_columns(pl.Series("stub", ["", "ignored", "skipped", ""]))
    assert taken(Route("r", ALL, "t"), frame) == [0, 3]


def test_a_sample_is_the_same_entities_every_time_and_about_its_share() -> None:
    """By entity: all changes of a row or none; a smaller sample is part of a larger one; deletes always, unless said."""
    frame = batches.frame([batches.change("shop", at, key=at // 2, operation="update") for at in range(4000)])
    half, tenth = (taken(Route("r", ALL, "t", sample=share), frame) for share in (0.5, 0.1))
    assert {at // 2 for at in half} == {at // 2 for at in half if at % 2} == {at // 2 for at in half if not at % 2}
    assert 0.45 < len(half) / 4000 < 0.55
    assert set(tenth) < set(half)
    gone = frame.with_columns(operation=pl.lit("delete"))
    assert taken(Route("r", ALL, "t", sample=0.1), gone) == list(range(4000))
    assert taken(Route("r", ALL, "t", sample=0.1, where_deletes=True), gone) == tenth


def test_rows_without_a_key_are_sampled_one_by_one() -> None:
    """They have one entity all together, which would be all or nothing."""
    frame = batches.frame([batches.change("shop", at, key=1, operation="create") | {"key": ""} for at in range(1000)])
    assert 400 < len(taken(Route("r", ALL, "t", sample=0.5), frame)) < 600


def test_where_takes_what_the_path_said_and_deletes() -> None:
    """The condition was tried on clear values; null is not true; a delete goes through, unless it is said to be tried."""
    said = pl.Series(CONDITIONS, [["gold"], [], ["gold", "x"], None], dtype=pl.List(pl.String))
    frame = changes(4).with_columns(said)
    assert frame["operation"].to_list() == ["create", "update", "delete", "snapshot"]
    assert taken(Route("gold", ALL, "t", where="…"), frame) == [0, 2]
    assert taken(Route("other", ALL, "t", where="…"), frame) == [2]
    assert taken(Route("other", ALL, "t", where="…", where_deletes=True), frame) == []


def test_a_route_whose_condition_does_not_fit_takes_nothing_of_that_table() -> None:
    """Not even deletes: it never had a row of it."""
    frame = changes(4).with_columns(pl.Series(CONDITIONS, [["!r"], ["r"], ["!r"], ["!other"]], dtype=pl.List(pl.String)))
    assert taken(Route("r", ALL, "t", where="…"), frame) == [1]


def test_labels_choose_among_the_matching() -> None:
    """Any of them; also for deletes, which carry labels like other changes."""
    labels = pl.Series("labels", [["a"], ["b", "c"], [], ["x"]], dtype=pl.List(pl.String))
    frame = changes(4).with_columns(labels)
    assert taken(Route("r", ALL, "t", labels=("a", "c")), frame) == [0, 1]


def test_a_topic_gets_a_change_once_however_many_of_its_routes_take_it() -> None:
    """Two routes may feed one topic."""
    routes = [Route("a", ("#.create",), "t"), Route("b", ("#.orders.#",), "t")]
    (delivery,) = Router(routes).deliveries(changes(), lambda _topic: 3, version="1")
    assert len(set(delivery.records.keys)) == len(delivery.records.keys)


def test_a_json_record_is_the_audit_records_bytes() -> None:
    """Key, value and, with as many partitions, partition."""
    frame = changes()
    (delivery,) = Router([Route("r", ALL, "t")]).deliveries(frame, lambda _topic: 4, version="1")
    assert delivery.records == audit.changes(frame, partitions=4, version="1")


def test_a_cloudevent_is_an_envelope_around_it() -> None:
    """CloudEvents 1.0 in JSON, whatever stands in names."""
    frame = batches.frame([batches.change("shop", 1, table='we"ird\\ tä.b', operation="update")])
    route = Route("r", ALL, "t", format=RouteFormat.CLOUDEVENTS)
    (delivery,) = Router([route]).deliveries(frame, lambda _topic: 4, version="1")
    (value,) = delivery.records.values
    event = json.loads(value)
    data = event.pop("data")
    assert data == json.loads(audit.changes(frame, partitions=4, version="1").values[0])
    assert event == {
        "specversion": "1.0",
        "id": str(uuid.UUID(bytes=frame["event_id"][0])),
        "source": "/chronicle/shop",
        "subject": str(uuid.UUID(bytes=frame["entity"][0])),
        "type": 'chronicle.shop.public.we"ird\\_tä_b.update',
        "time": "2026-02-01T00:00:00.000000Z",
        "datacontenttype": "application/json",
    }


# --- read back


@pytest.mark.parametrize("form", list(RouteFormat))
def test_a_change_read_back_is_the_change_that_was_written(form: RouteFormat) -> None:
    """In every column that an audit record has."""
    said = {
        "labels": ["a"], "violations": ["in:tier"], "actor_name": 'An"n', "reason": "be\ncause", "ip": "10.0.0.0",
        "session": "s", "tenant": "t", "enriched": '{"c":{"id":"x"}}', "extra": '{"n":1.5}', "stub": "",
    }  # fmt: skip
    nobody = dict.fromkeys(("actor_id", "actor_type", "actor_name", "request_id", "tags")) | {"attribution": "none"}
    moved = changes(2, previous_key='{"id":9}', previous_entity=batches.digest("x"))
    frame = pl.concat([changes(), moved, changes(5, **said), changes(3, **nobody)])
    (delivery,) = Router([Route("r", ALL, "t", format=form)]).deliveries(frame, lambda _topic: 4, version="1")
    read = audit_reading.changes(delivery.records.values)
    assert (read.unreadable, read.rows) == ([], list(range(len(frame))))
    assert read.changes.schema == {spec.name: spec.dtype for spec in CHANGES}
    frame = frame.with_columns(pl.lit(None, frame.schema["attributed_at"]).alias("attributed_at"))  # no record has it
    for name in frame.columns:
        assert read.changes[name].equals(frame[name], null_equal=True), name


DOCUMENTS = st.recursive(st.none() | st.text(max_size=3), lambda it: st.lists(it) | st.dictionaries(st.text(max_size=5), it))


@given(st.binary(max_size=60) | DOCUMENTS.map(lambda it: json.dumps(it).encode()))
def test_what_is_no_audit_record_is_unreadable_and_nothing_worse(value: bytes) -> None:
    """Anybody may write to a topic."""
    good = audit.changes(changes(1), partitions=4, version="1").values[0]
    read = audit_reading.changes([value, good])
    assert (read.unreadable, read.rows) == ([0], [1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position", "-1"), ("position", str(1 << 128)), ("position", "٣"), ("epoch", 256), ("operation", "merge"),
        ("committed_at", "2026-02-01T00:00:00"), ("committed_at", "yesterday"), ("after", [1]), ("entity", "no"),
    ],
)  # fmt: skip
def test_a_value_that_no_column_holds_makes_its_record_unreadable(name: str, value: object) -> None:
    """It becomes a dead letter, and its neighbours go through."""
    good = audit.changes(changes(1), partitions=4, version="1").values[0]
    record = json.loads(good)
    record["core"]["unmapped"][name] = value
    assert audit_reading.changes([json.dumps(record).encode(), good]).unreadable == [0]


def test_every_record_of_a_routes_topic_has_one_disposition() -> None:
    """Changes once each in their latest processing, tombstones and repetitions left out, the rest dead letters."""
    frame = changes(3)
    later = frame.slice(1, 1).with_columns(
        pl.col("processed_at") + pl.duration(hours=1), after=pl.lit('{"id":1,"name":"latest"}')
    )
    values = [*audit.changes(frame, partitions=1, version="1").values, b"junk", None]
    more: list[bytes | None] = [*audit.changes(later, partitions=1, version="1").values]
    batch = Receiving().run([chunk("t", 4, values), chunk("t", 0, more)], {}, 0)
    assert batch.rows() == 6
    assert batch.changes["event_id"].to_list() == frame["event_id"].to_list()
    assert json.loads(batch.changes["after"][1])["name"] == "latest"
    assert batch.changes.select("topic", "partition", "offset").rows() == [("t", 4, 100), ("t", 0, 100), ("t", 4, 102)]
    assert batch.left_out == {("t", "tombstone"): 1, ("t", "repeated"): 1}
    (letter,) = batch.dead_letters
    assert (letter.offset, letter.reason, letter.value) == (103, Reason.NOT_DECODABLE, b"junk")


def chunk(topic: str, partition: int, values: list[bytes | None]) -> Chunk:
    """Records from offset 100 on."""
    count = len(values)
    return Chunk(topic, partition, list(range(100, 100 + count)), [7] * count, [None] * count, values, [()] * count)
