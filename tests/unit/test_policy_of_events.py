"""`[[events]]` of a policy: which events a block is about, what it says of them, and what is a mistake."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from chronicle.cli import policy as cli
from chronicle.errors import ConfigError
from chronicle.policy.events import EventPattern
from chronicle.policy.file import parse
from chronicle.policy.rules import Class

WORD = st.sampled_from(["a", "b", "ab", "a-b", "a_1"])
TYPE = st.lists(WORD, min_size=1, max_size=4).map(".".join)
PATTERN = st.lists(st.one_of(WORD, st.sampled_from(["*", "**", "a*", "*b"])), min_size=1, max_size=4).map(".".join)


@pytest.mark.parametrize(
    ("pattern", "type_", "expected"),
    [
        ("**", "security.login", True),
        ("security.login", "security.login", True),
        ("security.login", "security.logins", False),
        ("security.*", "security.login", True),
        ("security.*", "security.login.refused", False),
        ("security.*", "security", False),
        ("security.**", "security", True),
        ("security.**", "security.a.b.c", True),
        ("security.**", "securityx.a", False),
        ("**.refused", "refused", True),
        ("order.**.refused", "order.a.b.refused", True),
        ("order.pl*", "order.placed", True),
        ("order.*ed", "order.placed.twice", False),
        ("a.b", "axb", False),
    ],
)
def test_a_star_stands_within_a_word_and_two_for_any_words(pattern: str, type_: str, expected: bool) -> None:
    """None included."""
    assert EventPattern.parse(pattern).matches("shop", type_) is expected


@given(PATTERN, TYPE)
def test_a_pattern_matches_as_its_words_do(pattern: str, type_: str) -> None:
    """Against the plainest way of saying it."""

    def said(words: list[str], names: list[str]) -> bool:
        if not words:
            return not names
        if words[0] == "**":
            return any(said(words[1:], names[at:]) for at in range(len(names) + 1))
        fits = bool(names) and re.fullmatch(words[0].replace("*", ".*"), names[0]) is not None
        return fits and said(words[1:], names[1:])

    assert EventPattern.parse(pattern).matches("shop", type_) == said(pattern.split("."), type_.split("."))


def test_the_more_specific_block_decides() -> None:
    """Whatever the order in the file; an exact name before a pattern, then the source."""
    order = ["**", "security.**", "security.*", "security.log*", "security.login"]
    patterns = [EventPattern.parse(text) for text in order]
    assert all(first.specificity < second.specificity for first, second in pairwise(patterns))
    assert EventPattern.parse("security.*").specificity < EventPattern.parse("security.*", "shop").specificity
    columns = 'columns = { "payload.x" = { class = "mask", keep = %d } }'
    blocks = [f'[[events]]\nmatch = "{text}"\n{columns % at}\n' for at, text in enumerate(order)]
    types = ("x", "security.a.b", "security.login")
    for text in ("".join(blocks), "".join(reversed(blocks))):
        policy = parse(text)
        assert [policy.event("shop", type_).payload("x")[0].treatment.keep for type_ in types] == [0, 1, 4]


def test_the_order_of_blocks_and_the_way_of_writing_mean_nothing() -> None:
    """One hash for one meaning; another for another."""
    first = '[[events]]\nmatch = "a.b"\nlabel = ["x", "y"]\n[events.columns]\npayload.total = "clear"\ndescription = "redact"\n'
    second = '[[events]]\nmatch = "c"\nskip = true\n'
    same = '[[events]]\nmatch = ["a.b"]\nlabel = ["y", "x"]\ncolumns = { description = "redact", "payload.total" = "clear" }\n'
    hashes = {parse(text).hash for text in (first + second, second + same, f"# said\n{same}{second}")}
    assert len(hashes) == 1
    assert parse(first).hash not in hashes
    assert parse(first.replace('"a.b"', '"a.b"\nsource = "shop"')).hash != parse(first).hash


def test_what_no_rule_names_is_hidden_in_the_payload_and_clear_in_the_envelope() -> None:
    """A class of the type's schema comes after the policy; a class with options is nothing a schema can say."""
    policy = parse('[[events]]\nmatch = "a"\ncolumns = { "payload.x" = "redact" }\n')
    found = policy.event("shop", "a", {"x": "clear", "y": "clear", "z": "generalize", "password": "clear"})
    kinds = {name: (found.payload(name)[0].treatment.kind, found.payload(name)[1]) for name in ("x", "y", "z", "w", "password")}
    assert kinds == {
        "x": (Class.REDACT, False),
        "y": (Class.CLEAR, False),
        "z": (Class.REDACT, False),
        "w": (Class.REDACT, True),
        "password": (Class.REDACT, False),
    }
    assert found.text("resource_id").treatment.kind is Class.CLEAR


