"""One Chronicle on secured services: settings, users with the rights that README names, commands as child processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Producer

from chronicle.dev import processes
from chronicle.dev.fetch import cache_directory
from chronicle.dev.parts import Site
from chronicle.dev.ports import SPAN, Ports, is_free
from chronicle.dev.stack import Stack
from tests.stack.api_process import POLICY
from tests.stack.debezium_records import Table
from tests.stack.secured_services import (
    MECHANISM,
    Authority,
    RegistryFront,
    Right,
    SecuredClickHouse,
    SecuredKafka,
    TlsFront,
    User,
    running,
)
from tests.stack.worker_process import Broker, WorkerProcess

ROOT = Path(__file__).parents[2]
WHO = ("setup", "worker", "application", "operator")
STRANGER = "stranger"
"""A user of the broker without any right."""
_RIGHTS = re.compile(r"^\| `(\w+)` \| (topic|group) `([^`]+)` \| ([A-Z_, ]+) \|$", re.MULTILINE)
_GRANTS = re.compile(r"^(GRANT .*) TO (\w+);$", re.MULTILINE)
SOURCE_FILE = """
template = "postgres"
tables = ["public.t"]
signal_table = "public.chronicle_signal"
unavailable_value_placeholder = "0123456789abcdef0123456789abcdef"
[database]
host = "localhost"
port = "5432"
user = "nobody"
password = "${env:NO_PASSWORD}"
name = "shop"
"""


def section() -> str:
    """README's section about secured services."""
    return (ROOT / "README.md").read_text().split("### Secured services\n")[1].split("\n## ")[0]


def rights(source: str) -> dict[str, list[Right]]:
    """Of each user, as README lists them."""
    found: dict[str, list[Right]] = {who: [] for who in WHO}
    for who, resource, name, operations in _RIGHTS.findall(section()):
        found[who] += [Right(resource, name.replace("<source>", source), each.strip()) for each in operations.split(",")]
    return found


def grants() -> dict[str, tuple[str, ...]]:
    """Of each user of ClickHouse, as README lists them."""
    found: dict[str, tuple[str, ...]] = {}
    for grant, user in _GRANTS.findall(section()):
        found[user] = (*found.get(user, ()), grant)
    return found


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its error's first line."""
        return next((line for line in self.err.splitlines() if line.startswith("error: ")), "")


