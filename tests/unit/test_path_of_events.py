"""Events through the pure path: three wire forms that agree, exact refusals, the policy on everything that leaves."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path as File
from typing import Any
from uuid import UUID

import fastavro
import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.codec import events as codec
from chronicle.events import event as contract
from chronicle.events.catalogue import Catalogue
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk, SourceSpec
from chronicle.model.dead_letters import LIMITS, Limits, Reason, Stage
from chronicle.model.event_columns import EVENTS, NO_EVENTS
from chronicle.policy.file import parse
from chronicle.stages import events as stages_events
from chronicle.stages.decode import Schemas
from chronicle.stages.events import EventRules
from chronicle.stages.path import Path
from chronicle.testing import chunks, rules
from tests.unit.test_path import SCHEMAS, created

KEY = b"k" * 32
ROOT = File(__file__).parents[2]
AVSC = json.loads((ROOT / "schemas" / "events" / "event.avsc").read_text())
SCHEMA_ID, STRING_ID, OTHER_ID = 7, 8, 9
TEXTS = {
    SCHEMA_ID: json.dumps(AVSC),
    STRING_ID: '"string"',
    OTHER_ID: '{"type":"record","name":"X","fields":[{"name":"id","type":"string"}]}',
}
SCHEMA = fastavro.parse_schema(AVSC)
AT_MS = 1_770_000_000_000
CLEAR = parse('[[events]]\nmatch = "**"\ncolumns = { "payload.*" = "clear" }\n')
ID = "5f0c0f6e-7f0e-4a53-9b7c-3a5e2f1d9c10"
LOGIN: Mapping[str, Any] = {
    "id": ID,
    "type": "security.login",
    "time": "2026-02-01T00:00:40.000000Z",
    "source": "shop",
    "actor": {"id": "ann", "type": "user", "name": "Ann"},
    "action": "login",
    "resource_type": "user",
    "resource_id": "1042",
    "outcome": "success",
    "description": "Ann came",
    "payload": {"method": "passkey", "tries": [1, {"ok": True}]},
    "tags": {"attempts": 1, "beta": True},
    "request_id": "r-1",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "reason": "why",
    "ip": "203.0.113.7",
    "session": "s-19",
    "tenant": "acme",
    "partition_key": "p",
    "priority": "high",
}


def as_json(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def framed(schema_id: int, datum: Any, schema: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, datum)
    return b"\0" + schema_id.to_bytes(4, "big") + out.getvalue()


def as_avro(event: Mapping[str, Any]) -> bytes:
    payload = event.get("payload")
    return framed(SCHEMA_ID, {**event, "payload": None if payload is None else as_json(payload).decode()}, SCHEMA)


def as_string(event: Mapping[str, Any]) -> bytes:
    return framed(STRING_ID, as_json(event).decode(), "string")


def chunk(values: Sequence[bytes | None], topic: str = "chronicle.events", first: int = 0) -> Chunk:
    count = len(values)
    offsets = list(range(first, first + count))
    return Chunk(topic, 0, offsets, [AT_MS] * count, [b"\0any key"] * count, list(values), [()] * count)


def run(*values: bytes | None, policy: Any = CLEAR, strict: bool = False, limits: Limits = LIMITS) -> Batch:
    path = Path([], KEY, rules(policy), limits, events=EventRules(strict=strict))
    batch = path.run([chunk(values)], TEXTS, AT_MS * 1000)
    assert batch.rows() == len(values)
    return batch


def one(**fields: Any) -> dict[str, Any]:
    """A small event."""
    return {"source": "shop", "type": "order.placed", **fields}


def reasons(batch: Batch) -> list[tuple[int, Reason]]:
    return sorted((letter.offset, letter.reason) for letter in batch.dead_letters)


# --- wire


def test_the_three_forms_of_the_wire_are_one_event() -> None:
    """JSON, Avro under event.avsc and an Avro string that holds the JSON differ in nothing but their offsets."""
    events = [LOGIN, one(), one(actor="bob", tags={"a": 1.5, "b": "x", "c": None}), one(payload={}), one(actor={"id": "a"})]
    whole = [
        {**event, "id": str(UUID(int=at + 1)), "time": LOGIN["time"], "tags": event.get("tags", {})}
        for at, event in enumerate(events)
    ]
    batches = [run(*map(form, whole)) for form in (as_json, as_avro, as_string)]
    assert [len(batch.events) for batch in batches] == [len(events)] * 3
    assert batches[0].events.rows() == batches[1].events.rows() == batches[2].events.rows()


@given(st.data())
def test_what_an_event_says_does_not_depend_on_its_form(data: st.DataObject) -> None:
    """Whatever the texts are."""
    text = st.text(st.characters(codec="utf-8"), max_size=20)
    optional = ("action", "resource_type", "resource_id", "description", "request_id", "reason", "ip", "session", "tenant")
    scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), text)
    event = one(
        id=str(data.draw(st.uuids())),
        time="1999-12-31T23:59:59.5+02:00",
        tags=data.draw(st.dictionaries(text, scalars, max_size=4)),
        payload=data.draw(st.none() | st.dictionaries(text, scalars | st.lists(scalars, max_size=3), max_size=4)),
        **data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(optional, text))),
    )
    first, second, third = (run(form(event)).events.rows(named=True) for form in (as_json, as_avro, as_string))
    assert first == second == third
    assert len(first) == 1


def test_all_columns_are_told() -> None:
    """Nothing that an event says is lost on the way to its row."""
    (row,) = run(as_json(LOGIN)).events.rows(named=True)
    assert list(row) == [column.name for column in EVENTS]
    assert row["event_id"] == UUID(ID).bytes
    assert (row["actor_id"], row["actor_type"], row["actor_name"]) == ("ann", "user", "Ann")
    assert (row["trace_id"], row["span_id"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    assert json.loads(row["payload"]) == LOGIN["payload"]
    assert json.loads(row["tags"]) == LOGIN["tags"]
    told = {name: row[name] for name in ("source", "type", "action", "outcome", "reason", "ip", "tenant", "priority")}
    assert told == {name: LOGIN[name] for name in told}
    assert row["violations"] == ["unknown_type"]


def test_an_event_without_id_and_time_has_those_of_its_record() -> None:
    """The same on every redelivery; another record's are other ones."""
    first, again = run(as_json(one()), as_json(one())), run(as_json(one()))
    ids = first.events["event_id"].to_list()
    assert ids[0] == again.events["event_id"][0] != ids[1]
    assert first.events["time"].dt.epoch("ms").to_list() == [AT_MS] * 2


