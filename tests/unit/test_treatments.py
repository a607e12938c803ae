"""What stands for a value under its class: never the value itself, null for null, the same for the same."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chronicle.codec import times
from chronicle.codec.columns import DECIMAL, VARIABLE_SCALE_DECIMAL, Column, struct_column
from chronicle.errors import ConfigError
from chronicle.policy.rules import CLEAR, Class, Treatment
from chronicle.stages.ciphers import Sentinel
from chronicle.stages.tokens import TokenKeys, Tokens
from chronicle.stages.treatments import STARS, Treated, of_texts, treated

INT, LONG, TEXT, DATA, DOUBLE = pl.Int32(), pl.Int64(), pl.String(), pl.Binary(), pl.Float64()
TIME, TYPE = "io.debezium.time.", "io.debezium.data."
KEY = bytes(range(32))
KEYS = TokenKeys({"default": KEY, "person": KEY[::-1]})
SENTINEL = Sentinel("0123456789abcdef" * 2)
UTC = dt.UTC


def _column(dtype: pl.DataType, semantic: str | None = None, **params: str) -> Column:
    return Column("v", dtype, semantic=semantic, params=params)


def _list(items: Column) -> Column:
    return Column("v", pl.List(items.dtype), items=items)


PLAIN = _column(TEXT)
PRICE = _column(pl.Decimal(38, 2), DECIMAL, **{"scale": "2", "connect.decimal.precision": "10"})
LONG_DECIMAL = _column(DATA, DECIMAL, **{"scale": "2", "connect.decimal.precision": "50"})
VARIABLE = struct_column("v", (Column("scale", INT), Column("value", DATA)), semantic=VARIABLE_SCALE_DECIMAL)
POINT = struct_column("v", (Column("x", DOUBLE), Column("y", DOUBLE), Column("wkb", DATA), Column("srid", INT)))
JSON = _column(TEXT, TYPE + "Json")
UNION = Column("v", TEXT, as_text=True)
DATE, MICRO = _column(INT, TIME + "Date"), _column(LONG, TIME + "MicroTimestamp")
ZONED, ISO = _column(TEXT, TIME + "ZonedTimestamp"), _column(TEXT, TIME + "IsoTimestamp")
NANO, MILLI = _column(LONG, TIME + "NanoTimestamp"), _column(LONG, TIME + "Timestamp")

EVERY: list[tuple[Column, Any]] = [
    (PLAIN, "correct horse battery"),
    (_column(INT), 123456789),
    (Column("v", INT, width=16), 12345),
    (_column(LONG), 2**62 + 12345),
    (_column(pl.Boolean()), True),
    (_column(DOUBLE), 12345.678901),
    (_column(pl.Float32()), 12345.5),
    (_column(DATA), b"\x00\xffsecret bytes"),
    (PRICE, Decimal("1234567.89")),
    (LONG_DECIMAL, (10**45 + 7).to_bytes(20, "big")),
    (VARIABLE, {"scale": 3, "value": (123456789).to_bytes(5, "big")}),
    (DATE, 19782),
    (_column(TEXT, TIME + "IsoDate"), "2024-02-29Z"),
    (MILLI, 1709251199123),
    (MICRO, 1709251199123456),
    (NANO, 1709251199123456789),
    (ZONED, "2024-02-29T18:29:59.123456Z"),
    (ISO, "2024-02-29T23:59:59.5Z"),
    (_column(INT, TIME + "Time"), 86399123),
    (_column(LONG, TIME + "MicroTime"), -3020399999999),
    (_column(LONG, TIME + "NanoTime"), 3_723_000_000_123),
    (_column(TEXT, TIME + "IsoTime"), "01:02:03.5Z"),
    (_column(TEXT, TIME + "ZonedTime"), "18:29:59.123456Z"),
    (_column(LONG, TIME + "MicroDuration"), 37091106789000),
    (_column(TEXT, TIME + "Interval"), "P1Y2M3DT4H5M6.789S"),
    (_column(INT, TIME + "Year"), 2024),
    (_column(TEXT, TYPE + "Uuid"), "123e4567-e89b-12d3-a456-426614174000"),
    (JSON, '{"name": "correct horse", "n": [1.50]}'),
    (_column(TEXT, TYPE + "Enum", allowed="confidential,restricted"), "confidential"),
    (_column(TEXT, TYPE + "Xml"), "<a>correct horse</a>"),
    (_column(DATA, TYPE + "Bits", length="20"), b"\xaa\x0a\x05"),
    (POINT, {"x": 1.5, "y": 48.137154, "wkb": b"\x01\x02\x03", "srid": 4326}),
    (_list(PLAIN), ["correct horse", None, "battery"]),
    (_list(_column(INT)), [1234567, None]),
    (_list(_column(DOUBLE)), [1.25, None]),
    (_list(_list(_column(INT))), [[1234567], None]),
    (_list(VARIABLE), [{"scale": 1, "value": b"\x0f"}, None]),
    (Column("v", pl.Map(TEXT, TEXT), items=PLAIN), {"b": "correct horse", "a": None}),
    (UNION, '{"long": 1234567}'),
]
NAMES = [f"{column.semantic or ''}{column.dtype}"[:40] for column, _ in EVERY]


def _series(column: Column, *values: Any) -> pl.DataFrame:
    return pl.DataFrame({"v": pl.Series("v", values, dtype=column.dtype)})


def _treated(column: Column, treatment: Treatment) -> Treated:
    found = treated(column, treatment, KEYS, SENTINEL)
    assert found is not None
    return found


def images(column: Column, treatment: Treatment, *values: Any) -> list[Any]:
    """The values as an image has them, parsed."""
    found = _treated(column, treatment)
    assert found.text is not None
    text = found.text(pl.col("v"))
    if found.raw:
        texts = _series(column, *values).select(text.fill_null("null")).to_series().to_list()
        return [json.loads(one) for one in texts]
    encoded = _series(column, *values).select(pl.struct(text.alias("v")).struct.json_encode()).to_series()
    return [json.loads(one)["v"] for one in encoded]


def mirror(column: Column, treatment: Treatment, *values: Any) -> list[Any]:
    """The values as the mirror has them; and that `fits` says where one is missing."""
    found = _treated(column, treatment)
    assert found.value is not None
    frame = _series(column, *values)
    made = frame.select(found.value(pl.col("v"))).to_series()
    fits = [True] * len(values) if found.fits is None else frame.select(found.fits(pl.col("v"))).to_series().to_list()
    if not isinstance(made.dtype, pl.List):
        assert fits == [value is None or shown is not None for value, shown in zip(values, made.to_list(), strict=True)]
    return made.to_list()


def to(step: str) -> Treatment:
    """Generalize to this step."""
    return Treatment(Class.GENERALIZE, to=step)


TOKEN, MASK, REDACT, DROP = (Treatment(one) for one in (Class.TOKEN, Class.MASK, Class.REDACT, Class.DROP))
ENCRYPT = Treatment(Class.ENCRYPT)
SCAN = Treatment(Class.CLEAR, scan=("email", "card"))


# All classes, all types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("treatment", [TOKEN, MASK, REDACT, ENCRYPT], ids=lambda one: str(one.kind))
@pytest.mark.parametrize(("column", "value"), EVERY, ids=NAMES)
def test_every_type_is_hidden_and_a_null_stays_a_null(column: Column, value: Any, treatment: Treatment) -> None:
    """Of each type a value beside a null: text of the class's own form in the image, and in the mirror where it has one."""
    shown, nothing, again = images(column, treatment, value, None, value)
    assert nothing is None
    assert shown == again
    forms: dict[Class, Callable[[str], bool]] = {
        Class.TOKEN: lambda text: text.startswith("t1.") and len(text) == 25,
        Class.MASK: lambda text: text.startswith(STARS) and len(text) in (4, 8),
        Class.REDACT: lambda text: text == "[FILTERED]",
        Class.ENCRYPT: lambda text: text == SENTINEL.mark("v"),
    }
    assert forms[treatment.kind](shown)
    found = _treated(column, treatment)
    if treatment.kind is Class.REDACT:
        assert (found.value, found.clickhouse) == (None, None)
    else:
        assert found.clickhouse == "String"
        assert mirror(column, treatment, value, None) == [shown, None]


