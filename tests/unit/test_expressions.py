"""Conditions of a policy: SQL over a row as people see it, checked when it is read, and never an error on a row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.codec.schema import parse_avro
from chronicle.errors import ConfigError
from chronicle.stages.expressions import compile_condition, referenced

TIME, DATA, KAFKA = "io.debezium.time.", "io.debezium.data.", "org.apache.kafka.connect.data."
VARIABLE = {
    "type": "record",
    "name": "VariableScaleDecimal",
    "namespace": "io.debezium.data",
    "connect.name": DATA + "VariableScaleDecimal",
    "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
}
TYPES: dict[str, Any] = {
    "id": "long",
    "qty": "int",
    "status": "string",
    "active": "boolean",
    "rate": "double",
    "ratio": "float",
    "price": {
        "type": "bytes",
        "connect.name": KAFKA + "Decimal",
        "connect.parameters": {"scale": "2", "connect.decimal.precision": "38"},
    },
    "weight": VARIABLE,
    "born": {"type": "int", "connect.name": TIME + "Date"},
    "made": {"type": "long", "connect.name": TIME + "MicroTimestamp"},
    "sent": {"type": "long", "connect.name": TIME + "Timestamp"},
    "nano": {"type": "long", "connect.name": TIME + "NanoTimestamp"},
    "seen": {"type": "string", "connect.name": TIME + "ZonedTimestamp"},
    "due": {"type": "string", "connect.name": TIME + "IsoDate"},
    "opens": {"type": "long", "connect.name": TIME + "MicroTime"},
    "doc": {"type": "string", "connect.name": DATA + "Json"},
    "tags": {"type": "array", "items": ["null", "string"]},
    "raw": "bytes",
}
FIELDS = [{"name": name, "type": ["null", kind]} for name, kind in TYPES.items()]
COLUMNS = parse_avro(1, json.dumps({"type": "record", "name": "Row", "fields": FIELDS})).columns
FLAT = {"op": pl.String(), **{f"{block}:{one.name}": one.dtype for block in "ba" for one in COLUMNS}}
NONE: dict[str, Any] = dict.fromkeys(TYPES)
ROW: dict[str, Any] = NONE | {
    **{"id": 7, "qty": 3, "status": "draft", "active": True, "rate": 1.5, "ratio": 0.1, "price": Decimal("10.50")},
    **{"weight": {"scale": 1, "value": b"\x0f"}, "born": 19_800, "made": 1_700_000_000_000_000, "sent": 1_700_000_000_000},
    **{"nano": 1_700_000_000_000_000_000, "seen": "2024-02-29T18:29:59+01:00", "due": "2024-02-29Z", "opens": 3_600_000_000},
    **{"doc": '{"tier":"gold","size":{"n":5}}', "tags": ["a", None], "raw": b"\0\xff"},
}
Change = tuple[str, Mapping[str, Any], Mapping[str, Any]]


def flat(*changes: Change) -> pl.DataFrame:
    """Operation, old row, new row."""
    rows = [
        {"op": op, **{f"b:{name}": one for name, one in old.items()}, **{f"a:{name}": one for name, one in new.items()}}
        for op, old, new in changes
    ]
    return pl.DataFrame(rows, schema=FLAT)


def compiled(sql: str, **more: Any) -> pl.Expr:
    return compile_condition(sql, COLUMNS, rule="where of shop.public.t", **more)


def holds(sql: str, *changes: Change, **more: Any) -> list[bool | None]:
    found = flat(*(changes or [("c", NONE, ROW)])).select(compiled(sql, **more).alias("?"))["?"]
    return found.to_list()


@pytest.mark.parametrize(
    "sql",
    [
        "status = 'draft' and id > 5 or false",
        "status <> 'x' and not status in ('open', 'won')",
        "price = 10.5 and price between 10 and 10.50",
        "price * qty > 31 and price + 1 = 11.5",
        "weight = 1.5",
        "qty * 1000000000000 = 3000000000000",
        "qty / 2 = 1.5 and qty // 2 = 1 and qty % 2 = 1",
        "ratio = 0.1 and rate >= 1.5",
        "born = '2024-03-18' and born > date '2024-01-01' and born in ('2024-03-18', '2024-03-19')",
        "made = '2023-11-14 22:13:20' and made = sent and made = nano",
        "seen = '2024-02-29T17:29:59Z' and seen < '2024-02-29T18:30:00+00:30'",
        "due = '2024-02-29' and due < born",
        "born + interval '1 month' = '2024-04-18'",
        "opens = '01:00:00.000000'",
        "active and active = 1 and active is true",
        "array_contains(tags, 'a') and 'a' = any(tags) and array_length(tags) = 2",
        "(doc ->> 'tier') = 'gold' and try_cast(doc.size.n as int) > 4",
        "lower(upper(status)) like 'dr%' and status ilike 'DR_FT' and status ~ '^d.*t$' and length(trim(status)) = 5",
        "starts_with(status, 'dr') and substr(status, 2, 2) = 'ra' and replace(status, 'd', 'k') = 'kraft'",
        "status || '-' || id = 'draft-7' and concat(status, 1) = 'draft1'",
        "coalesce(null, status) = 'draft' and nullif(status, 'x') is not null",
        "case when qty > 2 then 'many' else 'few' end = 'many'",
        "greatest(id, qty) = 7 and abs(id - 10) = 3 and round(price, 0) in (10, 11) and floor(rate) = 1",
        "extract(year from born) = 2024 and extract(hour from made) = 22",
        "raw = 'AP8='",
        "id < 99999999999999999999 and price < 99999999999999999999999.5",
        "operation = 'create'",
    ],
)
def test_a_condition_sees_values_as_people_do(sql: str) -> None:
    """Dates, timestamps in UTC, decimals, documents, lists and texts; numbers of any width."""
    assert holds(sql) == [True]


def test_null_is_not_true() -> None:
    """Nor is its opposite, as in SQL; what asks for NULL gets an answer."""
    empty: Change = ("c", NONE, NONE)
    for sql in ("status = 'x'", "status <> 'x'", "not active", "id in (1, 2)", "id not in (1)", "born > '2024-01-01'"):
        assert holds(sql, empty) == [None]
    assert holds("status is null and (status is distinct from 'x') and coalesce(status, '') = ''", empty) == [True]


def test_the_row_is_the_new_one_and_of_a_delete_the_old_one() -> None:
    """A column that an update set to NULL is NULL: the old value does not stand in for it."""
    open_ = ROW | {"status": "open"}
    changes: list[Change] = [("u", open_, ROW), ("u", open_, ROW | {"status": None}), ("d", open_, NONE), ("r", NONE, open_)]
    assert holds("status = 'open'", *changes) == [False, None, True, True]
    assert holds("operation in ('delete', 'snapshot')", *changes) == [False, False, True, True]


def test_where_the_row_stands_can_be_asked() -> None:
    """For routes; a column of that name comes first."""
    assert holds("source = 'shop' and \"table\" = 't'", place=("shop", "public", "t")) == [True]
    with pytest.raises(ConfigError, match="no column source"):
        compiled("source = 'shop'")


def test_a_value_that_was_not_sent_is_unknown() -> None:
    """Postgres' placeholder for an unchanged TOASTed value is no value."""
    row = ROW | {"status": "5c1f7e0d", "tags": ["5c1f7e0d"]}
    sql = "status <> 'x' or array_length(tags) = 1"
    assert holds(sql, ("u", NONE, row), unavailable="5c1f7e0d") == [None]
    assert holds(sql, ("u", NONE, ROW), unavailable="5c1f7e0d") == [True]


