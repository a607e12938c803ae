"""What values mean: their canonical JSON, their ClickHouse type, and what that type can hold."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chronicle.codec import avro, types
from chronicle.codec.columns import DECIMAL, VARIABLE_SCALE_DECIMAL, Column, struct_column
from chronicle.codec.documents import is_storable
from chronicle.codec.schema import Kind, parse_avro
from tests.unit.codec_events import DATABASES, events, image, pairs

INT, LONG, TEXT, DATA = pl.Int32(), pl.Int64(), pl.String(), pl.Binary()
TIME = "io.debezium.time."
DATA_TYPE = "io.debezium.data."
UTC = dt.UTC
VARIABLE = struct_column("v", (Column("scale", INT), Column("value", DATA)), semantic=VARIABLE_SCALE_DECIMAL)
POINT = struct_column("v", (Column("x", pl.Float64()), Column("y", pl.Float64()), Column("wkb", DATA), Column("srid", INT)))


def _column(dtype: pl.DataType, semantic: str | None = None, **params: str) -> Column:
    return Column("v", dtype, semantic=semantic, params=params)


def _decimal(dtype: pl.DataType, precision: int | None, scale: int) -> Column:
    digits = {"connect.decimal.precision": str(precision)} if precision else {}
    return _column(dtype, DECIMAL, scale=str(scale), **digits)


def _list(items: Column) -> Column:
    return Column("v", pl.List(items.dtype), items=items)


def _frame(column: Column, *values: Any) -> pl.DataFrame:
    return pl.DataFrame({"v": pl.Series("v", values, dtype=column.dtype)})


def _json(column: Column, *values: Any) -> list[Any]:
    """The values as the image has them."""
    frame = _frame(column, *values).select(pl.struct("v").alias("row"))
    texts = frame.select(image(pl.col("row"), [column])).to_series().to_list()
    assert all(text.startswith('{"v":') and " " not in text.partition('"')[0] for text in texts)
    return [text[len('{"v":') : -1] for text in texts]


def _mirror(column: Column, *values: Any) -> list[Any]:
    return _frame(column, *values).select(types.mirror_value(column, pl.col("v"))).to_series().to_list()


def _fits(column: Column, *values: Any) -> list[bool]:
    fits = types.representable(column, pl.col("v"))
    return [True] * len(values) if fits is None else _frame(column, *values).select(fits).to_series().to_list()


IMAGES = [
    (_column(INT), -5, "-5"),
    (_column(LONG), 2**63 - 1, "9223372036854775807"),
    (_column(pl.Boolean()), True, "true"),
    (_column(TEXT), 'a"\\\n\x01ü😀', '"a\\"\\\\\\n\\u0001ü😀"'),
    (_column(DATA), b"\x00\xff", '"AP8="'),
    (_column(pl.Float64()), 0.1, "0.1"),
    (_column(pl.Float64()), -0.0, "-0.0"),
    (_column(pl.Float64()), float("nan"), '"NaN"'),
    (_column(pl.Float64()), float("inf"), '"Infinity"'),
    (_column(pl.Float32()), float("-inf"), '"-Infinity"'),
    (_decimal(pl.Decimal(38, 2), 10, 2), Decimal("12.30"), '"12.30"'),
    (_decimal(DATA, 65, 30), (-1).to_bytes(1, "big", signed=True), '"-0.' + "0" * 29 + '1"'),
    (_decimal(DATA, None, 2), (1234).to_bytes(2, "big"), '"12.34"'),
    (_decimal(DATA, 5, -2), (123).to_bytes(1, "big"), '"12300"'),
    (_decimal(DATA, 5, 2046), (-12300 * 10**2046).to_bytes(900, "big", signed=True), '"-12300"'),
    (VARIABLE, {"scale": 3, "value": b"\x04\xd2"}, '"1.234"'),
    (VARIABLE, {"scale": -2, "value": b"\xff"}, '"-100"'),
    (_column(INT, TIME + "Date"), 19782, '"2024-02-29"'),
    (_column(INT, TIME + "Date"), -719162, '"0001-01-01"'),
    (_column(INT, TIME + "Date"), -719163, '"-719163"'),
    (_column(INT, TIME + "Date"), 2**31 - 1, '"2147483647"'),
    (_column(INT, "org.apache.kafka.connect.data.Date"), 0, '"1970-01-01"'),
    (_column(TEXT, TIME + "IsoDate"), "2024-02-29Z", '"2024-02-29"'),
    (_column(LONG, TIME + "Timestamp"), 1709251199123, '"2024-02-29T23:59:59.123000"'),
    (_column(LONG, TIME + "MicroTimestamp"), 1709251199123456, '"2024-02-29T23:59:59.123456"'),
    (_column(LONG, TIME + "MicroTimestamp"), -1, '"1969-12-31T23:59:59.999999"'),
    (_column(LONG, TIME + "MicroTimestamp"), 2**63 - 1, '"9223372036854775807"'),
    (_column(LONG, TIME + "MicroTimestamp"), -(2**63), '"-9223372036854775808"'),
    (_column(LONG, TIME + "NanoTimestamp"), 1709251199123456789, '"2024-02-29T23:59:59.123456789"'),
    (_column(LONG, TIME + "NanoTimestamp"), 2**63 - 1, '"9223372036854775807"'),
    (_column(TEXT, TIME + "IsoTimestamp"), "2024-02-29T23:59:59.5Z", '"2024-02-29T23:59:59.500000"'),
    (_column(TEXT, TIME + "ZonedTimestamp"), "2024-02-29T18:29:59.123456Z", '"2024-02-29T18:29:59.123456Z"'),
    (_column(TEXT, TIME + "ZonedTimestamp"), "2024-02-29T18:29:59Z", '"2024-02-29T18:29:59.000000Z"'),
    (_column(TEXT, TIME + "ZonedTimestamp"), "2024-02-29T23:59:59.12+05:30", '"2024-02-29T18:29:59.120000Z"'),
    (_column(TEXT, TIME + "ZonedTimestamp"), "infinity", '"infinity"'),
    (_column(TEXT, TIME + "ZonedTimestamp"), "+294247-01-10T04:00:25.2Z", '"+294247-01-10T04:00:25.2Z"'),
    (_column(INT, TIME + "Time"), 86399123, '"23:59:59.123000"'),
    (_column(LONG, TIME + "MicroTime"), 86400000000, '"24:00:00.000000"'),
    (_column(LONG, TIME + "MicroTime"), -3020399999999, '"-838:59:59.999999"'),
    (_column(LONG, TIME + "NanoTime"), 1_001, '"00:00:00.000001"'),
    (_column(TEXT, TIME + "IsoTime"), "01:02:03.5Z", '"01:02:03.500000"'),
    (_column(TEXT, TIME + "ZonedTime"), "18:29:59.123456Z", '"18:29:59.123456Z"'),
    (_column(LONG, TIME + "MicroDuration"), 37091106789000, "37091106789000"),
    (_column(TEXT, TIME + "Interval"), "P1Y2M3DT4H", '"P1Y2M3DT4H"'),
    (_column(INT, TIME + "Year"), 2024, "2024"),
    (_column(TEXT, DATA_TYPE + "Json"), '{"b":1, "a" : 1.0}', '"{\\"b\\":1, \\"a\\" : 1.0}"'),
    (_column(TEXT, DATA_TYPE + "Enum", allowed="a,b"), "a", '"a"'),
    (_column(DATA, DATA_TYPE + "Bits", length="12"), b"\xaa\x0a", '"101010101010"'),
    (_column(DATA, DATA_TYPE + "Bits"), b"\x01", '"00000001"'),
    (POINT, {"x": 1.5, "y": float("nan"), "wkb": b"\x01", "srid": None}, '{"srid":null,"wkb":"AQ==","x":1.5,"y":"NaN"}'),
    (_list(_column(INT)), [1, None], "[1,null]"),
    (_list(_column(TEXT)), ["a,", None, '"'], '["a,",null,"\\""]'),
    (_list(_column(pl.Float64())), [1.5, None, float("nan")], '[1.5,null,"NaN"]'),
    (_list(_column(pl.Float64())), [], "[]"),
    (_list(_column(INT, TIME + "Date")), [19782, None], '["2024-02-29",null]'),
    (_list(_decimal(pl.Decimal(38, 2), 10, 2)), [Decimal("1.10"), None], '["1.10",null]'),
    (_list(VARIABLE), [{"scale": 1, "value": b"\x0f"}, None], '["1.5",null]'),
    (_list(_list(_column(INT))), [[1], None, []], "[[1],null,[]]"),
    (Column("v", pl.Map(TEXT, TEXT), items=_column(TEXT)), {"b": None, 'a"': "x"}, '{"a\\"":"x","b":null}'),
    (Column("v", pl.Map(TEXT, LONG), items=_column(LONG)), {}, "{}"),
]


@pytest.mark.parametrize(("column", "value", "expected"), IMAGES)
def test_a_value_has_its_canonical_json(column: Column, value: Any, expected: str) -> None:
    """One value beside a null of the same column: each is written as the contract says, the null as null."""
    assert _json(column, value, None) == [expected, "null"]


@pytest.mark.parametrize(("column", "value", "expected"), IMAGES)
def test_the_text_of_a_value_is_its_json_without_quotes(column: Column, value: Any, expected: str) -> None:
    """`value_text` (what tokens are made of) follows from the JSON; a null stays a null."""
    decoded = json.loads(expected)
    text = decoded if isinstance(decoded, str) else expected
    assert _frame(column, value, None).select(types.value_text(column, pl.col("v"))).to_series().to_list() == [text, None]


def test_an_image_is_sorted_by_name_and_null_where_there_is_no_row() -> None:
    """Columns in name order whatever the table's, floats spliced in between; no row, no text."""
    columns = [Column(name, pl.Float64() if name == "m" else TEXT) for name in ("z", "a", "m", "B")]
    rows = [{"z": "1", "a": "2", "m": 3.5, "B": None}, None, {"z": None, "a": None, "m": None, "B": None}]
    frame = pl.DataFrame({"after": pl.Series(rows, dtype=pl.Struct({one.name: one.dtype for one in columns}))})
    assert frame.select(image(pl.col("after"), columns)).to_series().to_list() == [
        '{"B":null,"a":"2","m":3.5,"z":"1"}',
        None,
        '{"B":null,"a":null,"m":null,"z":null}',
    ]