@pytest.mark.parametrize(("column", "value"), EVERY, ids=NAMES)
def test_dropped_is_left_out_and_clear_is_left_alone(column: Column, value: Any) -> None:
    """Neither an image nor a mirror has a dropped column."""
    found = _treated(column, DROP)
    assert (found.text, found.value, found.clickhouse) == (None, None, None)
    assert treated(column, CLEAR, KEYS) is None


@pytest.mark.parametrize(("column", "value"), EVERY, ids=NAMES)
def test_no_rows_and_only_nulls_are_fine(column: Column, value: Any) -> None:
    """Groups of records without a value in this column, under every class that the type has."""
    for treatment in (TOKEN, MASK, REDACT, ENCRYPT, SCAN, *map(to, STEPS)):
        try:
            _treated(column, treatment)
        except ConfigError:
            continue
        assert images(column, treatment, None, None) == [None, None]
        assert images(column, treatment) == []
        if treatment is not REDACT:
            assert len(mirror(column, treatment, None, None)) == 2


STEPS = ("hour", "day", "month", "year", "bucket:1000", "net:24/48", "domain", "prefix:3")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("column", "value"), EVERY, ids=NAMES)
def test_every_type_is_generalized_or_refused(column: Column, value: Any, step: str) -> None:
    """Null stays null; what makes no sense is refused before a value is seen, by the column's name and class."""
    try:
        found = _treated(column, to(step))
    except ConfigError as error:
        assert str(error).startswith("choose another class for column v: generalize to ")
        return
    shown, nothing = images(column, to(step), value, None)
    assert shown is not None
    assert nothing is None
    assert found.clickhouse is not None
    assert mirror(column, to(step), value, None)[1] is None


