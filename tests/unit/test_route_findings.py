"""Laws of `policy check` about routes: a condition that no table can answer is found before anybody waits for its records."""

from __future__ import annotations

import polars as pl
import pytest

from chronicle.captured_tables import Captured, kind_of, misfits, route_findings
from chronicle.codec.columns import Column
from chronicle.policy.check import Level
from chronicle.policy.file import parse
from chronicle.policy.tables import SeenColumn, SeenTable

USERS, ORDERS = ("shop", "public", "users"), ("shop", "public", "orders")
COLUMNS = {
    USERS: (Column("id", pl.Int64()), Column("role", pl.String())),
    ORDERS: (Column("id", pl.Int64()), Column("total", pl.Float64())),
}


def seen(place: tuple[str, str, str]) -> SeenTable:
    return SeenTable(*place, tuple(SeenColumn(one.name, kind_of(one)) for one in COLUMNS[place]), ("id",))


CAPTURED = Captured(
    tuple(map(seen, COLUMNS)),
    {".".join(place): {one.name: one for one in columns} for place, columns in COLUMNS.items()},
    (),
)


def found(match: str, where: str | None) -> list[tuple[Level, str, str]]:
    """Level, kind and place."""
    condition = f'where = "{where}"\n' if where else ""
    policy = parse(f'[[tables]]\nmatch = "**"\n[[routes]]\nname = "r"\nmatch = ["{match}"]\nto = "t"\n{condition}')
    assert misfits(policy, CAPTURED) == [], "a route never keeps a worker from starting"
    return [(one.level, one.kind, one.where) for one in route_findings(policy, CAPTURED)]


@pytest.mark.parametrize("where", [None, "id > 5", "operation = 'delete'", "id IS NOT NULL AND operation != 'update'"])
def test_a_route_that_fits_all_its_tables_has_no_findings(where: str | None) -> None:
    """Also when it asks for the operation, which is no column."""
    assert found("#", where) == []


def test_a_condition_that_fits_some_tables_is_a_warning_for_the_others() -> None:
    """The route does take something."""
    assert found("#", "role = 'admin'") == [(Level.WARNING, "route", "route r: shop.public.orders")]


@pytest.mark.parametrize("where", ["rle = 'admin'", "role >", "role IN (SELECT 1)", "total > 1", "length(role) = 'x' +", "1"])
def test_a_condition_that_fits_none_of_its_tables_is_an_error(where: str) -> None:
    """A misspelled column, a broken expression, another table's column, no condition at all."""
    assert found("*.*.users.#", where) == [(Level.ERROR, "route", "route r: shop.public.users")]


def test_only_tables_that_the_route_may_take_are_asked() -> None:
    """By any of their operations."""
    assert found("shop.public.users.delete", "role = 'admin'") == []


@pytest.mark.parametrize("where", [None, "role = 'admin'"])
def test_a_route_that_matches_no_captured_table_is_a_warning(where: str | None) -> None:
    """The table may come later."""
    assert found("shop.public.userz.#", where) == [(Level.WARNING, "no table", "route r")]


def test_a_finding_names_the_rule_and_never_a_text_of_the_condition() -> None:
    """What is compared with may be somebody's."""
    policy = parse(
        '[[tables]]\nmatch = "**"\n[[routes]]\nname = "r"\nmatch = ["#"]\nto = "t"\nwhere = "nosuch = \'ann@example.org\'"\n'
    )
    told = [one.as_json() for one in route_findings(policy, CAPTURED)]
    assert len(told) == 2
    assert "ann@example.org" not in str(told)
    assert all("nosuch" in one["what"] for one in told)