class SecuredSite:
    """Broker and ClickHouse of its own, the stack's registry; all secured."""

    def __init__(self, stack: Stack, name: str, directory: Path) -> None:
        self.name, self.directory, self.stack = name, directory, stack
        self.secrets = {who: f"kafka-secret-{who}-{name}" for who in (*WHO, STRANGER)}
        self.secrets |= {each: f"{each}-secret-{name}" for each in ("registry", "clickhouse", "clickhouse_api", "wrong")}
        self.said: list[str] = []
        """All output of commands."""
        self.authority, self.another_authority = Authority(directory, "ours"), Authority(directory, "another")
        site = Site(directory / "services", _free_ports())
        SecuredKafka.authority = self.authority
        SecuredClickHouse.users = self._users()
        self.kafka, self.clickhouse = SecuredKafka(site, cache_directory()), SecuredClickHouse(site, cache_directory())
        self.https: list[TlsFront] = []
        self.rights = rights(name)

    def _users(self) -> dict[str, User]:
        granted, secret = grants(), self.secrets["clickhouse"]
        all_ = granted["chronicle"]
        without_insert = tuple(each.replace("INSERT, ", "") for each in all_)
        return {
            "chronicle": User(secret, all_),
            "chronicle_api": User(self.secrets["clickhouse_api"], granted["chronicle_api"], "reading"),
            "without_insert": User(secret, without_insert),
            "without_rights": User(secret, ("GRANT SELECT ON system.one",)),
        }

    def start(self) -> None:
        """Start the services and give the rights."""
        running(self.kafka)
        running(self.clickhouse)
        for who in (*WHO, STRANGER):
            self.kafka.add_user(who, self.secrets[who])
            if who in self.rights:
                self.kafka.allow(who, *self.rights[who])
        self.registry = RegistryFront(self.authority, self.stack.registry_url, "registry-user", self.secrets["registry"])
        front = self.https_before(self.clickhouse.port)
        self.broker = Broker(f"127.0.0.1:{self.kafka.port}")
        connectors = self.directory / "connectors"
        shutil.copytree(ROOT / "connectors" / "templates", connectors / "templates")
        (connectors / f"{self.name}.toml").write_text(SOURCE_FILE)
        ca = str(self.authority.ca)
        sections: dict[str, dict[str, object]] = {
            "kafka": {
                "bootstrap_servers": self.kafka.servers, "security_protocol": "SASL_SSL", "sasl_mechanism": MECHANISM,
                "ssl_ca_location": ca,
            },
            "registry": {"url": self.registry.url, "username": "registry-user", "ca_location": ca},
            "clickhouse": {"url": front, "username": "chronicle", "ca_location": ca},
            "connect": {"directory": str(connectors)},
            "worker": {"http_port": 0},
            "api": {"clickhouse_username": "chronicle_api", "spill_directory": str(self.directory / "spill")},
        }  # fmt: skip
        (self.directory / "policy.toml").write_text(POLICY)
        lines = [f'identity_key_file = "{self.directory / "identity.key"}"']
        for title, values in sections.items():
            lines += [f"[{title}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self.settings_file = self.directory / "chronicle.toml"
        self.settings_file.write_text("\n".join(lines))

    def https_before(self, port: int) -> str:
        """The URL of a new TLS front before a plain port."""
        front = TlsFront(self.authority, port)
        self.https.append(front)
        return f"https://localhost:{front.port}"

    def close(self) -> None:
        """End what was started."""
        for front in self.https:
            front.close()
        if hasattr(self, "registry"):
            self.registry.close()
        for part in (self.kafka, self.clickhouse):
            processes.stop(part.owner)

    def environment(self, who: str, **more: str) -> dict[str, str]:
        """The secrets of one user of the broker, as an operator gives them; `more` as `KAFKA__SASL_MECHANISM`."""
        own = {
            "CONFIG": str(self.settings_file),
            "POLICY_FILE": str(self.directory / "policy.toml"),
            "KAFKA__SASL_USERNAME": who,
            "KAFKA__SASL_PASSWORD": self.secrets[who],
            "REGISTRY__PASSWORD": self.secrets["registry"],
            "CLICKHOUSE__PASSWORD": self.secrets["clickhouse"],
            "API__CLICKHOUSE_PASSWORD": self.secrets["clickhouse_api"],
            **more,
        }
        return {f"CHRONICLE_{name}": value for name, value in own.items()}

    def run(self, who: str, *words: str, secret: bool = False, changed: Mapping[str, str] | None = None) -> Ended:
        """A command to its end. `secret`: what it prints is one, made for the eyes of who ran it."""
        done = subprocess.run(
            [sys.executable, "-m", "chronicle.cli", *words],
            env={**os.environ, **self.environment(who, **(changed or {}))},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.said += [done.stderr] if secret else [done.stdout, done.stderr]
        return Ended(done.returncode, done.stdout, done.stderr)

    def serve(self, who: str, *words: str, **more: str) -> WorkerProcess:
        """A command that goes on."""
        return WorkerProcess(["chronicle.cli", *words], self.environment(who, **more), self.directory / f"{words[0]}.log")

    def ask(self, sql: str) -> list[list[object]]:
        """Rows, as the administrator asks for them."""
        import httpx

        url = f"http://127.0.0.1:{self.clickhouse.port}/"
        answer = httpx.post(url, content=f"{sql} FORMAT JSONCompactEachRow", timeout=30).raise_for_status()
        return [json.loads(line) for line in answer.text.splitlines()]

    def capture(self, rows: int) -> Table:
        """A captured table with so many new rows, and one record that is none; as Debezium leaves them."""
        table = Table(self.stack.registry_url, self.name, "t")
        self.broker.create(table.topic, 2)
        producer = Producer({"bootstrap.servers": self.broker.servers})
        for number in range(rows):
            value = table.value("c", number, 1000 + 10 * number)
            producer.produce(table.topic, value=value, key=table.key(number), partition=number % 2)
        producer.produce(table.topic, value=b"\x07no record", key=b"k", partition=0)
        assert producer.flush(60) == 0
        return table

    def leaks(self, more: Mapping[str, str]) -> list[str]:
        """The names of texts in which a secret stands: of output, of logs and of `more`."""
        texts = {str(number): text for number, text in enumerate(self.said)} | dict(more)
        texts |= {path.name: path.read_text(errors="replace") for path in self.directory.glob("*.log")}
        return [str(where) for where, text in texts.items() if any(secret in text for secret in self.secrets.values())]


def _free_ports() -> Ports:
    """A base from which on nobody listens; below the range from which the kernel gives ports."""
    for base in range(20_000 + 10 * (os.getpid() % 500), 32_000, SPAN):
        if all(is_free(port) for port in range(base, base + SPAN)):
            return Ports(base)
    raise AssertionError("no ten free ports")
