"""What `chronicle setup` does: identity key, topics, ClickHouse's tables, registry subjects; any number of times."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

import httpx
from clickhouse_connect.driver.client import Client
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss what it documents
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from chronicle import config
from chronicle.errors import ConfigError, TransientError
from chronicle.policy_files import read_policy
from chronicle.refusals import certificates, refused, turned_away, untrusted
from chronicle.sinks.clickhouse_client import connect
from chronicle.sinks.clickhouse_errors import translated
from chronicle.sinks.kafka import RECORD_BYTES_MAX
from chronicle.sinks.migrations import migrate

KEY_BYTES = 32
DEAD_LETTER_BYTES_MAX = 16 * 1024 * 1024
"""Larger than the raw topics' 10 MiB: a dead letter is a raw record with more headers."""
EVENT_PARTITIONS = 4
_DAY_MS = 24 * 3600 * 1000
_REQUEST_TIMEOUT_S = 15.0
SUBJECTS = {
    "chronicle.context": "context.avsc",
    "chronicle.entity": "entity.avsc",
    "chronicle.event": "events/event.avsc",
    "chronicle.transaction": "transaction.avsc",
}
"""Registry subject → file in `schemas/`."""

Action = Literal["created", "changed", "present"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that setup looked at."""

    kind: Literal["key", "topic", "table", "subject"]
    name: str
    action: Action
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as Chronicle wants it; every setting named here is put right when it differs."""

    name: str
    partitions: int
    settings: dict[str, str]
    at_first: dict[str, str] = field(default_factory=dict)
    """Settings of a new topic that are then the operator's."""


def run(settings: config.Settings, report: Callable[[Step], None] = lambda _: None) -> list[Step]:
    """Make what is missing, put settings right, and leave the rest; calls `report` after each step. With the transport `memory`
    there are no topics and no subjects.

    Raises:
        ConfigError: something is there that contradicts the settings (audit partitions, a changed `.sql` file), or a
            service refuses the credentials.
        TransientError: a service is away. What was made stays; run it again.
    """
    steps: list[Step] = []

    def done(step: Step) -> None:
        steps.append(step)
        report(step)

    by_broker = settings.transport == "kafka"
    client = connect(settings.clickhouse)
    try:
        _refuse_another_key(settings, client)
        done(ensure_key(settings))
        wanted = (*topics(settings.kafka), *role_topics(settings)) if by_broker else ()
        for step in _ensure_topics(settings.kafka, wanted) if wanted else ():
            done(step)
        for applied in migrate(client, settings.clickhouse):
            done(Step("table", applied.name, "created" if applied.action == "applied" else "present"))
    finally:
        client.close()
    for step in _ensure_subjects(settings.registry) if by_broker else ():
        done(step)
    return steps


def identity_key(settings: config.Settings) -> bytes:
    """The deployment's identity key, from the environment or its file: 32 bytes.

    Raises:
        ConfigError: there is none yet, or it is not 64 hexadecimal digits.
    """
    if settings.identity_key is not None:
        return _key(settings.identity_key.get_secret_value(), "CHRONICLE_IDENTITY_KEY")
    path = settings.identity_key_file
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise ConfigError(f"run `chronicle setup`: there is no identity key at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"make {path} readable: {type(error).__name__} at the identity key") from None
    return _key(text, str(path))


def topics(kafka: config.Kafka) -> tuple[Topic, ...]:
    """The topics that Chronicle itself writes."""
    # With three replicas a record is confirmed by two: `acks=all` alone is content with the leader when the others are away.
    safe = {"min.insync.replicas": str(max(1, kafka.replication_factor - 1))}
    return (
        # Compaction removes redeliveries and reprocessing by key (the event id), never history.
        Topic(
            kafka.audit_topic,
            kafka.audit_partitions,
            {"cleanup.policy": "compact", "max.message.bytes": str(RECORD_BYTES_MAX), "retention.ms": "-1"} | safe,
        ),
        Topic(
            kafka.dead_letter_topic,
            1,
            {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY_MS), "max.message.bytes": str(DEAD_LETTER_BYTES_MAX)}
            | safe,
        ),
        Topic(
            kafka.retry_topic,
            1,
            {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS), "max.message.bytes": str(DEAD_LETTER_BYTES_MAX)}
            | safe,
        ),
        # The broker's own time orders what ClickHouse's copy holds, whatever the clocks of those who write.
        Topic(
            kafka.entities_topic,
            1,
            {"cleanup.policy": "compact", "retention.ms": "-1", "message.timestamp.type": "LogAppendTime"} | safe,
        ),
        # Applications write here; events of one key keep their order within a partition. When a record came is for the
        # broker to say: retention, and how far back the worker looks for contexts, follow from it.
        Topic(
            kafka.events_topic,
            EVENT_PARTITIONS,
            {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"} | safe,
            {"retention.ms": str(7 * _DAY_MS)},
        ),
    )


def role_topics(settings: config.Settings) -> tuple[Topic, ...]:
    """The topics of the policy's routes and of the roles; none as long as there is no policy.

    Raises:
        ConfigError: something in the policy is wrong.
    """
    kafka = settings.kafka
    safe = {"min.insync.replicas": str(max(1, kafka.replication_factor - 1))}
    week = {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)}
    month = {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY_MS)}
    routes = read_policy(settings.policy_file).routes if settings.policy_file.exists() else ()
    deliveries = {route.to for route in routes} | {role.to for role in settings.roles.values() if role.to}
    returns = {settings.role_kafka(name).retry_topic for name in settings.roles}
    letters = {settings.role_kafka(name).dead_letter_topic for name in settings.roles}
    letters |= {route.dead_letters for route in routes if route.dead_letters}
    # a delivery has the size of an audit record, and so has its dead letter
    size = {"max.message.bytes": str(RECORD_BYTES_MAX)}
    return (
        *(Topic(name, kafka.audit_partitions, size | safe, week) for name in sorted(deliveries)),
        *(Topic(name, 1, size | safe, week) for name in sorted(returns)),
        *(Topic(name, 1, size | safe, month) for name in sorted(letters)),
    )


