"""Contracts: which writer schemas readers can live with, by Avro's rules and by meaning; and the project's own schemas."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.codec.contract import Break, Contract, breaks, pinned, told
from chronicle.codec.schema import WriterSchema, parse_avro, parse_connect
from chronicle.errors import ConfigError
from tests.unit.envelopes import recorded

FILE = "schemas/shop.public.t-value.avsc"
DEBEZIUM, CONNECT = "io.debezium.time.", "org.apache.kafka.connect.data."
DATE = {"type": "int", "connect.name": DEBEZIUM + "Date"}


def row(*fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Value", "fields": [{"name": one[0], "type": one[1], **dict(one[2:])} for one in fields]}


def envelope(value: dict[str, Any]) -> dict[str, Any]:
    blocks = [{"name": "before", "type": ["null", value]}, {"name": "after", "type": ["null", "Value"]}]
    return {"type": "record", "name": "Envelope", "namespace": "shop.t", "fields": [*blocks, {"name": "op", "type": "string"}]}


def writer(schema: dict[str, Any]) -> WriterSchema:
    return parse_avro(1, json.dumps(schema))


def found(contract: dict[str, Any], written: dict[str, Any]) -> tuple[Break, ...]:
    return breaks(Contract.parse(json.dumps(contract), name=FILE), writer(written))


def decimal(scale: int, precision: int) -> dict[str, Any]:
    parameters = {"scale": str(scale), "connect.decimal.precision": str(precision)}
    return {"type": "bytes", "connect.name": CONNECT + "Decimal", "connect.parameters": parameters}


def words(*allowed: str) -> dict[str, Any]:
    return {"type": "string", "connect.name": "io.debezium.data.Enum", "connect.parameters": {"allowed": ",".join(allowed)}}


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("long", "int", None),
        ("double", "long", None),
        ("bytes", "string", None),
        (["null", "long"], "long", None),
        (["null", "string"], ["string", "null"], None),
        (DATE, DATE, None),
        ("int", DATE, None),
        (decimal(2, 12), decimal(2, 10), None),
        (words("a", "b"), words("a"), None),
        ("int", "long", "it is long, the contract says int"),
        ("long", "string", "it is string, the contract says long"),
        ("long", ["null", "long"], "it may be NULL"),
        (["null", "long"], ["null", "string"], "it is string, the contract says null or long"),
        (DATE, {"type": "int", "connect.name": CONNECT + "Date"}, f"it is {CONNECT}Date, the contract says {DEBEZIUM}Date"),
        (DATE, "int", "it is just int"),
        ({"type": "long", "logicalType": "timestamp-micros"}, "long", "it is just long"),
        (decimal(2, 12), decimal(3, 12), "3 digits after the point"),
        (decimal(2, 12), decimal(2, 14), "up to 14 digits"),
        (words("a", "b"), words("a", "b", "c\\,d"), "it may be c,d"),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "string"}, "it is string"),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, {"type": "enum", "name": "E", "symbols": ["a", "b"]}, "it may be b"),
        ({"type": "fixed", "name": "F", "size": 4}, {"type": "fixed", "name": "F", "size": 8}, "it is 8 bytes"),
    ],
)
def test_a_change_of_type_is_told_by_column(old: Any, new: Any, what: str | None) -> None:
    """What readers can take is no break; what they cannot is named, with what to do."""
    one = found(row(("v", old)), row(("v", new)))
    if what is None:
        assert one == ()
    else:
        assert what in one[0].what and one[0].column.startswith("v")
        assert FILE in one[0].fix


def test_a_column_that_is_gone_breaks_the_contract() -> None:
    """Unless the contract gives a default, or another name by which it is known; other columns are free."""
    contract = row(
        ("id", "long"), ("name", "string"), ("note", "string", ("default", "")), ("mail", "string", ("aliases", ["email"]))
    )
    assert found(contract, row(("id", "long"), ("name", "string"), ("email", "string"), ("more", "bytes"))) == ()
    (one,) = found(contract, row(("id", "long"), ("mail", "string")))
    assert (one.column, one.what) == ("name", "it is gone")
    assert told([one]) == "name: it is gone"


def test_the_row_of_an_envelope_is_what_counts() -> None:
    """On both sides: a contract may be a whole Debezium schema."""
    old, new = row(("id", "long"), ("n", "int")), row(("id", "long"), ("n", "string"))
    for contract in (old, envelope(old)):
        assert found(contract, envelope(old)) == ()
        assert [one.column for one in found(contract, envelope(new))] == ["n"]


def test_records_inside_are_compared_field_by_field() -> None:
    """With the path to the column; by name, wherever a name is defined, and also when a type holds itself."""
    point = {"type": "record", "name": "Point", "namespace": "io.debezium", "fields": [{"name": "x", "type": "double"}]}
    tree: dict[str, Any] = {
        "type": "record",
        "name": "Tree",
        "fields": [{"name": "next", "type": ["null", "Tree"]}, {"name": "n", "type": "int"}],
    }
    contract = row(("a", point), ("b", ["null", "io.debezium.Point"]), ("t", tree))
    assert found(contract, contract) == ()
    other = json.loads(
        json.dumps(contract).replace('"double"', '"string"').replace('"n", "type": "int"', '"n", "type": "long"')
    )
    assert [one.column for one in found(contract, other)] == ["a.x", "b.x", "t.n"]


def test_a_json_schema_is_compared_as_well() -> None:
    """Connect's, which JsonConverter embeds; JSON without a schema promises nothing."""

    def connect(kind: str) -> dict[str, Any]:
        value = {
            "type": "struct",
            "name": "Value",
            "optional": True,
            "fields": [
                {"field": "id", "type": "int64"},
                {"field": "d", "type": kind, "optional": True, "name": DEBEZIUM + "Date"},
            ],
        }
        fields = [{**value, "field": "before"}, {**value, "field": "after"}, {"field": "op", "type": "string"}]
        return {"type": "struct", "name": "Envelope", "fields": fields}

    contract = Contract.parse(json.dumps(row(("id", "long"), ("d", ["null", DATE]))), name=FILE)
    assert breaks(contract, parse_connect(connect("int32"))) == ()
    assert [one.column for one in breaks(contract, parse_connect(connect("string")))] == ["d"]