def test_a_replaced_column_never_shows_its_value() -> None:
    """The replacement stands in the text, null stays null, floats and structs included."""
    columns = [Column("id", INT), Column("rate", pl.Float64()), Column("ssn", TEXT)]
    frame = pl.DataFrame({"row": [{"id": 1, "rate": 4.5, "ssn": "123-45"}, {"id": 2, "rate": None, "ssn": None}]})
    hide = {
        name: pl.when(pl.col("row").struct.field(name).is_not_null()).then(pl.lit("[FILTERED]")) for name in ("rate", "ssn")
    }
    assert frame.select(image(pl.col("row"), columns, replaced=hide)).to_series().to_list() == [
        '{"id":1,"rate":"[FILTERED]","ssn":"[FILTERED]"}',
        '{"id":2,"rate":null,"ssn":null}',
    ]


@pytest.mark.parametrize("absent", [{"a"}, {"b"}, {"c"}, {"a", "c"}, {"a", "b", "c"}])
def test_an_unavailable_column_is_left_out_of_its_row_alone(absent: set[str]) -> None:
    """In the other rows of the frame it is there; the text stays valid JSON whichever columns are missing."""
    columns = [Column("a", INT), Column("b", TEXT), Column("c", pl.Float64())]
    frame = pl.DataFrame({"row": [{"a": 1, "b": "x", "c": 1.5}, {"a": 2, "b": "y", "c": 2.5}], "gone": [True, False]})
    missing = {name: pl.col("gone") for name in absent}
    first, second = frame.select(image(pl.col("row"), columns, unavailable=missing)).to_series().to_list()
    assert json.loads(first) == {name: value for name, value in {"a": 1, "b": "x", "c": 1.5}.items() if name not in absent}
    assert second == '{"a":2,"b":"y","c":2.5}'


