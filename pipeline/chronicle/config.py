"""All settings, and the only reader of `chronicle.toml` and of `CHRONICLE_*` variables.

Precedence: `CHRONICLE_*` environment (nested with `__`, e.g. `CHRONICLE_KAFKA__BOOTSTRAP_SERVERS`), then the
file, then the defaults. The file is the one named by `CHRONICLE_CONFIG` (or `--config`), else `./chronicle.toml`,
else `./.chronicle/chronicle.toml`, which `chronicle dev up` writes for the local stack.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from chronicle.errors import ConfigError
from chronicle.model.dead_letters import LIMITS
from chronicle.refusals import certificates

FILES = (Path("chronicle.toml"), Path(".chronicle/chronicle.toml"))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Kafka(_Section):
    """The broker, for every client Chronicle opens."""

    bootstrap_servers: str = "localhost:28000"
    """The broker."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to connect: plain, TLS, SASL, or both."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """Needed with SASL."""
    sasl_username: str | None = None
    """Needed with SASL."""
    sasl_password: SecretStr | None = None
    """Needed with SASL; by environment rather than by file."""
    ssl_ca_location: Path | None = None
    """CA that signed the broker's certificate; none: the system's."""
    replication_factor: int = Field(1, ge=1)
    """Of the topics that `chronicle setup` creates."""
    audit_topic: str = "chronicle.audit"
    """The record of audit, compacted."""
    audit_partitions: int = Field(4, ge=1)
    """Fixed for the life of the audit topic: a record's partition follows from its entity."""
    dead_letter_topic: str = "chronicle.dead-letters"
    """What could not be processed: original bytes, reason in headers."""
    retry_topic: str = "chronicle.retry"
    """Dead letters on their way back."""
    entities_topic: str = "chronicle.entities"
    """Reference data, compacted."""
    events_topic: str = "chronicle.events"
    """What applications say themselves; topics that begin with it and a dot are read as well."""

    def client_config(self) -> dict[str, Any]:
        """What every confluent-kafka client of Chronicle starts from: the broker and how to be let in.

        Raises:
            ConfigError: it lacks something, or the file of certificates cannot be read.
        """
        self._require_whole()
        options: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "client.id": "chronicle",
            "log_level": 0,  # librdkafka prints to stderr by itself; what matters comes back as errors
        }
        if self.sasl_mechanism:
            options["sasl.mechanism"] = self.sasl_mechanism
        if self.sasl_username is not None:
            options["sasl.username"] = self.sasl_username
        if self.sasl_password is not None:
            options["sasl.password"] = self.sasl_password.get_secret_value()
        if self.ssl_ca_location is not None:
            options["ssl.ca.location"] = str(self.ssl_ca_location)
        return options

    def _require_whole(self) -> None:
        login = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if self.security_protocol.startswith("SASL") and None in login:
            raise ConfigError("set kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password: the protocol is SASL")
        if not self.security_protocol.startswith("SASL") and self.sasl_username is not None:
            raise ConfigError("set kafka.security_protocol to SASL_SSL (or SASL_PLAINTEXT): there is a user to log in as")
        if self.ssl_ca_location is not None:
            certificates(self.ssl_ca_location, "kafka.ssl_ca_location")


class Registry(_Section):
    """A schema registry that speaks Confluent's API (Apicurio: `/apis/ccompat/v7`)."""

    url: str = "http://localhost:28002/apis/ccompat/v7"
    """The registry."""
    username: str | None = None
    """For basic authentication."""
    password: SecretStr | None = None
    """For basic authentication; by environment rather than by file."""
    ca_location: Path | None = None
    """CA that signed the server's certificate; none: the system's."""
    timeout_s: float = Field(10.0, gt=0)
    """For one request."""
    unknown_id_wait_s: float = Field(5.0, ge=0)
    """How long an id the registry does not know is asked for again before its records become dead letters."""


