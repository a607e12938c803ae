"""The journal's settings: an argument of `Journal`, else the environment, else the default. Nothing else reads either.

| variable | default | what it says |
|---|---|---|
| `CHRONICLE_JOURNAL_SOURCE` | the program's name | the application, as events name it |
| `CHRONICLE_JOURNAL_TRANSPORT` | none: it must be said | `http://host:port`, `https://…`, `kafka://host:port,host:port/topic`, `file:///directory`, `embedded://directory`, `memory://`; several, with spaces between, all get every event |
| `CHRONICLE_JOURNAL_KEY` | none | API key, for HTTP |
| `CHRONICLE_JOURNAL_CA` | the system's | file of certificates to trust, for HTTPS |
| `CHRONICLE_JOURNAL_KAFKA` | none | more of librdkafka's settings: `security.protocol=SASL_SSL sasl.mechanism=…` |
| `CHRONICLE_JOURNAL_COMPRESS` | `1` | gzip what HTTP sends, when it is long |
| `CHRONICLE_JOURNAL_TIMEOUT_S` | `10` | how long a transport waits for an answer |
| `CHRONICLE_JOURNAL_PRODUCTION` | `0` | refuse to start with a transport that keeps nothing |
| `CHRONICLE_JOURNAL_STRICT` | `0` | refuse events that the catalogue of types refuses |
| `CHRONICLE_JOURNAL_WORKERS` | `1` | threads that send; events of one key stay with one of them |
| `CHRONICLE_JOURNAL_QUEUE_EVENTS` | `10000` | events that may wait in memory |
| `CHRONICLE_JOURNAL_QUEUE_BYTES` | `67108864` | bytes of events that may wait in memory |
| `CHRONICLE_JOURNAL_BATCH_EVENTS` | `500` | events sent at once |
| `CHRONICLE_JOURNAL_BATCH_BYTES` | `1048576` | bytes sent at once; an event that is longer goes alone |
| `CHRONICLE_JOURNAL_LINGER_MS` | `5` | how long a batch that is not full waits for more |
| `CHRONICLE_JOURNAL_ROUTES` | none | by type: `security.** topic=chronicle.events.security priority=high key=actor; order.* key=resource` |
| `CHRONICLE_JOURNAL_SAMPLE` | none | share by type: `http.**=0.1 log.debug=0`; the first pattern that fits counts, others are all kept |
| `CHRONICLE_JOURNAL_RATE_LIMIT` | `0`: none | events per second; with a spill they wait for their turn, without one what is over it is left out |
| `CHRONICLE_JOURNAL_BURST` | as the rate | events at once, above the rate |
| `CHRONICLE_JOURNAL_BREAKER_FAILURES` | `5` | failures in a row after which the transport is left alone |
| `CHRONICLE_JOURNAL_BREAKER_RESET_S` | `1` | for how long, at first |
| `CHRONICLE_JOURNAL_BREAKER_RESET_MAX_S` | `30` | for how long, at most |
| `CHRONICLE_JOURNAL_SPILL` | none | directory for events that cannot be sent or queued; each process takes a part of its own |
| `CHRONICLE_JOURNAL_SPILL_BYTES` | `1073741824` | bytes that each process may spill |
| `CHRONICLE_JOURNAL_HISTORY_EVENTS` | `1000` | events that `history` remembers; 0: none |
| `CHRONICLE_JOURNAL_HISTORY_BYTES` | `1048576` | bytes of them |
| `CHRONICLE_JOURNAL_CLOSE_TIMEOUT_S` | `5` | how long `close` and the program's end wait for what is queued |
| `CHRONICLE_JOURNAL_METRICS` | none | `prometheus`, `opentelemetry`, or both, with a space between |
| `CHRONICLE_JOURNAL_SPAN_EVENTS` | `1` | each event is a span event too, where OpenTelemetry is in use |
| `CHRONICLE_JOURNAL_PROTECT` | `1` | hide what is a secret by its name or shape before anything else sees the event: see `protection` |
| `CHRONICLE_JOURNAL_SECRET_NAMES` | none | further names that are secret: patterns with `*`, spaces between |
| `CHRONICLE_JOURNAL_ENCRYPT` | none | types of events whose payloads are encrypted: `medical.** report.read` |
| `CHRONICLE_JOURNAL_ENCRYPT_KEY` | the newest | id of the key |
| `CHRONICLE_JOURNAL_KEY_RING` | none | the keys' text, as `chronicle policy keys new ID --purpose encrypt` writes it |
| `CHRONICLE_JOURNAL_KEY_RING_FILE` | none | a file with it |
| `CHRONICLE_JOURNAL_COMMIT` | from git's files | what `commit_hash` says |
"""  # noqa: E501  (a table)

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from chronicle.errors import ConfigError