def test_a_key_keeps_the_order_of_its_schema() -> None:
    """Not sorted: composite keys read as the database declares them."""
    fields = [(Column("z", INT), pl.col("z")), (Column("a", TEXT), pl.col("a"))]
    assert pl.DataFrame({"z": [1], "a": ["x"]}).select(types.object_text(fields)).item() == '{"z":1,"a":"x"}'


def test_column_names_are_escaped() -> None:
    """A quote in a name cannot break the text, on either way through the JSON writer."""
    columns = [Column('we"ird\\', TEXT), Column('ra"te', pl.Float64())]
    frame = pl.DataFrame({"row": [{'we"ird\\': "x", 'ra"te': 1.5}]})
    text = frame.select(image(pl.col("row"), columns)).item()
    assert json.loads(text) == {'we"ird\\': "x", 'ra"te': 1.5}


@pytest.mark.parametrize("database", DATABASES)
def test_every_captured_image_is_json_of_all_columns(database: str) -> None:
    """For every row of the capture: valid, sorted, every column there, no space outside texts, and stable."""
    texts, _ = events(database)
    for id_, same in pairs(database).items():
        schema = parse_avro(id_, texts[id_])
        if schema.kind is not Kind.ENVELOPE or schema.row is None:
            continue
        frame, _ = avro.decode([pair.avro for pair in same], schema)
        for side in ("before", "after"):
            for text in frame.select(image(pl.col(side), schema.row.columns)).to_series().drop_nulls():
                decoded = json.loads(text)
                assert list(decoded) == sorted(schema.row.names)
                assert json.dumps(decoded, ensure_ascii=False, separators=(",", ":")).count(",") == text.count(",")


