"""Events as audit records: OCSF names and numbers, deterministic core, exact JSON, against the published schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.codec import audit, audit_events, audit_reading
from chronicle.config import Kafka
from chronicle.errors import ConfigError
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk
from chronicle.model.event_columns import EVENTS, NO_EVENTS
from chronicle.policy.rules import Route, RouteFormat
from chronicle.stages.deliveries import Router
from chronicle.stages.receive import Receiving
from chronicle.wiring import fed
from tests.sinks import batches

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "audit-record.schema.json").read_text(encoding="utf-8"))
EXAMPLE = Path(__file__).parents[2] / "schemas" / "audit-record-event.example.json"


def records(*events: dict[str, Any]) -> list[Any]:
    values = audit_events.events(batches.events_frame(events), partitions=4, version="1.2.3").values
    return [json.loads(value) for value in values]


@pytest.mark.parametrize(
    ("type_", "class_", "activity"),
    [
        ("auth.login", 3002, 1),
        ("auth.token.issued", 3002, 99),
        ("user.created", 3001, 1),
        ("user.deleted", 3001, 6),
        ("team.member_added", 3006, 3),
        ("http.request.received", 4002, 99),
        ("database.query", 6005, 4),
        ("comment.deleted", 6003, 4),
        ("security.login", 6003, 99),
        ("auth", 3002, 99),
        ("authentic", 6003, 99),
    ],
)
def test_a_type_has_the_class_of_its_family(type_: str, class_: int, activity: int) -> None:
    """type_uid = class_uid * 100 + activity_id, and the category is the class' first digit."""
    (record,) = records(batches.event("shop", 1, type=type_))
    jsonschema.validate(record, SCHEMA)
    core = record["core"]
    assert (core["class_uid"], core["activity_id"]) == (class_, activity)
    assert core["type_uid"] == class_ * 100 + activity
    assert core["category_uid"] == class_ // 1000
    assert core["unmapped"]["type"] == type_


@pytest.mark.parametrize(("outcome", "status"), [("success", ("Success", 1)), ("failure", ("Failure", 2)), (None, (None, 0))])
def test_the_outcome_is_ocsfs_status(outcome: str | None, status: tuple[str | None, int]) -> None:
    """Nothing said is unknown."""
    (record,) = records(batches.event("shop", 1, outcome=outcome))
    assert (record["core"]["status"], record["core"]["status_id"]) == status


def test_the_key_names_application_type_and_id() -> None:
    """An application that takes a change's id for its event does not replace the change's record."""
    frame = batches.events_frame([batches.event("shop", 1)])
    (key,) = audit_events.events(frame, partitions=4, version="1").keys
    uid = records(batches.event("shop", 1))[0]["core"]["metadata"]["uid"]
    assert key.decode() == f"event:shop::security.login:{uid}"


NAMES = st.text(st.characters(codec="utf-8") | st.sampled_from(":%3A"), max_size=6)
WORDS = st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,2}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, NAMES | st.none(), WORDS, st.integers(0, 1)), min_size=2, max_size=20))
def test_two_events_have_two_keys_whatever_their_names(identities: list[tuple[str, str | None, str, int]]) -> None:
    """Source, tenant, type and id name an event, and no other of them gives its key; no tenant and an empty one are one."""
    frame = batches.events_frame(
        [batches.event("shop", at) | {"source": one, "tenant": two, "type": three} for one, two, three, at in identities]
    )
    keys = audit_events.events(frame, partitions=4, version="1").keys
    assert len(set(keys)) == len({(one, two or "", three, at) for one, two, three, at in identities})
    assert all(key.startswith(b"event:") and key.count(b":") == 4 for key in keys)


def test_core_is_the_same_bytes_on_every_delivery() -> None:
    """Places and times of processing are in meta only."""
    once = batches.event("shop", 1)
    later = timedelta(hours=1)
    again = {
        **once,
        "offset": 99,
        "partition": 3,
        "received_at": once["received_at"] + later,
        "processed_at": once["processed_at"] + later,
    }
    first, second = records(once, again)
    assert first["core"] == second["core"]
    assert first["meta"] != second["meta"]