def test_a_secret_name_is_redacted_unless_it_is_named_exactly() -> None:
    """As for columns."""
    policy = parse('[[events]]\nmatch = "**"\ncolumns = { "payload.*" = "clear", "payload.pin" = "clear" }\n')
    found = policy.event("shop", "a")
    assert [found.payload(name)[0].treatment.kind for name in ("x", "api_key", "pin")] == [
        Class.CLEAR,
        Class.REDACT,
        Class.CLEAR,
    ]


def test_rules_that_contradict_each_other_redact() -> None:
    """On the same footing nobody wins."""
    blocks = [f'[[events]]\nmatch = "a"\ncolumns = {{ "payload.x" = "{word}" }}\n' for word in ("clear", "drop")]
    policy = parse("".join(blocks))
    assert policy.event("shop", "a").payload("x")[0].treatment.kind is Class.REDACT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[events]]\n", "match is missing"),
        ('[[events]]\nmatch = "a..b"\n', "write words with dots"),
        ('[[events]]\nmatch = "a.b**"\n', "** alone"),
        ('[[events]]\nmatch = "a#"\n', "write words with dots"),
        ('[[events]]\nmatch = "a"\ncolumns = { actor_id = "clear" }\n', "[context]"),
        ('[[events]]\nmatch = "a"\ncolumns = { payload = "clear" }\n', "payload.FIELD"),
        ('[[events]]\nmatch = "a"\ncolumns = { resource_id = "encrypt" }\n', "choose from clear, drop"),
        ('[[events]]\nmatch = "a"\ncolumns = { "*" = "encrypt" }\n', "choose from clear, drop"),
        ('[[events]]\nmatch = "a"\ncolumns = { "payload.x" = { class = "token", domain = "no" } }\n', "[domains.NAME]"),
        ('[[events]]\nmatch = "a"\nskip = "yes"\n', "true or false"),
        ('[[events]]\nmatch = "a"\nlabels = ["x"]\n', "did you mean label"),
        ('events = "all"\n', "write [[events]] blocks"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(text: str, said: str) -> None:
    """All of them at once, with their lines."""
    with pytest.raises(ConfigError) as refusal:
        parse(text)
    assert said in str(refusal.value)


def test_the_demos_policy_is_about_the_demos_events() -> None:
    """What the demo's applications send is readable on the trail."""
    policy = parse((Path(__file__).parents[2] / "policy.toml").read_text(encoding="utf-8"))
    login, order = policy.event("shop", "security.login"), policy.event("shop", "order.placed")
    assert login.labels == ("security",)
    assert {login.payload(name)[0].treatment.kind for name in ("method", "permission")} == {Class.CLEAR}
    assert {order.payload(name)[0].treatment.kind for name in ("order_id", "total", "items")} == {Class.CLEAR}
    assert order.payload("address")[1]


def test_show_says_what_becomes_of_a_type_and_by_which_rule(tmp_path: Path) -> None:
    """Fields of its schema, those that a rule names, and whatever else comes."""
    file = tmp_path / "policy.toml"
    file.write_text('[[events]]\nmatch = "auth.*"\nsource = "shop"\nlabel = "who"\ncolumns = { "payload.extra" = "drop" }\n')

    def show(name: str) -> dict[str, Any]:
        done = CliRunner().invoke(cli.app, ["show", name, "--policy", str(file), "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    of_shop, of_anyone = show("events:shop:auth.login"), show("events:auth.login")
    assert (of_shop["labels"], of_anyone["labels"], of_shop["known"]) == (["who"], [], True)
    assert of_shop["columns"]["payload.extra"]["class"] == "drop"
    assert of_shop["columns"]["payload.*"]["class"] == "redact"
    assert set(of_anyone["columns"]) > {"resource_id", "description", "payload.method"}
    assert CliRunner().invoke(cli.app, ["show", "events:", "--policy", str(file)]).exit_code == 2