# Generalize ---------------------------------------------------------------------------------------------------------

GENERALIZED: list[tuple[Column, str, Any, Any]] = [
    (DATE, "day", 19782, "2024-02-29"),
    (DATE, "month", 19782, "2024-02-01"),
    (DATE, "year", 19782, "2024-01-01"),
    (DATE, "month", -719162, "0001-01-01"),
    (DATE, "month", -1, "1969-12-01"),
    (DATE, "year", 2932896, "9999-01-01"),
    (DATE, "year", 2**31 - 1, "[FILTERED]"),
    (_column(INT, "org.apache.kafka.connect.data.Date"), "year", 0, "1970-01-01"),
    (_column(TEXT, TIME + "IsoDate"), "month", "2024-02-29Z", "2024-02-01"),
    (_column(TEXT, TIME + "IsoDate"), "month", "-0044-03-15Z", "[FILTERED]"),
    (MICRO, "hour", 1709251199123456, "2024-02-29T23:00:00.000000"),
    (MICRO, "day", 1709251199123456, "2024-02-29T00:00:00.000000"),
    (MICRO, "month", 1709251199123456, "2024-02-01T00:00:00.000000"),
    (MICRO, "year", 1709251199123456, "2024-01-01T00:00:00.000000"),
    (MICRO, "year", -1, "1969-01-01T00:00:00.000000"),
    (MICRO, "hour", -1, "1969-12-31T23:00:00.000000"),
    (MICRO, "year", 2**63 - 1, "[FILTERED]"),
    (MICRO, "hour", -(2**63), "[FILTERED]"),
    (MILLI, "month", 1709251199123, "2024-02-01T00:00:00.000000"),
    (NANO, "year", 1709251199123456789, "2024-01-01T00:00:00.000000000"),
    (NANO, "year", -(2**63) + 1, "[FILTERED]"),
    (NANO, "hour", 2**63 - 1, "[FILTERED]"),
    (ZONED, "month", "2024-02-29T23:29:59.12-05:30", "2024-03-01T00:00:00.000000Z"),
    (ZONED, "hour", "2024-02-29T18:29:59Z", "2024-02-29T18:00:00.000000Z"),
    (ZONED, "hour", "infinity", "[FILTERED]"),
    (ZONED, "day", "+294247-01-10T04:00:25.2Z", "[FILTERED]"),
    (ISO, "year", "2024-02-29T23:59:59.5Z", "2024-01-01T00:00:00.000000"),
    (_column(INT, TIME + "Time"), "hour", 86399123, "23:00:00.000000"),
    (_column(LONG, TIME + "MicroTime"), "hour", -3020399999999, "-838:00:00.000000"),
    (_column(LONG, TIME + "MicroTime"), "hour", -(2**63), "[FILTERED]"),
    (_column(TEXT, TIME + "IsoTime"), "hour", "01:02:03.5Z", "01:00:00.000000"),
    (_column(TEXT, TIME + "IsoTime"), "hour", "-838:59:59Z", "[FILTERED]"),
    (_column(TEXT, TIME + "ZonedTime"), "hour", "18:29:59.123456Z", "18:00:00Z"),
    (_column(INT), "bucket:10", 37, 30),
    (_column(INT), "bucket:10", -1, -10),
    (_column(INT), "bucket:1000000000000", -1, -(2**31)),
    (_column(LONG), "bucket:10", -(2**63), -(2**63)),
    (_column(LONG), "bucket:10", 2**63 - 1, 9223372036854775800),
    (_column(INT, TIME + "Year"), "bucket:10", 2024, 2020),
    (PRICE, "bucket:100", Decimal("1234.56"), "1200.00"),
    (PRICE, "bucket:100", Decimal("-0.01"), "-100.00"),
    (PRICE, "bucket:1", Decimal("12.99"), "12.00"),
    (LONG_DECIMAL, "bucket:1000", (10**45 + 777).to_bytes(20, "big"), "1" + "0" * 43 + ".00"),
    (LONG_DECIMAL, "bucket:10", (-1).to_bytes(1, "big", signed=True), "-10.00"),
    (VARIABLE, "bucket:10", {"scale": 3, "value": (123456).to_bytes(5, "big")}, "120"),
    (VARIABLE, "bucket:100", {"scale": -2, "value": b"\xff"}, "-100"),
    (VARIABLE, "bucket:100", {"scale": 2**31 - 1, "value": b"\x01"}, "[FILTERED]"),
    (_column(DOUBLE), "bucket:10", 37.5, 30.0),
    (_column(DOUBLE), "bucket:10", -0.5, -10.0),
    (_column(DOUBLE), "bucket:10", float("nan"), "[FILTERED]"),
    (_column(DOUBLE), "bucket:10", float("-inf"), "[FILTERED]"),
    (PLAIN, "domain", "Bob.O'Neil@Mail.Example.ORG", "mail.example.org"),
    (PLAIN, "domain", "bob@münchen.example", "münchen.example"),
    (PLAIN, "domain", "bob@localhost", "[FILTERED]"),
    (PLAIN, "domain", "secret@x@example.org", "[FILTERED]"),
    (PLAIN, "domain", "Bob <bob@example.org>", "[FILTERED]"),
    (PLAIN, "domain", "no address", "[FILTERED]"),
    (PLAIN, "prefix:3", "SW1A 1AA", "SW1"),
    (PLAIN, "prefix:3", "SW1", "[FILTERED]"),
    (PLAIN, "prefix:3", "", "[FILTERED]"),
    (_column(INT), "prefix:2", 80331, "80"),
    (PLAIN, "net:24", "203.0.113.77", "203.0.113.0/24"),
    (PLAIN, "net:8", "203.0.113.77", "203.0.0.0/8"),
    (PLAIN, "net:0", "203.0.113.77", "0.0.0.0/0"),
    (PLAIN, "net:20", "203.0.113.77", "203.0.112.0/20"),
    (PLAIN, "net:24", "203.0.113.77/28", "203.0.113.0/24"),
    (PLAIN, "net:24", "10.0.0.0/8", "10.0.0.0/8"),
    (PLAIN, "net:24", "203.0.113.077", "[FILTERED]"),
    (PLAIN, "net:24", "203.0.113.777", "[FILTERED]"),
    (PLAIN, "net:24", "2001:db8::1", "[FILTERED]"),
    (PLAIN, "net:24/48", "2001:db8:1:2::1", "2001:db8:1::/48"),
    (PLAIN, "net:24/48", "fe80::1%eth0", "fe80::/48"),
    (PLAIN, "net:24/48", "not an address", "[FILTERED]"),
    (_list(PLAIN), "domain", ["bob@example.org", None, "x"], ["example.org", None, "[FILTERED]"]),
    (_list(MICRO), "year", [1709251199123456, None], ["2024-01-01T00:00:00.000000", None]),
    (_list(_column(DOUBLE)), "bucket:10", [37.5, None, float("nan")], [30.0, None, "[FILTERED]"]),
    (_list(_column(DOUBLE)), "bucket:10", [], []),
    (_list(VARIABLE), "bucket:10", [{"scale": 1, "value": b"\x7f"}], ["10"]),
]


