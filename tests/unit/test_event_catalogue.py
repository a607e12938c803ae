"""The catalogue: marks of what does not fit, the fast look and the exact one, and a deployment's own types."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronicle.events.avro import example_of
from chronicle.events.catalogue import CLASSES, Catalogue
from chronicle.events.compiled import type_of
from chronicle.events.event import Event, EventRefused
from chronicle.events.shapes import SchemaRefused, marks, record_of
from chronicle.events.types import TYPES, payload_of
from chronicle.policy.rules import Class

SHIPPED = Catalogue.shipped()


def own(*fields: dict[str, Any], **more: Any) -> Catalogue:
    """A catalogue with one type, `report.read`, of these fields."""
    return SHIPPED.extended({"report.read": json.dumps({"type": "record", "name": "read", "fields": fields, **more})})


def problems(catalogue: Catalogue, payload: dict[str, Any] | None, type: str = "report.read") -> tuple[str, ...]:
    """Of one payload; as a value and as a text it has the same."""
    found = catalogue.problems(Event(type=type, payload=payload))
    text = None if payload is None else json.dumps(payload)
    assert catalogue.marks([type], [text]) == ({0: found} if found else {})
    return found


@pytest.mark.parametrize("type", sorted(TYPES))
def test_the_example_of_a_shipped_type_fits(type: str) -> None:
    """As a value, as a text, and as the Struct it was made of."""
    payload = payload_of(type)
    value = example_of(payload)
    assert problems(SHIPPED, value, type) == ()
    assert msgspec.convert(value, payload).fields() == value
    assert problems(SHIPPED, {**value, "unheard_of": 1}, type) == ("unknown_fields:payload:1",)


@pytest.mark.parametrize("type", sorted(TYPES))
@settings(max_examples=20)  # of each type
@given(data=st.data())
def test_the_struct_and_the_schema_of_a_type_accept_the_same(type: str, data: st.DataObject) -> None:
    """A program that builds the Struct, and a client that reads the schema, are judged alike."""
    value = example_of(payload_of(type))
    for name in data.draw(st.lists(st.sampled_from(sorted(value)), max_size=3)):
        value[name] = data.draw(st.sampled_from([None, True, 7, 1.5, "x", [], ["x"], [1], {}, {"a": 1}, 2**40, "2026-01-01"]))
    for name in data.draw(st.lists(st.sampled_from(sorted(value)), max_size=2)):
        value.pop(name, None)
    try:
        msgspec.convert(value, payload_of(type))
        fits = True
    except msgspec.ValidationError:
        fits = False
    assert fits == (problems(SHIPPED, value, type) == ())


def test_marks_name_what_the_schema_names_and_count_the_rest() -> None:
    """A field's unknown name may be a secret; so may any value."""
    payload = {"status": "canary1", "canary2": 1, "canary3": {"canary4": []}, "allowed": 3}
    found = problems(SHIPPED, payload, "http.response.sent")
    assert found == ("missing:payload.method", "wrong_type:payload.status", "unknown_fields:payload:3")
    assert SHIPPED.problems(Event(type="canary.type", payload=payload)) == ("unknown_type",)
    assert SHIPPED.marks(["canary.type", "log.info"], ["{}", None]) == {0: ("unknown_type",)}


