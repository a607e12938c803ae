"""The reading commands against a real ClickHouse: filters, order, one row's history, free SQL."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from pydantic import SecretStr
from typer import Typer
from typer.testing import CliRunner

from chronicle.cli import changes as changes_cli
from chronicle.cli import history as history_cli
from chronicle.cli import sql as sql_cli
from chronicle.config import ClickHouse
from chronicle.dev.stack import Stack
from chronicle.errors import ChronicleError, ConfigError, TransientError
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.migrations import migrate
from chronicle.trail import changes, contexts, history, keys, query, tables
from chronicle.trail.changes import Change, Filters
from chronicle.trail.tables import TableName

pytestmark = pytest.mark.stack

START = datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=UTC)
CUSTOMERS = TableName("shop", "public", "customers")
EPOCH = 3 << 120
"""Top bits of a position, so that the tests order 128-bit numbers."""


class Trail:
    """A trail of its own in the real ClickHouse, filled by hand."""

    def __init__(self, client: Client, settings: ClickHouse) -> None:
        self.client, self.settings, self.database = client, settings, settings.database
        self.number = 0

    def add(self, operation: str, position: int, name: TableName = CUSTOMERS, **given: Any) -> str:
        """Insert one change and return its event id."""
        self.number += 1
        at = START + timedelta(minutes=position)
        key = given.get("key", {"id": 7})
        facts: dict[str, Any] = {
            "event_id": uuid.uuid4(),
            "source": name.source,
            "connector": "postgresql",
            "schema": name.schema,
            "table": name.table,
            "operation": operation,
            "before_known": True,
            "changed": [],
            "unavailable": [],
            "epoch": 3,
            "position": EPOCH + position,
            "transaction_id": str(position),
            "topic": str(name),
            "partition": 0,
            "offset": self.number,
            "schema_id": 1,
            "committed_at": at,
            "captured_at": at,
            "received_at": at,
            "processed_at": at,
            "entity": uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {json.dumps(key)}"),
            **given,
        }
        for image in ("previous_key", "before", "after"):
            if isinstance(facts.get(image), dict):
                facts[image] = json.dumps(facts[image], ensure_ascii=False, separators=(",", ":"), sort_keys=image[0] in "ab")
        facts["key"] = json.dumps(key, ensure_ascii=False, separators=(",", ":")) if key else ""
        self.client.insert("changes", [list(facts.values())], column_names=list(facts), database=self.database)
        return str(facts["event_id"])

    def say(self, transaction_id: str, rank: int, said: dict[str, Any]) -> None:
        """Record a context."""
        row = ["shop", 3, transaction_id, (rank, 1, json.dumps(said)), START]
        names = ["source", "epoch", "transaction_id", "best_context", "processed_at"]
        self.client.insert("transactions", [row], column_names=names, database=self.database)

    def find(self, limit: int = 100, **given: Any) -> list[Change]:
        """Changes by filter."""
        return changes.changes(self.client, self.database, Filters(**given), limit=limit)

    def history(self, key: str, name: TableName = CUSTOMERS) -> history.History:
        """The history of a row, asked for as a person does."""
        texts = keys.texts(key, keys.shapes(self.client, self.database, name))
        return history.history(self.client, self.database, name, texts)


@pytest.fixture
def trail(stack: Stack, unique: str) -> Iterator[Trail]:
    """An empty trail."""
    settings = ClickHouse(
        url=stack.clickhouse_url, password=SecretStr(""), database=f"{unique}_trail", mirror_database=f"{unique}_mirror"
    )
    client = connect(settings)
    migrate(client, settings)
    yield Trail(client, settings)
    for database in (settings.database, settings.mirror_database):
        client.command(f"DROP DATABASE {database}")
    client.close()


@pytest.fixture
def cli(trail: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command as a user does, with settings from a file."""
    file = tmp_path / "chronicle.toml"
    file.write_text(
        f'[clickhouse]\nurl = "{trail.settings.url}"\ndatabase = "{trail.settings.database}"\n'
        f'mirror_database = "{trail.settings.mirror_database}"\n'
    )
    monkeypatch.setenv("CHRONICLE_CONFIG", str(file))
    app = Typer()
    for command in (history_cli.history, changes_cli.changes, sql_cli.sql):
        app.command()(command)

    def run(*words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, words)
        return result.exit_code, result.stdout, result.stderr

    return run


