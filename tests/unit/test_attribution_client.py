"""`chronicle.attribution` without a database: what may be said, how it is written, what statements do, what is said when."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.attribution import (
    COMMENT_BYTES_MAX,
    CONTEXT_BYTES_MAX,
    Actor,
    AttributionError,
    ContextRefused,
    attribute,
    context_table_ddl,
)
from chronicle.attribution.context import as_comment, fields, merged, quoted_table, written
from chronicle.attribution.statements import Dialect, Statement, read
from chronicle.attribution.watching import Block, Watch, commented
from chronicle.codec.transaction import context_of_message, context_of_row

HOSTILE = [
    "*/ DROP TABLE items; /*",
    "'; --",
    '"\\',
    "\x00",
    "%s %(x)s %%",
    ":content",
    "é\U0001f600\n\r\t",
    "`$1`",
    "{}",
    "\\'",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(HOSTILE)
VALUES = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def said(**given: Any) -> dict[str, Any]:
    actor, tags = given.pop("actor", None), given.pop("tags", None)
    return fields(actor=actor, named=given, tags=tags)


def block(comment: bool | None = None, table: str | None = None, selects_write: bool | None = None, **given: Any) -> Block:
    return Block(said(**given), comment, table, selects_write)


# -- what may be said --------------------------------------------------------------------------------------------------


@given(actor=TEXTS, reason=TEXTS, tags=st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
def test_what_is_said_is_what_the_pipeline_reads(actor: str, reason: str, tags: dict[str, Any]) -> None:
    """Whatever the strings: as a message, as a row's column, and in a comment the JSON gives back what was given."""
    expected = {"actor": actor, "reason": reason, "tags": tags}
    try:
        context = said(actor=actor, reason=reason, tags=tags)
    except ContextRefused:  # only for depth
        assert "]]]" in json.dumps(tags) or "}}" in json.dumps(tags) or "}]" in json.dumps(tags) or "]}" in json.dumps(tags)
        return
    text = written(context)
    assert text.isascii()
    assert "\x00" not in text
    assert context_of_message(text.encode()) == expected
    assert context_of_row(msgspec.json.encode({"id": "1", "context": text}).decode()) == expected
    assert context_of_message(written(context, comment=True).encode()) == expected