def _key(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"restore {where} from your copy: an identity key is {2 * KEY_BYTES} hexadecimal digits")
    return key


def _refuse_another_key(settings: config.Settings, client: Client) -> None:
    """A trail that has changes has a key: under a new one every change that comes again would be another one."""
    if settings.identity_key is not None or settings.identity_key_file.exists():
        return
    with translated("system.tables"):
        rows = client.query(
            "SELECT sum(total_rows) FROM system.tables WHERE database = {database:String} AND name IN ('changes', 'events')",
            parameters={"database": settings.clickhouse.database},
        ).result_rows
    if rows and rows[0][0]:
        raise ConfigError(
            f"restore the identity key to {settings.identity_key_file} (or set identity_key_file): there are changes or "
            f"events in {settings.clickhouse.database} that another key has named"
        )


def ensure_key(settings: config.Settings) -> Step:
    """Make the identity key unless there is one. Raises ConfigError when it cannot be written, or is no key."""
    if settings.identity_key is not None:
        identity_key(settings)
        return Step("key", "CHRONICLE_IDENTITY_KEY", "present")
    path = settings.identity_key_file
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and linked, so that a key is there whole or not at all, and an existing one is never overwritten.
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(fresh, path)
    except FileExistsError:
        identity_key(settings)
        return Step("key", str(path), "present")
    except OSError as error:
        raise ConfigError(f"make {path.parent} writable, or set identity_key_file: {type(error).__name__}") from None
    finally:
        fresh.unlink(missing_ok=True)
    return Step("key", str(path), "created", "keep a copy: event ids follow from it")