CLICKHOUSE = [
    (Column("v", INT, width=8), "Int8"),
    (Column("v", INT, width=16), "Int16"),
    (_column(INT), "Int32"),
    (_column(LONG), "Int64"),
    (_column(pl.Boolean()), "Bool"),
    (_column(pl.Float32()), "Float32"),
    (_column(pl.Float64()), "Float64"),
    (_column(TEXT), "String"),
    (_column(DATA), "String"),
    (_decimal(pl.Decimal(38, 2), 10, 2), "Decimal(10, 2)"),
    (_decimal(DATA, 65, 30), "Decimal(65, 30)"),
    (_decimal(DATA, None, 2), "Decimal(38, 2)"),
    (_decimal(DATA, 5, -2), "Decimal(7, 0)"),
    (_decimal(DATA, 5, 2046), "Decimal(7, 0)"),
    (_decimal(DATA, 90, 2), "String"),
    (VARIABLE, "Decimal(76, 38)"),
    (_column(INT, TIME + "Date"), "Date32"),
    (_column(LONG, TIME + "MicroTimestamp"), "DateTime64(6, 'UTC')"),
    (_column(LONG, TIME + "NanoTimestamp"), "DateTime64(9, 'UTC')"),
    (_column(TEXT, TIME + "ZonedTimestamp"), "DateTime64(6, 'UTC')"),
    (_column(LONG, TIME + "MicroTime"), "String"),
    (_column(TEXT, DATA_TYPE + "Uuid"), "UUID"),
    (_column(TEXT, DATA_TYPE + "Json"), "JSON"),
    (_column(TEXT, DATA_TYPE + "Enum", allowed="a,it's,x\\,y"), "Enum16('a' = 1, 'it\\'s' = 2, 'x,y' = 3)"),
    (POINT, "String"),
]


@pytest.mark.parametrize(("column", "expected"), CLICKHOUSE)
def test_a_column_has_its_clickhouse_type(column: Column, expected: str) -> None:
    """Bare as a key, Nullable otherwise, and inside an array as its elements are."""
    assert types.clickhouse_type(column, key=True) == expected
    assert types.clickhouse_type(column) == f"Nullable({expected})"
    if expected != "JSON" and column is not POINT:
        assert types.clickhouse_type(_list(column)) == f"Array(Nullable({expected}))"