@pytest.mark.parametrize(("column", "step", "value", "expected"), GENERALIZED)
def test_a_coarser_value_has_the_column_s_own_form(column: Column, step: str, value: Any, expected: Any) -> None:
    """What has none is [FILTERED], never the value; beside a null."""
    assert images(column, to(step), value, None) == [expected, None]


MIRRORED: list[tuple[Column, str, str, Any, Any]] = [
    (DATE, "month", "Date32", 19782, dt.date(2024, 2, 1)),
    (DATE, "month", "Date32", 2**31 - 1, None),
    (MICRO, "day", "DateTime64(6, 'UTC')", 1709251199123456, dt.datetime(2024, 2, 29, tzinfo=UTC)),
    (NANO, "hour", "DateTime64(9, 'UTC')", 1709251199123456789, dt.datetime(2024, 2, 29, 23, tzinfo=UTC)),
    (ZONED, "year", "DateTime64(6, 'UTC')", "2024-02-29T18:29:59Z", dt.datetime(2024, 1, 1, tzinfo=UTC)),
    (ISO, "year", "DateTime64(6, 'UTC')", "2024-02-29T18:29:59Z", dt.datetime(2024, 1, 1, tzinfo=UTC)),
    (ZONED, "year", "DateTime64(6, 'UTC')", "infinity", None),
    (_column(INT), "bucket:10", "Int32", 37, 30),
    (Column("v", INT, width=8), "bucket:100", "Int8", -128, None),
    (PRICE, "bucket:100", "Decimal(10, 2)", Decimal("1234.56"), Decimal("1200.00")),
    (_column(DOUBLE), "bucket:10", "Float64", 37.5, 30.0),
    (_column(DOUBLE), "bucket:10", "Float64", float("inf"), None),
    (PLAIN, "net:24", "String", "203.0.113.77", "203.0.113.0/24"),
    (_column(INT), "prefix:2", "String", 80331, "80"),
    (_list(DATE), "month", "Array(Nullable(Date32))", [19782, None], [dt.date(2024, 2, 1), None]),
]


