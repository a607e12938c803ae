"""One benchmark's own place on a running stack: topics, databases, a source file, a group; gone afterwards."""

from __future__ import annotations

import shutil
from copy import copy
from pathlib import Path

from chronicle import setup
from chronicle.dev.stack import Stack
from tests.faults.processes import environment
from tests.own_settings import own_settings, remove

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
        found = own_settings(stack, self.source, directory)
        self.settings = found.model_copy(update={"policy_file": CLEAR_POLICY})

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

    def again(self, suffix: str, *, policy_file: Path, processors: tuple[str, ...] = ()) -> Site:
        """The same source for a group of its own, with a policy, topics and databases of its own; reference data is shared."""
        group, now = f"{self.source}_{suffix}", self.settings
        own = own_settings(self.stack, group, self.directory)
        update = {
            "kafka": own.kafka.model_copy(update={"entities_topic": now.kafka.entities_topic}),
            "clickhouse": own.clickhouse,
            "worker": own.worker,
            "policy_file": policy_file,
            "processors": processors,
        }
        other = copy(self)
        other.settings = now.model_copy(update=update)
        return other

    def close(self) -> None:
        """Remove topics and databases."""
        remove(self.settings)