def _ensure_topics(kafka: config.Kafka, wanted: Sequence[Topic]) -> list[Step]:
    options = kafka.client_config()
    if wrong := turned_away(options):  # or the first question would wait out its whole time
        raise wrong
    admin = AdminClient(options)
    try:
        existing = admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        return [
            _ensure_topic(admin, topic, kafka, len(existing[topic.name].partitions) if topic.name in existing else 0)
            for topic in wanted
        ]
    except KafkaException as error:
        failure: KafkaError = error.args[0]
        if wrong := refused(failure, options, about=", ".join(topic.name for topic in wanted)):
            raise wrong from None
        if failure.retriable() or failure.code() < 0:
            raise TransientError(f"the broker at kafka.bootstrap_servers is away (Kafka: {failure.name()})") from None
        raise ConfigError(f"correct the settings in [kafka] or the user's rights (Kafka: {failure.name()})") from None


def _ensure_topic(admin: AdminClient, topic: Topic, kafka: config.Kafka, partitions: int) -> Step:
    if not partitions:
        new = NewTopic(topic.name, topic.partitions, kafka.replication_factor, config=topic.settings | topic.at_first)
        try:
            admin.create_topics([new], request_timeout=_REQUEST_TIMEOUT_S)[topic.name].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another setup at the same time
                raise
        kept = (topic.settings | topic.at_first)["cleanup.policy"]
        return Step("topic", topic.name, "created", f"{topic.partitions} partitions, {kept}")
    if topic.name == kafka.audit_topic and partitions != topic.partitions:
        raise ConfigError(f"set kafka.audit_partitions to {partitions}: {topic.name} has that many, fixed for its life")
    resource = ConfigResource(ResourceType.TOPIC, topic.name)
    described = admin.describe_configs([resource], request_timeout=_REQUEST_TIMEOUT_S)[resource].result()
    wrong = {name: value for name, value in topic.settings.items() if described[name].value != value}
    if not wrong:
        return Step("topic", topic.name, "present", f"{partitions} partitions")
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in wrong.items()]
    change = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=entries)
    admin.incremental_alter_configs([change], request_timeout=_REQUEST_TIMEOUT_S)[change].result()
    return Step("topic", topic.name, "changed", ", ".join(f"{name}={value}" for name, value in wrong.items()))


def _ensure_subjects(registry: config.Registry) -> list[Step]:
    auth = None
    if registry.username is not None:
        auth = httpx.BasicAuth(registry.username, registry.password.get_secret_value() if registry.password else "")
    verify = certificates(registry.ca_location, "registry.ca_location") if registry.ca_location else True
    with httpx.Client(base_url=registry.url.rstrip("/"), auth=auth, verify=verify, timeout=registry.timeout_s) as http:
        return [_ensure_subject(http, subject, schema_text(file)) for subject, file in SUBJECTS.items()]


def _ensure_subject(http: httpx.Client, subject: str, schema: str) -> Step:
    body = {"schema": schema, "schemaType": "AVRO"}
    try:
        known = http.post(f"/subjects/{subject}", json=body)
        if known.status_code == httpx.codes.OK:
            return Step("subject", subject, "present", f"version {known.json()['version']}")
        answer = http.post(f"/subjects/{subject}/versions", json=body)
    except httpx.TransportError as error:
        wrong = untrusted(error, "registry")
        raise wrong or TransientError(f"the registry at registry.url is away ({type(error).__name__})") from None
    if answer.status_code == httpx.codes.OK:
        return Step("subject", subject, "created", f"id {answer.json()['id']}")
    if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise TransientError(f"the registry is busy (HTTP {answer.status_code})")
    if answer.status_code == httpx.codes.CONFLICT:
        raise ConfigError(f"subject {subject} has an incompatible schema: point registry.url to Chronicle's own registry")
    raise ConfigError(
        f"correct registry.url, registry.username and registry.password: HTTP {answer.status_code} at subject {subject}"
    )


def schema_text(file: str) -> str:
    """A schema of `schemas/`, in one line. A checkout has them beside the package, a wheel inside of it."""
    packaged = resources.files("chronicle") / "schemas" / file
    path = packaged if packaged.is_file() else Path(__file__).parents[2] / "schemas" / file
    return json.dumps(json.loads(path.read_text(encoding="utf-8")), separators=(",", ":"))
