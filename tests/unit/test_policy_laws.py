"""Laws of the policy for any file: each column has one class, none is clear by accident, order and layout mean nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from chronicle.policy.file import parse
from chronicle.policy.names import looks_secret
from chronicle.policy.rules import Class, TablePolicy, Treatment


def treatments(policy: TablePolicy) -> dict[str, Treatment]:
    return {name: column.treatment for name, column in policy.columns.items()}


NAMES = st.sampled_from(["id", "email", "name", "note", "created_at", "password", "api_key", "x", "émail", "a b"])
PATTERNS = st.one_of(NAMES, st.sampled_from(["*", "e*", "*_at", "n*e", "*a*", "pass*", "**"]))
CLASSES = st.one_of(
    st.sampled_from(["clear", "drop", "redact", "mask", "token", "encrypt"]),
    st.sampled_from([{"class": "mask", "keep": 2}, {"class": "generalize", "to": "month"}, {"class": "clear", "scan": ["ip"]}]),
)
MATCHES = st.sampled_from(
    ["**", "shop.**", "shop.public.*", "shop.public.customers", "*.*.customers", "s*.public.c*", "hiring.**", "shop.*.cust*"]
)
BLOCKS = st.lists(
    st.fixed_dictionaries(
        {"match": MATCHES},
        optional={
            "columns": st.dictionaries(PATTERNS, CLASSES, max_size=5),
            "skip": st.booleans(),
            "images": st.sampled_from(["full", "changed", "none"]),
            "ignore": st.lists(NAMES, unique=True, max_size=3),
            "sample": st.sampled_from([0.1, 0.5, 1]),
            "label": st.lists(
                st.fixed_dictionaries({"as": st.sampled_from("pq"), "columns": st.lists(NAMES, min_size=1, unique=True)}),
                max_size=2,
            ),
        },
    ),
    max_size=6,
)
COLUMN_LISTS = st.lists(NAMES, unique=True, max_size=8)
PLACES = st.tuples(st.sampled_from(["shop", "hiring", "s"]), st.just("public"), st.sampled_from(["customers", "orders", "cu"]))


def written(blocks: Sequence[Mapping[str, Any]]) -> str:
    return tomlkit.dumps({"tables": list(blocks)}) if blocks else ""


@given(BLOCKS, PLACES, COLUMN_LISTS)
def test_every_column_has_exactly_one_policy(
    blocks: Sequence[Mapping[str, Any]], place: tuple[str, str, str], columns: list[str]
) -> None:
    """Whatever a policy says and whatever columns there are."""
    policy = parse(written(blocks)).table(*place, columns, ())
    assert list(policy.columns) == columns
    assert set(policy.unclassified) <= set(columns)
    assert policy.ignore <= set(columns)


@given(BLOCKS, PLACES, COLUMN_LISTS)
def test_no_column_is_clear_that_no_rule_clears(
    blocks: Sequence[Mapping[str, Any]], place: tuple[str, str, str], columns: list[str]
) -> None:
    """Judged apart from the product's own patterns: some rule with this meaning is about table and column, and a secret's
    name is spelt out."""

    def fits(pattern: str, name: str) -> bool:
        head, *rest = pattern.split("*")
        if not rest:
            return name == pattern
        at = len(head)
        if not name.startswith(head):
            return False
        for part in rest[:-1]:
            found = name.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return name.endswith(rest[-1]) and len(name) - len(rest[-1]) >= at

    def about(match: str) -> bool:
        parts = {"**": ["*"] * 3}.get(match) or match.replace("**", "*.*").split(".")
        return all(map(fits, parts, place))

    clearing = [
        name
        for block in blocks
        if about(block["match"])
        for name, value in block.get("columns", {}).items()
        if (value if isinstance(value, str) else value["class"]) == "clear"
    ]
    policy = parse(written(blocks)).table(*place, columns, ())
    for name, column in policy.columns.items():
        if column.treatment.kind is Class.CLEAR:
            assert any(fits(pattern, name) for pattern in clearing)
            assert name in clearing or not looks_secret(name)


@given(BLOCKS, PLACES, COLUMN_LISTS, st.randoms(use_true_random=False))
def test_the_order_of_unrelated_blocks_means_nothing(
    blocks: list[dict[str, Any]], place: tuple[str, str, str], columns: list[str], chosen: random.Random
) -> None:
    """Blocks about different tables, or of different specificity, in any order: same policy, same hash."""
    unrelated = list({one["match"]: one for one in blocks}.values())
    unrelated = [one for one in unrelated if one["match"] not in ("s*.public.c*", "shop.*.cust*")]
    shuffled = chosen.sample(unrelated, len(unrelated))
    first, second = parse(written(unrelated)), parse(written(shuffled))
    assert first.table(*place, columns, ()) == second.table(*place, columns, ())
    assert first.hash == second.hash


@given(BLOCKS, PLACES, COLUMN_LISTS, st.randoms(use_true_random=False))
def test_classes_do_not_depend_on_any_order(
    blocks: list[dict[str, Any]], place: tuple[str, str, str], columns: list[str], chosen: random.Random
) -> None:
    """Not even of blocks about the same tables: what contradicts itself is redacted."""
    shuffled = chosen.sample(blocks, len(blocks))
    first, second = (treatments(parse(written(one)).table(*place, columns, ())) for one in (blocks, shuffled))
    assert first == second


@given(BLOCKS)
def test_comments_and_layout_do_not_change_the_hash(blocks: list[dict[str, Any]]) -> None:
    """Nor does a default that is spelt out, or the order of columns."""
    text = written(blocks)
    spelt = '# a comment\n[defaults]\nunclassified = "redact"\nimages = "full"\n\n\n'
    turned = [{**one, "columns": dict(reversed(one["columns"].items()))} if "columns" in one else one for one in blocks]
    changed = spelt + "\n".join(f"{line}   # said" if line.startswith("[[") else line for line in written(turned).splitlines())
    assert parse(text).hash == parse(changed).hash