def test_what_no_calendar_shows_is_unknown() -> None:
    """Infinity, dates BC, and texts that are no instants."""
    row = ROW | {"born": 2**31 - 1, "made": 2**63 - 1, "sent": -(2**63), "nano": 2**63 - 1, "seen": "infinity", "due": "x"}
    for name in ("born", "made", "sent", "nano", "seen", "due"):
        assert holds(f"{name} > '2000-01-01' or {name} <= '2000-01-01'", ("c", NONE, row)) == [None]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("stattus = 'x'", "no column stattus .did you mean status"),
        ("customers.status = 'x'", "no column customers"),
        ("status", "gives text"),
        ("id + 1", "gives a whole number"),
        ("1 = 1", "names no column"),
        ("id = '5'", "numbers without quotes"),
        ("status > 5", "numbers without quotes"),
        ("born = status", "TRY_CAST"),
        ("born > 'tomorrow'", "write dates as"),
        ("status = null", "IS NULL"),
        ("tags = 'a'", "array_contains"),
        ("id & 1", "true or false is needed"),
        ("status ~ '('", "does not compile"),
        ("status ~ 'a(?=b)'", "does not compile"),
        ("sum(id) > 1", "one row"),
        ("row_number() over (order by id) = 1", "one row"),
        ("id in (select 1)", "subquery"),
        ("id in (SELECT x FROM read_csv('/etc/passwd'))", "subquery"),
        ("exists (select 1)", "subquery"),
        ("id in (from read_csv('/etc/passwd'))", "subquery"),
        ("id in ( /* */ (FROM read_csv('/etc/passwd')))", "subquery"),
        ("status = E'\\'' or id in (from read_csv('/etc/passwd'))", "without a prefix"),
        ("made < now()", "one answer"),
        ("born < current_date", "one answer"),
        ("active is not true", "coalesce"),
        ("id = 1 as x", "alias"),
        ("status = 'x'; drop table t", "no SQL expression"),
        ("status = 'x' and (", "no SQL expression"),
        ("", "no SQL expression"),
        ("columns('a.*')", "not allowed"),
        ("unnest(tags) = 'a'", "not allowed"),
        ("strftime(born, '%Y') = '2024'", "EXTRACT"),
        ("born + interval '9000 years' > made", "1000 years"),
        ("right(status, 2) = 'x'", "no RIGHT"),
        ("cos(rate) > 0", "not allowed"),
    ],
)
def test_a_wrong_condition_is_refused_when_it_is_read(sql: str, said: str) -> None:
    """With the rule named, and what to write instead."""
    with pytest.raises(ConfigError, match=said) as caught:
        compiled(sql)
    assert str(caught.value).startswith("correct where of shop.public.t: ")