@pytest.mark.parametrize(("column", "step", "kind", "value", "expected"), MIRRORED)
def test_a_coarser_value_keeps_its_type_in_the_mirror(column: Column, step: str, kind: str, value: Any, expected: Any) -> None:
    """Texts stay texts; where there is no coarser value the mirror has none, and says so."""
    assert _treated(column, to(step)).clickhouse == kind
    assert mirror(column, to(step), value) == [expected]


@pytest.mark.parametrize(
    ("column", "step"),
    [
        *((column, "month") for column in (PLAIN, _column(INT), JSON, _column(pl.Boolean()), _column(DATA), POINT)),
        *((DATE, "hour"), (_column(TEXT, TIME + "IsoTime"), "day"), (MICRO, "bucket:10"), (MICRO, "prefix:4")),
        *((PLAIN, "bucket:10"), (_column(INT), "bucket:1"), (PLAIN, "net:32"), (PLAIN, "net:24/128"), (PLAIN, "net:x")),
        *((PLAIN, "prefix:0"), (PLAIN, ""), (PLAIN, "week"), (_column(INT), "domain"), (UNION, "prefix:3")),
        *((_list(_list(_column(INT))), "bucket:10"), (_list(POINT), "bucket:10"), (_column(INT), "bucket:0")),
        (_column(DATA, DECIMAL, scale="-2"), "bucket:10"),
    ],
)
def test_a_treatment_without_sense_is_refused(column: Column, step: str) -> None:
    """Before any value is read, among them those that would show every value as it is."""
    with pytest.raises(ConfigError, match="column v: generalize to"):
        _treated(column, to(step))


