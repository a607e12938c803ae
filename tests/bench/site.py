"""One benchmark's own place on a running stack: topics, databases, a source file, a group; gone afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

from confluent_kafka.admin import AdminClient

from chronicle import setup
from chronicle.config import ClickHouse, Connect, Kafka, Registry, Settings, Worker
from chronicle.dev.stack import Stack
from chronicle.sinks.clickhouse_client import connect
from tests.faults.processes import environment

CONNECTORS = Path(__file__).parents[2] / "connectors"
SOURCE_FILE = """template = "postgres"
tables = [{tables}]
full_identity = [{tables}]
unavailable_value_placeholder = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
[database]
host = "${{env:SHOP_DB_HOST}}"
port = "${{env:SHOP_DB_PORT}}"
user = "${{env:SHOP_DB_USER}}"
password = "${{env:SHOP_DB_PASSWORD}}"
name = "bench"
"""


CLEAR_POLICY = Path(__file__).parent.parent / "data" / "clear.policy.toml"


class Site:
    """Settings, and their environment for a worker process. `source` is the only source."""

    def __init__(self, stack: Stack, name: str, directory: Path) -> None:
        self.stack, self.name, self.directory = stack, name, directory
        self.source = f"bench_{name}"
        self.settings = Settings(
            kafka=Kafka(
                bootstrap_servers=stack.kafka,
                audit_topic=f"{self.source}_audit",
                dead_letter_topic=f"{self.source}_dead",
                retry_topic=f"{self.source}_retry",
                entities_topic=f"{self.source}_entities",
            ),
            registry=Registry(url=stack.registry_url),
            clickhouse=ClickHouse(url=stack.clickhouse_url, database=self.source, mirror_database=f"{self.source}_mirror"),
            connect=Connect(url=stack.connect_url, directory=directory / "connectors"),
            worker=Worker(group=self.source),
            identity_key_file=directory / "identity.key",
            policy_file=CLEAR_POLICY,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The settings as a worker process reads them."""
        return environment(self.settings)

    def prepare(self, tables: int) -> None:
        """A source file for this many tables, Chronicle's topics and tables."""
        directory = self.settings.connect.directory
        shutil.copytree(CONNECTORS / "templates", directory / "templates", dirs_exist_ok=True)
        names = ", ".join(f'"public.t{number:03d}"' for number in range(tables))
        (directory / f"{self.source}.toml").write_text(SOURCE_FILE.format(tables=names))
        setup.run(self.settings)

    def close(self) -> None:
        """Remove topics and databases."""
        client = connect(self.settings.clickhouse)
        for database in (self.settings.clickhouse.database, self.settings.clickhouse.mirror_database):
            client.command(f"DROP DATABASE IF EXISTS {database}")
        client.close()
        admin = AdminClient({"bootstrap.servers": self.stack.kafka})
        names = [name for name in admin.list_topics(timeout=30).topics if name.startswith(self.source)]
        for future in admin.delete_topics(names, operation_timeout=60).values() if names else ():
            future.result(60)