def test_keys_are_sorted_but_for_what_the_application_wrote() -> None:
    """Two writers of the same record give the same bytes."""
    frame = batches.events_frame([batches.event("shop", at) for at in range(3)])
    for value in audit_events.events(frame, partitions=4, version="1").values:
        assert value == json.dumps(json.loads(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_no_column_of_an_event_is_left_out_of_its_record() -> None:
    """Each column changes the record when it changes."""
    before = batches.event("shop", 1)
    for column in EVENTS:
        after = {**before, column.name: batches.another(before[column.name])}
        assert records(before) != records(after), column.name


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_is_carried_exactly(text: str) -> None:
    """Quotes, control characters, anything."""
    names = ("source", "description", "actor_id", "reason", "request_id", "resource_id", "action", "tenant", "ip")
    (record,) = records({**batches.event("shop", 1), **dict.fromkeys(names, text)})
    unmapped = record["core"]["unmapped"]
    assert {unmapped[name] for name in ("source", "reason", "request_id", "resource_id", "action", "tenant")} == {text}
    assert (record["core"]["message"], record["core"]["actor"]["user"]["uid"]) == (text, text)


def test_nothing_said_is_null() -> None:
    """Every optional column empty at once."""
    empty = {column.name: None for column in EVENTS if "Nullable" in column.clickhouse}
    (record,) = records(batches.event("shop", 1, **empty))
    jsonschema.validate(record, SCHEMA)
    assert record["core"]["actor"] is None
    assert audit_events.events(NO_EVENTS, partitions=4, version="1").values == []


def told(events: pl.DataFrame, form: RouteFormat = RouteFormat.JSON) -> list[bytes]:
    """As a route sends them."""
    router = Router([Route("all", ("#",), "t", format=form)])
    return [value for one in router.event_deliveries(events, lambda _: 4, version="1") for value in one.records.values]


def received(*values: bytes | None) -> Batch:
    count = len(values)
    batch = Receiving().run([Chunk("routed", 3, range(count), [1] * count, [b"k"] * count, list(values), [()] * count)], {}, 0)
    assert batch.rows() == count
    return batch


@pytest.mark.parametrize("form", list(RouteFormat))
@given(data=st.data())
def test_what_a_route_sends_of_an_event_is_read_back_whole(form: RouteFormat, data: st.DataObject) -> None:
    """Every column of every event, whatever its texts; only its place is the route's."""
    text = st.none() | st.text(st.characters(codec="utf-8"), max_size=9)
    optional = [
        *("action", "resource_type", "resource_id", "tenant", "actor_id", "actor_type", "actor_name", "description"),
        *("reason", "request_id", "ip", "session"),
    ]
    events = [
        batches.event(
            "shop",
            at,
            outcome=data.draw(st.sampled_from([None, "success", "failure", "unknown"])),
            payload=data.draw(st.sampled_from([None, "{}", '{"kind":"event","a":[1.50,null]}'])),
            labels=data.draw(st.lists(st.text(max_size=3), max_size=2)),
            **{name: data.draw(text) for name in optional},
        )
        for at in range(3)
    ]
    frame = batches.events_frame(events)
    read = received(*told(frame, form)).events
    place = ("topic", "partition", "offset")
    assert read.drop(place).rows() == frame.drop(place).rows()
    assert read.select(place).rows() == [("routed", 3, at) for at in range(3)]


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("unmapped", "priority", "urgent"), ("unmapped", "payload", [1]), ("unmapped", "tags", "x"), ("unmapped", "type", None),
        ("unmapped", "occurred_at", "yesterday"), ("unmapped", "kind", "change"), ("metadata", "uid", "no"),
    ],
)  # fmt: skip
def test_a_value_that_no_column_of_an_event_holds_makes_its_record_a_letter(where: str, name: str, value: object) -> None:
    """Its neighbours go through."""
    good, other = told(batches.events_frame([batches.event("shop", at) for at in range(2)]))
    record = json.loads(good)
    record["core"][where][name] = value
    batch = received(json.dumps(record, separators=(",", ":")).encode(), other)
    assert [letter.offset for letter in batch.dead_letters] == [0]
    assert batch.events["offset"].to_list() == [1]