def test_no_message_repeats_a_text_of_the_condition() -> None:
    """It may be somebody's name."""
    for sql in (
        "status = 'Lovelace' as 'Lovelace'",
        "status similar to 'Lovelace'",
        "status = 'Lovelace' 'x",
        "id = 'Lovelace'",
    ):
        with pytest.raises(ConfigError) as caught:
            compiled(sql)
        assert "Lovelace" not in str(caught.value)


def test_the_columns_of_a_condition_can_be_asked() -> None:
    """So that a policy can be checked, and only those are decoded."""
    assert referenced("status = 'id' and (doc ->> 'tier') = \"born\" or operation = 'delete'") == {
        *("status", "doc", "born", "operation")
    }


NAMES = {
    "number": ["id", "qty", "rate", "ratio", "price", "weight"],
    "text": ["status", "opens", "doc", "raw", "operation"],
    "moment": ["born", "made", "sent", "nano", "seen", "due"],
}
numbers = st.recursive(
    st.sampled_from(
        [*NAMES["number"], "0", "-1", "2.5", "9223372036854775807", "99999999999999999999999999999999999999", "1e300"]
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
            lambda three: "({} {} {})".format(*three)
        ),
        st.tuples(st.sampled_from(["abs", "floor", "ceil", "round"]), inner).map(lambda two: "{}({})".format(*two)),
        st.tuples(st.sampled_from(["greatest", "coalesce", "nullif", "least"]), inner, inner).map(
            lambda three: "{}({}, {})".format(*three)
        ),
        inner.map(lambda one: f"try_cast({one} as int)"),
        inner.map(lambda one: f"try_cast({one} as decimal(10, 2))"),
    ),
    max_leaves=5,
)
texts = st.recursive(
    st.sampled_from([*NAMES["text"], "'a'", "''"]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["lower", "upper", "trim", "ltrim"]), inner).map(lambda two: "{}({})".format(*two)),
        st.tuples(inner, inner).map(lambda two: "({} || {})".format(*two)),
        inner.map(lambda one: f"substr({one}, 2, 3)"),
        inner.map(lambda one: f"left({one}, 1)"),
        inner.map(lambda one: f"replace({one}, 'a', 'bb')"),
        st.just("(doc ->> 'a')"),
        st.just("(doc -> 'a' ->> 'b c')"),
        st.tuples(inner, inner).map(lambda two: "coalesce({}, {})".format(*two)),
    ),
    max_leaves=4,
)
moments = st.one_of(
    st.sampled_from([*NAMES["moment"], "date '0001-01-01'", "timestamp '9999-12-31 23:59:59'"]),
    st.tuples(
        st.sampled_from(NAMES["moment"]), st.sampled_from(["+", "-"]), st.sampled_from(["1 day", "1000 years", "13 months"])
    ).map(lambda three: "({} {} interval '{}')".format(*three)),
    texts.map(lambda one: f"try_cast({one} as date)"),
    texts.map(lambda one: f"try_cast({one} as timestamp)"),
)
comparisons = st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "is distinct from", "is not distinct from"])


