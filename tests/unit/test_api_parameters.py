"""The query string: all that is wrong at once, by name, and nothing of it in any SQL."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.api.access import Limits, Principal, Role
from chronicle.api.parameters import PAGING, Asked, page, question
from chronicle.api.parts import ReadLimits
from chronicle.api.problems import Problem
from chronicle.trail.collections import CHANGES, COLLECTIONS, EVENTS, Collection
from chronicle.trail.search import Cursor, Question, _select
from tests.unit.api_double import NOW, Service

ANYONE = Principal("key:1", "a", "api_key", frozenset({Role.ADMIN}))
KNOWN = {title: (*(one.name for one in each.filters), *PAGING) for title, each in COLLECTIONS.items()}
VALUES = st.text(max_size=40) | st.sampled_from(
    ["", "-time", "time", "1", "2h", "2026-01-01", "true", "'; DROP TABLE changes --", "{x:String}", "%", "\\", '{"id":7}']
)


def made(collection: Collection, values: dict[str, str], principal: Principal = ANYONE) -> Question:
    asked = Asked.of(values.items(), KNOWN[collection.title])
    found = question(collection, asked, principal, NOW)
    page(asked, ReadLimits(10))
    asked.refuse_wrong()
    return found


def errors(collection: Collection, values: dict[str, str], principal: Principal = ANYONE) -> dict[str, str]:
    try:
        made(collection, values, principal)
    except Problem as problem:
        assert problem.status == 422
        return problem.errors
    return {}


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Each parameter by its own name."""
    found = errors(
        EVENTS,
        {
            "sort": "nope", "page": "0", "page_size": "x", "since": "yesterday", "outcome": "maybe", "id": "7",
            "unknown": "1", "q": " ", "actor": "a\0b", "source": "x" * 1025, "cursor": "!",
        },
    )  # fmt: skip
    assert found.keys() == {
        *("sort", "page", "page_size", "since", "outcome", "id", "unknown", "q", "actor", "source", "cursor")
    }
    assert found["sort"] == "invalid sort value"


def test_a_parameter_is_given_once() -> None:
    """Two values contradict each other, and one of them would silently be the wrong one."""
    asked = Asked.of([("actor", "a"), ("actor", "b")], ["actor"])
    with pytest.raises(Problem, match="is given twice"):
        asked.refuse_wrong()


def test_a_time_range_that_holds_nothing_is_told() -> None:
    """Since must be before until."""
    assert errors(CHANGES, {"since": "2026-01-02", "until": "2026-01-01"}) == {"until": "is not after since"}
    assert errors(CHANGES, {"since": "0001-01-01"}).keys() == {"since"}
    assert errors(EVENTS, {"since": "999999w"}).keys() == {"since"}


def test_pages_end_and_cursors_do_not() -> None:
    """The depth of pages is bounded; a cursor and a page exclude each other."""
    assert errors(EVENTS, {"page": "101", "page_size": "100"}).keys() == {"page"}
    assert errors(EVENTS, {"page": "100", "page_size": "100"}) == {}
    cursor = Cursor("-time", 5, "x").text
    assert errors(EVENTS, {"page": "1", "cursor": cursor}).keys() == {"page"}
    assert errors(EVENTS, {"cursor": cursor}) == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"null", b"{", b'["-time",5]', b'["time",5,"x"]', b'["-time","5","x"]', b'["-time",1e999,"x"]',
        b'["-time",99999999999999999999,"x"]', b'["-time",5,"a\\u0000"]', b'["-time",5,7]', b'["-time",true,"x"]',
        b"[" * 3000, b'["-time",5,"\\ud800"]',
    ],
)  # fmt: skip
def test_a_cursor_that_was_made_up_is_refused(raw: bytes) -> None:
    """Whatever is in it: never an error of ours."""
    text = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert errors(EVENTS, {"cursor": text or "="}).keys() == {"cursor"}


@pytest.mark.parametrize("collection", [EVENTS, CHANGES], ids=["events", "changes"])
def test_every_order_has_a_cursor_of_its_own(collection: Collection) -> None:
    """A cursor of one order is refused by all others."""
    for text in collection.orders:
        order = collection.order(text)
        assert order is not None
        value: int | str = 5 if order.by.type == "Int64" else "x"
        cursor = Cursor(text, value, "tie")
        assert Cursor.read(cursor.text, order) == cursor
        for other in collection.orders:
            wrong = errors(collection, {"sort": other, "cursor": cursor.text})
            assert (wrong == {}) == (other == text)