class ClickHouse(_Section):
    """The analytics store, over HTTP."""

    url: str = "http://localhost:28006"
    """The store."""
    username: str = "default"
    """Needs the grants that README lists under "Secured services"."""
    password: SecretStr = SecretStr("")
    """By environment rather than by file."""
    database: str = "chronicle"
    """Changes, transactions, dead letters."""
    cluster: str | None = None
    """Name of a ClickHouse cluster: tables are Replicated… and made ON CLUSTER. None: a single server."""
    mirror_database: str = "mirror"
    """One typed table per captured table."""
    ca_location: Path | None = None
    """CA that signed the server's certificate; none: the system's."""
    timeout_s: float = Field(60.0, gt=0)
    """For one insert or query."""


class Connect(_Section):
    """Kafka Connect's REST interface, and where the connector files are."""

    url: str = "http://localhost:28003"
    """Connect's REST interface."""
    username: str | None = None
    """For basic authentication."""
    password: SecretStr | None = None
    """For basic authentication; by environment rather than by file."""
    directory: Path = Path("connectors")
    """Holds `templates/` and one `<source>.toml` per source."""
    environment: dict[str, SecretStr] = Field(default_factory=dict)
    """What Connect has under `${env:NAME}`, for the commands that ask a database themselves. The process' own environment
    wins; only the local stack, whose passwords protect nothing, writes it into a file."""


class Worker(_Section):
    """The stream worker."""

    group: str = "chronicle"
    """Consumer group; workers of one group share the partitions."""
    sources: tuple[str, ...] = ()
    """Sources to read, and `events` for what applications say; empty: one per file in `connect.directory`, and events."""
    instance_id: str | None = None
    """Static group membership: a killed worker comes back without a rebalance for the others."""
    batch_rows_max: int = Field(20_000, ge=1)
    """A batch is flushed at this many rows …"""
    flush_interval_ms: int = Field(250, ge=1)
    """… or after this time, whichever comes first."""
    in_flight_rows_max: int = Field(60_000, ge=1)
    """No more is fetched while this many rows are not acknowledged …"""
    in_flight_bytes_max: int = Field(256 * 1024 * 1024, ge=1)
    """… or this many bytes."""
    record_bytes_max: int = Field(LIMITS.record, ge=1)
    """A record whose key and value have together more bytes is a dead letter (`too_large`), whatever is in it."""
    discovery_interval_s: float = Field(10.0, gt=0)
    """How often new topics of the sources are looked for."""
    dead_letter_share_max: float = Field(0.5, gt=0, le=1)
    """A batch of at least `dead_letter_rows_min` rows with more than this share of dead letters stops the worker."""
    dead_letter_rows_min: int = Field(100, ge=1)
    """Smaller batches never stop it for that."""
    stall_timeout_s: float = Field(120.0, gt=0)
    """Lag, no progress and no declared retry for this long: the watchdog ends the process, unacknowledged."""
    accept_gap: bool = False
    """Go on although records between the committed offset and the log's start are gone."""
    http_host: str = "127.0.0.1"
    """Where /healthz, /readyz and /metrics listen."""
    http_port: int = Field(28007, ge=0, le=65535)
    """Its port; 0: any free one."""
    failpoint: str = ""
    """For tests only: the process kills itself there (before_sinks, between_sinks, before_ack, rebalance; `name:3`: the
    third time)."""
    attribution_wait_ms: int = Field(500, ge=0)
    """How long a batch waits for the contexts and ENDs of its transactions; what comes later is `pending` until then."""
    entities_max: int = Field(500_000, ge=1)
    """More entities of reference data than this are not kept in memory: the worker stops …"""
    entities_bytes_max: int = Field(256 * 1024 * 1024, ge=1)
    """… and so with more bytes of them, as text."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on log lines are written to standard error."""


class Events(_Section):
    """What applications say themselves."""

    mode: Literal["open", "strict"] = "open"
    """Events of an unknown type, or with a payload that does not fit its type's schema: taken and marked in `violations`
    (open), or refused (strict: dead letters `contract_broken`)."""


