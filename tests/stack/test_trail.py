"""The reading commands against a real ClickHouse: filters, order, one row's history, free SQL."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import polars as pl
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
from chronicle.stages.attribute import stored
from chronicle.trail import changes, history, keys, query, tables
from chronicle.trail.changes import Actor, Change, Filters
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
        for image in ("previous_key", "before", "after", "tags", "enriched", "extra"):
            if isinstance(facts.get(image), dict):
                facts[image] = json.dumps(
                    facts[image], ensure_ascii=False, separators=(",", ":"), sort_keys=image != "previous_key"
                )
        facts["key"] = json.dumps(key, ensure_ascii=False, separators=(",", ":")) if key else ""
        self.client.insert("changes", [list(facts.values())], column_names=list(facts), database=self.database)
        return str(facts["event_id"])

    def say(self, transaction_id: str, rank: int, said: dict[str, Any]) -> None:
        """Record a context, in the form in which it is stored."""
        row = ["shop", 3, transaction_id, (rank, 1, stored(pl.Series([json.dumps(said)]))[0]), START]
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


def test_who_did_it_comes_with_a_change_however_late(trail: Trail) -> None:
    """What was written with the change, unless a better rung spoke later; a change without a transaction keeps its own."""
    trail.add("create", 1, attribution="comment", actor_id="bob", reason="of the comment", ip="10.0.0.1")
    trail.add("update", 2, attribution="message", actor_id="u2", tags={"a": 1}, attributed_at=START)
    trail.add("snapshot", 3, attribution="none", transaction_id=None)
    trail.add("update", 4, attribution="pending")
    trail.say("1", 2, {"actor": {"id": "u1", "type": "user", "name": "Ada"}, "reason": "ticket 12", "shift": "night"})
    first, second, third, fourth = trail.find(source="shop")
    assert (first.actor, first.reason, first.ip) == (Actor("u1", "user", "Ada"), "ticket 12", None)
    assert (first.attribution, first.attributed_late, first.tags) == ("message", True, {"shift": "night"})
    assert (second.actor, second.tags) == (Actor("u2", None, None), {"a": 1})
    assert (second.attributed_at, second.attributed_late) == (START, False)
    assert [(one.actor, one.attribution) for one in (third, fourth)] == [(None, "none"), (None, "pending")]
    by_key = [entry.change for entry in trail.history("7").entries]
    assert [(one.position, one.actor) for one in by_key] == [(one.position, one.actor) for one in trail.find(source="shop")]


def test_changes_are_found_by_what_is_said_of_them_now(trail: Trail) -> None:
    """Id or name, request, tenant and rung, of contexts that came in time or late, and never of those they replaced."""
    bob: dict[str, Any] = {"attribution": "comment", "actor_id": "bob", "request_id": "r-1", "tenant": "acme"}
    trail.add("create", 1, **bob)
    trail.add("update", 2, **bob)
    trail.add("update", 3, attribution="message", actor_id="u1", actor_name="Ada", request_id="r-2", tenant="acme")
    trail.add("update", 4, attribution="none")
    trail.add("update", 5, attribution="pending", transaction_id=None)
    trail.say("2", 2, {"actor": {"id": "u1", "name": "Ada"}, "request_id": "r-2", "tenant": "acme"})
    trail.say("4", 1, {"actor": 'it\'s \\ "q"', "request_id": "r-2"})

    def positions(**given: Any) -> list[int]:
        return [change.position - EPOCH for change in trail.find(**given)]

    assert positions(actor="bob") == [1]
    assert positions(actor="u1") == positions(actor="Ada") == [2, 3]
    assert positions(actor='it\'s \\ "q"') == [4]
    assert positions(request="r-1") == [1]
    assert positions(request="r-2") == [2, 3, 4]
    assert positions(tenant="acme") == [1, 2, 3]
    assert positions(attributions=("message",)) == [2, 3]
    assert positions(attributions=("table", "comment")) == [1, 4]
    assert positions(attributions=("pending", "none")) == [5]
    assert positions(tenant="acme", request="r-2", attributions=("message",), operations=("update",)) == [2, 3]
    assert positions(keys=('{"id":7}',), actor="Ada") == [2, 3]
    assert positions(actor="nobody") == []
    assert [change.position - EPOCH for change in trail.find(actor="Ada", limit=1)] == [3]
    assert changes.counts(trail.client, trail.database, Filters(actor="Ada")) == [(CUSTOMERS, {"update": 2})]


def test_what_the_policy_left_out_is_counted_as_far_as_one_looks(trail: Trail) -> None:
    """All that match the other filters, or those since the oldest change that is shown."""
    for position in range(1, 7):
        trail.add("update", position, stub="ignored" if position % 2 else "", tenant="acme" if position < 4 else None)
    shown = trail.find(source="shop", stubs=False, limit=2)
    assert [change.position - EPOCH for change in shown] == [4, 6]
    assert len(trail.find(source="shop")) == 6

    def left_out(since: Change | None = None, **given: Any) -> int:
        return changes.left_out(trail.client, trail.database, Filters(stubs=False, **given), since=since)

    assert (left_out(), left_out(operations=("delete",)), left_out(tenant="acme")) == (3, 0, 2)
    assert left_out(shown[0], source="shop") == left_out(shown[0]) == 1
    assert left_out(column="email") == left_out(labels=("identity",)) == 0


class Counting:
    """A client that adds up the rows that ClickHouse reads."""

    def __init__(self, client: Client) -> None:
        self.client, self.read = client, 0

    def query(self, sql: str, **given: Any) -> Any:
        result = self.client.query(sql, **given)
        self.read += int(result.summary["read_rows"])
        return result


def test_a_question_for_few_changes_reads_few_rows(trail: Trail) -> None:
    """By key, entity, transaction and request, late or not: of 400,000 changes and 200,000 transactions only what the indexes
    of the one and the key of the other leave; only for a request all contexts are looked into.
    """
    trail.client.command(
        f"""
        INSERT INTO {trail.database}.changes (event_id, source, connector, schema, table, entity, operation, key, epoch,
            position, transaction_id, attribution, request_id, topic, committed_at)
        WITH intDiv(number, 10) AS id, number % 3 > 0 AS at_once
        SELECT generateUUIDv4(number), 'shop', 'postgresql', 'public', 'customers', reinterpretAsUUID(MD5(toString(id))),
            'update', concat('{{"id":', toString(id), '}}'), 3, number, toString(intDiv(number, 2)),
            if(at_once, 'message', 'pending'), if(at_once, concat('r-', toString(intDiv(number, 4))), NULL), 't', now64(6)
        FROM numbers(400_000)
        """
    )
    trail.client.command(
        f"""
        INSERT INTO {trail.database}.transactions (source, epoch, transaction_id, best_context, processed_at)
        SELECT 'shop', 3, toString(number), (2, 1, concat('{{"request_id":"r-', toString(intDiv(number, 2)), '"}}')), now64(6)
        FROM numbers(200_000)
        """
    )
    named = {"source": "shop", "schema": "public", "table": "customers"}
    [one] = trail.find(**named, limit=1)
    contexts = 200_000  # each is looked into for its request, twice
    asked: list[tuple[dict[str, Any], int, int]] = [
        ({**named, "keys": ('{"id":777}',)}, 10, 200_000),
        ({**named, "entities": (one.entity,)}, 10, 200_000),
        ({"transaction": "777"}, 2, 200_000),
        ({"request": "r-777"}, 4, 2 * contexts + 300_000),
    ]
    for given, expected, rows in asked:
        client = Counting(trail.client)
        found = changes.changes(cast("Client", client), trail.database, Filters(**given), limit=100)
        assert len(found) == expected, given
        assert {change.attribution for change in found} == {"message"}
        assert client.read < rows, given


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
    meaning: dict[str, Any] = {"attribution": "pending", "labels": ["identity_change"], "enriched": {"org": {"name": "Acme"}}}
    trail.add("update", 1, before={"id": 7, "n": 1}, after={"id": 7, "n": None}, changed=["n"], **meaning)
    trail.say("1", 2, {"actor": "alice"})
    for command in (("history", "customers", "7"), ("changes", "--table", "customers", "--key", "7")):
        code, shown, aside = cli(*command, "--json")
        assert (code, aside) == (0, "")
        [told] = [json.loads(line) for line in shown.splitlines()]
        assert told["position"] == str(EPOCH + 1)
        assert told["actor"] == {"id": "alice", "type": None, "name": None}
        assert told["attribution"] == "message"
        assert told["attributed_late"] is True
        assert (told["labels"], told["enriched"], told["stub"]) == (["identity_change"], {"org": {"name": "Acme"}}, "")
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


def test_a_history_under_a_policy_says_what_it_does_not_show(trail: Trail, cli: Callable[..., tuple[int, str, str]]) -> None:
    """Hidden changes, missing images, rules that were broken, who says so; what was left out is said aside, or shown."""
    row = {"id": 7, "email": "[FILTERED]"}
    trail.add("create", 1, after=row, attribution="row", actor_id="7", enriched={"org": {"name": "Acme"}, "x": {}})
    trail.add("update", 2, before=row, after=row, changed=["email"], labels=["identity_change"], attribution="none")
    trail.add("update", 3, stub="ignored", attribution="none")
    trail.add("update", 4, changed=["note"], violations=["in:tier"], attribution="pending")
    code, shown, aside = cli("history", "customers", "7")
    assert code == 0, aside
    assert [line.strip() for line in shown.splitlines() if line] == [
        "shop.public.customers 7  3 changes",
        "2026-11-23 08:01:00.123  create  by 7 [row]  tx 1",
        'email  "[FILTERED]"',
        "id     7",
        "(org: Acme)",
        "2026-11-23 08:02:00.123  update  nobody says by whom  #identity_change  tx 2",
        "email  changed (hidden)",
        "2026-11-23 08:04:00.123  update  by whom is not known yet  tx 4",
        "note  changed (hidden)",
        "(breaks rules: in:tier)",
        "(images not kept by the policy)",
    ]
    assert aside == "(1 change left out by the policy: --stubs)\n"
    _, shown, aside = cli("history", "customers", "7", "--stubs")
    assert "2026-11-23 08:03:00.123  update  nobody says by whom  tx 3  (left out by the policy: ignored)" in shown
    assert aside == ""
    told = [json.loads(line) for line in cli("history", "customers", "7", "--stubs", "--json")[1].splitlines()]
    assert [one["images_kept"] for one in told] == [True, True, False, False]
    assert told[1]["columns"] == [
        {"column": "email", "before": "[FILTERED]", "after": "[FILTERED]", "before_from": "database", "hidden": True}
    ]


def test_stubs_are_listed_on_request_only(trail: Trail, cli: Callable[..., tuple[int, str, str]]) -> None:
    """Hidden, they are counted aside, for a pipe as well."""
    trail.add("create", 1, after={"id": 7}, actor_id="ada", attribution="message", labels=["signup"])
    for position in range(2, 5):
        trail.add("update", position, stub="filtered")
    for how in ((), ("--json",)):
        code, shown, aside = cli("changes", *how)
        assert (code, aside) == (0, "(3 changes left out by the policy: --stubs)\n")
        assert "filtered" not in shown
    assert "(3 changes left out" in cli("changes", "--operation", "update")[2]
    header, created, *stubs = cli("changes", "--stubs")[1].splitlines()
    assert header.split()[-3:] == ["who", "labels", "transaction"]
    assert created.split()[-3:] == ["ada", "signup", "1"]
    assert len(stubs) == 3
    assert all("(left out: filtered)" in line for line in stubs)


def test_no_word_of_the_trail_is_markup_or_steers_the_terminal(trail: Trail, cli: Callable[..., tuple[int, str, str]]) -> None:
    """Whatever an application, a database or a policy put there is shown as it is, or escaped."""
    evil = "[red]x[/red]\x1b[31m\u202e[/]"
    name = TableName("shop", "public", "t[b]\x1b")
    said = {"actor_name": evil, "reason": evil, "labels": [evil], "violations": [evil], "enriched": {evil: {"name": evil}}}
    trail.add("update", 1, name, before={evil: 1}, after={evil: evil}, changed=[evil], transaction_id=evil, **said)
    trail.add("update", 2, name, stub=evil, unavailable=[evil], **said)
    for words in (("changes", "--stubs"), ("history", str(name), "7", "--stubs")):
        code, shown, aside = cli(*words)
        assert (code, aside) == (0, "")
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "[red]x[/red]\\u001b[31m\\u202e[/]" in shown


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("history", "custmers", "7"), 1, "did you mean shop.public.customers"),
        (("history", "customers", "999"), 1, "has no changes under this key"),
        (("changes", "--since", "yesterday"), 2, "write a time as"),
        (("changes", "--operation", "remove"), 2, "choose an operation from"),
        (("changes", "--key", "7"), 2, "add --table"),
        (("changes", "--attribution", "nobody"), 2, "choose an attribution from message, table, comment, row, pending, none"),
        (("changes", "--label", "identity"), 2, "choose a --label from identity_change: no change has the label 'identity'"),
        (("sql", "SELEC 1"), 1, "correct the SQL"),
        (("sql", "SELECT 1", "--json", "--csv"), 2, "choose one of"),
    ],
)
def test_an_error_says_first_what_to_do(
    trail: Trail, cli: Callable[..., tuple[int, str, str]], words: tuple[str, ...], code: int, says: str
) -> None:
    """On standard error, with nothing on standard output."""
    trail.add("create", 1, after={"id": 7}, labels=["identity_change"])
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