def test_changes_and_events_of_one_topic_are_told_apart_in_their_order() -> None:
    """Also a change whose row looks like an event, and an event whose payload looks like a change."""
    events = told(batches.events_frame([batches.event("shop", at, payload='{"operation":"create"}') for at in range(2)]))
    rows = batches.frame([batches.change("shop", 1, after='{"kind":"event"}'), batches.change("shop", 2)])
    one, two = audit.changes(rows, partitions=4, version="1").values
    batch = received(events[0], one, b"{}", events[1], None, two, events[0])
    assert batch.changes["offset"].to_list() == [1, 5]
    assert batch.events["offset"].to_list() == [6, 3]
    assert [letter.offset for letter in batch.dead_letters] == [2]
    assert batch.left_out == {("routed", "tombstone"): 1, ("routed", "repeated"): 1}
    assert audit_reading.changes([events[0], one]).unreadable == [0]


def test_what_comes_again_among_routed_records_is_that_of_its_own_tenant() -> None:
    """One id of two tenants is two events; no tenant and an empty one are one."""
    one, two, three, four = told(
        batches.events_frame([batches.event("shop", 1, tenant=tenant) for tenant in ("acme", "blue", None, "")])
    )
    batch = received(one, three, two, one, four)
    assert batch.events["tenant"].to_list() == ["acme", "", "blue"]
    assert batch.left_out == {("routed", "repeated"): 2}


def test_no_route_may_feed_a_topic_of_events() -> None:
    """What a route sends would come back as no event."""
    for topic in ("chronicle.events", "chronicle.events.web"):
        with pytest.raises(ConfigError, match="one of Chronicle's own"):
            fed(Kafka(), [Route("a", ("#",), topic)], ["shop"])


def deliver(routes: Sequence[Route], *events: dict[str, Any]) -> dict[str, int]:
    made = Router(routes).event_deliveries(batches.events_frame(events), lambda _: 4, version="1")
    return {one.topic: len(one.records.values) for one in made}


def test_routes_take_events_by_their_type_and_labels() -> None:
    """A condition is about a table's columns: such a route takes no event."""
    routes = [
        Route("a", ("security.#",), "security"),
        Route("b", ("#",), "everything"),
        Route("c", ("#",), "conditional", where="x = 1"),
        Route("d", ("#",), "labelled", labels=("big",)),
        Route("e", ("shop.*.*.*",), "tables"),
    ]
    made = deliver(routes, batches.event("shop", 1), batches.event("shop", 2, type="order.placed", labels=["big"]))
    assert made == {"security": 1, "everything": 2, "labelled": 1}


def test_a_sampled_route_takes_an_event_or_not_whenever_it_comes() -> None:
    """By event id, a share of them."""
    events = [batches.event("shop", at) for at in range(1000)]
    made = [deliver([Route("a", ("#",), "some", sample=0.3)], *events)["some"] for _ in range(2)]
    assert made[0] == made[1]
    assert 200 < made[0] < 400


def test_a_cloudevent_is_named_as_its_record_and_has_type_and_source() -> None:
    """`data` is the audit record; what has one source and id is one event to CloudEvents, so the id has tenant and type."""
    route = Route("a", ("#",), "t", format=RouteFormat.CLOUDEVENTS)
    frame = batches.events_frame([batches.event("shop", 1)])
    (delivery,) = Router([route]).event_deliveries(frame, lambda _: 4, version="1.2.3")
    (enveloped,) = map(json.loads, delivery.records.values)
    assert enveloped["data"] == records(batches.event("shop", 1))[0]
    assert (enveloped["source"], enveloped["type"]) == ("/chronicle/shop", "chronicle.security.login")
    assert enveloped["id"] == f"event:shop::security.login:{enveloped['data']['core']['metadata']['uid']}"


def test_the_published_example_fits_the_published_schema() -> None:
    """An example that does not validate misleads."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(EXAMPLE.read_text(encoding="utf-8")), SCHEMA)