def _compared(one: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(one, comparisons, one).map(lambda three: "({} {} {})".format(*three))


conditions = st.recursive(
    st.one_of(
        *(_compared(one) for one in (numbers, texts, moments)),
        texts.map(lambda one: f"({one} like '%a_')"),
        texts.map(lambda one: f"({one} ~ '[a-c]+\\d$')"),
        texts.map(lambda one: f"(try_cast({one} as double) > 1)"),
        texts.map(lambda one: f"(length({one}) > 1)"),
        numbers.map(lambda one: f"({one} in (1, 2, 3))"),
        numbers.map(lambda one: f"({one} in (1.5, 2))"),
        moments.map(lambda one: f"(extract(year from {one}) > 2000)"),
        st.sampled_from(["active", "array_contains(tags, 'a')", "(array_length(tags) = 0)"]),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or", "xor"]), inner).map(lambda three: "({} {} {})".format(*three)),
        inner.map(lambda one: f"(not {one})"),
        inner.map(lambda one: f"({one} is null)"),
    ),
    max_leaves=3,
)
INT64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, -(2**63), 2**63 - 1]))
INT32 = st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, -(2**31), 2**31 - 1, -719_162, 2_932_896]))
TEXTS = st.one_of(
    st.text(max_size=8), st.sampled_from(["", "2024-02-30", "infinity", "2024-02-29T18:29:59.5Z", '{"a":{"b c":1}}', "{"])
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("id", "made", "sent", "nano", "opens"), INT64),
    **dict.fromkeys(("qty", "born"), INT32),
    **dict.fromkeys(("status", "seen", "due", "doc"), TEXTS),
    "active": st.booleans(),
    "rate": st.floats(),
    "ratio": st.floats(width=32),
    "price": st.decimals(-(10**36) + 1, 10**36 - 1, places=2, allow_nan=False),
    "weight": st.fixed_dictionaries({"scale": st.integers(-5, 60), "value": st.binary(min_size=1, max_size=24)}),
    "tags": st.lists(st.none() | TEXTS, max_size=3),
    "raw": st.binary(max_size=4),
}
rows = st.fixed_dictionaries({name: st.none() | VALUES[name] for name in TYPES})


@given(sql=conditions, row=rows, op=st.sampled_from("cudrt"))
def test_a_compiled_condition_never_raises(sql: str, row: Mapping[str, Any], op: str) -> None:
    """Whatever the condition and the row: it is true, false or unknown; what cannot be compiled is refused before."""
    try:
        condition = compiled(sql)
    except ConfigError:
        return
    (found,) = holds_all(condition, (op, row, row))
    assert found in (True, False, None)


def holds_all(condition: pl.Expr, *changes: Change) -> list[bool | None]:
    return flat(*changes).select(condition.alias("?"))["?"].to_list()
