"""Attribution: contexts as columns, and the ladder that chooses between them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from chronicle.codec.transaction import context_text
from chronicle.stages.attribute import (
    CONTEXTS,
    FIELD_CHARS_MAX,
    FIELDS,
    TAGS_CHARS_MAX,
    Fields,
    attributed,
    columns_of,
    kept,
    normalised,
    said_in_comments,
    stored,
    wanted,
)
from chronicle.stages.sanitize import sanitized_context

AT = datetime(2026, 11, 23, 8, tzinfo=UTC)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
NAMES = st.sampled_from(["actor", "actor_id", "request", "request_id", "reason", "ip", "session", "tenant", "tags", "x", "y"])
ACTORS = st.dictionaries(st.sampled_from(["id", "type", "name", "display", "more"]), JSON, max_size=4)
CONTEXT = st.dictionaries(NAMES | st.text(), JSON | ACTORS, max_size=8)


def changes(*rows: dict[str, Any]) -> pl.DataFrame:
    """Changes of transactions of one source, one second apart."""
    defaults = {"source": "shop", "epoch": 0, "transaction_id": "1", "operation": "update", "connector": "postgresql"}
    frame = pl.DataFrame(
        [{**defaults, **row} for row in rows], schema_overrides={"epoch": pl.UInt8, "transaction_id": pl.String}
    )
    return frame.with_columns(
        pl.lit(AT).dt.cast_time_unit("ms").alias("received_at") + pl.duration(seconds=pl.int_range(pl.len())),
        pl.lit(AT).dt.cast_time_unit("us").alias("processed_at"),
    )


def contexts(*rows: tuple[str, str, int, dict[str, Any]]) -> pl.DataFrame:
    """Transaction, rung, offset, what was said."""
    made = [("shop", 0, transaction, rung, at, json.dumps(said)) for transaction, rung, at, said in rows]
    return pl.DataFrame(made, schema=dict(CONTEXTS), orient="row")


def who(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return frame.select("actor_id", "reason", "attribution").rows()


def test_an_actor_is_a_text_an_object_or_flat_columns() -> None:
    """Each way means the same fields; the old names are understood."""
    assert normalised({"actor": "ada"}) == Fields(actor_id="ada")
    whole = Fields(actor_id="7", actor_type="user", actor_name="Ada", request_id="r")
    assert normalised({"actor": {"id": 7, "type": "user", "name": "Ada"}, "request_id": "r"}) == whole
    assert normalised({"actor_id": 7, "actor_type": "user", "actor_name": "Ada", "request": "r"}) == whole
    assert normalised({"actor": {"id": 7, "type": "user", "display": "Ada"}, "request_id": "r"}) == whole


def test_what_has_no_field_is_a_tag() -> None:
    """Top-level keys, the object `tags`, and what an actor says beside id, type and name; keys sorted."""
    fields = normalised({"b": 1, "tags": {"a": [True]}, "actor": {"id": "x", "team": "t"}, "ip": None})
    assert fields == Fields(actor_id="x", tags='{"a":[true],"actor":{"team":"t"},"b":1}')
    assert normalised({"tags": ["x"]}).tags == '{"tags":["x"]}'


def test_what_is_no_text_becomes_one_and_nothing_stays_nothing() -> None:
    """Numbers, booleans, objects; empty texts say nothing."""
    fields = normalised({"actor": ["a"], "reason": 4.5, "ip": True, "session": {"z": 1, "a": 2}, "tenant": "", "request": ""})
    assert fields == Fields(actor_id='["a"]', reason="4.5", ip="true", session='{"a":2,"z":1}')


@given(CONTEXT)
def test_any_context_has_fields_of_bounded_length(context: dict[str, Any]) -> None:
    """Never raises, whatever an application writes; tags are a JSON object."""
    fields = normalised(context)
    for name in FIELDS[:-1]:
        text = getattr(fields, name)
        assert text is None or 0 < len(text) <= FIELD_CHARS_MAX
    assert fields.tags is None or (len(fields.tags) <= TAGS_CHARS_MAX and isinstance(json.loads(fields.tags), dict))


def test_a_huge_context_is_cut_and_a_deep_one_flattened() -> None:
    """A context stands on every row of its transaction."""
    deep: Any = "bottom"
    for _ in range(2_000):
        deep = [deep]
    fields = normalised({"actor": "a" * 10**6, "deep": deep, **{f"tag{n}": "x" * 900 for n in range(100)}, "s": "\ud800"})
    assert fields.actor_id is not None
    assert len(fields.actor_id) == FIELD_CHARS_MAX
    assert fields.tags is not None
    assert len(fields.tags) <= TAGS_CHARS_MAX
    assert set(json.loads(fields.tags)) >= {"deep", "s", "tag0"}


@given(st.lists(CONTEXT, max_size=4))
def test_the_stored_form_says_the_same(said: list[dict[str, Any]]) -> None:
    """Columns of what was written, of what is stored, and of what is stored again are equal; so is the text."""
    texts = pl.Series("context", [json.dumps(one) for one in said], dtype=pl.String)
    once = stored(texts)
    assert columns_of(once).equals(columns_of(texts))
    assert stored(once).equals(once)


TEXT = st.none() | st.text(max_size=5) | st.sampled_from(["", "null", "{}", "x" * FIELD_CHARS_MAX])
PLAIN = st.fixed_dictionaries(
    {},
    optional={
        "actor": TEXT | st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "type", "name"), TEXT)),
        **dict.fromkeys(("request_id", "reason", "ip", "session", "tenant"), TEXT),
        "tags": st.none() | st.dictionaries(st.sampled_from(["a", "password", "b_token", "é", ""]), TEXT, max_size=3),
    },
)
LONG_WAY: dict[str, Any] = {"tags.no such tag": lambda texts: texts}
"""A policy that hides nothing, and for which nothing is done in one step."""


@given(st.lists(PLAIN, max_size=4), st.booleans())
def test_what_is_read_in_one_step_says_what_the_long_way_says(said: list[dict[str, Any]], ascii_: bool) -> None:
    """Both of one context and of many at once; secret-looking names, empty texts and nulls included."""
    texts = [json.dumps(one, ensure_ascii=ascii_) for one in said]
    for text, one in zip(texts, said, strict=True):
        [long] = stored(pl.Series([context_text(sanitized_context(one))]), LONG_WAY)
        assert kept(text.encode()) in (None, long)
    series = pl.Series("context", texts, dtype=pl.String)
    assert columns_of(series).equals(columns_of(series, LONG_WAY))


def test_a_context_as_most_are_written_takes_one_step() -> None:
    """Actor as text or object, tags: the usual forms; a secret-looking tag, or nothing said, takes the long way."""
    assert kept(b'{"tags":{"b":"2","a":"1"},"actor":"ann"}') == '{"actor":{"id":"ann"},"tags":{"a":"1","b":"2"}}'
    assert kept(b'{"request_id":"r","actor":{"type":"user","id":"7"}}') == '{"actor":{"id":"7","type":"user"},"request_id":"r"}'
    for unusual in (b'{"tags":{"password":"x"}}', b'{"reason":""}', b'{"ip":null}', b'{"other":"x"}', b"no json", b"\xff"):
        assert kept(unusual) is None


def test_columns_are_those_of_each_rows_own_context() -> None:
    """Repeated, absent and unreadable texts included."""
    texts = pl.Series("context", ['{"actor":"a"}', None, '{"actor":"b"}', '{"actor":"a"}', "[1]", "no json"])
    frame = columns_of(texts)
    assert frame.columns == list(FIELDS)
    assert frame["actor_id"].to_list() == ["a", None, "b", "a", None, None]
    assert columns_of(texts.clear()).schema == frame.schema


def test_policy_hides_fields_and_tags_in_columns_and_in_the_stored_text() -> None:
    """No output holds what was hidden; tags hidden as a whole are an object all the same."""
    hide = {
        "ip": lambda texts: texts.str.replace(r"\d+$", "0"),
        "tags.email": lambda texts: pl.Series(["[FILTERED]"] * len(texts)),
        "actor_name": lambda texts: pl.Series([None] * len(texts), dtype=pl.String),
    }
    said = {"actor": {"id": "7", "name": "Ada"}, "ip": "10.1.2.3", "tags": {"email": "a@b.c", "n": 1}}
    texts = pl.Series("context", [json.dumps(said), '{"actor":"x"}'])
    frame = columns_of(texts, hide)
    assert frame.select("actor_id", "actor_name", "ip", "tags").rows() == [
        ("7", None, "10.1.2.0", '{"email":"[FILTERED]","n":1}'),
        ("x", None, None, None),
    ]
    assert columns_of(stored(texts, hide)).equals(frame)
    whole = columns_of(texts, {"tags": lambda given: pl.Series([None if one is None else "t1.abc" for one in given])})
    assert whole["tags"].to_list() == ['{"tags":"t1.abc"}', None]


def test_the_best_rung_wins_and_replaces_every_field() -> None:
    """Message, table, comment, row; of one rung the later; nothing of a worse rung remains."""
    frame = changes(*({"transaction_id": str(n)} for n in range(1, 6))).with_columns(
        pl.Series("actor_id", ["by row", "by comment", "by row", None, "by comment"]),
        pl.lit("of the row").alias("reason"),
        pl.Series("attribution", ["row", "comment", "row", "none", "comment"]),
    )
    found = contexts(
        ("1", "table", 9, {"actor": "by table"}),
        ("1", "message", 3, {"actor": "by message"}),
        ("2", "table", 5, {"actor": "first"}),
        ("2", "table", 6, {"actor": "second"}),
        ("4", "message", 7, {}),
    )
    assert who(attributed(frame, found, set())) == [
        ("by message", None, "message"),
        ("second", None, "table"),
        ("by row", "of the row", "row"),
        (None, None, "message"),
        ("by comment", "of the row", "comment"),
    ]


def test_only_what_nobody_answered_is_pending() -> None:
    """A comment or the row itself is an answer; without any answer an open transaction is pending, an ended one none."""
    frame = changes({"transaction_id": "1"}, {"transaction_id": "2"}, {"transaction_id": "3"}, {"transaction_id": None})
    frame = frame.with_columns(pl.Series("attribution", ["none", "comment", "none", "none"]))
    done = attributed(frame, contexts(), {("shop", 0, "1"), ("shop", 0, "2"), ("shop", 1, "3"), ("other", 0, "3")})
    assert done["attribution"].to_list() == ["pending", "comment", "none", "none"]
    assert done["attributed_at"].to_list() == [None, AT, None, None]


def test_snapshot_rows_belong_to_no_transaction() -> None:
    """Even when one carries the id of a transaction."""
    frame = changes({"operation": "snapshot"}, {"operation": "create"})
    done = attributed(frame, contexts(("1", "message", 1, {"actor": "ada"})), {("shop", 0, "1")})
    assert who(done) == [(None, None, "none"), ("ada", None, "message")]


def test_contexts_go_to_their_own_source_epoch_and_transaction() -> None:
    """Row order and other columns stay as they are."""
    frame = changes({"epoch": 1}, {"source": "hiring"}, {}, {"transaction_id": "2"})
    done = attributed(frame, contexts(("1", "message", 1, {"actor": "ada"})), set())
    assert done["actor_id"].to_list() == [None, None, "ada", None]
    assert done.select(frame.columns).equals(frame)
    assert attributed(frame.clear(), contexts(), set()).schema == done.schema


def test_what_is_wanted_are_transactions_that_end() -> None:
    """Not snapshots; not a TRUNCATE in a binlog, which has a BEGIN and never an END; with the newest change's time."""
    frame = changes(
        {"transaction_id": "1"},
        {"transaction_id": "1"},
        {"transaction_id": None},
        {"transaction_id": "2", "operation": "snapshot"},
        {"transaction_id": "3", "operation": "truncate", "connector": "mariadb"},
        {"transaction_id": "4", "operation": "truncate"},
    )
    ms = int(AT.timestamp() * 1000)
    assert wanted(frame) == {("shop", 0, "1"): ms + 1000, ("shop", 0, "4"): ms + 5000}


def test_comments_become_columns_without_secrets() -> None:
    """Rung comment where there is one, none elsewhere; secret-looking names are filtered as in messages."""
    queries = pl.Series(['/* chronicle: {"actor":"ada","password":"hunter2"} */', None, "UPDATE t SET a = 1"])
    frame = said_in_comments(queries)
    assert frame["attribution"].to_list() == ["comment", "none", "none"]
    assert frame["actor_id"].to_list() == ["ada", None, None]
    assert frame["tags"].to_list() == ['{"password":"[FILTERED]"}', None, None]