@given(st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=5))
def test_nothing_said_can_end_its_comment(tags: dict[str, str]) -> None:
    """One opening, one closing, no placeholder of any driver between them, and the connector's rule finds the JSON."""
    comment = as_comment(written({"tags": tags}, comment=True))
    assert comment.startswith("/* chronicle: {")
    assert comment.endswith("} */ ")
    assert (comment.count("/*"), comment.count("*/"), comment.count("%")) == (1, 1, 0)
    body = comment.strip().removeprefix("/*").removesuffix("*/").strip()
    assert context_of_message(body.removeprefix("chronicle:").strip().encode()) == {"tags": tags}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"actor": 42}, {"actor": "42"}),
        ({"actor": Actor("42", "user", "Ada")}, {"actor": {"id": "42", "type": "user", "name": "Ada"}}),
        ({"actor": Actor(uuid.UUID(int=1))}, {"actor": {"id": "00000000-0000-0000-0000-000000000001"}}),
        ({"ip": ipaddress.ip_address("::1"), "reason": None}, {"ip": "::1"}),
        ({"tags": {"n": 1, "x": [1.5, None]}}, {"tags": {"n": 1, "x": [1.5, None]}}),
    ],
)
def test_actors_and_fields_are_text(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Ids that are numbers, UUIDs or addresses become text; tags keep their types."""
    assert said(**given) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"actor": "secret\ud800"},
        {"tags": {"secret\udfff": 1}},
        {"reason": b"secret"},
        {"reason": True},
        {"tags": {"a": float("nan")}},
        {"tags": {"a": 2**64}},
        {"tags": {"a": object()}},
        {"tags": {"a": {1: 2}}},
        {"tags": {"a": [[[[[["secret"]]]]]]}},
        {"actor": Actor(None)},  # type: ignore[arg-type]
        {},
        {"reason": "secret" * CONTEXT_BYTES_MAX},
    ],
)
def test_what_cannot_be_said_is_refused_at_once(given: dict[str, Any]) -> None:
    """Before any statement, and without the value in the message."""
    with pytest.raises(ContextRefused) as refused:
        attribute(None, **given)
    assert "secret" not in str(refused.value)


def test_the_limits_are_bytes_and_named() -> None:
    """One byte more than allowed is refused, and the message says how many are allowed; comments are shorter."""
    for comment, limit in ((False, CONTEXT_BYTES_MAX), (True, COMMENT_BYTES_MAX)):
        room = limit - len('{"reason":""}')
        assert len(written(said(reason="x" * room), comment=comment)) == limit
        with pytest.raises(ContextRefused, match=str(limit)):
            written(said(reason="x" * (room + 1)), comment=comment)
        with pytest.raises(ContextRefused, match=str(limit)):
            written(said(reason="€" * (room // 3)), comment=comment)


def test_inner_fields_win_and_tags_join() -> None:
    """A block takes over what it does not say itself."""
    outer, inner = said(actor="a", reason="r", tags={"x": 1, "y": 1}), said(actor="b", tags={"y": 2})
    assert merged(outer, inner) == {"actor": "b", "reason": "r", "tags": {"x": 1, "y": 2}}


@pytest.mark.parametrize("name", ["a b", "a`b", "a.b.c", "", "1a", "a;", 'a"', "a.", "ä"])
def test_a_table_name_cannot_hold_sql(name: str) -> None:
    """It is written into statements, so only plain names are taken."""
    with pytest.raises(AttributionError):
        quoted_table(name)
    with pytest.raises(AttributionError):
        context_table_ddl("mariadb", name)


def test_only_known_databases_have_a_table() -> None:
    """A misspelt dialect is an error, not a guess."""
    with pytest.raises(AttributionError, match="postgres, mysql or mariadb"):
        context_table_ddl("oracle")  # type: ignore[arg-type]
    assert context_table_ddl("postgres", "app.said").startswith('CREATE TABLE IF NOT EXISTS "app"."said" (')


def test_an_unknown_connection_is_refused() -> None:
    """The message names what can be attributed."""
    with pytest.raises(AttributionError, match="psycopg 3, SQLAlchemy 2, Django or PyMySQL"), attribute(object(), actor="a"):
        pass


# -- what statements do ------------------------------------------------------------------------------------------------

WRITE, QUERY, END, BOTH = Statement(writes=True), Statement(queries=True), Statement(ends=True), Statement(True, ends=True)


@pytest.mark.parametrize(
    ("dialect", "sql", "expected"),
    [
        ("postgres", "insert into t values (1)", WRITE),
        ("postgres", "-- note\n/* a /* b */ c */ (UPDATE t SET a = ';')", WRITE),
        ("postgres", "DELETE FROM t;", WRITE),
        ("postgres", "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", WRITE),
        ("postgres", "TRUNCATE t", WRITE),
        ("mysql", "TRUNCATE t", END),
        ("mysql", "REPLACE INTO t VALUES (1)", WRITE),
        ("mysql", "LOAD DATA INFILE 'x' INTO TABLE t", WRITE),
        ("postgres", "WITH gone AS (DELETE FROM t RETURNING 1) SELECT * FROM gone", WRITE),
        ("postgres", "WITH x AS (SELECT 'DELETE', $$ DELETE $$) SELECT * FROM x FOR NO KEY UPDATE", QUERY),
        ("postgres", "SELECT 1 FOR UPDATE", QUERY),
        ("postgres", "SELECT E'\\'; DELETE FROM t; --'", QUERY),
        ("postgres", "SELECT $a$ ; DELETE $a$", QUERY),
        ("mysql", "SELECT \"; DELETE FROM t\", '\\'; COMMIT', `;`", QUERY),
        ("mysql", "# note ; COMMIT\nSELECT 1 -- ; DELETE", QUERY),
        ("postgres", "COPY t (a, b) FROM STDIN", WRITE),
        ("postgres", "COPY t FROM PROGRAM 'x'", WRITE),
        ("postgres", "COPY t TO STDOUT", Statement()),
        ("postgres", "COPY (SELECT a FROM t) TO STDOUT", Statement()),
        ("postgres", "COPY (DELETE FROM t RETURNING a) TO STDOUT", WRITE),
        ("postgres", "EXPLAIN DELETE FROM t", Statement()),
        ("postgres", "EXPLAIN (ANALYZE) DELETE FROM t", WRITE),
        ("mysql", "SET STATEMENT max_statement_time = 1 FOR UPDATE t SET a = 1", WRITE),
        ("mysql", "ANALYZE UPDATE t SET a = 1", WRITE),
        ("mysql", "ANALYZE TABLE t", END),
        ("mysql", "/*!50000 UPDATE */ t SET a = 1", WRITE),
        ("mysql", "SET autocommit = 1", END),
        ("postgres", "SET LOCAL x = 1", Statement()),
        ("postgres", "CALL f()", BOTH),
        ("postgres", "DO $$ BEGIN DELETE FROM t; END $$", BOTH),
        ("postgres", "EXECUTE prepared", BOTH),
        ("postgres", "SOMETHING NEW", BOTH),
        ("postgres", "CREATE TABLE t (a int)", END),
        ("postgres", "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC INSERT INTO t VALUES (1); SELECT 1; END", END),
        ("mysql", "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW BEGIN SET @a = 1; UPDATE u SET b = 2; END", END),
        ("postgres", "BEGIN", END),
        ("postgres", "PREPARE TRANSACTION 'x'", END),
        ("postgres", "ROLLBACK", END),
        ("postgres", "SAVEPOINT a", Statement(savepoint="A")),
        ("mysql", "ROLLBACK WORK TO SAVEPOINT `a`", Statement(rollback_to="`A`")),
        ("postgres", "RELEASE SAVEPOINT a", Statement()),
        ("postgres", "", Statement()),
        ("postgres", "UPDATE t SET a = 1; UPDATE u SET b = 1", Statement(writes=True, several=True)),
        ("postgres", "SELECT 1; COMMIT", Statement(queries=True, ends=True, several=True)),
        ("postgres", "BEGIN; UPDATE t SET a = 1; COMMIT", Statement(writes=True, ends=True, several=True, mixed=True)),
        ("postgres", "ROLLBACK TO a; UPDATE t SET a = 1", Statement(writes=True, ends=True, several=True, mixed=True)),
        ("mysql", "UPDATE t SET a = 1; DROP TABLE u", Statement(writes=True, ends=True, several=True, mixed=True)),
        ("postgres", "UPDATE t SET a = 1; DROP TABLE u", Statement(writes=True, ends=True, several=True)),
    ],
)
def test_statements_are_told_apart(dialect: Dialect, sql: str, expected: Statement) -> None:
    """By their words, with comments and literals out of the way; what is unknown writes."""
    assert read(sql, dialect) == expected


def test_a_value_is_no_statement() -> None:
    """PyMySQL's text holds the values; where the server takes one statement a call, no semicolon splits it."""
    assert read("UPDATE t SET a = '\\'; COMMIT; --'", "mysql", several=False, backslashes=False) == WRITE
    assert read("SELECT 'x\\'; COMMIT'", "mysql", several=False) == QUERY
    assert read("SELECT '\\', '; COMMIT'", "mysql", backslashes=False) == QUERY


@given(st.text(st.sampled_from("'\"`$-#/*!; \n\\aE()sSELECTupdate"), max_size=80), st.sampled_from(["postgres", "mysql"]))
def test_any_text_is_read_to_its_end(sql: str, dialect: Dialect) -> None:
    """Garbage too is some statement: the database is to refuse it, not this."""
    assert isinstance(read(sql, dialect), Statement)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", [" ", "/* a */", "-- a\n", "(", "'a'", "''", "/*", "$a$", ";"])
@pytest.mark.parametrize("dialect", ["postgres", "mysql"])
def test_a_huge_text_takes_linear_time(piece: str, dialect: Dialect) -> None:
    """Nothing in a text makes the reading explode."""
    assert isinstance(read(piece * 50_000 + "1", dialect), Statement)


# -- what is said when -------------------------------------------------------------------------------------------------


def run(watch: Watch, *statements: str) -> list[str | None]:
    """What is said before each statement, which then goes through."""
    out = []
    for sql in statements:
        step = watch.before(sql)
        if step.say is not None:
            watch.heard()
        out.append(None if step.say is None else step.say.text)
        watch.after(step)
    return out


def test_a_transaction_is_told_once_before_its_first_write() -> None:
    """Reads need no context, further writes no second one; after the transaction's end it is said again."""
    watch = Watch("mysql")
    watch.enter(block(actor="a"))
    a = '{"actor":"a"}'
    assert run(watch, "SELECT 1", "DELETE FROM t", "SELECT 1", "DELETE FROM t") == [None, a, None, None]
    assert run(watch, "COMMIT", "SELECT 1", "DELETE FROM t") == [None, None, a]
    watch.forget()
    assert run(watch, "DELETE FROM t", "CALL f()", "DELETE FROM t") == [a, None, a]


def test_what_a_savepoint_takes_back_is_said_again() -> None:
    """And what it does not take back is not."""
    watch = Watch("mysql")
    watch.enter(block(actor="a"))
    a = '{"actor":"a"}'
    assert run(watch, "SAVEPOINT x", "DELETE FROM t", "ROLLBACK TO x", "DELETE FROM t") == [None, a, None, a]
    assert run(watch, "SAVEPOINT y", "SAVEPOINT z", "ROLLBACK TO y", "DELETE FROM t") == [None, None, None, None]
    assert run(watch, "ROLLBACK TO SAVEPOINT z", "DELETE FROM t") == [None, a]


def test_a_failed_statement_may_have_ended_the_transaction() -> None:
    """A deadlock rolls MySQL's whole transaction back: the next write says it again."""
    watch = Watch("mysql")
    watch.enter(block(actor="a"))
    assert run(watch, "DELETE FROM t") == ['{"actor":"a"}']
    watch.before("DELETE FROM t")  # and no `after`
    assert run(watch, "DELETE FROM t") == ['{"actor":"a"}']


def test_an_inner_block_adds_and_is_taken_back() -> None:
    """Its fields are said when they are new; going outward in the same transaction says nothing again."""
    watch = Watch("mysql")
    watch.enter(block(actor="a"))
    run(watch, "DELETE FROM t")
    inner = watch.enter(block(reason="r"))
    assert run(watch, "DELETE FROM t", "DELETE FROM t") == ['{"actor":"a","reason":"r"}', None]
    watch.leave(inner)
    assert run(watch, "DELETE FROM t", "COMMIT", "DELETE FROM t") == [None, None, '{"actor":"a"}']


def test_functions_in_queries_can_be_said_to_write() -> None:
    """Only where the application says so; inner blocks take it over."""
    watch = Watch("postgres")
    watch.enter(block(actor="a", selects_write=True))
    watch.enter(block(reason="r"))
    assert run(watch, "SHOW x", "SELECT f()") == [None, '{"actor":"a","reason":"r"}']


def test_one_string_with_commit_and_writes_is_refused() -> None:
    """There is no place in it for a context; nor has a comment a second place."""
    watch = Watch("postgres")
    watch.enter(block(actor="a"))
    with pytest.raises(AttributionError, match="apart"):
        watch.before("BEGIN; DELETE FROM t; COMMIT")
    watch = Watch("mysql")
    watch.enter(block(comment=True, actor="a"))
    with pytest.raises(AttributionError, match="one statement a call"):
        watch.before("DELETE FROM t; DELETE FROM u")


def test_comments_and_tables_are_not_for_postgres() -> None:
    """It has neither a need for them nor statements in its log."""
    for wrong in (block(comment=True, actor="a"), block(table="t", actor="a")):
        with pytest.raises(AttributionError, match="Postgres"):
            Watch("postgres").enter(wrong)


def test_a_block_too_long_with_what_it_takes_over_does_not_begin() -> None:
    """The limit holds for what is said, not for a part of it."""
    watch = Watch("postgres")
    outer = watch.enter(block(actor="a" * (CONTEXT_BYTES_MAX - 50)))
    with pytest.raises(ContextRefused):
        watch.enter(block(reason="r" * 100))
    assert watch.voices == [outer]


def test_a_batch_of_rows_keeps_its_first_word() -> None:
    """PyMySQL and mysqlclient send rows as one statement only when the text begins with INSERT; a hint stays where it is."""
    assert commented("DELETE FROM t", "/* c */ ") == "/* c */ DELETE FROM t"
    assert commented(" insert into t", "/* c */ ", many=True) == "insert /* c */ into t"
    assert commented("REPLACE INTO t", "/* c */ ", many=True) == "REPLACE /* c */ INTO t"
    assert commented("INSERT /*+ x */ INTO t", "/* c */ ", many=True) == "/* c */ INSERT /*+ x */ INTO t"


# -- the import --------------------------------------------------------------------------------------------------------


def test_importing_it_loads_no_driver_and_nothing_heavy() -> None:
    """An application pays for what it uses: `import chronicle` loads nothing, `attribute` the standard library only."""
    script = """
import sys
before = set(sys.modules)
import chronicle
assert {name for name in set(sys.modules) - before if name.startswith("chronicle.")} == set(), "lazy"
assert "attribute" in dir(chronicle)
from chronicle import Actor, attribute
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(" ".join(sorted(loaded)))
"""
    loaded = subprocess.run([sys.executable, "-I", "-c", script], check=True, capture_output=True, text=True).stdout
    assert loaded.split() == ["chronicle"]
    with pytest.raises(AttributeError):
        import chronicle

        chronicle.nothing  # noqa: B018
