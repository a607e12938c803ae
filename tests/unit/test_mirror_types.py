"""A column's type may change in the source: what the mirror's column becomes."""

from __future__ import annotations

import pytest

from chronicle.sinks.mirror_types import join, normal, slug


@pytest.mark.parametrize(
    ("existing", "wanted", "expected"),
    [
        ("Nullable(Int32)", "Nullable(Int32)", "Nullable(Int32)"),
        ("Nullable(Int32)", "Nullable(Int64)", "Nullable(Int64)"),
        ("Nullable(Int64)", "Nullable(Int16)", "Nullable(Int64)"),
        ("Nullable(UInt64)", "Nullable(Int8)", "Nullable(Int128)"),
        ("Nullable(Int32)", "Nullable(UInt32)", "Nullable(Int64)"),
        ("Nullable(Float32)", "Nullable(Float64)", "Nullable(Float64)"),
        ("Nullable(Decimal(10, 2))", "Nullable(Decimal(12,4))", "Nullable(Decimal(12, 4))"),
        ("Nullable(Decimal(10, 2))", "Nullable(Decimal(8, 4))", "Nullable(Decimal(12, 4))"),
        ("Nullable(Decimal(76, 2))", "Nullable(Decimal(76, 4))", None),
        ("Nullable(DateTime64(3))", "Nullable(DateTime64(6))", "Nullable(DateTime64(6))"),
        ("Nullable(DateTime64(6))", "Nullable(DateTime64(6, 'UTC'))", None),
        ("Nullable(Int32)", "Nullable(String)", None),
        ("Nullable(String)", "Nullable(Int32)", None),
        ("Nullable(String)", "Nullable(JSON)", None),
        ("Nullable(Enum16('a' = 1))", "Nullable(String)", "Nullable(LowCardinality(String))"),
        ("Nullable(String)", "Nullable(Enum16('a' = 1))", "Nullable(String)"),
        ("Array(Int32)", "Array(Int64)", "Array(Int64)"),
        ("Array(Int32)", "Array(String)", None),
        ("Map(String, Nullable(Int32))", "Map(String, Nullable(Int64))", "Map(String, Nullable(Int64))"),
        ("Int32", "Nullable(Int32)", "Nullable(Int32)"),
    ],
)
def test_a_changed_type_widens_or_takes_a_column_of_its_own(existing: str, wanted: str, expected: str | None) -> None:
    """The joined type holds every value of both exactly, and where none does there is none."""
    assert join(existing, wanted) == expected


def test_an_enum_keeps_its_numbers_when_a_value_is_added_in_the_middle() -> None:
    """Parts on disk hold numbers: a name's number may never change, whatever order the source has now."""
    joined = join(r"Enum16('a' = 1, 'it\'s, (b)' = 2)", r"Enum16('a' = 1, 'new' = 2, 'it\'s, (b)' = 3)")
    assert joined == r"Enum16('a' = 1, 'it\'s, (b)' = 2, 'new' = 3)"


def test_spacing_makes_no_difference_between_types() -> None:
    """ClickHouse prints types with its own spacing."""
    assert normal("Nullable(Decimal(10,2))") == normal("Nullable(Decimal(10, 2))")
    assert normal("Map(String,Array(Nullable( DateTime64(6,'UTC') )))") == "Map(String, Array(Nullable(DateTime64(6, 'UTC'))))"


def test_a_type_has_a_readable_ending_for_its_own_column() -> None:
    """The second column of a name says which values it holds."""
    assert [slug(t) for t in ("Nullable(String)", "Nullable(Decimal(10, 2))", "LowCardinality(String)", "Enum16('x' = 1)")] == [
        "string",
        "decimal_10_2",
        "string",
        "enum",
    ]