@pytest.mark.parametrize(
    ("value", "reason", "stage"),
    [
        (b"garbage", Reason.WRONG_FRAME, Stage.DECODE),
        (b"", Reason.WRONG_FRAME, Stage.DECODE),
        (b"\0\0", Reason.WRONG_FRAME, Stage.DECODE),
        (b"{", Reason.NOT_DECODABLE, Stage.DECODE),
        (b'{"source":"s","type":"a"}{}', Reason.NOT_DECODABLE, Stage.DECODE),
        (b'{"source":"s","type":"a"}]\n[{"source":"s","type":"b"}', Reason.NOT_DECODABLE, Stage.DECODE),
        (b'{"source":"s","type":"a","payload":{"x":"\xff"}}', Reason.NOT_DECODABLE, Stage.DECODE),
        (b'{"source":"s","type":"a","payload":{"x":"\\ud800"}}', Reason.NOT_DECODABLE, Stage.DECODE),
        (b'{"source":"s","type":"a","payload":' + b'{"x":' * 5_000 + b"1" + b"}" * 5_001, Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"type":"a"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a b"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","id":"7"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","time":"yesterday"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","time":"2026-02-30T00:00:00Z"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","time":"2500-01-01T00:00:00Z"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","outcome":"maybe"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","nobody_knows":1}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","payload":[]}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","payload":{"n":123456789012345678901234567890}}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","traceparent":"00-x"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","reason":"' + b"x" * 1025 + b'"}', Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (b'{"source":"s","type":"a","reason":"' + b"x" * contract.EVENT_BYTES_MAX + b'"}', Reason.TOO_LARGE, Stage.DECODE),
        (b"\0\0\0\0\x07zz", Reason.NOT_DECODABLE, Stage.DECODE),
        (b"\0\0\0\0\x63zz", Reason.UNKNOWN_SCHEMA, Stage.DECODE),
        (framed(OTHER_ID, {"id": "x"}, json.loads(TEXTS[OTHER_ID])), Reason.NOT_AN_EVENT, Stage.VALIDATE),
        (framed(STRING_ID, "no JSON", "string"), Reason.NOT_DECODABLE, Stage.DECODE),
    ],
)  # fmt: skip
def test_what_is_no_event_is_a_dead_letter_and_its_neighbours_go_through(value: bytes, reason: Reason, stage: Stage) -> None:
    """One letter, with the original bytes, whose text holds nothing of the record."""
    batch = run(as_json(LOGIN), value, as_json(LOGIN))
    (letter,) = batch.dead_letters
    assert (letter.offset, letter.reason, letter.stage, letter.value) == (1, reason, stage, value)
    assert "nobody_knows" not in letter.detail
    assert "yesterday" not in letter.detail
    assert batch.events["offset"].to_list() == [0, 2]


