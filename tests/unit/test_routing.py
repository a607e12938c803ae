"""Routes in a policy: AMQP's patterns, and what may be written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.errors import ConfigError
from chronicle.policy.file import parse
from chronicle.policy.routing import about_table, event_type, matches
from chronicle.policy.rules import Route, RouteFormat

WORDS = st.sampled_from(["a", "b", "delete", "a b", "é", "\n"])
PATTERN = st.lists(st.sampled_from(["a", "b", "delete", "*", "#"]), min_size=1, max_size=6)
ROUTE = '[[routes]]\nname = "one"\nmatch = "#.delete"\nto = "deletes"\n'


def naive(pattern: list[str], words: list[str]) -> bool:
    """AMQP's definition, word by word."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return naive(pattern[1:], words) or bool(words and naive(pattern, words[1:]))
    return bool(words) and pattern[0] in ("*", words[0]) and naive(pattern[1:], words[1:])


@given(PATTERN, st.lists(WORDS, max_size=6))
def test_patterns_match_as_amqp_says(pattern: list[str], words: list[str]) -> None:
    """Whatever the pattern: the same as the definition applied word by word."""
    assert matches([".".join(pattern)], ".".join(words)) == naive(pattern, words)


@pytest.mark.parametrize(
    ("pattern", "event", "taken"),
    [
        ("hiring.*.applications.#", "hiring.public.applications.update", True),
        ("hiring.*.applications", "hiring.public.applications.update", False),
        ("#.delete", "shop.public.orders.delete", True),
        ("#.delete", "shop.public.delete.create", False),
        ("#", "shop.public.orders.create", True),
        ("*", "shop.public.orders.create", False),
        ("shop.#.#.create", "shop.public.orders.create", True),
        ("shop.public.orders+.create", "shop.public.ordersss.create", False),
    ],
)
def test_the_documented_patterns(pattern: str, event: str, taken: bool) -> None:
    """One word, any words, and nothing that only looks like a pattern to Python."""
    assert matches([pattern], event) is taken


@given(st.lists(st.text(max_size=8), min_size=4, max_size=4))
def test_an_event_type_always_has_four_words(names: list[str]) -> None:
    """Whatever a table is called: `*.*.*.*` stands for every change."""
    assert matches(["*.*.*.*"], event_type(*names))


def test_a_dot_in_a_name_does_not_make_a_word() -> None:
    """It stands as _."""
    assert event_type("shop", "public", "a.b", "create") == "shop.public.a_b.create"


def test_a_route_is_about_a_table_whatever_the_operation() -> None:
    """What decides whether a route's condition is compiled for a table."""
    route = Route("one", ("#.orders.delete",), "t")
    assert about_table(route, "shop", "public", "orders")
    assert not about_table(route, "shop", "public", "customers")


def test_a_route_says_all_it_can() -> None:
    """Every option arrives."""
    text = """
[[routes]]
name = "security"
match = ["#.users.#", "#.delete"]
where = "tier = 'gold'"
where_deletes = true
sample = 0.5
labels = "identity_change"
to = "security.changes"
dead_letters = "security.dead"
format = "cloudevents"
"""
    (route,) = parse(text).routes
    assert route == Route(
        "security",
        ("#.delete", "#.users.#"),
        "security.changes",
        "security.dead",
        RouteFormat.CLOUDEVENTS,
        "tier = 'gold'",
        where_deletes=True,
        sample=0.5,
        labels=("identity_change",),
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("#.delete", "a..b"), "words with dots"),
        (("deletes", "a b"), "name of a topic"),
        (('to = "deletes"', ""), "to is missing"),
        (("one", "o n e"), "letters, digits"),
        (('to = "deletes"', 'to = "deletes"\nformat = "avro"'), "choose from json, cloudevents"),
        (('to = "deletes"', 'to = "deletes"\nwhen = "x"'), "no such option"),
        (("", ROUTE), "another route has this name"),
        (("", ROUTE.replace("one", "two") + 'format = "cloudevents"\n'), "one topic in two formats"),
        (("", ROUTE.replace("one", "two").replace("deletes", "x") + 'dead_letters = "deletes"\n'), "dead letters"),
    ],
)
def test_a_mistake_in_a_route_is_told(change: tuple[str, str], says: str) -> None:
    """With what to write instead."""
    text = ROUTE.replace(*change) if change[0] else ROUTE + change[1]
    with pytest.raises(ConfigError, match=says):
        parse(text)


def test_what_a_route_means_is_in_the_policys_hash() -> None:
    """Two policies that route differently are two policies."""
    assert parse(ROUTE).hash != parse(ROUTE + 'labels = ["x"]\n').hash
    assert parse(ROUTE).hash == parse("# said\n" + ROUTE).hash
