"""Pure: a source, its template and the deployment's addresses make the configuration that Connect gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from chronicle.capture.sources import Source
from chronicle.capture.templates import Template
from chronicle.config import Kafka, Registry
from chronicle.errors import ConfigError

PLACEHOLDER = re.compile(r"\{\{([a-z_.]+)\}\}")
CONFLUENT_API = re.compile(r"/apis/ccompat/v\d+/?$")
KAFKA_PASSWORD = "${env:CHRONICLE_KAFKA_SASL_PASSWORD}"  # noqa: S105  a reference that Connect resolves, not a secret
REGISTRY_PASSWORD = "${env:CHRONICLE_REGISTRY_PASSWORD}"  # noqa: S105


@dataclass(frozen=True, slots=True)
class RenderEnvironment:
    """The deployment's part of a configuration: the same for all sources. Holds no secret."""

    bootstrap_servers: str
    registry_url: str
    """The registry's Confluent API."""
    replication_factor: int = 1
    events_topic: str = "chronicle.events"
    """Where events of the outbox table go."""
    kafka_security: Mapping[str, str] = field(default_factory=dict)
    """Java client options, for the clients that Debezium opens itself (signals, schema history)."""
    registry_username: str | None = None
    registry_ca_location: str | None = None

    @property
    def apicurio_url(self) -> str:
        """The registry's own API, which Apicurio's converter speaks, beside its Confluent API."""
        return CONFLUENT_API.sub("/apis/registry/v2", self.registry_url)


def environment_of(kafka: Kafka, registry: Registry) -> RenderEnvironment:
    """What a connector must know of the settings. Passwords become references that Connect resolves from its own
    environment: `CHRONICLE_KAFKA_SASL_PASSWORD`, `CHRONICLE_REGISTRY_PASSWORD`."""
    return RenderEnvironment(
        bootstrap_servers=kafka.bootstrap_servers,
        registry_url=registry.url,
        replication_factor=kafka.replication_factor,
        events_topic=kafka.events_topic,
        kafka_security=_kafka_security(kafka),
        registry_username=registry.username,
        registry_ca_location=str(registry.ca_location) if registry.ca_location else None,
    )


def render(source: Source, template: Template, environment: RenderEnvironment) -> dict[str, str]:
    """The complete configuration of the source's connector, options sorted by name.

    Deterministic: the same files and settings give the same configuration, so that a plan is empty when nothing changed.

    Raises:
        ConfigError: a template asks for something that is not known.
    """
    options: dict[str, str] = {}
    options.update(template.default)
    options.update(template.formats[source.format])
    options.update(_registry_access(source, environment))
    options.update(template.fixed)
    if source.attribution_comments:
        options.update(template.attribution_comments)
    options.update(_client_security(source, environment))
    values = _values(source, environment)
    rendered = {option: _filled(option, value, values, template) for option, value in options.items()}
    rendered.update(source.options)
    return dict(sorted(rendered.items()))


def escaped(name: str) -> str:
    """A name as a Java regular expression that matches this name only. Commas cannot be escaped, and are not allowed."""
    return re.sub(r"([\\^$.|?*+()\[\]{}])", r"\\\1", name)


def _values(source: Source, environment: RenderEnvironment) -> dict[str, str]:
    return {
        "source": source.name,
        "epoch": str(source.epoch),
        "tables": ",".join(escaped(table) for table in source.captured),
        "signal_table": source.signal_table,
        "signal_table_pattern": escaped(source.topic(source.signal_table).removeprefix(f"{source.name}.")),
        "unavailable_value_placeholder": source.unavailable_value_placeholder or "",
        "server_id": str(source.server_id),
        "database.host": source.database.host,
        "database.port": source.database.port,
        "database.name": source.database.name,
        "database.user": source.database.user,
        "database.password": source.database.password,
        "events_topic": environment.events_topic,
        "events_topic_pattern": escaped(environment.events_topic),
        "bootstrap_servers": environment.bootstrap_servers,
        "registry_url": environment.registry_url,
        "apicurio_url": environment.apicurio_url,
        "replication_factor": str(environment.replication_factor),
    }


def _filled(option: str, value: str, values: Mapping[str, str], template: Template) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in values:
            known = ", ".join(sorted(values))
            raise ConfigError(f"correct {option} in the template `{template.name}`: {{{{{name}}}}} is not one of {known}")
        return values[name]

    return PLACEHOLDER.sub(fill, value)


def _kafka_security(kafka: Kafka) -> dict[str, str]:
    """`Settings.kafka` in the Java clients' words; empty for a plain broker."""
    if kafka.security_protocol == "PLAINTEXT":
        return {}
    options: dict[str, str] = {"security.protocol": kafka.security_protocol}
    if kafka.ssl_ca_location is not None:
        options |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(kafka.ssl_ca_location)}
    if kafka.sasl_mechanism is not None:
        login = "plain.PlainLoginModule" if kafka.sasl_mechanism == "PLAIN" else "scram.ScramLoginModule"
        options |= {
            "sasl.mechanism": kafka.sasl_mechanism,
            "sasl.jaas.config": f"org.apache.kafka.common.security.{login} required "
            f'username="{kafka.sasl_username or ""}" password="{KAFKA_PASSWORD}";',
        }
    return options


def _client_security(source: Source, environment: RenderEnvironment) -> dict[str, str]:
    prefixes = ["signal.consumer."]
    if source.kind != "postgres":
        prefixes += ["schema.history.internal.consumer.", "schema.history.internal.producer."]
    return {prefix + option: value for prefix in prefixes for option, value in environment.kafka_security.items()}


def _registry_access(source: Source, environment: RenderEnvironment) -> dict[str, str]:
    options: dict[str, str] = {}
    if source.format == "avro-apicurio":
        if environment.registry_username:
            options |= {"apicurio.auth.username": environment.registry_username, "apicurio.auth.password": REGISTRY_PASSWORD}
        if environment.registry_ca_location:
            options |= {
                "apicurio.registry.request.ssl.truststore.type": "PEM",
                "apicurio.registry.request.ssl.truststore.location": environment.registry_ca_location,
            }
    elif source.format == "avro-confluent":
        if environment.registry_username:
            account = f"{environment.registry_username}:{REGISTRY_PASSWORD}"
            options |= {"basic.auth.credentials.source": "USER_INFO", "basic.auth.user.info": account}
        if environment.registry_ca_location:
            options |= {
                "schema.registry.ssl.truststore.type": "PEM",
                "schema.registry.ssl.truststore.location": environment.registry_ca_location,
            }
    return {f"{side}.converter.{option}": value for side in ("key", "value") for option, value in options.items()}
