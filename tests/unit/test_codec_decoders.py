"""The decoders: three ways to the same frame, and a poison record never harms its neighbours."""

from __future__ import annotations

import io
import json
import struct
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import fastavro
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from chronicle.codec import avro
from chronicle.codec import json as json_codec
from chronicle.codec.columns import RowSchema, WriterSchema
from chronicle.codec.schema import Kind, parse_avro
from tests.unit.codec_events import DATABASES, Pair, events, pairs

HEAD = b"\x00\x00\x00\x00\x07"


def _schema(*fields: tuple[str, Any]) -> tuple[WriterSchema, Any]:
    raw = {"type": "record", "name": "shop.t.Value", "fields": [{"name": name, "type": kind} for name, kind in fields]}
    return parse_avro(7, json.dumps(raw)), fastavro.parse_schema(raw)


def _encode(schema: Any, *records: dict[str, Any]) -> list[bytes]:
    values = []
    for record in records:
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, schema, record)
        values.append(HEAD + stream.getvalue())
    return values


ROW, ROW_AVRO = _schema(("id", "long"), ("name", ["null", "string"]), ("tags", {"type": "array", "items": ["null", "string"]}))
GOOD = _encode(ROW_AVRO, *({"id": n, "name": f"name {n}", "tags": ["a", None, "é"]} for n in range(200)))
POISON = {
    "trailing bytes": GOOD[3] + b"xx",
    "a trailing zero": GOOD[3] + b"\x00",
    "a whole datum twice": GOOD[3] + GOOD[3],
    "truncated": GOOD[3][:-4],
    "nothing after the head": HEAD,
    "a huge length": HEAD + b"\x02\x02\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + b"abc",
    "a negative length": HEAD + b"\x02\x02\x03" + b"abc",
    "a wrong union index": HEAD + b"\x02\x08" + GOOD[3][15:],
    "text that is no UTF-8": GOOD[3].replace(b"name", b"n\xff\xfee"),
    "a number without end": HEAD + b"\xff" * 40,
    "a huge array": HEAD + b"\x02\x00\xfe\xff\xff\xff\xff\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("database", DATABASES)
def test_avro_by_columns_equals_avro_by_rows(database: str) -> None:
    """For every captured key and value, field by field, dtypes included; and columns is how they were read."""
    texts, _ = events(database)
    for id_, same in pairs(database).items():
        decoder = avro.Decoder(parse_avro(id_, texts[id_]))
        values = [pair.avro for pair in same]
        by_columns, bad = decoder.decode(values)
        by_rows, bad_rows = decoder._row_by_row(values)
        assert (bad, bad_rows) == ({}, {})
        assert decoder.columnar
        assert len(by_columns) == len(values)
        assert dict(by_columns.schema) == decoder.schema.frame_schema()
        assert_frame_equal(by_columns, by_rows)


@pytest.mark.parametrize("database", DATABASES)
def test_json_with_schemas_equals_avro(database: str) -> None:
    """For every captured key and value: the encoding of a topic is nobody's business downstream."""
    texts, _ = events(database)
    for id_, same in pairs(database).items():
        schema = parse_avro(id_, texts[id_])
        from_avro, _ = avro.decode([pair.avro for pair in same], schema)
        groups, bad = json_codec.split([pair.json for pair in same])
        assert not bad
        for group in groups:
            frame, bad = json_codec.decode(group.values, group.schema)
            assert not bad
            assert group.schema.kind is schema.kind
            expected = from_avro[list(group.indices)]
            maps = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Map)]
            for name in maps:  # a map has no order
                assert frame[name].to_list() == expected[name].to_list()
            assert_frame_equal(frame.drop(maps), expected.drop(maps))