class ApiLimits(_Section):
    """What whoever has a role meets of the trail; empty: all."""

    sources: tuple[str, ...] = ()
    """Names of sources."""
    tables: tuple[str, ...] = ()
    """Patterns on `<source>.<schema>.<table>` and `<source>.<event type>`."""
    tenants: tuple[str, ...] = ()
    """Names of tenants."""
    columns: tuple[str, ...] = ()
    """Columns and payload fields, by name or by a pattern on `<source>.<schema>.<table>.<column>`."""


class Api(_Section):
    """The HTTP service."""

    host: str = "127.0.0.1"
    """Where it listens. As long as no key was ever made and no issuer is set, on this machine only, whatever this says."""
    port: int = Field(28009, ge=0, le=65535)
    """Its port; 0: any free one, in the log."""
    workers: int = Field(1, ge=1, le=64)
    """Processes that share the port; rates and live tails are counted in each of them."""
    body_bytes_max: int = Field(8 * 1024 * 1024, ge=1024)
    """Of one request, as it is on the wire."""
    inflated_bytes_max: int = Field(32 * 1024 * 1024, ge=1024)
    """Of one request's body after gzip or zstd."""
    batch_max: int = Field(1_000, ge=1, le=100_000)
    """Events in one request."""
    events_per_s: float = Field(0.0, ge=0)
    """Of one key; 0: no limit. Twice as many may come at once."""
    reads_per_s: float = Field(50.0, ge=0)
    """Requests of one key that read; 0: no limit. Twice as many may come at once."""
    requests_max: int = Field(2_000, ge=1)
    """Under way at the same time in one process; more are told 503."""
    confirm_timeout_s: float = Field(2.0, gt=0, le=300)
    """How long the broker is waited for before events go to the spill."""
    spill_directory: Path | None = Path(".chronicle/spill")
    """Keeps events while the broker is away, by process; none (an empty text): they are told 503."""
    spill_bytes_max: int = Field(1024 * 1024 * 1024, ge=1024 * 1024)
    """What each process may keep there."""
    clickhouse_username: str | None = None
    """Reads the trail for the service, with SELECT alone (`chronicle api --grants` prints how to make it); none: the user of
    `clickhouse`."""
    clickhouse_password: SecretStr | None = None
    """Of that user; by environment rather than by file."""
    query_timeout_s: int = Field(15, ge=1, le=3600)
    """For one question."""
    query_rows_max: int = Field(500_000_000, ge=1)
    """Rows that one question may read."""
    page_rows_max: int = Field(1_000, ge=1, le=100_000)
    """Of one page."""
    export_rows_max: int = Field(1_000_000, ge=1)
    """Of one export …"""
    export_timeout_s: int = Field(600, ge=1, le=24 * 3600)
    """… which may take so long."""
    streams_max: int = Field(32, ge=0)
    """Live tails of one process."""
    keys_cache_s: float = Field(5.0, gt=0, le=300)
    """How soon a new or a revoked key is noticed."""
    keys_stale_s: float = Field(600.0, ge=0)
    """How long known keys open while ClickHouse is away."""
    oidc_issuer: str | None = None
    """Whose access tokens open, beside keys: the `iss` in them. None: keys only."""
    oidc_audience: str = ""
    """The `aud` that tokens must have."""
    oidc_jwks_url: str = ""
    """Where the issuer's keys are; empty: as its `/.well-known/openid-configuration` says."""
    oidc_algorithms: tuple[str, ...] = ("RS256", "ES256")
    """Signatures that are taken; asymmetric ones only."""
    oidc_roles_claim: str = "roles"
    """Where the roles are in a token: ingest, reader, auditor, admin. Dots go into objects."""
    oidc_tenants_claim: str = ""
    """Where the tenants are; a token without any is refused then. Empty: tokens are not limited to tenants."""
    limits: dict[Literal["ingest", "reader", "auditor", "admin"], ApiLimits] = Field(default_factory=dict)
    """By role, as `[api.limits.reader]` with `sources`, `tables`, `tenants`, `columns`; beside the limits of each key."""

    @field_validator("spill_directory", mode="before")
    @classmethod
    def _no_spill(cls, value: Any) -> Any:
        return None if value == "" else value


