"""The one place that chooses table engines: a single server, or a cluster with replicated tables created on all of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENGINE = re.compile(r"\bENGINE = (\w*MergeTree)\b")


def quoted(identifier: str) -> str:
    """Any name as a ClickHouse identifier."""
    return "`" + identifier.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """Any text as a ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True, slots=True)
class Engines:
    """How tables are made. Without a cluster: plain engines on one server."""

    cluster: str | None = None
    """Then every table is Replicated… (its path by the server's `default_replica_path`) and every DDL runs ON CLUSTER."""

    @property
    def on_cluster(self) -> str:
        """Follows the name in CREATE, ALTER and DROP; begins with a space or is empty."""
        return f" ON CLUSTER {quoted(self.cluster)}" if self.cluster else ""

    def named(self, engine: str) -> str:
        """The engine to use where a single server would use `engine`."""
        return f"Replicated{engine}" if self.cluster else engine

    def rendered(self, statement: str, *, database: str, mirror_database: str) -> str:
        """A DDL statement with its `{database}`, `{mirror_database}` and `{on_cluster}` filled in and its engine chosen."""
        text = statement.replace("{database}", quoted(database)).replace("{mirror_database}", quoted(mirror_database))
        text = text.replace("{on_cluster}", self.on_cluster)
        return _ENGINE.sub(lambda found: f"ENGINE = {self.named(found[1])}", text)
