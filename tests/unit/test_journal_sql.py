"""Events in an SQL database: each id once, in batches; a database that is away is waited for, a row it refuses stands alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event as listening

from chronicle.errors import ConfigError
from chronicle.events.event import Event, encoded
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.persistence.sql import TABLE, SqlEvents, _row
from chronicle.journal.transports import TransportAway


def outgoing(number: int, **fields: Any) -> Outgoing:
    given = {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "type": "t.e",
        "time": "2026-02-01T12:00:00.000000Z",
        "source": "s",
    }
    event = Event(**{**given, **fields})
    return Outgoing(event, encoded(event))


def found(engine: sa.Engine, table: str = TABLE) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY id")).mappings()]


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    return sa.create_engine(f"sqlite:///{tmp_path}/events.db")


def test_an_event_is_a_row(engine: sa.Engine) -> None:
    """Fields that one asks by as columns, the event whole as JSON, its time in UTC."""
    sent = outgoing(
        1,
        time="2026-02-01T13:30:00.25+01:00",
        actor="ann",
        resource_type="order",
        resource_id="7",
        outcome="success",
        payload={"a": 1},
    )
    assert list(SqlEvents(engine).send([sent])) == [None]
    [row] = found(engine)
    assert row["id"] == sent.event.id
    assert (row["actor_id"], row["resource_type"], row["resource_id"], row["outcome"]) == ("ann", "order", "7", "success")
    assert str(row["time"]).startswith("2026-02-01 12:30:00.25")
    assert row["event"].encode() == sent.text


def test_an_id_is_there_once(engine: sa.Engine) -> None:
    """Sent again, sent twice in one batch, sent with another content: the first stays, and nothing is refused."""
    store = SqlEvents(engine)
    store.send([outgoing(1), outgoing(2)])
    assert list(store.send([outgoing(2, actor="other"), outgoing(3), outgoing(3)])) == [None] * 3
    assert [(row["id"][-1], row["actor_id"]) for row in found(engine)] == [("1", None), ("2", None), ("3", None)]


def test_many_rows_go_in_few_statements(engine: sa.Engine) -> None:
    """And in one transaction."""
    store = SqlEvents(engine)
    store.send([])
    seen: list[str] = []
    listening.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    listening.listen(engine, "commit", lambda _: seen.append("COMMIT"))
    store.send([outgoing(number) for number in range(1_234)])
    assert len([one for one in seen if one.startswith("INSERT")]) == 3
    assert seen.count("COMMIT") == 1
    assert len(found(engine)) == 1_234


def test_a_database_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """Its error names no value and no password; when it is back, the same batch goes through."""
    place = tmp_path / "later"
    store = SqlEvents(f"sqlite:///{place}/events.db")
    with pytest.raises(TransportAway) as away:
        store.send([outgoing(1, actor="ann")])
    assert "ann" not in str(away.value)
    place.mkdir()
    store.send([outgoing(1, actor="ann")])
    store.close()
    assert len(found(sa.create_engine(f"sqlite:///{place}/events.db"))) == 1


def test_a_locked_database_is_away(tmp_path: Path) -> None:
    """Another connection writes: nothing of the batch is told to be kept."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/events.db", connect_args={"timeout": 0})
    store = SqlEvents(engine)
    store.send([outgoing(1)])
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(TransportAway):
            store.send([outgoing(2)])
        other.rollback()
    store.send([outgoing(2)])
    assert len(found(engine)) == 2


def test_a_row_that_is_refused_for_good_stands_alone(engine: sa.Engine) -> None:
    """Its neighbours are kept, and the reason has no value in it."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE {TABLE} (id TEXT PRIMARY KEY, type TEXT, time TEXT, source TEXT, "
            "actor_id TEXT CHECK (actor_id != 'evil'), action TEXT, resource_type TEXT, resource_id TEXT, outcome TEXT, "
            "request_id TEXT, session TEXT, tenant TEXT, event TEXT)"
        )
    batch = [outgoing(number, actor="evil" if number == 11 else "ann") for number in range(20)]
    results = SqlEvents(engine).send(batch)
    assert [at for at, result in enumerate(results) if result is not None] == [11]
    assert "evil" not in str(results[11])
    assert len(found(engine)) == 19


def test_any_other_database_asks_first(engine: sa.Engine) -> None:
    """Where there is no ON CONFLICT: only ids that are not there are inserted."""
    store = SqlEvents(engine)
    store.send([outgoing(1)])
    with engine.begin() as connection:
        store._insert_missing(connection, [_row(one.event, one.text) for one in (outgoing(1), outgoing(2), outgoing(2))])
    assert [row["id"][-1] for row in found(engine)] == ["1", "2"]


@pytest.mark.parametrize("url", ["nonsense", "postgresql+nothing://app:Zq7XvKp92LmW@db/x", "://"])
def test_a_url_that_is_none_is_told_without_its_password(url: str) -> None:
    """When the store is made, not at the first event."""
    with pytest.raises(ConfigError) as refused:
        SqlEvents(url)
    assert "Zq7XvKp92LmW" not in str(refused.value)