class Webhook(_Section):
    """An HTTPS endpoint that a role's deliveries are posted to."""

    url: str
    """Where to; https, or with `allow_private` also http to this machine."""
    secret: SecretStr
    """Key of the signature, 16 characters or more; by environment rather than by file."""
    format: Literal["json", "cloudevents"] = "json"
    """One audit record a line (application/x-ndjson), or an array of CloudEvents (application/cloudevents-batch+json)."""
    records_max: int = Field(100, ge=1, le=10_000)
    """In one request."""
    bytes_max: int = Field(1024 * 1024, ge=1024)
    """In one request, unless a single record is larger."""
    timeout_s: float = Field(10.0, gt=0, le=300)
    """To connect, to send, and to wait for the next bytes of the answer."""
    retry_after_max_s: float = Field(300.0, ge=0)
    """The longest `Retry-After` that is obeyed."""
    allow_private: bool = False
    """Private and loopback addresses may be reached."""
    ca_location: Path | None = None
    """CA that signed the endpoint's certificate; none: the system's."""

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr) -> SecretStr:
        if len(secret.get_secret_value()) < 16:
            raise ValueError("use 16 characters or more, as from `openssl rand -hex 32`")
        return secret


class Archive(_Section):
    """Parquet files of a role's deliveries, by source and day."""

    url: str
    """A directory, or an object store in fsspec's words (`s3://bucket/audit`, with s3fs installed)."""
    compression: Literal["zstd", "snappy", "lz4", "gzip", "uncompressed"] = "zstd"
    """Of the columns."""


class Role(_Section):
    """Workers that read routes' topics instead of raw ones: a team's own logic and deliveries, apart from the trail's."""

    routes: tuple[str, ...] = Field(min_length=1)
    """Names of the policy's routes whose topics are read."""
    processors: tuple[str, ...] = ()
    """Modules whose processors run."""
    to: str | None = None
    """A topic that gets what came out."""
    format: Literal["json", "cloudevents"] = "json"
    """Of the records in `to`."""
    webhook: Webhook | None = None
    """An endpoint that gets what came out."""
    archive: Archive | None = None
    """Files that get what came out."""
    instances: int = Field(1, ge=1, le=64)
    """Processes; they share the partitions."""
    batch_rows_max: int = Field(2_000, ge=1, le=100_000)
    """A batch is processed at this many records …"""
    batch_wait_ms: int = Field(500, ge=1, le=3_600_000)
    """… or after this time, whichever comes first. An archive has one file or more for each batch."""
    http_host: str = "127.0.0.1"
    """Where /healthz, /readyz and /metrics listen."""
    http_port: int = Field(0, ge=0, le=65535)
    """Of the first instance, the next ones count up from it; 0: any free ones, in the log."""