def test_decimals_at_the_end_of_what_a_frame_holds_do_not_fail() -> None:
    """A lower bound that no longer fits is [FILTERED]; a bucket larger than all numbers holds all that are not negative."""
    widest = _column(pl.Decimal(38, 2), DECIMAL, **{"scale": "2", "connect.decimal.precision": "38"})
    least, most = (Decimal(f"{sign}{'9' * 36}.99") for sign in ("-", ""))
    frame = pl.DataFrame({"v": pl.Series([str(least), str(most)]).cast(pl.Decimal(38, 2))})
    for size, expected in (("100", ["[FILTERED]", "9" * 34 + "00.00"]), ("9" * 18, None)):
        found = _treated(widest, to(f"bucket:{size}"))
        assert found.text is not None
        shown = frame.select(found.text(pl.col("v"))).to_series().to_list()
        assert expected is None or shown == expected
    tiny = _column(pl.Decimal(38, 38), DECIMAL, **{"scale": "38", "connect.decimal.precision": "38"})
    assert images(tiny, to("bucket:5"), Decimal("0.5"), Decimal("-0.5"), None) == ["0." + "0" * 38, "[FILTERED]", None]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(2, 10**18 - 1))
def test_a_bucket_s_lower_bound_is_below_and_near(number: int, size: int) -> None:
    """Whole numbers: as Python rounds them down, except where 64 bits end."""
    (bound,) = images(_column(LONG), to(f"bucket:{size}"), number)
    assert bound == max(number // size * size, -(2**63))


@given(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)), st.sampled_from(["hour", "day", "month", "year"]))
def test_an_instant_is_rounded_down_as_the_calendar_does(moment: dt.datetime, step: str) -> None:
    """Of each unit and form; and two instants of the same step are told apart no more."""
    begin = {
        "hour": moment.replace(minute=0, second=0, microsecond=0),
        "day": moment.replace(hour=0, minute=0, second=0, microsecond=0),
        "month": moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0),
        "year": moment.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0),
    }[step]
    micros = (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    text = begin.isoformat(timespec="microseconds")
    assert images(MICRO, to(step), micros) == [text]
    assert images(MILLI, to(step), micros // 1_000) == [text]
    assert images(NANO, to(step), micros * 1_000) == [text + "000"]
    assert images(ZONED, to(step), moment.isoformat(timespec="microseconds") + "Z") == [text + "Z"]


# Mask and token -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "value", "expected"),
    [
        (4, "4111111111111111", "****1111"),
        (4, "12345678", "****5678"),
        (4, "1234567", "****"),
        (4, "", "****"),
        (2, "a😀é", "****"),
        (1, "a😀é", "****é"),
        (0, "12345678", "****"),
        (100, "x" * 199, "****"),
        (4, "x" * 100_000 + "tail", "****tail"),
    ],
)
def test_a_mask_keeps_the_tail_and_tells_no_length(keep: int, value: str, expected: str) -> None:
    """Never more than half of the characters, and four stars however many there were."""
    assert images(PLAIN, Treatment(Class.MASK, keep=keep), value) == [expected]


@pytest.mark.parametrize(("column", "value"), [pair for pair in EVERY if pair[0].items or pair[0].fields or pair[0].as_text])
def test_a_mask_of_several_values_or_of_few_keeps_no_tail(column: Column, value: Any) -> None:
    """The end of an array or document could be one of its values as a whole; a decimal of varying scale is one number."""
    expected = "****.789"[-4:] if column is VARIABLE else ""
    assert images(column, MASK, value) == [STARS + expected]


@pytest.mark.parametrize("column", [ZONED, ISO])
def test_a_coarse_instant_is_computed_once_however_often_it_is_named(column: Column, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars shares no work within a `select`: without care one instant was brought into its form dozens of times."""
    calls: list[int] = []
    form = times._zoned_texts

    def counted(texts: pl.Series) -> pl.Series:
        calls.extend([len(texts)] if len(texts) else [])
        return form(texts)

    monkeypatch.setattr(times, "_zoned_texts", counted)
    found = treated(column, Treatment(Class.GENERALIZE, to="month"), KEYS)
    assert found is not None and found.text is not None and found.value is not None and found.fits is not None
    frame = pl.Series("v", ["2024-02-29T18:29:59.123456Z", None, "infinity", "2024-02-29T18:29:59.5Z"]).to_frame()
    made = frame.select(found.text(pl.col("v")).alias("text"), found.value(pl.col("v")).alias("value"))
    assert made["text"].to_list()[1] is None
    assert made["value"].to_list()[0] == dt.datetime(2024, 2, 1, tzinfo=UTC)
    assert made["value"].to_list()[0] == made["value"].to_list()[3]
    assert len(calls) <= 4


def test_a_mask_of_a_boolean_or_enum_tells_nothing() -> None:
    """Their last letters would tell the value."""
    for column, values in (
        (_column(pl.Boolean()), (True, False)),
        (_column(TEXT, TYPE + "Enum", allowed="approved,declined"), ("approved", "declined")),
    ):
        assert images(column, Treatment(Class.MASK, keep=1), *values) == [STARS, STARS]


def _reference(key: bytes, text: str) -> str:
    return "t1." + base64.urlsafe_b64encode(hmac.digest(key, text.encode(), hashlib.sha256)).decode()[:22]


@given(
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)), st.binary(min_size=1, max_size=100)
)
def test_a_token_is_the_hmac_of_the_text(texts: list[str | None], key: bytes) -> None:
    """By Python's own HMAC, for keys of any length, one by one and as a column; null stays null, equal stays equal."""
    tokens = Tokens(key)
    expected = [None if text is None else _reference(key, text) for text in texts]
    assert tokens.of(pl.Series(texts, dtype=TEXT)).to_list() == expected
    assert [None if text is None else tokens.one(text) for text in texts] == expected


def test_a_value_has_one_token_whatever_its_type() -> None:
    """So that a number in one table joins its text in another; domains do not join."""
    (number,), (text,) = images(_column(LONG), TOKEN, 42), images(PLAIN, TOKEN, "42")
    assert number == text == _reference(KEY, "42")
    assert images(PLAIN, Treatment(Class.TOKEN, domain="person"), "42") == [_reference(KEY[::-1], "42")]


def test_a_missing_key_is_an_error_before_the_first_value() -> None:
    """Never a token with another key, and never the clear value; the keys have no readable form."""
    with pytest.raises(ConfigError, match=r"\[domains.nobody\]"):
        treated(PLAIN, Treatment(Class.TOKEN, domain="nobody"), KEYS)
    with pytest.raises(ConfigError, match="empty"):
        TokenKeys({"default": b""})
    with pytest.raises(ValueError, match="sentinel"):
        treated(PLAIN, ENCRYPT, KEYS)
    shown = f"{KEYS!r} {KEYS['default']!r} {SENTINEL!r}"
    assert KEY.hex() not in shown
    assert str(KEY) not in shown
    assert SENTINEL.nonce not in shown


# Scan of columns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (PLAIN, "to bob@example.org", "to [EMAIL]"),
        (JSON, '{"to": "bob@example.org"}', '{"to": "[EMAIL]"}'),
        (UNION, '{"card":4111111111111111}', '{"card":"[CARD]"}'),
        (_list(PLAIN), ["bob@example.org", None, "x"], ["[EMAIL]", None, "x"]),
        (_list(_list(PLAIN)), [["bob@example.org"], None], [["[EMAIL]"], None]),
        (Column("v", pl.Map(TEXT, TEXT), items=PLAIN), {"b": "bob@example.org", "a": None}, {"a": None, "b": "[EMAIL]"}),
        (struct_column("v", (PLAIN, Column("n", INT))), {"v": "bob@example.org", "n": 1}, {"n": 1, "v": "[EMAIL]"}),
    ],
)
def test_scanned_columns_keep_their_form(column: Column, value: Any, expected: Any) -> None:
    """Texts, documents, arrays, maps and records, beside a null."""
    assert images(column, SCAN, value, None) == [expected, None]
    found = _treated(column, SCAN)
    assert found.clickhouse in ("String", "JSON", "Array(Nullable(String))")
    assert mirror(column, SCAN, value, None)[1] is None


