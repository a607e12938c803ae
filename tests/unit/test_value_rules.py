"""Value rules: a row is good, refused or flagged, by rule and column; the same whatever stands beside it in a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.errors import ConfigError
from chronicle.policy.rules import OnBreak, ValueRule
from chronicle.stages.value_rules import RulePlan, Verdict
from tests.unit.test_expressions import COLUMNS, NONE, ROW, Change, flat, rows

FLAG = OnBreak.FLAG


def judged(plan: RulePlan, *changes: Change) -> Verdict:
    table = flat(*changes)
    made = table.select(plan.exprs).get_columns() if plan.exprs else []
    return plan.verdicts(made, table["op"])


def breaks(rule: ValueRule, new: Mapping[str, Any], op: str = "c", **more: Any) -> bool:
    return judged(RulePlan(COLUMNS, [rule], **more), (op, NONE, new)).refused is not None


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (ValueRule("status", "not_null"), ["", "x"], [None]),
        (ValueRule("status", "in", ("open", "won")), ["open", None], ["Open", ""]),
        (ValueRule("id", "in", (1, 2, 2**80)), [1, None], [3]),
        (ValueRule("active", "in", (True,)), [True, None], [False]),
        (ValueRule("born", "in", (date(2024, 3, 18),)), [19_800, None, 2**31 - 1], [19_801]),
        (ValueRule("price", "in", (10.5, 3)), ["10.50", "3"], ["10.51"]),
        (ValueRule("id", "between", (1, 9.5)), [1, 9, None], [0, 10, -(2**63)]),
        (ValueRule("price", "between", (0.1, 0.3)), ["0.10", "0.30", None], ["0.31", "0.09"]),
        (ValueRule("rate", "between", (0, 1)), [0.0, 1.0], [1.0000001, float("nan"), float("inf")]),
        (ValueRule("ratio", "between", (0.1, 0.3)), [0.1, 0.3], [0.31]),
        (ValueRule("weight", "between", (0, 2)), [{"scale": 1, "value": b"\x0f"}], [{"scale": 0, "value": b"\x0f"}]),
        (ValueRule("status", "between", ("b", "d")), ["b", "cz"], ["da", "a"]),
        (ValueRule("made", "between", (datetime(2023, 1, 1), datetime(2024, 1, 1))), [1_700_000_000_000_000], [0]),
        (
            ValueRule("seen", "between", (date(2023, 1, 1), date(2024, 1, 1))),
            ["2023-06-01T00:00:00Z", "x"],
            ["2025-01-01T00:00:00Z"],
        ),
        (ValueRule("opens", "between", (time(8), time(18, 30))), [8 * 3_600_000_000], [19 * 3_600_000_000]),
        (ValueRule("status", "matches", ("[a-z]+@x",)), ["my a@x b", None], ["@x"]),
        (ValueRule("status", "matches", ("^[a-z]+$",)), ["ab"], ["ab\n", "a b", ""]),
        (ValueRule("status", "length", (1, 3)), ["é", "日本語", None], ["", "abcd"]),
        (ValueRule("tags", "length", (1, 2)), [["a"], None], [[], ["a", "b", "c"]]),
        (ValueRule("status", "unique_key"), ["x"], [None, "", " \t"]),
        (ValueRule("id", "unique_key"), [0], [None]),
    ],
)
def test_a_rule_knows_good_values_from_bad_ones(rule: ValueRule, good: Sequence[Any], bad: Sequence[Any]) -> None:
    """As they were written in TOML, on columns as people see them; NULL passes all but two."""

    def row(value: Any) -> dict[str, Any]:
        decimal = rule.column == "price" and value is not None
        return ROW | {rule.column: pl.Series([value]).cast(pl.Decimal(38, 2))[0] if decimal else value}

    assert [value for value in good if breaks(rule, row(value))] == []
    assert [value for value in bad if not breaks(rule, row(value))] == []


def test_the_first_broken_rule_refuses_and_the_others_flag() -> None:
    """By name and column; a row may have several flags, and its neighbours none."""
    plan = RulePlan(
        COLUMNS,
        [
            ValueRule("id", "between", (0, 9), FLAG),
            ValueRule("status", "in", ("open",)),
            ValueRule("status", "length", (0, 2), FLAG),
            ValueRule("id", "not_null"),
        ],
    )
    assert list(plan.details) == ["in: status", "not_null: id"]
    good = ROW | {"status": "open", "id": 3}
    verdict = judged(
        plan,
        ("c", NONE, good | {"status": None}),
        ("u", good, ROW | {"id": 12}),
        ("c", NONE, good | {"id": None}),
        ("r", NONE, good),
    )
    assert verdict.refused is not None and verdict.refused.tolist() == [-1, 0, 1, -1]
    assert verdict.violations.series("v").to_list() == [
        [],
        ["between:id", "length:status"],
        ["length:status"],
        ["length:status"],
    ]


def test_good_rows_cost_nothing_more() -> None:
    """No array where there is nothing to say; also without rules, and without rows."""
    plan = RulePlan(COLUMNS, [ValueRule("id", "not_null"), ValueRule("id", "between", (0, 9), FLAG)])
    for verdict in (judged(plan, ("c", NONE, ROW)), judged(plan), judged(RulePlan(COLUMNS, []), ("c", NONE, ROW))):
        assert verdict.refused is None
        assert verdict.violations.lists == ((),)


def test_deletes_and_truncates_are_not_judged() -> None:
    """There is no new row; the old one was judged when it came."""
    rule = ValueRule("id", "not_null")
    assert not breaks(rule, NONE, "d") and not breaks(rule, NONE, "t")
    assert breaks(rule, NONE, "u") and breaks(rule, NONE, "r")


def test_a_value_that_was_not_sent_breaks_nothing() -> None:
    """Nobody knows it; NULL is known to be NULL."""
    row = ROW | {"status": "5c1f7e0d"}
    for rule in (ValueRule("status", "in", ("x",)), ValueRule("status", "not_null"), ValueRule("status", "unique_key")):
        assert not breaks(rule, row, "u", unavailable="5c1f7e0d")
        assert breaks(rule, ROW | {"status": None}, "u", unavailable="5c1f7e0d") is (rule.name != "in")


def test_a_column_that_the_schema_lacks_breaks_its_rules() -> None:
    """Of every row, by name: what the rule promises cannot be known."""
    plan = RulePlan(COLUMNS, [ValueRule("email", "matches", ("@",)), ValueRule("phone", "length", (1, 9), FLAG)])
    verdict = judged(plan, ("c", NONE, ROW), ("d", ROW, NONE))
    assert verdict.refused is not None and verdict.refused.tolist() == [0, -1]
    assert plan.details[0].startswith("matches: email (")
    assert verdict.violations.series("v").to_list() == [["length:phone"], []]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (ValueRule("status", "between", (1, 2)), "numbers without quotes"),
        (ValueRule("id", "in", ("Lovelace",)), "do not fit"),
        (ValueRule("id", "matches", ("x",)), "reads text"),
        (ValueRule("id", "length", (1, 2)), "counts characters"),
        (ValueRule("status", "matches", ("(",)), "does not compile"),
        (ValueRule("status", "matches", ("a(?!b)",)), "does not compile"),
        (ValueRule("tags", "unique_key"), "no key"),
        (ValueRule("born", "between", ("Lovelace", "Turing")), "write dates as"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_when_it_is_read(rule: ValueRule, said: str) -> None:
    """With rule, column and table named, and no value."""
    with pytest.raises(ConfigError, match=said) as caught:
        RulePlan(COLUMNS, [rule], table="shop.public.t")
    assert str(caught.value).startswith(f"correct the rule {rule.name} of {rule.column} of shop.public.t: ")
    assert "Lovelace" not in str(caught.value)


ALL = [
    ValueRule("status", "not_null"),
    ValueRule("status", "matches", ("^a",)),
    ValueRule("weight", "between", (0, 1)),
    ValueRule("price", "in", (1, 2.5), FLAG),
    ValueRule("seen", "between", (date(2000, 1, 1), date(2030, 1, 1)), FLAG),
    ValueRule("tags", "length", (1, 2), FLAG),
    ValueRule("doc", "unique_key", (), FLAG),
]


@given(st.lists(st.tuples(st.sampled_from("cudr"), rows), min_size=1, max_size=4))
def test_a_row_has_one_verdict_whatever_stands_beside_it(given: list[tuple[str, Mapping[str, Any]]]) -> None:
    """A redelivery in another batch must not be judged otherwise; and no row makes a rule raise."""
    changes: list[Change] = [(op, row, row) for op, row in given]
    plan = RulePlan(COLUMNS, ALL)

    def told(verdict: Verdict) -> list[tuple[int, list[str]]]:
        flags = verdict.violations.series("v").to_list()
        refused = np.full(len(flags), -1) if verdict.refused is None else verdict.refused
        return list(zip(refused.tolist(), flags, strict=True))

    assert told(judged(plan, *changes)) == [told(judged(plan, one))[0] for one in changes]