@pytest.mark.parametrize("collection", [EVENTS, CHANGES], ids=["events", "changes"])
@given(data=st.data())
def test_no_value_comes_into_the_sql(collection: Collection, data: st.DataObject) -> None:
    """The text of a query depends only on which parameters are given, and how many words there are."""
    names = data.draw(st.lists(st.sampled_from([one.name for one in collection.filters]), unique=True))
    marker = "zqjxmarkerzqjx"
    values = {name: data.draw(VALUES) + marker for name in names}
    words = {"flag": "true", "words": ""}
    for one in collection.filters:
        if one.name in values:
            values[one.name] = {
                **words,
                "words": one.choices[0] if one.choices else "",
                "uuid": "0b7c0c2e-6f6d-4d0e-9d6e-2f1f3b0d9a11",
                "since": "2026-01-01",
                "until": "2026-02-01",
                "key": json.dumps({marker: values[one.name].encode(errors="replace").decode()}),
            }.get(one.kind, values[one.name])
    try:
        found = made(collection, values)
    except Problem as problem:
        assert marker not in str(problem.errors)
        return
    sql, bound = _select(found, "trail")
    assert marker not in sql
    assert "2026" not in sql
    assert bound["database"] == "trail"


@given(st.text(max_size=200))
def test_any_query_string_is_answered(text: str) -> None:
    """200 or 422; what is refused is not repeated, except for the name of a parameter that there is not."""
    service = Service()
    service.store.keys = []
    paths = ["/events", "/changes", "/entities", "/export", "/actors/a/activity", "/history/a/b", "/transactions/1"]
    encoded = urlencode(parse_qsl(text.encode(errors="replace").decode(), keep_blank_values=True))
    for answer in service.ask(*(("GET", f"{path}?{encoded}") for path in paths)):
        assert answer.status_code in (200, 404, 422, 503), (answer.status_code, answer.text)


def test_who_may_not_see_a_column_may_not_ask_about_it() -> None:
    """The answer to `column=salary` tells who got a rise; to `key=` who there is; full text what is in a description."""
    limited = Principal("key:1", "a", "api_key", frozenset({Role.READER}), (Limits(columns=("id", "s.p.t.email")),))
    assert errors(CHANGES, {"column": "salary"}, limited).keys() == {"column"}
    assert errors(CHANGES, {"column": "email"}, limited).keys() == {"column"}
    assert errors(CHANGES, {"column": "email", "source": "s", "schema": "p", "table": "t"}, limited) == {}
    assert errors(CHANGES, {"key": '{"id":7}'}, limited) == {}
    assert errors(CHANGES, {"key": '{"id":7,"ssn":1}'}, limited).keys() == {"key"}
    assert errors(EVENTS, {"q": "fired"}, limited).keys() == {"q"}
    assert errors(EVENTS, {"resource_id": "7"}, limited).keys() == {"resource_id"}
    assert errors(EVENTS, {"actor": "ann"}, limited) == {}
    assert errors(EVENTS, {"violation": "unknown_field:payload.ssn"}, limited).keys() == {"violation"}, "it names a field"


def test_stars_for_types_of_some_lengths_are_not_stars_for_all() -> None:
    """A key that sees the description of types of two words does not ask about that of types of three."""

    def seeing(*columns: str) -> Principal:
        return Principal("key:1", "a", "api_key", frozenset({Role.READER}), (Limits(columns=columns),))

    two = seeing("*.*.*.description")
    assert errors(EVENTS, {"q": "fired"}, two).keys() == {"q"}
    assert errors(EVENTS, {"q": "fired", "source": "shop"}, two).keys() == {"q"}
    assert errors(EVENTS, {"q": "fired"}, seeing("**.description")) == {}
    assert errors(EVENTS, {"q": "fired"}, seeing("shop.**.description")).keys() == {"q"}
    assert errors(EVENTS, {"q": "fired", "source": "shop"}, seeing("shop.**.description")) == {}


@pytest.mark.parametrize("key", ["7", "[1]", "{}", "null", "{", '{"a":NaN}', '{"a":"\\ud800"}', "[" * 900])
def test_a_key_is_an_object(key: str) -> None:
    """In JSON, as the trail writes it."""
    assert errors(CHANGES, {"key": key}).keys() == {"key"}


def test_a_key_is_found_however_it_is_spaced() -> None:
    """The trail has one form of it."""
    parameters: dict[str, Any] = dict(made(CHANGES, {"key": '{ "id" : 7, "b" : "ü" }'}).parameters)
    assert parameters["keys"] == ['{"id":7,"b":"ü"}']