def test_types_that_clickhouse_allows_no_nullable_around() -> None:
    """Arrays, maps, and enums of more than 1,000 values; JSON and objects in arrays are text."""
    many = _column(TEXT, DATA_TYPE + "Enum", allowed=",".join(f"v{n}" for n in range(1001)))
    assert types.clickhouse_type(many) == "LowCardinality(Nullable(String))"
    assert types.clickhouse_type(many, key=True) == "LowCardinality(String)"
    assert types.clickhouse_type(_list(_column(TEXT, DATA_TYPE + "Json"))) == "Array(Nullable(String))"
    assert types.clickhouse_type(_list(POINT)) == "Array(Nullable(String))"
    assert types.clickhouse_type(Column("v", pl.Map(TEXT, LONG), items=_column(LONG))) == "Map(String, Nullable(Int64))"
    unsigned = _column(
        pl.Decimal(38, 0),
        DECIMAL,
        scale="0",
        **{"connect.decimal.precision": "20", "__debezium.source.column.type": "bigint unsigned"},
    )
    assert types.clickhouse_type(unsigned) == "Nullable(UInt64)"
    assert _mirror(unsigned, Decimal(2**64 - 1)) == [2**64 - 1]


LIMITS: list[tuple[Column, list[Any], list[Any]]] = [
    (_column(INT, TIME + "Date"), [-25567, 120529, 19782], [-25568, 120530, 2**31 - 1]),
    (
        _column(TEXT, TIME + "IsoDate"),
        ["1900-01-01Z", "2299-12-31Z"],
        ["1899-12-31Z", "2300-01-01Z", "-0044-03-15Z", "nonsense"],
    ),
    (_column(LONG, TIME + "Timestamp"), [-2208988800000, 10413791999999], [-2208988800001, 10413792000000, 2**63 - 1]),
    (_column(LONG, TIME + "MicroTimestamp"), [-2208988800000000, 0], [-2208988800000001, 2**63 - 1, -(2**63)]),
    (_column(LONG, TIME + "NanoTimestamp"), [-2208988800000000000, 0], [-2208988800000000001, 2**63 - 1]),
    (
        _column(TEXT, TIME + "ZonedTimestamp"),
        ["2024-02-29T18:29:59Z"],
        ["infinity", "0001-01-01T00:00:00Z", "2024-13-01T00:00:00Z", "+10000-01-01T00:00:00Z"],
    ),
    (_decimal(pl.Decimal(38, 2), 4, 2), [Decimal("99.99"), Decimal("-99.99")], [Decimal("100.00")]),
    (_decimal(DATA, 40, 0), [(10**40 - 1).to_bytes(17, "big")], [(10**40).to_bytes(18, "big")]),
    (
        VARIABLE,
        [{"scale": 38, "value": b"\x01"}, {"scale": 40, "value": b"\x64"}],
        [{"scale": 39, "value": b"\x01"}, {"scale": -38, "value": b"\x01"}],
    ),
    (_column(TEXT, DATA_TYPE + "Uuid"), ["123e4567-e89b-12d3-a456-426614174000"], ["x"]),
    (_column(TEXT, DATA_TYPE + "Enum", allowed="a,b"), ["a"], ["", "c"]),
    (_column(TEXT, DATA_TYPE + "Json"), ['{"a":1}', "{}"], ["[]", "null", '"x"', "1", '{"a":1,"a":2}', "{"]),
]


@pytest.mark.parametrize(("column", "inside", "outside"), LIMITS)
def test_what_clickhouse_cannot_hold_is_null_and_said(column: Column, inside: list[Any], outside: list[Any]) -> None:
    """The mirror's value is null exactly where `representable` is false; a null of the source is representable."""
    values = [*inside, *outside, None]
    assert _fits(column, *values) == [True] * len(inside) + [False] * len(outside) + [True]
    assert [value is None for value in _mirror(column, *values)] == [False] * len(inside) + [True] * (len(outside) + 1)