def test_no_payload_is_an_empty_one() -> None:
    """What must be there is missing then; where nothing must be, nothing is."""
    assert problems(SHIPPED, None, "log.info") == ()
    assert problems(SHIPPED, None, "http.route.not_found") == ("missing:payload.method",)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", '{"a":1}{', '{"line":1},{"line":2}', "[" * 5000, "\ud800", '"x"'])
def test_a_text_that_is_no_object_does_not_fit(text: str) -> None:
    """However it is broken; the rows beside it are looked at for themselves."""
    expected = {} if text == "" else {1: ("wrong_type:payload",)}
    if text == '{"a":1}{':
        expected = {1: ("wrong_type:payload",)}
    assert SHIPPED.marks(["log.info"] * 3, ['{"line":1}', text, "{}"]) == expected


def test_strict_mode_refuses_with_all_marks() -> None:
    """In one message, without a value."""
    SHIPPED.refuse(Event(type="http.route.not_found", payload={"method": "GET"}))
    with pytest.raises(EventRefused, match=r"^type: there is no such type"):
        SHIPPED.refuse(Event(type="http.route.notfound"))
    with pytest.raises(EventRefused, match=r"^payload: wrong_type:payload.method, unknown_fields:payload:1$"):
        SHIPPED.refuse(Event(type="http.route.not_found", payload={"method": 1, "canary": 2}))


def test_a_type_knows_its_classes_and_columns() -> None:
    """What a policy needs of it; an unknown type has neither."""
    assert SHIPPED.classes("attachment.removed") == {
        "on_type": "clear",
        "on_id": "clear",
        "file_name": "mask",
        "cause": "clear",
    }
    assert SHIPPED.columns("attachment.removed") == ("on_type", "on_id", "file_name", "cause")
    assert SHIPPED.classes("nothing.known") == {}
    with pytest.raises(KeyError):
        SHIPPED.columns("nothing.known")
    assert set(CLASSES) == {*Class} - {Class.GENERALIZE}
    catalogue = own({"name": "a", "type": "string", "chronicle.class": "token"}, {"name": "b", "type": "string"})
    assert catalogue.classes("report.read") == {"a": "token"}
    assert catalogue.known("report.read") and not SHIPPED.known("report.read")
    assert set(catalogue.types) == {*TYPES, "report.read"}


TYPED: list[tuple[Any, list[Any], list[Any]]] = [
    ("null", [None], [0, "", False]),
    ("boolean", [True, False], [0, "true", None]),
    ("int", [0, -(2**31), 2**31 - 1], [2**31, -(2**31) - 1, 1.0, True, "1", None]),
    ("long", [2**63 - 1, -(2**63)], [2**63, -(2**63) - 1, 0.5, False]),
    ("float", [0, 1.5, 10**30], ["1", True]),
    ("double", [0.1, -1, 2**80], [None, []]),
    ("string", ["", "\0", "😀"], [1, b"x".hex, None][0:1]),
    ("bytes", ["", "YWJj"], ["a", "YWJ!", 1]),
    ({"type": "fixed", "name": "F", "size": 3}, ["YWJj"], ["YWI=", "", 3]),
    ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, ["A"], ["a", "", 0, None]),
    ({"type": "string", "logicalType": "uuid"}, ["5f0c0f6e-7f0e-4a53-9b7c-3a5e2f1d9c10"], ["5f0c", 1]),
    ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, ["12.30", 12, 1.5], ["x", "NaN", None, True]),
    ({"type": "int", "logicalType": "date"}, ["2026-02-28"], ["2026-02-29", 20000, "2026-02-28T00:00:00Z"]),
    ({"type": "int", "logicalType": "time-millis"}, ["12:00:00.5"], ["25:00:00", "12:00:00Z", 5]),
    ({"type": "long", "logicalType": "timestamp-millis"}, ["2026-02-01T00:00:00Z"], ["2026-02-01T00:00:00", 1767225600000, ""]),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, ["2026-02-01T00:00:00"], ["2026-02-01T00:00:00Z", 1]),
    ({"type": "long", "logicalType": "no-such-type"}, [1], ["x"]),
    ({"type": "array", "items": "int"}, [[], [1, 2]], [[1, "x"], {}, "x", None]),
    ({"type": "map", "values": ["null", "int"]}, [{}, {"a": 1, "b": None}], [{"a": "x"}, []]),
    (["null", "string"], [None, "x"], [1]),
    (["null", "long", "string"], [None, 1, "x"], [1.5, [], True]),
    (["string", {"type": "long", "logicalType": "timestamp-micros"}], ["x", "2026-02-01T00:00:00Z"], [1, None]),
    ([{"type": "array", "items": "int"}, {"type": "map", "values": "int"}], [[1], {"a": 1}], [["x"], {"a": "x"}, 1]),
    ({"type": {"type": "string"}}, ["x"], [1]),
    (
        {"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]},
        [{"x": 1}],
        [{}, {"x": "a"}, {"x": 1, "y": 2}, []],
    ),
]


@pytest.mark.parametrize(("schema", "good", "bad"), TYPED)
def test_a_field_takes_what_its_avro_type_is_in_json(schema: Any, good: list[Any], bad: list[Any]) -> None:
    """Whole numbers within their bits, texts for logical types, and nothing that only looks like it."""
    catalogue = own({"name": "v", "type": schema})
    for value in good:
        assert problems(catalogue, {"v": value}) == (), value
    for value in bad:
        found = problems(catalogue, {"v": value})
        assert found and all(one.partition(":")[2].startswith("payload.v") for one in found), value


def test_a_field_may_be_absent_when_it_has_a_default_or_may_be_null() -> None:
    """What is not said is absent, in JSON."""
    catalogue = own(
        {"name": "must", "type": "int"},
        {"name": "may", "type": ["null", "int"]},
        {"name": "default", "type": "int", "default": 7},
        {"name": "null", "type": "null"},
    )
    assert problems(catalogue, {"must": 1}) == ()
    assert problems(catalogue, {}) == ("missing:payload.must",)
    assert problems(catalogue, {"must": 1, "default": None}) == ("wrong_type:payload.default",)


