"""`chronicle.attribution` on real databases: what their logs hold of a transaction. The laws are the same for every library."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chronicle import Actor, attribute
from chronicle.dev.stack import Stack
from tests.stack.attribution_clients import CLIENTS, CONTEXT, HOSTILE, INSERT, ROW, Client, World, client, opened_worlds

pytestmark = pytest.mark.stack

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(HOSTILE)


@pytest.fixture(scope="module")
def worlds(stack: Stack) -> Iterator[dict[str, World]]:
    """One database of each kind for this module."""
    with opened_worlds(stack) as made:
        yield made


@pytest.fixture(params=CLIENTS)
def app(request: pytest.FixtureRequest, worlds: dict[str, World]) -> Iterator[Client]:
    with client(request.param, worlds) as made:
        made.world.read()
        yield made


def test_a_transaction_that_writes_is_told_once_before_its_first_write(app: Client) -> None:
    """And each transaction of the block is told; after the block none is."""
    with attribute(app.target, actor=Actor("7", "user", "Ada"), reason="ticket", request_id=9, ip="::1", campaign="spring"):
        for _ in range(3):
            with app.transaction():
                app.run("SELECT 1")
                app.run(INSERT)
                app.run(INSERT)
    with app.transaction():
        app.run(INSERT)
    transactions, contexts = app.world.read()
    assert transactions == [[CONTEXT, ROW, ROW]] * 3 + [[ROW]]
    actor = {"id": "7", "type": "user", "name": "Ada"}
    expected = {"actor": actor, "reason": "ticket", "request_id": "9", "ip": "::1", "tags": {"campaign": "spring"}}
    assert contexts == [expected] * 3


def test_a_transaction_that_only_reads_is_not_told(app: Client) -> None:
    """Nor one whose writes were rolled back."""
    with attribute(app.target, actor="a"):
        with app.transaction():
            app.run("SELECT count(*) FROM items")
        with pytest.raises(KeyError), app.transaction():
            app.run(INSERT)
            raise KeyError
        with app.transaction():
            app.run("SELECT count(*) FROM items")
    assert app.world.read() == ([], [])


def test_what_a_savepoint_took_back_is_said_again(app: Client) -> None:
    """A context goes with the savepoint in which it was said; one said before it stays, and is not said twice."""
    with attribute(app.target, actor="a"):
        with app.transaction():
            app.run("SELECT 1")
            with pytest.raises(KeyError), app.savepoint():
                app.run(INSERT)
                raise KeyError
            app.run(INSERT)
        with app.transaction():
            app.run(INSERT)
            with pytest.raises(KeyError), app.savepoint():
                app.run(INSERT)
                raise KeyError
            with app.savepoint():
                app.run(INSERT)
            app.run(INSERT)
    assert app.world.read() == ([[CONTEXT, ROW], [CONTEXT, ROW, ROW, ROW]], [{"actor": "a"}] * 2)


def test_an_inner_block_adds_and_is_taken_back(app: Client) -> None:
    """Within one transaction what is new is said; the next transaction is told what holds then."""
    with attribute(app.target, actor="a", reason="outer", x=1):
        with app.transaction():
            app.run(INSERT)
            with attribute(app.target, reason="inner", y=2):
                app.run(INSERT)
            app.run(INSERT)
        with app.transaction():
            app.run(INSERT)
    outer = {"actor": "a", "reason": "outer", "tags": {"x": 1}}
    inner = {"actor": "a", "reason": "inner", "tags": {"x": 1, "y": 2}}
    assert app.world.read() == ([[CONTEXT, ROW, CONTEXT, ROW, ROW], [CONTEXT, ROW]], [outer, inner, outer])


def test_a_block_inside_a_transaction_speaks_for_the_rest_of_it(app: Client) -> None:
    """The transaction may have begun, and may end, outside."""
    with app.transaction():
        app.run("SELECT 1")
        with attribute(app.target, actor="a"):
            app.run(INSERT)
        app.run(INSERT)
    assert app.world.read() == ([[CONTEXT, ROW, ROW]], [{"actor": "a"}])


def test_many_rows_are_a_write(app: Client) -> None:
    """`executemany`, with as many rows arriving."""
    with attribute(app.target, actor="a"), app.transaction():
        app.many("INSERT INTO items (id) VALUES (%s)", [(1,), (2,), (3,)])
    transactions, contexts = app.world.read()
    assert transactions in ([[CONTEXT, ROW, ROW, ROW]], [[CONTEXT, ROW]])  # MariaDB: one statement, one event
    assert contexts == [{"actor": "a"}]


def test_an_error_leaves_the_next_transaction_told(app: Client) -> None:
    """The application sees its own error, and what comes after is attributed all the same."""
    with attribute(app.target, actor="a"):
        with pytest.raises(Exception, match="nowhere"), app.transaction():
            app.run(INSERT)
            app.run("INSERT INTO nowhere (id) VALUES (1)")
        with app.transaction():
            app.run(INSERT)
    assert app.world.read() == ([[CONTEXT, ROW]], [{"actor": "a"}])


def test_nothing_of_it_stays(app: Client) -> None:
    """After the block, also one that an exception left, the connection is as it was."""
    found = app.target.target if hasattr(app.target, "target") else app.target
    before = {name: value for name, value in vars(found).items() if callable(value)} if hasattr(found, "__dict__") else {}
    with pytest.raises(KeyError), attribute(app.target, actor="a"), attribute(app.target, reason="b"):
        raise KeyError
    after = {name: value for name, value in vars(found).items() if callable(value)} if hasattr(found, "__dict__") else {}
    assert after == before
    with app.transaction():
        app.run(INSERT)
    assert app.world.read() == ([[ROW]], [])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actor=TEXTS, tags=st.dictionaries(TEXTS, TEXTS, max_size=3))
def test_what_the_database_hands_back_is_what_was_given(app: Client, actor: str, tags: dict[str, str]) -> None:
    """Whatever the strings, hostile ones included; nothing else happens."""
    app.world.read()
    with attribute(app.target, actor=actor, tags=tags), app.transaction():
        app.run(INSERT)
    assert app.world.read() == ([[CONTEXT, ROW]], [{"actor": actor} | ({"tags": tags} if tags else {})])