def test_a_tombstone_is_left_out() -> None:
    """An event is never taken back."""
    assert run(None, as_json(LOGIN)).left_out == {("chronicle.events", "tombstone"): 1}


def test_a_record_beyond_the_workers_limit_is_not_looked_at() -> None:
    """Whatever is in it."""
    batch = run(b"x" * 2_000, as_json(one()), limits=Limits(record=1_000))
    assert reasons(batch) == [(0, Reason.TOO_LARGE)]
    assert len(batch.events) == 1


@given(
    st.lists(
        st.sampled_from(
            [b'{"source":"s","type":"a"', b"}", b"]", b"[", b"\n", b",", b'{"payload":', b'"x":', b"1", b"{}", b" "]
        ),
        max_size=6,
    )
)
def test_no_two_records_are_read_as_one_nor_one_as_two(parts: list[bytes]) -> None:
    """Whatever pieces of JSON stand in neighbouring records, each is an event exactly if it is one alone."""
    values = [b"{" + part if part[:1] != b"{" else part for part in parts] + [b'{"source":"s","type":"a"}']
    together = codec.read(values)
    alone = [index for index, value in enumerate(values) if not codec.read([value]).refused]
    assert together.rows.tolist() == alone


SEEDS = [as_json(LOGIN), as_json(one()), as_json(one(time="2026-02-01T00:00:40+00:00", payload={"a": [[[1]]]}))]


@given(st.sampled_from(SEEDS), st.integers(0, 400), st.binary(max_size=4), st.integers(0, 3))
def test_the_columns_accept_exactly_what_the_contract_accepts(seed: bytes, at: int, put: bytes, cut: int) -> None:
    """The look at columns is quick, never more generous and never stricter than `events.event` is."""
    value = seed[:at] + put + seed[at + cut :]
    found = codec.read([value])
    try:
        given_event = contract.decoded(value)
        whole = contract.completed(given_event, id=ID, time="2026-01-01T00:00:00Z")
        contract.encoded(whole)
    except contract.EventRefused:
        assert found.refused
        return
    assert not found.refused
    (row,) = found.frame.rows(named=True)
    assert (row["type"], row["source"], row["description"]) == (whole.type, whole.source, whole.description)
    assert row["id"] == (whole.id if given_event.id else "")


# --- policy


POLICY = """
[context]
ip = { class = "generalize", to = "net:24" }
session = "token"
reason = "drop"
[[events]]
match = "security.**"
label = ["security", "access"]
[events.columns]
payload.method = "clear"
"payload.user_*" = "token"
payload.card = { class = "mask", keep = 4 }
payload.note = { class = "clear", scan = ["email"] }
payload.amount = { class = "generalize", to = "bucket:100" }
payload.born = { class = "generalize", to = "year" }
payload.at = { class = "generalize", to = "hour" }
payload.gone = "drop"
payload.more = "clear"
description = { class = "clear", scan = ["email"] }
[[events]]
match = "security.noise.*"
skip = true
[[events]]
match = "security.noise.alarm"
source = "shop"
skip = false
columns = { resource_id = "token" }
"""