@pytest.mark.parametrize("column", [_column(INT), _column(DOUBLE), DATE, ZONED, _column(DATA), PRICE, VARIABLE])
def test_only_text_is_scanned(column: Column) -> None:
    """Asked for elsewhere it is a mistake, not something to pass over."""
    with pytest.raises(ConfigError, match="column v"):
        treated(column, SCAN, KEYS)


def test_a_text_outside_tables_is_treated_alike() -> None:
    """Fields of contexts: series in, series out; encryption has no place there."""
    texts = pl.Series("ip", ["203.0.113.77", None])
    assert of_texts("ip", to("net:24/48"), KEYS)(texts).to_list() == ["203.0.113.0/24", None]
    assert of_texts("ip", DROP, KEYS)(texts).to_list() == [None, None]
    assert of_texts("ip", CLEAR, KEYS)(texts).to_list() == texts.to_list()
    assert of_texts("ip", TOKEN, KEYS)(texts).to_list() == [_reference(KEY, "203.0.113.77"), None]
    assert of_texts("ip", TOKEN, KEYS)(texts).name == "ip"
    with pytest.raises(ConfigError, match="ip: encrypt"):
        of_texts("ip", ENCRYPT, KEYS)


# The law of protection ----------------------------------------------------------------------------------------------

CHARACTERS = st.characters(exclude_categories=["Cs"])
SECRETS = st.text(CHARACTERS, min_size=9, max_size=40)
PROTECTING = [MASK, TOKEN, REDACT, ENCRYPT, to("domain"), to("net:24/48"), to("net:13"), to("prefix:3")]