PREFIX = "CHRONICLE_JOURNAL_"
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True, slots=True)
class Settings:
    """See the module. `routes`, `sample` and `kafka` are texts here, in the form that the environment has."""

    source: str = ""
    transport: str = ""
    key: str = field(default="", repr=False)
    ca: str = ""
    kafka: str = field(default="", repr=False)
    compress: bool = True
    timeout_s: float = 10.0
    production: bool = False
    strict: bool = False
    workers: int = 1
    queue_events: int = 10_000
    queue_bytes: int = 64 << 20
    batch_events: int = 500
    batch_bytes: int = 1 << 20
    linger_ms: float = 5.0
    routes: str = ""
    sample: str = ""
    rate_limit: float = 0.0
    burst: int = 0
    breaker_failures: int = 5
    breaker_reset_s: float = 1.0
    breaker_reset_max_s: float = 30.0
    spill: str = ""
    spill_bytes: int = 1 << 30
    history_events: int = 1_000
    history_bytes: int = 1 << 20
    close_timeout_s: float = 5.0
    metrics: str = ""
    span_events: bool = True
    protect: bool = True
    secret_names: str = ""
    encrypt: str = ""
    encrypt_key: str = ""
    key_ring: str = field(default="", repr=False)
    key_ring_file: str = ""
    commit: str = ""

    def __post_init__(self) -> None:
        for name in (
            "workers",
            "queue_events",
            "queue_bytes",
            "batch_events",
            "batch_bytes",
            "breaker_failures",
            "spill_bytes",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"set {PREFIX}{name.upper()} to 1 or more")
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise ConfigError(f"set {PREFIX}{one.name.upper()} to 0 or more")


def read(environment: Mapping[str, str] | None = None, /, **given: Any) -> Settings:
    """The settings of one journal. None in `given`: not given.

    Raises:
        ConfigError: a variable or an argument is not of its kind, or there is no such setting. Values are not repeated.
    """
    environment = os.environ if environment is None else environment
    known = {one.name: one for one in fields(Settings)}
    others = sorted(given.keys() - known.keys())
    if others:
        raise ConfigError(f"there is no setting {', '.join(others)} of a journal")
    values = {name: _given(known[name], value) for name, value in given.items() if value is not None}
    for name, one in known.items():
        text = environment.get(PREFIX + name.upper())
        if name not in values and text is not None:
            values[name] = _value(PREFIX + name.upper(), text.strip(), type(one.default))
    return Settings(**values)


def unknown(environment: Mapping[str, str] | None = None, /) -> list[str]:
    """Variables that look like settings and are none: somebody has mistyped a name."""
    known = {PREFIX + one.name.upper() for one in fields(Settings)}
    environment = os.environ if environment is None else environment
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def _given(one: Field[Any], value: Any) -> Any:
    kind = type(one.default)
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    right = isinstance(value, bool) == (kind is bool) and isinstance(value, int | float if kind is float else kind)
    if not right:
        wanted = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}[kind]
        raise ConfigError(f"give the journal's {one.name} as {wanted}")
    return value


def _value(name: str, text: str, kind: type) -> object:
    try:
        if kind is bool:
            if text.lower() in _YES:
                return True
            if text.lower() in _NO:
                return False
            raise ValueError
        return kind(text)
    except ValueError:
        wanted = {bool: "1 or 0", int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"set {name} to {wanted}") from None