@pytest.mark.parametrize("database", DATABASES)
def test_schemaless_json_has_the_numbers_and_texts_of_avro(database: str) -> None:
    """Envelope fields and source block are equal; so are the columns whose JSON form is their value."""
    texts, _ = events(database)
    for id_, same in pairs(database).items():
        schema = parse_avro(id_, texts[id_])
        if schema.kind is not Kind.ENVELOPE:
            continue
        expected, _ = avro.decode([pair.avro for pair in same], schema)
        payloads = [json.dumps(json.loads(pair.json)["payload"]).encode() for pair in same]
        (group,), bad = json_codec.split(payloads)
        frame, bad = json_codec.decode(group.values, group.schema)
        assert not bad
        assert group.schema.kind is Kind.ENVELOPE
        assert group.schema.schemaless
        for name in ("op", "ts_us", "transaction"):
            assert frame[name].to_list() == expected[name].to_list()
        block = expected["source"].to_list()
        assert frame["source"].to_list() == [{key: row[key] for key in frame["source"][0]} for row in block]
        assert schema.row is not None
        for column in schema.row.columns:
            if group.schema.row is None or column.semantic or column.dtype not in (pl.Int32(), pl.Int64(), pl.String()):
                continue
            assert (
                frame["after"].struct.field(column.name).to_list() == expected["after"].struct.field(column.name).to_list()
            ), column.name


@pytest.mark.parametrize("place", [0, 100, 199], ids=["first", "middle", "last"])
@pytest.mark.parametrize("name", POISON)
def test_a_poison_record_is_bad_alone(name: str, place: int) -> None:
    """Wherever it stands, its neighbours come through as they are, and the column decoder stays in use."""
    decoder = avro.Decoder(ROW)
    expected, _ = decoder.decode(GOOD)
    values = [*GOOD]
    values[place] = POISON[name]
    frame, bad = decoder.decode(values)
    assert set(bad) == {place}
    assert decoder.columnar
    assert_frame_equal(frame, pl.concat([expected[:place], expected[place + 1 :]]))


@pytest.mark.parametrize("name", POISON)
def test_a_poison_record_without_neighbours_is_bad(name: str) -> None:
    """A batch of one poison record gives an empty frame of the right columns, and says why without its bytes."""
    frame, bad = avro.Decoder(ROW).decode([POISON[name]])
    assert len(frame) == 0
    assert dict(frame.schema) == ROW.frame_schema()
    assert "name" not in bad[0]


def test_a_wrong_index_before_a_value_has_one_verdict_in_any_batch() -> None:
    """Of a nullable union arrow-avro only asks whether the index is null's: such a record reads, alone and among others."""
    odd = GOOD[3].replace(b"\x02\x0cname", b"\x08\x0cname")
    assert odd != GOOD[3]
    expected, _ = avro.decode([GOOD[3]], ROW)
    for values in ([odd], [GOOD[0], odd], [odd, POISON["truncated"]]):
        frame, bad = avro.Decoder(ROW).decode(values)
        assert set(bad) == ({1} if POISON["truncated"] in values else set())
        assert_frame_equal(frame.filter(pl.col("id") == 3), expected)


def test_a_record_with_another_head_is_not_believed() -> None:
    """Datums are grouped by their head before; one of another schema id must not slip through the block."""
    values = [GOOD[0], b"\x00\x00\x00\x00\x08" + GOOD[1][5:], GOOD[2]]
    assert avro.Decoder(ROW)._block(values) is None


def test_a_schema_that_has_no_column_form_goes_by_rows() -> None:
    """A union of three is its JSON text, bytes in base64; its neighbours in the record are as ever."""
    schema, raw = _schema(("id", "int"), ("either", ["null", "int", "bytes"]))
    frame, bad = avro.decode(
        _encode(raw, {"id": 1, "either": 5}, {"id": 2, "either": b"\x00\xff"}, {"id": 3, "either": None}), schema
    )
    assert not bad
    assert frame.to_dict(as_series=False) == {"id": [1, 2, 3], "either": ["5", '"AP8="', None]}


def test_a_schema_whose_blocks_never_read_is_remembered_for_rows() -> None:
    """When every record reads but no block does, the schema is the reason: no more blocks are tried."""
    decoder = avro.Decoder(ROW)
    decoder._head = decoder._head.replace(b'"long"', b'"lung"')  # a container that the column decoder refuses
    expected, _ = avro.Decoder(ROW).decode(GOOD)
    frame, bad = decoder.decode(GOOD)
    assert not bad
    assert not decoder.columnar
    assert_frame_equal(frame, expected)