class Settings(BaseSettings):
    """Everything a process of Chronicle can be told."""

    model_config = SettingsConfigDict(
        env_prefix="CHRONICLE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    kafka: Kafka = Kafka()
    registry: Registry = Registry()
    clickhouse: ClickHouse = ClickHouse()
    connect: Connect = Connect()
    worker: Worker = Worker()
    events: Events = Events()
    api: Api = Api()
    roles: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")], Role] = Field(default_factory=dict)
    """By name, as `[roles.security]`: workers on routes (`chronicle worker --role security`)."""
    transport: Literal["kafka", "memory"] = "kafka"
    """How events come from the HTTP service to the pipeline: by the broker, or within one process (`chronicle run`)."""
    store: Literal["clickhouse", "chdb", "memory"] = "clickhouse"
    """Where the trail is: a ClickHouse server, or chDB within the process, in `chdb_path` or in memory (gone with it)."""
    chdb_path: Path = Path(".chronicle/embedded/chdb")
    """Directory of the embedded store; one process at a time has it open."""
    identity_key_file: Path = Path(".chronicle/identity.key")
    """32 random bytes in hex, made once by `chronicle setup`, never rotated; keep a copy: event ids follow from it."""
    policy_file: Path = Path("policy.toml")
    """What may be seen; read at start. `chronicle policy init` proposes one."""
    processors: tuple[str, ...] = ()
    """Modules with processors, in this order; `chronicle.examples.compliance` is one."""
    schemas_dir: Path = Path("schemas")
    """Contracts of captured tables (`<source>.<schema>.<table>-value.avsc`); a table without one promises nothing."""
    key_ring_file: Path = Path(".chronicle/keys.toml")
    """Keys of tokens and of encryption; `chronicle policy keys new` adds one."""
    key_ring: SecretStr | None = None
    """The same as a text by environment (`CHRONICLE_KEY_RING`), for deployments without a file."""
    identity_key: SecretStr | None = None
    """The same key by environment (`CHRONICLE_IDENTITY_KEY`), for deployments without a file."""

    @model_validator(mode="after")
    def _embedded_store(self) -> Settings:
        object.__setattr__(self, "clickhouse", self._store())
        return self

    def _store(self) -> ClickHouse:
        """Every reader of `clickhouse` finds the store under its URL."""
        if self.store == "clickhouse":
            return self.clickhouse
        place = "chdb://memory" if self.store == "memory" else f"chdb://{quote(str(self.chdb_path.absolute()))}"
        return self.clickhouse.model_copy(update={"url": place, "cluster": None})

    def embedded(self, directory: Path) -> Settings:
        """These settings for one process without a server: events by memory, chDB for a store unless a store is named, and
        every file that is not named in `directory`.
        """
        files = {
            "chdb_path": "chdb",
            "identity_key_file": "identity.key",
            "key_ring_file": "keys.toml",
            "policy_file": "policy.toml",
        }
        changes: dict[str, Any] = {name: directory / file for name, file in files.items() if name not in self.model_fields_set}
        changes |= {"transport": "memory", "store": self.store if "store" in self.model_fields_set else "chdb"}
        changed = self.model_copy(update=changes)
        return changed.model_copy(update={"clickhouse": changed._store()})

    def role(self, name: str) -> Role:
        """The role of this name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.roles:
            known = ", ".join(sorted(self.roles)) or "none"
            raise ConfigError(f"name a role of the settings, or add [roles.{name}]: there is {known}")
        return self.roles[name]

    def role_kafka(self, name: str) -> Kafka:
        """The broker as workers of a role use it: with dead letters and a way back of their own."""
        group = self.role_group(name)
        return self.kafka.model_copy(update={"dead_letter_topic": f"{group}.dead-letters", "retry_topic": f"{group}.retry"})

    def role_group(self, name: str) -> str:
        """Consumer group of a role's workers."""
        return f"{self.worker.group}-{name}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = config_file()
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        return (*sources, TomlConfigSettingsSource(settings_cls, file)) if file else sources


def config_file() -> Path | None:
    """The settings file in force, or None when defaults and environment are all there is."""
    named = os.environ.get("CHRONICLE_CONFIG")
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigError(f"no settings file at {path}: correct CHRONICLE_CONFIG (or --config), or unset it")
        return path
    return next((path for path in FILES if path.is_file()), None)


def load() -> Settings:
    """Read all settings once.

    Raises:
        ConfigError: a key is unknown or a value is out of range; names each key, never a value (it may be a secret).
    """
    try:
        return Settings()
    except ValidationError as error:
        where = config_file() or "the environment"
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg']}"
            for problem in error.errors(include_input=False)
        )
        raise ConfigError(f"correct the settings in {where} (or CHRONICLE_* variables): {problems}") from None
    except SettingsError as error:  # names the field and the source, no value
        raise ConfigError(f"name one setting of the section, as in CHRONICLE_KAFKA__BOOTSTRAP_SERVERS: {error}") from None
    except ValueError as error:  # tomllib's error shows position and syntax, not values
        raise ConfigError(f"correct {config_file()}: not readable as TOML ({error})") from None
