"""Writer schemas: the same description from Avro, from Connect, and whatever annotations they carry."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import polars as pl
import pytest

from chronicle.codec import json as json_codec
from chronicle.codec.columns import DECIMAL, Column
from chronicle.codec.schema import Kind, UnsupportedSchema, parse_avro, parse_connect
from chronicle.codec.schemaless import infer
from tests.unit.codec_events import DATABASES, events, pairs


def _avro(*fields: Any, name: str = "shop.t.Value") -> str:
    return json.dumps({"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]})


def _described(column: Column) -> tuple[Any, ...]:
    """What must not depend on the encoding. Connect's array elements are nullable in Avro as they are there."""
    allowed = {key: column.params.get(key) for key in ("allowed", "scale", "length", "connect.decimal.precision")}
    nested = tuple(_described(one) for one in column.fields), _described(column.items) if column.items else None
    return column.name, column.dtype, column.semantic, column.nullable, column.width, allowed, nested


@pytest.mark.parametrize("database", DATABASES)
def test_every_captured_schema_is_known_by_its_kind(database: str) -> None:
    """No schema of the real connectors is OTHER, and the column decoder can read all of them."""
    schemas = [parse_avro(id_, text) for id_, text in events(database)[0].items()]
    kinds = Counter(schema.kind for schema in schemas)
    assert Kind.OTHER not in kinds
    assert {Kind.ENVELOPE, Kind.KEY, Kind.TRANSACTION, Kind.HEARTBEAT, Kind.NOTIFICATION} <= kinds.keys()
    assert all(schema.columnar for schema in schemas)
    assert all((schema.row is not None) == (schema.kind in (Kind.ENVELOPE, Kind.KEY)) for schema in schemas)


@pytest.mark.parametrize("database", DATABASES)
def test_avro_and_connect_schemas_describe_the_same_columns(database: str) -> None:
    """Names, types, meaning, nullability and parameters are equal for every schema of the capture."""
    texts = events(database)[0]
    for id_, same in pairs(database).items():
        avro = parse_avro(id_, texts[id_])
        embedded = parse_connect(json.loads(same[0].json)["schema"])
        assert embedded.kind is avro.kind
        assert [_described(one) for one in embedded.columns] == [_described(one) for one in avro.columns], avro.name
        assert embedded.name == avro.name


@pytest.mark.parametrize(
    ("scale", "precision"),
    [(-2, 5), (2046, 5), (2, 64), (30, 65), (0, 1000)],
    ids=["negative", "wrapped", "money", "long", "huge"],
)
def test_a_decimal_that_no_decoder_takes_does_not_poison_its_table(scale: int, precision: int) -> None:
    """Its annotation is left out for the reader and its bytes are kept; the binary layout stays."""
    odd = {
        "type": "bytes",
        "logicalType": "decimal",
        "scale": scale,
        "precision": precision,
        "connect.name": DECIMAL,
        "connect.parameters": {"scale": str(scale), "connect.decimal.precision": str(precision)},
    }
    schema = parse_avro(1, _avro(("id", "int"), ("odd", ["null", odd])))
    assert schema.columnar
    assert schema["odd"].dtype == pl.Binary()
    assert "decimal" not in (schema.reader or "")


def test_a_decimal_that_fits_is_a_number_of_38_digits() -> None:
    """So that what is read does not depend on the declared precision, which the column still knows."""
    plain = {"type": "bytes", "logicalType": "decimal", "scale": 2, "precision": 10}
    column = parse_avro(1, _avro(("a", plain)))["a"]
    assert column.dtype == pl.Decimal(38, 2)
    assert (column.precision, column.scale, column.semantic) == (10, 2, DECIMAL)


def test_what_has_no_column_form_is_json_text() -> None:
    """A union of three, a recursive record and a record without fields are text, and the row decoder is used."""
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    empty = {"type": "record", "name": "Empty", "fields": []}
    schema = parse_avro(1, _avro(("either", ["null", "int", "string"]), ("tree", node), ("empty", empty)))
    assert not schema.columnar
    assert schema["either"].as_text
    assert schema["empty"].as_text
    assert schema["tree"].fields[0].as_text


def test_a_named_type_used_twice_is_one_type() -> None:
    """A reference by short or full name has the columns of the definition."""
    point = {"type": "record", "name": "Point", "namespace": "geo", "fields": [{"name": "x", "type": "double"}]}
    schema = parse_avro(1, _avro(("a", point), ("b", ["null", "geo.Point"])))
    assert schema["b"].dtype == schema["a"].dtype == pl.Struct({"x": pl.Float64})
    assert schema["b"].nullable
    assert not schema["a"].nullable


@pytest.mark.parametrize("text", ["", "{", "7", '{"type":"record"}', '{"type":"secretword"}', '["null","nowhere.Type"]'])
def test_what_is_no_avro_schema_is_refused_without_its_text(text: str) -> None:
    """The error names the id alone."""
    with pytest.raises(UnsupportedSchema) as caught:
        parse_avro(42, text)
    assert "42" in str(caught.value)
    assert "secretword" not in str(caught.value)


def test_a_key_that_is_no_record_has_one_column() -> None:
    """A plain string key decodes to the column `value`."""
    schema = parse_avro(1, '"string"')
    assert schema.bare
    assert schema.frame_schema() == {"value": pl.String()}


def test_schemas_are_equal_by_id_and_text() -> None:
    """A plan can be kept per schema, also for JSON, whose id is always 0."""
    text = _avro(("a", "int"))
    assert parse_avro(1, text) == parse_avro(1, text)
    assert parse_avro(1, text) != parse_avro(2, text)
    assert len({infer([b'{"a":1}'])[0], infer([b'{"a":2}'])[0], infer([b'{"a":"x"}'])[0]}) == 2


def test_types_of_schemaless_json_follow_from_the_values() -> None:
    """Booleans, whole numbers, numbers, text; all else, mixtures included, is kept as its JSON text."""
    rows = [
        b'{"flag":true,"n":1,"big":9007199254740993,"x":1.5,"mix":1,"half":2,"s":"a","o":{"k":1},"none":null,"d":0.1234567890123456789}',
        b'{"flag":null,"n":2,"big":1,"x":2.0,"mix":"1","half":2.5,"s":null,"o":null,"none":null,"d":1.0}',
    ]
    schema, bad = infer(rows)
    assert not bad
    expected: dict[str, pl.DataType] = {
        "flag": pl.Boolean(),
        "n": pl.Int64(),
        "big": pl.Int64(),
        "x": pl.Float64(),
        "mix": pl.String(),
        "half": pl.Float64(),
        "s": pl.String(),
        "o": pl.String(),
        "none": pl.String(),
        "d": pl.String(),
    }
    assert schema.frame_schema() == expected
    frame, bad = json_codec.decode(rows, schema)
    assert not bad
    assert frame["d"].to_list() == ["0.1234567890123456789", "1.0"]
    assert frame["mix"].to_list() == ["1", '"1"']
    assert frame["big"].to_list() == [9007199254740993, 1]