def test_enums_and_maps_are_text_and_maps() -> None:
    """Avro's own enum gives its symbol, a map keeps its order and nulls; both decoders agree."""
    kind = {"type": "enum", "name": "Kind", "symbols": ["red", "blue"]}
    schema, raw = _schema(("kind", kind), ("labels", ["null", {"type": "map", "values": ["null", "string"]}]))
    values = _encode(raw, {"kind": "blue", "labels": {"b": "1", "a": None}}, {"kind": "red", "labels": None})
    decoder = avro.Decoder(schema)
    frame, bad = decoder.decode(values)
    assert not bad
    assert decoder.columnar
    assert frame["kind"].to_list() == ["blue", "red"]
    assert frame["labels"].to_list() == [{"b": "1", "a": None}, None]
    assert_frame_equal(frame, decoder._row_by_row(values)[0])


def test_decimals_of_38_digits_survive_every_decoder() -> None:
    """No digit is lost, rounded or made null; nested in arrays too."""
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2}
    schema, _ = _schema(("d", decimal), ("ds", {"type": "array", "items": ["null", decimal]}))
    numbers = [0, 5, -5, 10**38 - 1, -(10**38) + 1, 123450]
    with localcontext(prec=50):
        exact = [Decimal(number).scaleb(-2) for number in numbers]
    values = []
    for number in numbers:  # bytes of length 16; then a block of two items, the number and null, and the end
        data = b"\x20" + number.to_bytes(16, "big", signed=True)
        values.append(HEAD + data + b"\x04\x02" + data + b"\x00\x00")
    decoder = avro.Decoder(schema)
    frame, bad = decoder.decode(values)
    rows, bad_rows = decoder._row_by_row(values)
    assert (bad, bad_rows) == ({}, {})
    assert frame["d"].to_list() == exact
    assert frame["ds"].to_list() == [[one, None] for one in exact]
    assert_frame_equal(frame, rows)


@lru_cache
def _pool() -> list[tuple[WriterSchema, list[bytes]]]:
    """Schemas of the capture that have a few records of moderate size."""
    found = []
    for database in DATABASES:
        texts, _ = events(database)
        for id_, same in pairs(database).items():
            values = [pair.avro for pair in same if len(pair.avro) < 4_000][:12]
            if len(values) > 3:
                found.append((parse_avro(id_, texts[id_]), values))
    return found


@st.composite
def _damaged(draw: st.DrawFn) -> tuple[WriterSchema, list[bytes], int, bytes]:
    schema, values = draw(st.sampled_from(_pool()))
    place = draw(st.integers(0, len(values) - 1))
    data = bytearray(values[place])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(5, max(len(data) - 1, 5)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[at:]
            case 2:
                data += draw(st.binary(min_size=1, max_size=9))
            case _:
                data[at:at] = draw(st.sampled_from([b"\xff" * 9 + b"\x01", b"\xfe\xff\xff\xff\x0f", b"\x01", b"\xff"]))
    return schema, values, place, bytes(data)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(_damaged())
def test_damage_to_one_datum_never_reaches_its_neighbours(damage: tuple[WriterSchema, list[bytes], int, bytes]) -> None:
    """Flipped, cut, grown: the record is bad or decodes to something, and all others are what they were."""
    schema, values, place, data = damage
    expected, _ = avro.decode(values, schema)
    frame, bad = avro.decode([*values[:place], data, *values[place + 1 :]], schema)
    assert set(bad) <= {place}
    others = frame if bad else pl.concat([frame[:place], frame[place + 1 :]])
    assert_frame_equal(others, pl.concat([expected[:place], expected[place + 1 :]]))
    alone, bad_alone = avro.decode([data], schema)
    assert bool(bad_alone) == bool(bad)  # the verdict does not depend on the neighbours
    if not bad:
        assert_frame_equal(alone, frame[place : place + 1])


# JSON ---------------------------------------------------------------------------------------------------------------


def _one_pair() -> Pair:
    return next(
        same[0] for id_, same in pairs("postgres").items() if parse_avro(id_, events("postgres")[0][id_]).kind is Kind.ENVELOPE
    )


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b'{"a":1}}',
        b'{"schema":7,"payload":{}}',
        b'{"schema":{"type":"x"},"payload":1}',
        b"\xff",
    ],
)
def test_json_that_is_no_record_is_bad_alone(value: bytes) -> None:
    """Broken JSON, no object, or a schema that is none: the neighbours keep their group."""
    good = _one_pair().json
    groups, bad = json_codec.split([good, value, good])
    assert set(bad) == {1}
    assert [index for group in groups for index in group.indices] == [0, 2]