@pytest.mark.parametrize(
    ("column", "inside", "outside"), [limit for limit in LIMITS if limit[0].semantic != DATA_TYPE + "Json"]
)
def test_an_array_is_representable_when_all_its_elements_are(column: Column, inside: list[Any], outside: list[Any]) -> None:
    """An element out of range is null in the mirror and the whole column is said to be; nulls and no elements are fine."""
    array = _list(column)
    assert _fits(array, inside, [*inside, None], [], None, [*inside, outside[0]]) == [True, True, True, True, False]


def test_values_out_of_range_leave_nothing_under_their_null() -> None:
    """ClickHouse checks the numbers under an Arrow null too: they are clipped before they are hidden."""
    column = _column(INT, TIME + "Date")
    series = _frame(column, 2**31 - 1, -(2**31)).select(types.mirror_value(column, pl.col("v"))).to_series()
    values = series.to_arrow().buffers()[1].to_pybytes()[:8]
    numbers = [int.from_bytes(values[at : at + 4], "little", signed=True) for at in (0, 4)]
    assert all(-25567 <= number <= 120529 for number in numbers)


def test_instants_without_a_zone_are_stored_as_they_are_read() -> None:
    """The mirror's UTC shows the wall clock of the source; milliseconds become microseconds."""
    moment = dt.datetime(2024, 2, 29, 23, 59, 59, 123000, tzinfo=UTC)
    assert _mirror(_column(LONG, TIME + "Timestamp"), 1709251199123) == [moment]
    assert _mirror(_column(TEXT, TIME + "IsoTimestamp"), "2024-02-29T23:59:59.123Z") == [moment]
    assert _mirror(_column(TEXT, TIME + "ZonedTimestamp"), "2024-03-01T00:59:59.123+01:00") == [moment]


_documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**65) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b", ""]), inner, max_size=3),
    max_leaves=8,
)


@given(_documents, st.booleans())
@example({"a": None, "": {"a": None}}, False)
def test_a_storable_document_is_an_object_with_each_path_once(document: Any, spaced: bool) -> None:
    """Against a plain model: paths of leaves, each once per object of an array, whole numbers of 64 bits."""

    def sound(value: Any, path: str, seen: set[str]) -> bool:
        if isinstance(value, dict):
            return all(sound(one, f"{path}.{key}" if path else key, seen) for key, one in value.items())
        fresh = not path or path not in seen
        seen.add(path)
        if isinstance(value, list):
            return fresh and all(sound(one, "", set()) for one in value)
        return fresh and not (isinstance(value, int) and not -(2**63) <= value < 2**64)

    separators = (" , ", " : ") if spaced else (",", ":")
    text = json.dumps(document, separators=separators, ensure_ascii=False)
    assert is_storable(text) == (isinstance(document, dict) and sound(document, "", set()))


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":2}', '{"a":1, "a" : {"b":2}}', '{"x":[{"a":1 , "a" :2}]}', '{"a":1e400}', '{"a":"\\ud800"}']
)
def test_a_document_that_clickhouse_refuses_is_not_storable(text: str) -> None:
    """Each of these was refused by ClickHouse 26.7, with the whole insert."""
    assert not is_storable(text)


@given(st.integers(-(2**62), 2**62) | st.integers(-719162 * 86400 * 10**6, 2932897 * 86400 * 10**6 - 1))
def test_an_instant_is_the_calendar_s_or_its_number(micros: int) -> None:
    """Python's calendar agrees wherever it reaches; beyond it the number is kept, so that nothing is lost."""
    (shown,) = _json(_column(LONG, TIME + "MicroTimestamp"), micros)
    try:
        expected = (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micros)).isoformat(timespec="microseconds")
    except OverflowError:
        expected = str(micros)
    assert shown == f'"{expected}"'


@given(st.integers(-(10**37), 10**37), st.integers(0, 38))
def test_a_decimal_s_text_is_exact(unscaled: int, scale: int) -> None:
    """Bytes to text and back lose nothing, the scale included."""
    data = unscaled.to_bytes(17, "big", signed=True)
    (shown,) = _json(_decimal(DATA, 60, scale), data)
    text = json.loads(shown)
    assert int(text.replace(".", "")) == unscaled
    assert len(text.partition(".")[2]) == scale
