"""From an application's transaction to the trail, all of it real: requests by its context, and events by the outbox."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chronicle import attribute, with_snapshots, without_audit
from chronicle.capture.apply import Deployment as Capture
from chronicle.capture.apply import apply, delete
from chronicle.capture.connect import ConnectClient
from chronicle.capture.sources import Source, load_source
from chronicle.dev.stack import Stack
from chronicle.journal.journal import Journal
from chronicle.journal.outbox_table import ddl
from tests.stack.test_worker import Deployment
from tests.stack.worker_process import until

pytestmark = pytest.mark.stack

POLICY = """
[context]
allow_without_audit = ["price import*"]
allow_snapshots = true

[defaults]
images = "changed"

[[tables]]
match = "**"
columns = { "*" = "clear" }

[[events]]
match = "**"
columns = { "payload.total" = "clear" }
"""


class Shop(Deployment):
    """A database, its connector, a worker, and an application."""

    def __init__(self, stack: Stack, name: str, directory: Path) -> None:
        super().__init__(stack, name, directory)
        with psycopg.connect(stack.postgres_dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        self.application = psycopg.connect(stack.postgres_dsn(name))
        self.application.execute("CREATE TABLE items (id int PRIMARY KEY, price int NOT NULL, title text NOT NULL)")
        self.application.execute("ALTER TABLE items REPLICA IDENTITY FULL")
        self.application.execute("CREATE TABLE chronicle_signal (id varchar(64) PRIMARY KEY, type varchar(32), data text)")
        self.application.execute(ddl("postgres").encode())
        self.application.commit()
        account = "\n".join(f'{key} = "${{env:SHOP_DB_{key.upper()}}}"' for key in ("host", "port", "user", "password"))
        file = directory / "connectors" / f"{name}.toml"
        file.write_text(
            'template = "postgres"\ntables = ["public.items"]\nfull_identity = ["public.items"]\n'
            'outbox_table = "public.chronicle_outbox"\n'
            f'unavailable_value_placeholder = "0123456789abcdef0123456789abcdef"\n[database]\nname = "{name}"\n{account}\n'
        )
        (directory / "policy.toml").write_text(POLICY)
        self.source: Source = load_source(file)
        self.open = ExitStack()
        connect = self.open.enter_context(ConnectClient(self.settings.connect))
        self.capture = Capture(connect, self.settings.kafka, self.settings.registry, stack.environment)
        apply(self.source, self.capture, deadline_s=120)

    def worker(self) -> None:
        self.start(CHRONICLE_POLICY_FILE=str(self.directory / "policy.toml"))

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self.rows(query.replace("changes", f"{self.name}.changes FINAL").replace("events", f"{self.name}.events FINAL"))

    def close(self) -> None:
        self.application.close()
        delete(self.source, self.capture, drop=True)
        self.open.close()
        with psycopg.connect(self.stack.postgres_dsn(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {self.name} WITH (FORCE)".encode())
        super().close()


@pytest.fixture
def shop(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(stack, unique, tmp_path)
    yield made
    made.close()


def test_a_transaction_is_recorded_as_it_asked(shop: Shop) -> None:
    """Left out with a summary, whole, or as ever; and its events stand beside its changes, by request."""
    application = shop.application
    journal = Journal(source="web", transport="memory://")
    with attribute(application, actor="ann", request_id="r-1"):
        application.execute("INSERT INTO items VALUES (1, 10, 'one'), (2, 20, 'two')")
        order = journal.in_transaction(application).publish(
            "order.placed", request_id="r-1", actor="ann", payload={"total": 30}
        )
        application.commit()
    with attribute(application, actor="job", audit=without_audit("price import of May")):
        application.execute("UPDATE items SET price = price + 1")
        application.execute("DELETE FROM items WHERE id = 2")
        application.commit()
    with attribute(application, actor="bob", audit=with_snapshots()):
        application.execute("UPDATE items SET price = 100 WHERE id = 1")
        application.commit()
    with attribute(application, actor="eve", audit=without_audit("something else")):
        application.execute("UPDATE items SET price = 101 WHERE id = 1")
        application.commit()
    shop.worker()
    until(lambda: shop.ask("SELECT count() FROM changes WHERE actor_id = 'eve'")[0][0] == 1, "the last change", 120)
    until(lambda: shop.ask("SELECT count() FROM events")[0][0] == 2, "both events", 120)
    found = shop.ask("SELECT actor_id, operation, stub, before, after FROM changes ORDER BY position, offset")
    assert [row[:3] for row in found] == [
        *[("ann", "create", "")] * 2,
        *[("job", "update", "unaudited")] * 2,
        ("job", "delete", "unaudited"),
        ("bob", "update", ""),
        ("eve", "update", ""),
    ]
    assert [row[3:] for row in found[2:5]] == [(None, None)] * 3
    whole, reduced = found[5][3:], found[6][3:]
    assert [json.loads(image) for image in whole] == [
        {"id": 1, "price": 11, "title": "one"},
        {"id": 1, "price": 100, "title": "one"},
    ]
    assert [json.loads(image) for image in reduced] == [{"id": 1, "price": 100}, {"id": 1, "price": 101}]
    ((actor, reason, payload),) = shop.ask("SELECT actor_id, source, payload FROM events WHERE type = 'chronicle.unaudited'")
    assert (actor, reason) == ("job", shop.name)
    told = json.loads(payload)
    assert (told["reason"], told["rows"], told["tables"]) == ("price import of May", 3, {"public.items": 3})
    mirror = shop.rows(f"SELECT id, price FROM {shop.mirror()} ORDER BY id")
    assert mirror == [(1, 101)]  # what is left out of the trail is not left out of the mirror
    by_request = shop.rows(f"SELECT kind, type FROM {shop.name}.audit_trail WHERE request_id = 'r-1' ORDER BY kind, type")
    assert by_request == [*[("change", f"{shop.name}.public.items.create")] * 2, ("event", "order.placed")]
    ((event,),) = shop.ask("SELECT toString(event_id) FROM events WHERE type = 'order.placed'")
    assert event == order
    metrics = _metrics(shop.port)
    assert 'chronicle_audit_requests_total{outcome="refused"} 1.0' in metrics
    assert 'chronicle_audit_requests_total{outcome="unaudited"} 3.0' in metrics


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text