def test_json_values_of_the_wrong_type_are_bad_alone() -> None:
    """A text where a number belongs, an integer beyond its type, broken base64: bad; and the detail holds no value."""
    fields = [
        {"type": "int32", "optional": False, "field": "id"},
        {"type": "bytes", "optional": True, "field": "b"},
        {
            "type": "bytes",
            "optional": True,
            "field": "d",
            "name": "org.apache.kafka.connect.data.Decimal",
            "parameters": {"scale": "2", "connect.decimal.precision": "10"},
        },
        {"type": "double", "optional": True, "field": "f"},
    ]
    schema = {"type": "struct", "fields": fields, "optional": False, "name": "shop.t.Key"}
    payloads = [
        {"id": 1, "b": "AP8=", "d": "MDk=", "f": "NaN"},
        {"id": "secret", "b": None, "d": None, "f": None},
        {"id": 2**31, "b": None, "d": None, "f": None},
        {"id": None, "b": None, "d": None, "f": None},
        {"id": 2, "b": "secret!", "d": None, "f": None},
        {"id": 3, "b": None, "d": "secret!", "f": None},
        {"id": 4, "b": None, "d": 1.234, "f": None},
        {"id": 5, "b": None, "d": None, "f": "secret"},
        {"id": 6, "b": None, "d": 12.3, "f": 1},
    ]
    (group,), bad = json_codec.split([json.dumps({"schema": schema, "payload": one}).encode() for one in payloads])
    frame, bad = json_codec.decode(group.values, group.schema)
    assert set(bad) == {1, 2, 3, 4, 5, 6, 7}
    assert not any("secret" in detail for detail in bad.values())
    assert frame["id"].to_list() == [1, 6]
    assert frame["b"].to_list() == [b"\x00\xff", None]
    assert frame["d"].cast(pl.String).to_list() == ["123.45", "12.30"]  # base64, and decimal.format=NUMERIC
    assert str(frame["f"].to_list()) == "[nan, 1.0]"


def test_a_lone_surrogate_is_bad_alone() -> None:
    """JSON can spell characters that UTF-8 has not."""
    groups, bad = json_codec.split([b'{"a":"x"}', b'{"a":"\\ud800"}'])
    decoded = [json_codec.decode(group.values, group.schema) for group in groups]
    assert len(bad) + sum(len(wrong) for _, wrong in decoded) == 1
    assert [row for frame, _ in decoded for row in frame["a"].to_list()] == ["x"]


def test_key_headers_decode_to_the_key_s_columns() -> None:
    """One row per text: null for none and for broken ones; a JsonConverter's wrapper is looked through."""
    decimal = {"type": "bytes", "logicalType": "decimal", "scale": 0, "precision": 20}
    schema, _ = _schema(("id", decimal), ("part", ["null", "string"]))
    row = RowSchema(schema.columns)
    texts = [b'{"id":"Aw==","part":"a"}', None, b'{"schema":{},"payload":{"id":4,"part":null}}', b"{", b'{"id":"Aw=="}']
    frame, bad = json_codec.decode_row_text(texts, row)
    assert set(bad) == {3}
    assert frame["id"].cast(pl.String).to_list() == ["3", None, "4", None, "3"]
    assert frame["part"].to_list() == ["a", None, None, None, None]


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60) | st.just(b'{"id":1}') | st.just(b'{"id":"x","n":{"a":[1]}}'), max_size=12))
@example([b"{}"])
def test_any_bytes_are_decoded_or_bad(values: list[bytes]) -> None:
    """Every record of a JSON topic has exactly one fate, whatever it holds."""
    groups, bad = json_codec.split(values)
    decoded = 0
    for group in groups:
        frame, wrong = json_codec.decode(group.values, group.schema)
        decoded += len(frame) + len(wrong)
        assert len(group.indices) == len(frame) + len(wrong)
    assert decoded + len(bad) == len(values)


def test_floats_keep_their_bits() -> None:
    """NaN, infinities, negative zero and the smallest number go through both Avro decoders unchanged."""
    schema, raw = _schema(("f", "double"))
    numbers = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 0.1]
    decoder = avro.Decoder(schema)
    values = _encode(raw, *({"f": number} for number in numbers))
    for frame, bad in (decoder.decode(values), decoder._row_by_row(values)):
        assert not bad
        assert [struct.pack(">d", one) for one in frame["f"].to_list()] == [struct.pack(">d", one) for one in numbers]