def test_a_change_comes_back_as_it_was_stored(trail: Trail) -> None:
    """Images are parsed, times keep microseconds and UTC, positions keep 128 bits."""
    event_id = trail.add("update", 1, before={"id": 7, "n": "ü"}, after={"id": 7, "n": None}, changed=["n"])
    [change] = trail.find(source="shop")
    assert change.event_id == event_id
    assert (change.before, change.after, change.changed) == ({"id": 7, "n": "ü"}, {"id": 7, "n": None}, ("n",))
    assert change.position == EPOCH + 1
    assert change.committed_at == START + timedelta(minutes=1)
    assert change.committed_at.utcoffset() == timedelta(0)
    assert change.key == {"id": 7}


def test_a_redelivered_change_is_one_change(trail: Trail) -> None:
    """Read with FINAL: the latest processing of an event wins."""
    event_id = uuid.uuid4()
    for after in ({"id": 7, "n": 1}, {"id": 7, "n": 2}):
        trail.add("create", 1, event_id=event_id, after=after, processed_at=START + timedelta(days=after["n"]))
    [change] = trail.find()
    assert change.after == {"id": 7, "n": 2}
    assert changes.counts(trail.client, trail.database, Filters()) == [(CUSTOMERS, {"create": 1})]


def test_filters_hold_together(trail: Trail) -> None:
    """Each filter narrows, values with quotes included, and all of them are bound and not pasted."""
    other = TableName("hiring", "hiring", "it's")
    trail.add("create", 1, after={"id": 7})
    trail.add("update", 2, after={"id": 7}, changed=["email", "tier"])
    trail.add("delete", 3, before={"id": 7})
    trail.add("delete", 4, other, key={"id": "it's \\ 'quoted'"})
    assert [change.operation for change in trail.find(source="shop")] == ["create", "update", "delete"]
    assert [change.operation for change in trail.find(operations=("create", "delete"), source="shop")] == ["create", "delete"]
    assert [change.operation for change in trail.find(column="tier")] == ["update"]
    assert [change.operation for change in trail.find(transaction="3")] == ["delete"]
    assert [change.name for change in trail.find(table="it's", schema="hiring")] == [other]
    assert [change.name for change in trail.find(keys=('{"id":"it\'s \\\\ \'quoted\'"}',))] == [other]
    since, until = START + timedelta(minutes=2), START + timedelta(minutes=3)
    assert [change.operation for change in trail.find(since=since, until=until)] == ["update"]
    assert trail.find(source="shop' OR 1 --") == []


def test_one_source_is_in_order_of_position_and_the_limit_keeps_the_newest(trail: Trail) -> None:
    """Commit times may disagree with positions: within one source the position decides."""
    for position in (1, 2, 3):
        trail.add("update", position, committed_at=START - timedelta(minutes=position))
    assert [change.position - EPOCH for change in trail.find(source="shop")] == [1, 2, 3]
    assert [change.position - EPOCH for change in trail.find(source="shop", limit=2)] == [2, 3]
    assert [change.position - EPOCH for change in trail.find()] == [3, 2, 1]


def test_history_follows_a_primary_key_backwards(trail: Trail) -> None:
    """What happened under the earlier key belongs to the row, and what happened there afterwards does not."""
    old_entity = uuid.uuid4()
    trail.add("create", 1, key={"id": 3}, entity=old_entity, after={"id": 3, "n": 1})
    trail.add("delete", 2, key={"id": 3}, entity=old_entity, before={"id": 3, "n": 1})
    trail.add("create", 2, after={"id": 7, "n": 1}, previous_key={"id": 3}, previous_entity=old_entity)
    trail.add("update", 3, before={"id": 7, "n": 1}, after={"id": 7, "n": 2}, changed=["n"])
    trail.add("create", 4, key={"id": 3}, entity=old_entity, after={"id": 3, "n": 99})
    found = trail.history("7")
    assert [(entry.change.operation, entry.given_up) for entry in found.entries] == [
        ("create", False),
        ("delete", True),
        ("create", False),
        ("update", False),
    ]
    assert found.followed == ({"id": 3},)
    assert [column.column for column in found.entries[2].columns] == ["id"]


