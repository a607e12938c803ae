"""What a person writes (times, table names, keys) becomes exactly what the trail is asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chronicle.errors import ChronicleError
from chronicle.trail import keys, moments, tables
from chronicle.trail.changes import Filters
from chronicle.trail.tables import TableName

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TABLES = [
    TableName("shop", "public", "customers"),
    TableName("shop", "public", "orders"),
    TableName("archive", "public", "orders"),
    TableName("hiring", "hiring", "odd.name"),
]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10m", datetime(2026, 11, 23, 11, 50, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 23, 10, 0, tzinfo=UTC)),
        ("1w", datetime(2026, 11, 16, 12, 0, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T02:00:00+02:00", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T00:00:00.000001Z", datetime(2026, 11, 1, 0, 0, 0, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_span_before_now_or_iso(written: str, meant: datetime) -> None:
    """A span counts back from now; an ISO time without a zone is UTC."""
    assert moments.parse(written, NOW) == meant


@pytest.mark.parametrize("written", ["", "yesterday", "10", "10y", "-5m", "2026-13-01", "999999w"])
def test_a_time_that_is_neither_is_refused_with_what_to_write(written: str) -> None:
    """The error names the forms that are understood."""
    with pytest.raises(ChronicleError, match="10m, 2h"):
        moments.parse(written, NOW)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("shop.public.customers", TABLES[0]),
        ("public.customers", TABLES[0]),
        ("customers", TABLES[0]),
        ("archive.public.orders", TABLES[2]),
        ("odd.name", TABLES[3]),
    ],
)
def test_a_unique_end_of_a_name_is_enough(written: str, meant: TableName) -> None:
    """Any whole-word end of source.schema.table names the table, names with dots included."""
    assert tables.resolve(written, TABLES) == meant


def test_an_ambiguous_name_lists_the_candidates() -> None:
    """Nothing is guessed: both tables are named."""
    with pytest.raises(ChronicleError, match=r"shop\.public\.orders, archive\.public\.orders"):
        tables.resolve("orders", TABLES)


def test_an_unknown_name_lists_the_nearest() -> None:
    """A typo is answered with what was probably meant, and not with the rest."""
    with pytest.raises(ChronicleError, match=r"^did you mean shop\.public\.customers: no"):
        tables.resolve("custmers", TABLES)


def test_a_part_of_a_word_is_no_name() -> None:
    """`tomers` is not the table customers."""
    with pytest.raises(ChronicleError, match="no changes of a table"):
        tables.resolve("tomers", TABLES)


def test_an_empty_trail_says_so() -> None:
    """Without any table the error says what to start."""
    with pytest.raises(ChronicleError, match="trail is empty"):
        tables.resolve("customers", [])


@pytest.mark.parametrize(
    ("written", "shape", "texts"),
    [
        ("7", ("id",), ['{"id":7}', '{"id":"7"}']),
        ("007", ("id",), ['{"id":"007"}']),
        ("-7", ("id",), ['{"id":-7}', '{"id":"-7"}']),
        ('"7"', ("id",), ['{"id":"7"}']),
        ("a,b", ("id",), ['{"id":"a,b"}']),
        ("Zoë", ("name",), ['{"name":"Zoë"}']),
        ("true", ("flag",), ['{"flag":true}', '{"flag":"true"}']),
        ('{"id":7}', ("id",), ['{"id":7}']),
        ('{"b":2,"a":1}', ("a", "b"), ['{"a":1,"b":2}']),
        ("[1,2]", ("a", "b"), ['{"a":1,"b":2}']),
        ("x, y", ("a", "b"), ['{"a":"x","b":"y"}']),
        ("1,2", ("a", "b"), ['{"a":1,"b":2}', '{"a":1,"b":"2"}', '{"a":"1","b":2}', '{"a":"1","b":"2"}']),
    ],
)
def test_a_key_is_tried_in_every_spelling_it_can_have(written: str, shape: tuple[str, ...], texts: list[str]) -> None:
    """A bare value may be a number or a text; JSON is taken as it is, in the key's own order of columns."""
    assert keys.texts(written, [shape]) == texts


@pytest.mark.parametrize("written", ["1", "1,2,3", '{"a":1}', '{"a":1,"b":2,"c":3}', "[1]"])
def test_a_key_that_does_not_fit_names_the_columns(written: str) -> None:
    """The error shows both ways to write a composite key."""
    with pytest.raises(ChronicleError, match=r'write the key as A,B or as JSON \(\{"a":…,"b":…\}\)'):
        keys.texts(written, [("a", "b")])


def test_a_table_without_a_key_has_no_history() -> None:
    """It says what to ask instead."""
    with pytest.raises(ChronicleError, match="no primary key"):
        keys.texts("7", [])


def test_an_operation_that_does_not_exist_is_refused() -> None:
    """A typo in a filter is no empty answer."""
    with pytest.raises(ChronicleError, match="snapshot, create, update, delete, truncate"):
        Filters(operations=("remove",))


def test_an_attribution_that_does_not_exist_is_refused_with_those_that_do() -> None:
    """All six words, best first."""
    with pytest.raises(ChronicleError, match="message, table, comment, row, pending, none: there is no 'messages'"):
        Filters(attributions=("message", "messages"))
