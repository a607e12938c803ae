"""What a limited caller is shown: nothing of hidden columns, nothing of ciphertexts for readers."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chronicle.api import sight
from chronicle.api.access import Limits, Principal, Role
from chronicle.trail.collections import CHANGES, EVENTS
from chronicle.trail.search import Question, _select

COLUMNS = st.sampled_from(["id", "email", "salary", "note", "tier"])
IMAGES = st.none() | st.dictionaries(COLUMNS, st.sampled_from(["x", 1, None, {"salary": "inner"}]))
HIDDEN = "hidden-value"


def principal(role: Role = Role.AUDITOR, **limits: tuple[str, ...]) -> Principal:
    return Principal("key:1", "a", "api_key", frozenset({role}), (Limits(**limits),))


def change(**given_: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(CHANGES.columns)
    lists: dict[str, Any] = {"changed": [], "unavailable": [], "labels": [], "violations": []}
    return row | lists | {"source": "shop", "schema": "public", "table": "customers"} | given_


@given(
    before=IMAGES, after=IMAGES, key=IMAGES, enriched=IMAGES, extra=IMAGES,
    changed=st.lists(COLUMNS, unique=True), seen=st.lists(COLUMNS, min_size=1, unique=True),
)  # fmt: skip
def test_a_hidden_column_is_nowhere(changed: list[str], seen: list[str], **images: Any) -> None:
    """Neither its value nor its name, in any image or list."""
    marked = {
        name: None if image is None else {column: value if column in seen else HIDDEN for column, value in image.items()}
        for name, image in images.items()
    }
    row = change(**marked, previous_key=marked["key"], changed=changed, unavailable=changed, violations=[f"rule:{HIDDEN}"])
    told = sight.change(principal(columns=tuple(seen)), row)
    assert HIDDEN not in json.dumps(told)
    for name, image in images.items():
        assert (told[name] is None) == (image is None)
        assert set(told[name] or {}) == {column for column in image or {} if column in seen}
    assert told["changed"] == told["unavailable"] == [column for column in changed if column in seen]
    assert row["changed"] == changed, "what was read is left as it was"


def test_an_event_shows_only_payload_fields_that_are_named() -> None:
    """What may hold anything (description, resource, tags) is a column here, too."""
    row = dict.fromkeys(EVENTS.columns) | {
        "source": "shop", "type": "order.placed", "payload": {"total": 1, "card": HIDDEN}, "description": HIDDEN,
        "resource_id": HIDDEN, "tags": {"x": HIDDEN}, "violations": [HIDDEN], "actor_id": "ann",
    }  # fmt: skip
    told = sight.event(principal(columns=("total",)), row)
    assert told["payload"] == {"total": 1}
    assert HIDDEN not in json.dumps(told)
    assert told["actor_id"] == "ann"
    named = sight.event(principal(columns=("total", "description", "shop.order.*.tags")), row)
    assert named["description"] == HIDDEN
    assert named["tags"] == {"x": HIDDEN}
    assert named["resource_id"] is None


def test_a_reader_gets_no_ciphertexts_and_an_auditor_does() -> None:
    """The policy's, and those that a journal made, however deep."""
    sealed = "e1.key.AAAA"
    row = change(
        before={"ssn": sealed, "note": "e1. is no ciphertext"},
        after={"ssn": sealed, "deep": [{"a": sealed}], "own": {"$encrypted": {"key": "k", "ciphertext": "c"}}},
    )
    told = sight.change(principal(Role.READER), row)
    assert told["before"] == {"ssn": sight.CUT, "note": "e1. is no ciphertext"}
    assert told["after"] == {"ssn": sight.CUT, "deep": [{"a": sight.CUT}], "own": sight.CUT}
    assert sight.change(principal(), row)["after"] == row["after"]


def test_every_query_of_a_limited_caller_has_its_limits() -> None:
    """In the text of the query, with bound values; a caller to whom limits leave nothing sees nothing."""
    both = Principal(
        "key:1", "a", "api_key", frozenset({Role.READER}),
        (Limits(sources=("shop",), tables=("shop.public.*",), tenants=("acme",)), Limits(tables=("**.customers",))),
    )  # fmt: skip
    for collection in (EVENTS, CHANGES):
        order = collection.order("-time")
        assert order is not None
        sql, bound = _select(Question(collection, order, sight=sight.sight(both)), "trail")
        assert "source IN {sight_sources:Array(String)}" in sql
        assert "IN {sight_tenants:Array(String)}" in sql
        assert sql.count(f"match({collection.name}") == 2
        assert bound["sight_tenants"] == ["acme"]
        assert bound["sight_name_0"] == r"(?s)^(?:shop\.public\.[^.]*)$"
    nothing = Principal("a", "a", "user", frozenset(), (Limits(tenants=("a",)), Limits(tenants=("b",))))
    assert sight.sight(nothing).tenants == ()