def test_history_takes_in_the_truncate_that_ended_the_row(trail: Trail) -> None:
    """TRUNCATE has no key, and yet it is the end of every row."""
    trail.add("create", 1, after={"id": 7})
    trail.add("truncate", 2, key=None)
    trail.add("truncate", 3, key=None)
    assert [entry.change.operation for entry in trail.history("7").entries] == ["create", "truncate"]


def test_a_composite_key_is_found_in_any_spelling(trail: Trail) -> None:
    """Text or number, as JSON or with a comma."""
    items = TableName("shop", "public", "order_items")
    trail.add("create", 1, items, key={"order": "a-1", "line": 2}, after={"order": "a-1", "line": 2})
    for written in ("a-1,2", '["a-1",2]', '{"line":2,"order":"a-1"}'):
        assert len(trail.history(written, items).entries) == 1
    assert trail.history("a-1,3", items).entries == ()


def test_the_context_of_a_transaction_comes_with_its_changes(trail: Trail) -> None:
    """The best rung, by source and transaction; a transaction without one has none."""
    trail.add("create", 1, after={"id": 7})
    trail.add("update", 2, after={"id": 7})
    trail.say("1", 1, {"actor": "table"})
    trail.say("1", 2, {"actor": {"id": "u1", "name": "Ada"}, "reason": "ticket 12"})
    found = trail.find(source="shop")
    who = contexts.of(trail.client, trail.database, found)
    first, second = (contexts.look_up(who, change) for change in found)
    assert first is not None
    assert (first.actor, first.reason, first.rung) == ("Ada", "ticket 12", "message")
    assert second is None


def test_history_reads_like_a_story(trail: Trail, cli: Callable[..., tuple[int, str, str]]) -> None:
    """A person sees who, when, and each column from what to what; repeated observations only on request."""
    row = {"id": 7, "email": "ada@example.org", "note": "\x1b[31mred"}
    trail.add("snapshot", 1, after=row)
    trail.add("snapshot", 2, after=row)
    trail.add("update", 3, before=row, after={**row, "email": "lovelace@example.org"}, changed=["email"])
    trail.add("update", 4, after={**row, "email": "x"}, before_known=False, unavailable=["cv"])
    trail.say("3", 2, {"actor": "alice", "reason": "new address"})
    code, shown, aside = cli("history", "customers", "7")
    assert code == 0, aside
    assert "shop.public.customers 7  3 changes" in shown
    assert '"ada@example.org" → "lovelace@example.org"' in shown
    assert "2026-11-23 08:03:00.123  update  by alice (new address)" in shown
    assert "compared with what the trail last recorded" in shown
    assert "value not sent by the database: cv" in shown
    assert "\x1b" not in shown
    assert "--all" in aside
    _, everything, _ = cli("history", "shop.public.customers", '{"id":7}', "--all")
    assert "4 changes" in everything


def test_json_is_one_object_per_line(trail: Trail, cli: Callable[..., tuple[int, str, str]]) -> None:
    """A pipe gets every fact, and nothing but JSON."""
    trail.add("update", 1, before={"id": 7, "n": 1}, after={"id": 7, "n": None}, changed=["n"])
    trail.say("1", 2, {"actor": "alice"})
    for command in (("history", "customers", "7"), ("changes", "--table", "customers", "--key", "7")):
        code, shown, aside = cli(*command, "--json")
        assert (code, aside) == (0, "")
        [told] = [json.loads(line) for line in shown.splitlines()]
        assert told["position"] == str(EPOCH + 1)
        assert told["context"] == {"rung": "message", "said": {"actor": "alice"}}
    _, shown, _ = cli("history", "customers", "7", "--json")
    assert json.loads(shown)["columns"] == [{"column": "n", "before": 1, "after": None, "before_from": "database"}]