@pytest.mark.parametrize("name", ["captured_postgres", "captured_mariadb", "captured_mysql", "events_postgres", "events_mysql"])
def test_what_is_pinned_is_kept(name: str) -> None:
    """The schemas of real connectors keep the contract that is taken from them, and miss every column that goes."""
    seen = 0
    for id_, text in recorded(name).schemas.items():
        try:
            contract = Contract.parse(pinned(text), name=FILE)
        except ValueError:
            continue
        parsed = parse_avro(id_, text)
        if parsed.row is None or parsed.kind != "envelope":
            continue
        seen += 1
        fastavro.parse_schema(json.loads(contract.text))
        assert contract.columns == parsed.row.names
        assert breaks(contract, parsed) == ()
        gone = {**json.loads(contract.text), "fields": []}
        assert [one.column for one in breaks(contract, writer(gone))] == list(contract.columns)
    assert seen


@pytest.mark.parametrize(
    "text", ["", "{", '"long"', "[]", '{"type": "record"}', '{"type": "enum", "name": "E", "symbols": ["a"]}']
)
def test_a_contract_that_is_none_is_refused_with_its_file(text: str) -> None:
    """Before the first record."""
    with pytest.raises(ConfigError, match=FILE):
        Contract.parse(text, name=FILE)


# Avro's own reader ----------------------------------------------------------------------------------------------------

PLAIN = ["boolean", "int", "long", "float", "double", "string", "bytes"]
SAMPLES: dict[str, list[Any]] = {
    **{"boolean": [True], "int": [1], "long": [2], "float": [0.5], "double": [0.25], "string": ["a"], "bytes": [b"b"]},
    "null": [None],
}


