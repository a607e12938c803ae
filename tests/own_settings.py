"""Settings of one test alone on a stack that others share, and the end of what was made under them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import httpx
from confluent_kafka.admin import AdminClient

from chronicle.config import ClickHouse, Connect, Kafka, Registry, Settings, Worker
from chronicle.dev.stack import Stack
from chronicle.sinks.clickhouse_client import connect

TIMEOUT_S = 60


def own_settings(stack: Stack, name: str, directory: Path) -> Settings:
    """Every topic, database and file has a name of its own, which begins with `name` or stands in `directory`."""
    topics = {field: f"{name}_{field.removesuffix('_topic')}" for field in Kafka.model_fields if field.endswith("_topic")}
    return Settings(
        kafka=Kafka(bootstrap_servers=stack.kafka, **topics),
        registry=Registry(url=stack.registry_url),
        clickhouse=ClickHouse(url=stack.clickhouse_url, database=name, mirror_database=f"{name}_mirror"),
        connect=Connect(url=stack.connect_url, directory=directory / "connectors"),
        worker=Worker(group=name),
        identity_key=None,
        identity_key_file=directory / "identity.key",
        key_ring_file=directory / "keys.toml",
    )


def remove(settings: Settings) -> None:
    """Drop the databases, and delete all topics and subjects whose names begin with the group's."""
    with connect(settings.clickhouse) as client:
        for database in (settings.clickhouse.database, settings.clickhouse.mirror_database):
            client.command(f"DROP DATABASE IF EXISTS `{database}`")
    admin = AdminClient(settings.kafka.client_config())
    there = admin.list_topics(timeout=TIMEOUT_S).topics
    names = [name for name in there if name.startswith(settings.worker.group)]
    for future in admin.delete_topics(names, operation_timeout=TIMEOUT_S).values() if names else ():
        future.result(TIMEOUT_S)
    with httpx.Client(base_url=settings.registry.url, timeout=TIMEOUT_S) as registry:
        for subject in registry.get("/subjects").raise_for_status().json():
            if subject.startswith(settings.worker.group):
                for forever in ("false", "true"):  # a subject is deleted for good only when it was deleted before
                    registry.delete(f"/subjects/{quote(subject, safe='')}", params={"permanent": forever})