@given(st.lists(SECRETS | st.emails() | st.ip_addresses().map(str) | st.none(), min_size=1, max_size=6))
def test_no_output_holds_a_protected_text(texts: list[str | None]) -> None:
    """Of hostile texts, addresses and nulls: no image and no mirror value contains the input it stands for."""
    for treatment in PROTECTING:
        shown = images(PLAIN, treatment, *texts)
        if treatment is not REDACT:
            assert mirror(PLAIN, treatment, *texts) == shown or treatment.kind is Class.GENERALIZE
        for text, one in zip(texts, shown, strict=True):
            assert (text is None) == (one is None)
            network = treatment.to.startswith("net") and one is not None and one.startswith(f"{text}/")  # its own address
            assert text is None or text == "[FILTERED]" or network or text not in one


@given(SECRETS, SECRETS, st.text(CHARACTERS, min_size=4, max_size=4))
def test_two_values_that_share_what_is_kept_look_the_same(first: str, second: str, kept: str) -> None:
    """The stronger law: nothing but the declared part reaches the output."""
    assume(first != second)
    assert len(set(images(PLAIN, MASK, first + kept, second + kept))) == 1
    assert len(set(images(PLAIN, to("prefix:4"), kept + first, kept + second))) == 1
    assert len(set(images(PLAIN, REDACT, first, second))) == 1
    assert len(set(images(PLAIN, ENCRYPT, first, second))) == 1
    assert len(set(images(PLAIN, TOKEN, first, second))) == 2


@given(st.integers(10**9, 10**15), st.floats(allow_nan=True, allow_infinity=True), st.decimals(-(10**7), 10**7, places=2))
def test_numbers_are_protected(whole: int, real: float, price: Decimal) -> None:
    """Masked, as tokens, redacted, to be encrypted: their canonical text is not in the output; buckets share one output."""
    for treatment in (MASK, TOKEN, REDACT, ENCRYPT):
        (shown,) = images(_column(LONG), treatment, whole)
        assert str(whole) not in shown
        (shown,) = images(PRICE, treatment, price)
        assert str(price) not in shown or len(str(price)) <= 4
    base = whole // 1000 * 1000
    assert len(set(images(_column(LONG), to("bucket:1000"), base, base + 1, base + 999, whole))) == 1
    assert images(_column(DOUBLE), REDACT, real) == ["[FILTERED]"]