@st.composite
def types(draw: st.DrawFn, name: str, depth: int = 0) -> Any:
    """A type of a column; named types are named after their place, so that two schemas have the same names."""
    kinds = ["plain"] * 4 + ["union", "enum", "fixed", *(["array", "map", "record"] if depth < 2 else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "union":
        return draw(unions(name, depth))
    return draw(_one(kind, name, depth))


def _one(kind: str, name: str, depth: int) -> st.SearchStrategy[Any]:
    named = st.sampled_from([name, name, name, f"{name}_new"])
    make: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "plain": lambda: st.sampled_from(PLAIN),
        "enum": lambda: st.builds(
            lambda to, symbols, more: {"type": "enum", "name": f"E_{to}", "symbols": symbols, **more},
            named,
            st.lists(st.sampled_from("abc"), min_size=1, unique=True),
            st.just({}),
        ),
        "fixed": lambda: st.builds(
            lambda to, size: {"type": "fixed", "name": f"F_{to}", "size": size}, named, st.integers(1, 2)
        ),
        "array": lambda: types(f"{name}i", depth + 1).map(lambda items: {"type": "array", "items": items}),
        "map": lambda: types(f"{name}v", depth + 1).map(lambda values: {"type": "map", "values": values}),
        "record": lambda: st.builds(lambda to, made: {**made, "name": f"R_{to}"}, named, records(name, depth + 1)),
    }
    return make[kind]()


@st.composite
def unions(draw: st.DrawFn, name: str, depth: int) -> Any:
    kinds = draw(
        st.lists(
            st.sampled_from(["plain", "enum", *(["array", "record"] if depth < 2 else [])]), min_size=1, max_size=2, unique=True
        )
    )
    branches = [draw(_one(kind, f"{name}{at}", depth)) for at, kind in enumerate(kinds)]
    return ["null", *branches] if draw(st.booleans()) or len(branches) == 1 else branches


@st.composite
def records(draw: st.DrawFn, name: str = "", depth: int = 0) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from("xyz"), min_size=1, unique=True))
    fields = []
    for one in names:
        default = draw(st.sampled_from([None, None, "d"]))
        kind = draw(types(f"{name}{one}", depth)) if default is None else "string"
        fields.append({"name": one, "type": kind, **({"default": default} if default is not None else {})})
    return {"type": "record", "name": "Value", "fields": fields}


def samples(schema: Any) -> list[Any]:
    """Values that between them take every branch and every symbol."""
    if isinstance(schema, str):
        return SAMPLES[schema]
    if isinstance(schema, list):
        return [(_branch(one), value) if one != "null" else None for one in schema for value in samples(one)]
    match schema["type"]:
        case "enum":
            return list(schema["symbols"])
        case "fixed":
            return [b"\0" * schema["size"]]
        case "array":
            return [samples(schema["items"])]
        case "map":
            return [{str(at): one for at, one in enumerate(samples(schema["values"]))}]
    columns = {one["name"]: samples(one["type"]) for one in schema["fields"]}
    most = max(map(len, columns.values()))
    return [{name: values[at % len(values)] for name, values in columns.items()} for at in range(most)]


def _branch(schema: Any) -> str:
    return schema if isinstance(schema, str) else schema.get("name", schema["type"])


def read_by_fastavro(written: dict[str, Any], read: dict[str, Any]) -> bool:
    """Whether the reader's schema reads all that may be written."""
    new, old = fastavro.parse_schema(written), fastavro.parse_schema(read)
    for value in samples(written):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, new, value)
        out.seek(0)
        try:
            fastavro.schemaless_reader(out, new, old)
        except fastavro.read.SchemaResolutionError:
            return False
    return True


@given(written=records(), read=records())
def test_a_schema_keeps_a_contract_when_avro_can_read_it(written: dict[str, Any], read: dict[str, Any]) -> None:
    """Exactly then, and the same with one schema a small change of the other (the names of places are the same)."""
    assert (found(read, written) == ()) is read_by_fastavro(written, read)


@given(data=st.data(), one=records())
def test_a_small_change_is_judged_as_avro_judges_it(data: st.DataObject, one: dict[str, Any]) -> None:
    """One column of another type, in either direction."""
    assert found(one, one) == ()
    at = data.draw(st.integers(0, len(one["fields"]) - 1))
    name = one["fields"][at]["name"]
    changed = {**one, "fields": [*one["fields"]]}
    changed["fields"][at] = {"name": name, "type": data.draw(types(name))}
    for written, read in ((one, changed), (changed, one)):
        assert (found(read, written) == ()) is read_by_fastavro(written, read)