def test_places_inside_are_named_by_the_schema() -> None:
    """Records in lists in maps; the name of a map's entry is a value."""
    line = {
        "type": "record",
        "name": "Line",
        "fields": [{"name": "sku", "type": "string"}, {"name": "n", "type": ["null", "int"]}],
    }
    catalogue = own({"name": "boxes", "type": {"type": "map", "values": {"type": "array", "items": line}}})
    payload = {"boxes": {"canary": [{"sku": "a"}, {"n": "x", "canary": 1}], "canary2": [{}]}}
    assert problems(catalogue, payload) == (
        "missing:payload.boxes[][].sku",
        "wrong_type:payload.boxes[][].n",
        "unknown_fields:payload.boxes[][]:1",
    )


def test_a_schema_that_holds_itself_is_looked_into() -> None:
    """A tree is as deep as its values."""
    node = {
        "type": "record",
        "name": "Node",
        "namespace": "tree",
        "fields": [
            {"name": "label", "type": "string"},
            {"name": "children", "type": {"type": "array", "items": "Node"}, "default": []},
            {"name": "up", "type": ["null", "tree.Node"], "default": None},
        ],
    }
    catalogue = own({"name": "root", "type": node})
    assert problems(catalogue, {"root": {"label": "a", "children": [{"label": "b", "up": {"label": "c"}}]}}) == ()
    assert problems(catalogue, {"root": {"label": "a", "children": [{"label": "b", "up": {}}]}}) == (
        "missing:payload.root.children[].up.label",
    )


def test_names_of_python_and_of_avro_do_not_meet() -> None:
    """A field may be called as a word of the language, or as anything."""
    names = ["class", "None", "self", "f0", "f1", "__init__", "a-b", "ä"]
    catalogue = own(*({"name": name, "type": "int"} for name in names))
    assert problems(catalogue, dict.fromkeys(names, 1)) == ()
    assert problems(catalogue, {**dict.fromkeys(names, 1), "class": "x"}) == ("wrong_type:payload.class",)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '"string"', "3", '{"type":"int"}', '{"type":"record","name":"a"}', '{"type":"record","fields":[]}'),
        *('{"type":"record","name":"a","fields":[{"name":"x"}]}', '{"type":"record","name":"a","fields":[{"type":"int"}]}'),
        *('{"type":"record","name":"a","fields":[{"name":"x","type":"nosuch"}]}', '{"type":"record","name":"a","fields":3}'),
        '{"type":"record","name":"a","fields":[{"name":"x","type":"int"},{"name":"x","type":"int"}]}',
        '{"type":"record","name":"a","fields":[{"name":"x","type":"int","chronicle.class":"secret"}]}',
        '{"type":"record","name":"a","fields":[{"name":"x","type":"int","chronicle.class":["clear"]}]}',
        '{"type":"record","name":"a","fields":[{"name":"x","type":' + '{"type":' * 3000 + '"int"' + "}" * 3000 + "}]}",
    ],
)
def test_what_is_no_schema_is_refused_before_the_first_event(text: str) -> None:
    """With the type's name; and the catalogue stays as it was."""
    with pytest.raises(SchemaRefused, match=r"report\.read"):
        SHIPPED.extended({"report.read": text})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["2026-02-01T00:00:00Z", "2026-02-01T00:00:00", "2026-02-01", "12:00:00", "YWJj", "A", "1.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "v", "a"]), inner, max_size=3),
    max_leaves=8,
)


@given(
    schemas=st.lists(st.sampled_from([one for one, _, _ in TYPED]), min_size=1, max_size=3, unique_by=json.dumps),
    value=json_values,
)
def test_the_fast_look_takes_nothing_that_the_exact_one_does_not(schemas: list[Any], value: Any) -> None:
    """Whatever is in the schema and in the payload; and it takes what fits, where there is one."""
    named = [{**one, "name": f"N{at}"} if isinstance(one, dict) and "name" in one else one for at, one in enumerate(schemas)]
    fields = [{"name": f"v{at}", "type": one} for at, one in enumerate(named)]
    record, _ = record_of(json.dumps({"type": "record", "name": "R", "fields": fields}), "R")
    fast = type_of(record)
    payload = {f"v{at}": value for at in range(len(fields))}
    exact = list(marks(record, payload, "payload"))
    if fast is None:
        return
    try:
        msgspec.convert(payload, fast)
    except msgspec.ValidationError:
        big = isinstance(value, int) and not -(2**63) <= value < 2**63
        assert exact or big or _float_like(value)
    else:
        assert exact == []


def _float_like(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def test_a_value_that_json_would_write_fits_as_what_it_is_written() -> None:
    """A program's payload may hold a UUID or a time where the schema has a text."""
    import datetime
    import uuid

    catalogue = own(
        {"name": "who", "type": "string"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
    )
    payload = {"who": uuid.uuid4(), "at": datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)}
    assert catalogue.problems(Event(type="report.read", payload=payload)) == ()
    assert catalogue.problems(Event(type="report.read", payload={**payload, "at": object()})) == ("wrong_type:payload",)