def test_changes_are_listed_by_every_filter_of_the_command(trail: Trail, cli: Callable[..., tuple[int, str, str]]) -> None:
    """The issue's own example, and the table a person reads."""
    name = TableName("hiring", "hiring", "candidates")
    recent = datetime.now(UTC) - timedelta(minutes=1)
    trail.add("delete", 1, name, committed_at=recent, before={"id": 7})
    trail.add("delete", 2, name, committed_at=recent - timedelta(hours=1), before={"id": 7})
    code, shown, _ = cli("changes", "--source", "hiring", "--operation", "delete", "--since", "10m", "--json")
    assert code == 0
    assert [json.loads(line)["position"] for line in shown.splitlines()] == [str(EPOCH + 1)]
    code, shown, _ = cli("changes", "--source", "hiring")
    assert shown.count("hiring.hiring.candidates") == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("history", "custmers", "7"), 1, "did you mean shop.public.customers"),
        (("history", "customers", "999"), 1, "has no changes under this key"),
        (("changes", "--since", "yesterday"), 2, "write a time as"),
        (("changes", "--operation", "remove"), 2, "choose an operation from"),
        (("changes", "--key", "7"), 2, "add --table"),
        (("sql", "SELEC 1"), 1, "correct the SQL"),
        (("sql", "SELECT 1", "--json", "--csv"), 2, "choose one of"),
    ],
)
def test_an_error_says_first_what_to_do(
    trail: Trail, cli: Callable[..., tuple[int, str, str]], words: tuple[str, ...], code: int, says: str
) -> None:
    """On standard error, with nothing on standard output."""
    trail.add("create", 1, after={"id": 7})
    found, shown, aside = cli(*words)
    assert (found, shown) == (code, "")
    assert says in aside.replace("\n", " ")


def test_sql_answers_as_table_json_and_csv(cli: Callable[..., tuple[int, str, str]]) -> None:
    """One question, three shapes; a cut answer says so."""
    statement = "SELECT number AS n, 'ü' AS text, NULL AS nothing FROM numbers(3);"
    assert [json.loads(line) for line in cli("sql", statement, "--json")[1].splitlines()] == [
        {"n": n, "text": "ü", "nothing": None} for n in range(3)
    ]
    assert cli("sql", statement, "--csv")[1] == "n,text,nothing\n0,ü,\n1,ü,\n2,ü,\n"
    _, shown, aside = cli("sql", statement, "--limit", "2")
    assert [line.split() for line in shown.splitlines()] == [["n", "text", "nothing"], ["0", "ü", "null"], ["1", "ü", "null"]]
    assert "--limit" in aside


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE {db}.t (a Int8) ENGINE = Memory",
        "INSERT INTO {db}.changes (source) VALUES ('x')",
        "ALTER TABLE {db}.changes DELETE WHERE 1",
        "TRUNCATE TABLE {db}.changes",
        "SELECT 1 SETTINGS readonly = 0",
        "SET readonly = 0",
    ],
)
def test_sql_only_reads(trail: Trail, statement: str) -> None:
    """ClickHouse itself refuses whatever writes, and taking the refusal back."""
    trail.add("create", 1, after={"id": 7})
    with pytest.raises(ChronicleError, match="only reads"):
        query.run(trail.client, statement.format(db=trail.database), limit=10, timeout_s=5)
    assert len(trail.find()) == 1


def test_sql_never_quotes_a_row_in_an_error(trail: Trail) -> None:
    """A value that cannot be parsed stays out of the message."""
    trail.add("create", 1, after={"id": 7, "email": "secret@example.org"})
    with pytest.raises(ChronicleError) as caught:
        query.run(trail.client, f"SELECT toUInt8(assumeNotNull(after)) FROM {trail.database}.changes", limit=10, timeout_s=5)
    assert "secret" not in str(caught.value)


def test_a_query_that_takes_too_long_ends(trail: Trail) -> None:
    """The limit is ClickHouse's own, so nothing goes on in the background."""
    with pytest.raises(TransientError, match="ask for less"):
        query.run(trail.client, "SELECT sum(cityHash64(number)) FROM numbers(1000000000000)", limit=10, timeout_s=1)


def test_a_trail_that_was_not_set_up_says_what_to_run(trail: Trail) -> None:
    """No table, no database: `chronicle setup`."""
    with pytest.raises(ConfigError, match="chronicle setup"):
        tables.known(trail.client, "nowhere")


def test_a_clickhouse_that_is_away_says_so(trail: Trail, cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """The first line is what to start or correct, without a stack trace."""
    (tmp_path / "chronicle.toml").write_text('[clickhouse]\nurl = "http://127.0.0.1:9"\n')
    code, shown, aside = cli("changes")
    assert (code, shown) == (1, "")
    assert aside.startswith("error:")
    assert "Traceback" not in aside
