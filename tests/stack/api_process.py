"""The HTTP service as a child process on a deployment of its own, and how tests talk to it."""

from __future__ import annotations

import json
import socket
import struct
import threading
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from chronicle.api import keys
from chronicle.api.access import Limits
from chronicle.dev.stack import Stack
from tests.stack.test_worker import Deployment, free_port
from tests.stack.worker_process import WorkerProcess, until

START = datetime(2026, 11, 20, 8, 0, 0, 123456, tzinfo=UTC)
POLICY = """
[defaults]
ignore = []

[[tables]]
match = "**"
columns = { "*" = "clear" }

[[events]]
match = "**"
columns = { "payload.*" = "clear" }
"""


class ApiSite(Deployment):
    """Topics, databases and settings of one test; the service and workers as processes."""

    def __init__(self, stack: Stack, name: str, directory: Path) -> None:
        super().__init__(stack, name, directory)
        self.policy = directory / "policy.toml"
        self.policy.write_text(POLICY)
        self.api_port = free_port()
        self.apis: list[WorkerProcess] = []
        self.number = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def serve(self, *arguments: str, ready: bool = True, **settings: Any) -> WorkerProcess:
        """Start the service; it answers when this returns. `settings`: of the section `api`, or whole variables."""
        environment = {
            "CHRONICLE_CONFIG": str(self.settings_file),
            "CHRONICLE_POLICY_FILE": str(self.policy),
            "CHRONICLE_API__PORT": str(self.api_port),
            "CHRONICLE_API__SPILL_DIRECTORY": str(self.directory / "spill"),
            "CHRONICLE_API__KEYS_CACHE_S": "0.5",
            "CHRONICLE_API__READS_PER_S": "0",
        }
        for name, value in settings.items():
            environment[name if name.isupper() else f"CHRONICLE_API__{name.upper()}"] = str(value)
        process = WorkerProcess(["chronicle.cli", "api", *arguments], environment, self.directory / f"api{len(self.apis)}.log")
        self.apis.append(process)
        if ready:
            self.answering(process)
        return process

    def answering(self, process: WorkerProcess) -> None:
        def answers() -> bool:
            assert process.process.poll() is None, process.log_text()[-3000:]
            with suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
            return False

        until(answers, "the service answers")

    def key(self, *roles: str, **limits: tuple[str, ...]) -> dict[str, str]:
        """A new key, as a header."""
        now = datetime.now(UTC)
        _, text = keys.create(self.client, self.name, "test", roles, Limits(**limits), now=now, expires_at=None)
        return {"authorization": f"Bearer {text}"}

    def worker_once(self) -> None:
        """Let a worker read all topics to their end."""
        worker = self.start("--until-drained", "--json", CHRONICLE_POLICY_FILE=str(self.policy))
        assert worker.wait() == 0, worker.log_text()[-3000:]

    def add_event(self, minute: int, **given: Any) -> str:
        """Put an event into the table as a worker would; its id."""
        self.number += 1
        at = START + timedelta(minutes=minute)
        facts: dict[str, Any] = {
            "event_id": uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name} {self.number}"),
            "type": "order.placed", "time": at, "source": "shop", "priority": "normal", "policy": "p", "topic": "t",
            "partition": 0, "offset": self.number, "received_at": at, "processed_at": at, "labels": [], "violations": [],
            **given,
        }  # fmt: skip
        for name in ("payload", "tags"):
            if isinstance(facts.get(name), dict):
                facts[name] = json.dumps(facts[name])
        self.client.insert("events", [list(facts.values())], column_names=list(facts), database=self.name)
        return str(facts["event_id"])

    def add_change(self, minute: int, operation: str = "update", table: str = "customers", **given: Any) -> str:
        """Put a change into the table as a worker would; its id."""
        self.number += 1
        at = START + timedelta(minutes=minute)
        key = given.pop("key", {"id": 7})
        facts: dict[str, Any] = {
            "event_id": uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name} {self.number}"),
            "source": "shop", "connector": "postgresql", "schema": "public", "table": table, "operation": operation,
            "before_known": True, "changed": [], "unavailable": [], "labels": [], "violations": [], "epoch": 3,
            "position": (3 << 120) + minute, "transaction_id": str(minute), "attribution": "message", "topic": "t",
            "partition": 0, "offset": self.number, "schema_id": 1, "committed_at": at, "captured_at": at,
            "received_at": at, "processed_at": at, "stub": "", "policy": "p", **given,
        }  # fmt: skip
        facts["entity"] = uuid.uuid5(uuid.NAMESPACE_OID, f"{facts['source']} {facts['table']} {json.dumps(key)}")
        facts["key"] = json.dumps(key, separators=(",", ":"))
        for name in ("before", "after", "tags", "enriched", "extra"):
            if isinstance(facts.get(name), dict):
                facts[name] = json.dumps(facts[name], sort_keys=True, separators=(",", ":"))
        self.client.insert("changes", [list(facts.values())], column_names=list(facts), database=self.name)
        return str(facts["event_id"])

    def events_on_topic(self) -> list[dict[str, Any]]:
        """All records of the events topic, as they stand there."""
        found = self.broker.read(self.settings.kafka.events_topic)
        return [json.loads(value) for _, value, _ in found if value is not None]

    def get(self, path: str, headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", params=params, headers=headers or {}, timeout=60)

    def post(self, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        return httpx.post(f"{self.url}/events", json=body, headers=headers or {}, timeout=60)

    def close(self) -> None:
        for process in self.apis:
            if process.process.poll() is None:
                process.kill()
        super().close()


class Forwarder:
    """A port that leads to the broker as long as it is `open`; the broker's own address is rewritten to it on the way back,
    so that no client finds another way. Closed, or `silent`: connections stand, and nothing comes through."""

    def __init__(self, to: str) -> None:
        host, _, port = to.rpartition(":")
        self._to = (host, int(port))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._server: socket.socket | None = None
        self._ends: list[socket.socket] = []
        self._flows = threading.Event()
        self._flows.set()

    def open(self) -> None:
        """From now on the broker can be reached here."""
        self._flows.set()
        if self._server is None:
            self._server = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def silence(self) -> None:
        """Nothing comes through, and nobody is told."""
        self._flows.clear()

    def close(self) -> None:
        """Whoever is connected is cut off, and whoever connects is refused."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # or `accept` would go on waiting
            server.close()
        ends, self._ends = self._ends, []
        for one in ends:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._flows.set()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
                there = socket.create_connection(self._to)
            except OSError:
                return
            self._ends += [client, there]
            for one, other, answers in ((client, there, False), (there, client, True)):
                threading.Thread(target=self._copy, args=(one, other, answers), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket, answers: bool) -> None:
        its, ours = (b"127.0.0.1" + struct.pack(">i", port) for port in (self._to[1], self.port))
        with suppress(OSError):
            while data := one.recv(1 << 20):
                self._flows.wait()
                other.sendall(data.replace(its, ours) if answers else data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