def payload(event: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    (row,) = run(as_json(event), **{"policy": parse(POLICY), **settings}).events.rows(named=True)
    found: dict[str, Any] = json.loads(row["payload"])
    return found


def login(**fields: Any) -> dict[str, Any]:
    return one(type="security.login", payload=fields)


def test_each_treatment_makes_of_a_payload_what_it_makes_of_a_column() -> None:
    """Null stays null, numbers stay numbers, what has no coarser value is filtered."""
    made = payload(login(method={"a": None}, card=4111111111111111, note="write to a@example.com", amount=1234,
                         born="1987-06-05", at="2026-05-06T07:08:09Z", gone="x", more=None))  # fmt: skip
    assert made == {"method": {"a": None}, "card": "****1111", "note": "write to [EMAIL]", "amount": 1200, "born": "1987-01-01",
                    "at": "2026-05-06T07:00:00.000000Z", "more": None}  # fmt: skip
    hidden = payload(login(amount="many", born=True, at=[1], card={"number": "4111"}))
    assert hidden == {"amount": "[FILTERED]", "born": "[FILTERED]", "at": "[FILTERED]", "card": "****"}
    assert payload(login(amount=-12.5, card=True)) == {"amount": -100.0, "card": "****"}


def test_equal_values_have_equal_tokens_whatever_their_type_and_escapes() -> None:
    """A token joins events with the columns of tables."""
    text = b'{"source":"shop","type":"security.login","payload":{"user_id":42,"user_name":"42","user_x":"\\u0034\\u0032"}}'
    (row,) = run(text, policy=parse(POLICY)).events.rows(named=True)
    made = json.loads(row["payload"])
    assert len(set(made.values())) == 1
    assert "42" not in made["user_id"]


def test_a_field_that_nobody_names_is_hidden_and_counted() -> None:
    """Its name stays where it looks like a name; one that could be a value goes as well."""
    event = login(method="x", city="Paris", **{"ada@example.com": 1, "4111111111111111": 2, "nothing": None})
    batch = run(as_json(event), policy=parse(POLICY))
    made = json.loads(batch.events["payload"][0])
    assert made == {"method": "x", "city": "[FILTERED]", "[FILTERED]": "[FILTERED]", "nothing": None}
    assert batch.unclassified == {"events:security.login": 4}
    assert not any("ada" in warning or "city" in warning for warning in batch.warnings)


def test_what_is_remembered_of_names_is_bounded_over_all_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types and names come from applications: one that makes them up fills no memory, and its events stay as they are."""
    monkeypatch.setattr(stages_events, "NAMES_MAX", 100)
    events = stages_events.Events(EventRules(), rules(CLEAR), Schemas(LIMITS), KEY)
    for number in range(50):
        payload = {f"n{number}_{at}": at for at in range(10)}
        told = events.run([chunk([as_json(one(type=f"made.up{number}", payload=payload))])], {}, AT_MS * 1000)
        assert json.loads(told.events["payload"][0]) == payload
        assert sum(len(plan._members) for plan in events._plans.values()) <= 100


def test_a_schemas_class_holds_where_the_policy_says_nothing() -> None:
    """The policy wins; a secret name wins over both."""
    schema = {"type": "record", "name": "x", "fields": [
        {"name": "size", "type": "long", "chronicle.class": "clear"},
        {"name": "who", "type": "string", "chronicle.class": "token"},
        {"name": "password", "type": "string", "chronicle.class": "clear"},
        {"name": "method", "type": "string", "chronicle.class": "redact"},
    ]}  # fmt: skip
    catalogue = Catalogue.shipped().extended({"security.login": json.dumps(schema)})
    path = Path([], KEY, rules(parse(POLICY)), events=EventRules(catalogue=catalogue))
    event = login(size=3, who="ann", password="p", method="key")
    batch = path.run([chunk([as_json(event)])], {}, 0)
    made = json.loads(batch.events["payload"][0])
    assert (made["size"], made["password"], made["method"]) == (3, "[FILTERED]", "key")
    assert "ann" not in made["who"]
    assert made["who"] != "[FILTERED]"
    assert batch.unclassified == {}


def test_secret_names_win_at_any_depth_of_payload_and_tags() -> None:
    """Also written with escapes, in lists, and beside a text that looks like a name."""
    event = login(more={"a": [{"pass\u0077ord": "p1", ":pin": "p2", "x": 'quo"te":'}]}, method='[{"password":')
    text = as_json({**event, "tags": {"api_key": "t1", "deep": {"secret": ["t2"]}, "n": 1}})
    text = text.replace(b'"password":"p1"', b'"p\\u0061ssword":"p1"')
    (row,) = run(text, policy=parse(POLICY)).events.rows(named=True)
    assert json.loads(row["payload"])["more"] == {"a": [{"password": "[FILTERED]", ":pin": "[FILTERED]", "x": 'quo"te":'}]}
    assert json.loads(row["tags"]) == {"api_key": "[FILTERED]", "deep": {"secret": "[FILTERED]"}, "n": 1}


def test_who_did_it_follows_context_and_the_type_its_own_block() -> None:
    """As in a context of a transaction; skip of the more specific block wins, for the application that it names."""
    event = one(
        type="security.noise.alarm", ip="10.1.2.3", session="s", reason="r", description="to a@example.com", resource_id="7"
    )
    batch = run(as_json(event), as_json({**event, "source": "hiring"}), policy=parse(POLICY))
    (row,) = batch.events.rows(named=True)
    assert (row["ip"], row["reason"], row["description"]) == ("10.1.2.0/24", None, "to [EMAIL]")
    assert row["session"] not in (None, "s")
    assert row["resource_id"] not in (None, "7")
    assert row["labels"] == ["access", "security"]
    assert row["policy"] == parse(POLICY).hash
    assert batch.left_out == {("chronicle.events", "skipped"): 1}


@pytest.mark.parametrize(("word", "tags"), [("redact", '{"tags":"[FILTERED]"}'), ("drop", None), ("clear", '{"a":1}')])
def test_tags_are_hidden_as_a_whole(word: str, tags: str | None) -> None:
    """An object all the same, or nothing."""
    batch = run(as_json(one(tags={"a": 1})), as_json(one()), policy=parse(f'[context]\ntags = "{word}"\n'))
    assert batch.events["tags"].to_list() == [tags, None]


def test_a_policy_that_wants_unnamed_fields_refused_gets_dead_letters() -> None:
    """As for the columns of a table."""
    policy = parse('[defaults]\nunclassified = "deadletter"\n')
    batch = run(as_json(login(x=1)), as_json(login()), policy=policy)
    assert reasons(batch) == [(0, Reason.UNCLASSIFIED)]
    assert len(batch.events) == 1


def test_strict_mode_refuses_what_open_mode_marks() -> None:
    """Unknown types and payloads that do not fit; the letter says what, never a value."""
    known = next(type_ for type_ in Catalogue.shipped().types if Catalogue.shipped().columns(type_))
    values = [as_json(one(type="no.such.type")), as_json(one(type=known, payload={"surprise": "value"}))]
    marks = run(*values).events["violations"].to_list()
    assert marks[0] == ["unknown_type"]
    assert marks[1]
    refused = run(*values, strict=True)
    assert reasons(refused) == [(0, Reason.CONTRACT_BROKEN), (1, Reason.CONTRACT_BROKEN)]
    assert [letter.detail for letter in refused.dead_letters] == [", ".join(one) for one in marks]
    assert "surprise" not in refused.dead_letters[1].detail


SECRET = "Zx9QwertyuiopSecret"
_scalar = st.one_of(st.none(), st.booleans(), st.integers(-999, 999), st.just(SECRET), st.just(f"a {SECRET} b"))
_value = st.recursive(
    _scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner), max_leaves=5
)
_CLASSES = (
    *('"redact"', '"drop"', '"token"', '{ class = "mask", keep = 3 }'),
    *(f'{{ class = "generalize", to = "{to}" }}' for to in ("month", "bucket:10", "domain")),
)
_WHO = ("actor_id", "actor_name", "request_id", "reason", "ip", "session", "tenant")


@given(st.dictionaries(st.sampled_from(["x", "y", "z", "card"]), _value), st.sampled_from(_CLASSES), st.booleans())
def test_no_output_holds_a_protected_value(values: dict[str, Any], class_: str, strict: bool) -> None:
    """Neither events nor letters, warnings or counts, whatever the class and wherever in the payload it stands."""
    lines = ["[context]", *(f'{name} = "token"' for name in _WHO), 'tags = "redact"', "[[events]]", 'match = "**"']
    columns = f'"payload.x" = {class_}, "payload.y" = {class_}, resource_id = "token", description = "redact"'
    policy = parse("\n".join([*lines, f"columns = {{ {columns} }}"]))
    texts = dict.fromkeys(("request_id", "reason", "ip", "session", "tenant", "resource_id", "description"), SECRET)
    event = one(payload=values, tags={"a": SECRET}, actor={"id": SECRET, "name": SECRET}, **texts)
    batch = run(as_json(event), as_avro({**event, "id": ID, "time": LOGIN["time"]}), policy=policy, strict=strict)
    shown = [str(batch.events.rows()), str(batch.warnings), str(batch.unclassified)]
    shown += [f"{letter!r} {letter.detail}" for letter in batch.dead_letters]
    assert not any(SECRET in text for text in shown)


def test_payload_members_keep_their_order_and_the_last_of_two_of_one_name() -> None:
    """The same event gives the same bytes."""
    text = b'{"source":"s","type":"security.login","payload":{"more":1,"note":2,"method":3,"gone":0,"more":4}}'
    made = [run(text, policy=parse(POLICY)).events["payload"][0] for _ in range(3)]
    assert made == ['{"more":4,"note":2,"method":3}'] * 3


# --- beside changes


def test_events_and_changes_of_one_batch_do_not_touch_each_other() -> None:
    """Each record is accounted for once, and a topic of events is never a source's."""
    path = Path(
        [SourceSpec("shop", "postgresql", full_identity=None), SourceSpec("chronicle", "postgresql")], KEY, rules(CLEAR)
    )
    mixed = [
        *chunks([created(1)]),
        chunk([as_json(LOGIN), b"no"]),
        chunk([as_json(one())], "chronicle.events.web"),
        *chunks([created(2)]),
    ]
    batch = path.run(mixed, {**{id_: json.dumps(one) if not isinstance(one, str) else one for id_, one in SCHEMAS.items()}}, 0)
    assert (len(batch.changes), len(batch.events), len(batch.dead_letters), batch.rows()) == (2, 2, 1, 5)
    assert batch.events["topic"].to_list() == ["chronicle.events", "chronicle.events.web"]


def test_a_batch_without_events_shares_one_empty_frame() -> None:
    """Changes pay nothing for events."""
    assert Path([], KEY, rules(CLEAR)).run([], {}, 0).events is NO_EVENTS


def test_only_values_name_schemas() -> None:
    """A key is any bytes."""
    path = Path([], KEY, rules(CLEAR))
    assert path.schema_ids([chunk([as_avro({**LOGIN}), as_json(LOGIN), None])]) == {SCHEMA_ID}


_GARBAGE = st.one_of(
    st.none(), st.binary(max_size=40), st.sampled_from([b"{}", b"\0\0\0\0\x07", b"\0\0\0\0\x08\x02{", as_json(LOGIN)])
)


@given(st.lists(_GARBAGE))
def test_garbage_of_any_kind_is_accounted_for(values: list[bytes | None]) -> None:
    """Bytes that nobody meant for us."""
    run(*values)


def test_the_columns_of_the_frame_are_those_of_the_table() -> None:
    """Types, too, for a batch whatever is in it."""
    assert run(as_json(LOGIN)).events.schema == pl.Schema({column.name: column.dtype for column in EVENTS})
    assert msgspec.json.decode(run(as_json(one(payload={}))).events["payload"][0]) == {}
