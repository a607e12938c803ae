"""The view `attributed_changes`, the status of transactions and `chronicle attribution report`, on a real ClickHouse."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client
from typer.testing import CliRunner

from chronicle.cli import attribution as attribution_cli
from chronicle.config import ClickHouse
from chronicle.dev.stack import Stack
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.migrations import migrate
from chronicle.stages.attribute import FIELDS, columns_of, stored
from chronicle.trail import attribution
from chronicle.trail.tables import TableName

pytestmark = pytest.mark.stack

START = datetime(2026, 11, 23, 8, tzinfo=UTC)
LATER = START + timedelta(hours=1)
MESSAGE, TABLE = 2, 1


class Trail:
    """A trail of its own, filled by hand."""

    def __init__(self, client: Client, settings: ClickHouse) -> None:
        self.client, self.settings, self.database = client, settings, settings.database
        self.number = 0

    def add(self, transaction: str | None, attribution: str = "none", **given: Any) -> None:
        """One change."""
        self.number += 1
        facts: dict[str, Any] = {
            "event_id": uuid.uuid4(), "source": "shop", "connector": "postgresql", "schema": "public", "table": "customers",
            "entity": uuid.uuid4(), "operation": "update", "key": '{"id":7}', "before_known": True, "changed": [],
            "unavailable": [], "epoch": 0, "position": self.number, "transaction_id": transaction, "topic": "t",
            "partition": 0, "offset": self.number, "schema_id": 1, "committed_at": START + timedelta(minutes=self.number),
            "captured_at": START, "received_at": START, "processed_at": START, "attribution": attribution, **given,
        }  # fmt: skip
        self.client.insert("changes", [list(facts.values())], column_names=list(facts), database=self.database)

    def transaction(self, transaction: str, **given: Any) -> None:
        """What the transaction topic said of one."""
        facts = {"source": "shop", "epoch": 0, "transaction_id": transaction, "processed_at": LATER, **given}
        self.client.insert("transactions", [list(facts.values())], column_names=list(facts), database=self.database)

    def say(self, transaction: str, rank: int, said: dict[str, Any]) -> None:
        """A context, in the form in which it is stored."""
        text = stored(pl.Series([json.dumps(said)]))[0]
        self.transaction(transaction, best_context=(rank, 1, text))

    def rows(self, columns: str, view: str = "attributed_changes") -> list[tuple[Any, ...]]:
        order = "position" if view == "attributed_changes" else "transaction_id"
        return [tuple(row) for row in self.client.query(f"SELECT {columns} FROM {view} ORDER BY {order}").result_rows]


@pytest.fixture
def trail(stack: Stack, unique: str) -> Iterator[Trail]:
    """An empty trail."""
    settings = ClickHouse(url=stack.clickhouse_url, database=f"{unique}_trail", mirror_database=f"{unique}_mirror")
    migrate(client := connect(settings), settings)
    client.close()
    client = connect(settings, database=settings.database)
    yield Trail(client, settings)
    for database in (settings.mirror_database, settings.database):  # the own one last: requests name it
        client.command(f"DROP DATABASE {database}")
    client.close()


def test_a_late_context_answers_for_what_was_written_without_it(trail: Trail) -> None:
    """Pending, none, or a worse rung: the better one of both is shown whole, and that it was late."""
    said = {"actor": {"id": "7", "name": "Ada"}, "reason": "r", "tags": {"b": "1", "a": 2}}
    trail.add("1", "pending")
    trail.add("2", "none")
    trail.add("3", "comment", actor_id="by comment", reason="of the comment", ip="10.0.0.1")
    trail.add("4", "message", actor_id="at once", attributed_at=START)
    trail.add("5", "row", actor_id="by row")
    for number in "1234":
        trail.say(number, MESSAGE, said)
    trail.say("5", TABLE, {"actor": "by table"})
    found = trail.rows("actor_id, actor_name, reason, ip, tags, attribution, attributed_at, attributed_late")
    late = ("7", "Ada", "r", None, '{"a":2,"b":"1"}', "message", LATER, True)
    assert [tuple(one.replace(tzinfo=UTC) if isinstance(one, datetime) else one for one in row) for row in found] == [
        late,
        late,
        late,
        ("at once", None, None, None, None, "message", START, False),
        ("by table", None, None, None, None, "table", LATER, True),
    ]


def test_the_view_reads_a_stored_context_as_the_worker_does(trail: Trail) -> None:
    """Field by field, whatever the application wrote."""
    contexts: list[dict[str, Any]] = [
        {"actor": "ada"},
        {"actor": {"id": 7, "type": "user", "display": "A\"d'a\\"}, "request": "ü\n", "ip": "::1", "session": [1], "tenant": 3},
        {"x": {"y": None}, "tags": {"ключ": "значение", "n": 1.5}},
        {"reason": "only"},
        {},
    ]
    for number, said in enumerate(contexts):
        trail.add(str(number), "pending")
        trail.say(str(number), MESSAGE, said)
    expected = columns_of(pl.Series([json.dumps(one) for one in contexts])).rows()
    assert trail.rows(", ".join(FIELDS)) == expected


def test_pending_is_none_once_the_end_was_read(trail: Trail) -> None:
    """Contexts stand before the END; a snapshot row gets no context, and a change without a transaction neither."""
    trail.add("1", "pending")
    trail.add("2", "pending")
    trail.add("3", "none", operation="snapshot")
    trail.add(None, "none")
    trail.transaction("1", ended_at=START)
    trail.say("3", MESSAGE, {"actor": "ada"})
    assert trail.rows("attribution, actor_id") == [("none", None), ("pending", None), ("none", None), ("none", None)]


def test_the_view_has_every_column_of_changes_once(trail: Trail) -> None:
    """A context twice in `transactions` does not double a change."""
    trail.add("1")
    for _ in range(2):
        trail.say("1", MESSAGE, {"actor": "ada"})
    described = [row[0] for row in trail.client.query("DESCRIBE TABLE attributed_changes").result_rows]
    changes = [row[0] for row in trail.client.query("DESCRIBE TABLE changes").result_rows]
    assert sorted(described) == sorted([*changes, "attributed_late", "transaction_key"])
    assert trail.rows("actor_id") == [("ada",)]


def test_a_partial_transaction_names_the_tables_that_lack_rows(trail: Trail) -> None:
    """Stubs count as seen; a redelivered row counts once."""
    expected = {"public.customers": 2, "public.orders": 1}
    for number in ("1", "2", "3"):
        trail.transaction(number, began_at=START, begins=[1], ended_at=START, event_count=3, tables=expected)
    trail.add("1", event_id=(event := uuid.uuid4()))
    trail.add("1", event_id=event)
    for table in ("customers", "customers", "orders"):
        trail.add("2", table=table, stub="ignored")
    found = trail.rows("transaction_id, status, seen, missing", "transaction_status")
    assert found == [
        ("1", "partial", 1, {"public.customers": 1, "public.orders": 1}),
        ("2", "complete", 3, {}),
        ("3", "partial", 0, expected),
    ]


def test_the_report_counts_rungs_and_names_what_nobody_answers_for(trail: Trail) -> None:
    """Late contexts count as known; snapshot rows and stubs do not count at all."""
    trail.add("1", "message", actor_id="ada")
    trail.add("1", "message", actor_id="ada", table="orders")
    trail.add("2", "pending")
    trail.add("3", "none", table="orders", operation="delete")
    trail.add("3", "none", table="customers")
    trail.add("4", "none", operation="snapshot")
    trail.add("5", "none", stub="ignored")
    trail.add("6", "pending")
    trail.say("2", MESSAGE, {"actor": "ada"})
    found = attribution.report(trail.client, trail.database)
    assert found.total.by_rung == {"message": 3, "none": 2, "pending": 1}
    assert (found.total.changes, found.total.unattributed, found.total.share, found.late) == (6, 3, 0.5, 1)
    assert {name.table: one.unattributed for name, one in found.tables.items()} == {"customers": 2, "orders": 1}
    [band] = found.out_of_band
    assert (band.transaction_id, band.changes, band.tables) == ("3", 2, ("public.customers", "public.orders"))
    assert found.out_of_band_transactions == 1
    later = attribution.report(trail.client, trail.database, since=START + timedelta(minutes=5))
    assert later.total.by_rung == {"none": 1, "pending": 1}
    assert list(later.tables) == [TableName("shop", "public", "customers")]


def test_the_command_prints_a_table_or_json(trail: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data on standard output; an empty trail says so and is no failure."""
    file = tmp_path / "chronicle.toml"
    file.write_text(f'[clickhouse]\nurl = "{trail.settings.url}"\ndatabase = "{trail.database}"\n')
    monkeypatch.setenv("CHRONICLE_CONFIG", str(file))
    run = CliRunner()
    empty = run.invoke(attribution_cli.app, ["report", "--since", "1h"])
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "no changes" in empty.stderr
    trail.add("1", "message", actor_id="ada")
    trail.add("9876", "none")
    shown = run.invoke(attribution_cli.app, ["report"])
    assert shown.exit_code == 0
    assert "50.0%" in shown.stdout
    assert "9876" in shown.stdout
    document = json.loads(run.invoke(attribution_cli.app, ["report", "--json"]).stdout)
    assert document["attributed_share"] == 0.5
    assert document["by_rung"]["message"] == 1
    assert document["out_of_band"][0]["transaction_id"] == "9876"
