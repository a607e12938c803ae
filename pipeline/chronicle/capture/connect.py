"""Kafka Connect's REST interface: configurations, states, offsets and validation of connectors."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from chronicle.config import Connect
from chronicle.errors import ChronicleError, ConfigError, TransientError

TIMEOUT_S = 90.0
"""Connect validates a configuration by connecting to the database, which may take its own timeout."""
BUSY_S = 30.0
"""How long a call is repeated while Connect rebalances (HTTP 409)."""
BUSY_INTERVAL_S = 0.5
CAUSE = re.compile(r"^Caused by: ", re.MULTILINE)
QUOTED = re.compile(r"""(?<!\w)(?:[A-Za-z]|_\w+)?'(?:(?:\\.|[^\\])*?'(?!\w)|.*$)|"(?:[^"\\]|\\.)*(?:"|$)|`[^`]*(?:`|$)""")
"""A literal, perhaps with a prefix (`X'00'`). An apostrophe inside a word (`can't`) opens none, and what is not closed ends
with the text."""
UNQUOTED = (
    (re.compile(r"\bvalue .* (\(an? [\w.$]+\))", re.IGNORECASE | re.DOTALL), r"value … \1"),
    (re.compile(r"\bNot in union .*", re.DOTALL), "Not in union …"),
    (re.compile(r"\bNot an enum: .* (for schema\b)", re.DOTALL), r"Not an enum: … \1"),
    (re.compile(r"\bInvalid value .* (for configuration\b)", re.DOTALL), r"Invalid value … \1"),
)
"""Where Avro's writer puts the datum, or Kafka a setting's (resolved) value, into the message without quotes."""
KEY_VALUE = re.compile(r"\((?P<columns>[\w, ]{1,200})\)=\((?:[^)]*)\)")
CAUSE_LENGTH_MAX = 300


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task. `cause` is the first cause of its failure, without any value; None when it has not failed."""

    id: int
    state: str
    worker: str
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectorState:
    """A connector and its tasks. The connector stays RUNNING when its task has failed: look at the tasks."""

    name: str
    state: str
    worker: str
    cause: str | None
    tasks: tuple[TaskState, ...]

    @property
    def running(self) -> bool:
        return self.state == "RUNNING" and bool(self.tasks) and all(task.state == "RUNNING" for task in self.tasks)

    @property
    def failure(self) -> str | None:
        """The first cause of the first failure, of the connector or of a task."""
        if self.state == "FAILED":
            return self.cause or "unknown cause: see the log of Connect"
        failed = (task for task in self.tasks if task.state == "FAILED")
        return next((f"task {task.id}: {task.cause or 'unknown cause: see the log of Connect'}" for task in failed), None)


class ConnectClient:
    """A client for one Connect cluster. Every call may be repeated. A context manager, closes its connections.

    Raises:
        TransientError: Connect is not reachable, or kept rebalancing for 30 s.
        ConfigError: Connect refuses a configuration (the message names options, never values).
        ChronicleError: anything else that Connect answers.
    """

    def __init__(self, settings: Connect) -> None:
        auth = (settings.username or "", settings.password.get_secret_value() if settings.password else "")
        self._http = httpx.Client(
            base_url=settings.url.rstrip("/"),
            auth=auth if settings.username else None,
            timeout=httpx.Timeout(TIMEOUT_S, connect=5),
        )
        self.url = settings.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def names(self) -> list[str]:
        """Names of all connectors, also of those that are not Chronicle's."""
        return sorted(self._call("GET", "/connectors"))

    def plugins(self) -> dict[str, str]:
        """Connector class → version, of those that are installed."""
        return {plugin["class"]: str(plugin.get("version")) for plugin in self._call("GET", "/connector-plugins")}

    def config(self, name: str) -> dict[str, str] | None:
        """The configuration as it was put, references unresolved; None when there is no such connector."""
        config = self._call("GET", f"/connectors/{quote(name)}/config", missing=None)
        return None if config is None else {str(option): str(value) for option, value in config.items()}

    def put(self, name: str, config: Mapping[str, str]) -> None:
        """Create the connector, or replace its configuration."""
        self._call("PUT", f"/connectors/{quote(name)}/config", json={**config, "name": name})

    def validate(self, name: str, config: Mapping[str, str]) -> list[tuple[str, str]]:
        """Connect's own opinion, the connection to the database included: (option, what is wrong with it)."""
        answer = self._call(
            "PUT", f"/connector-plugins/{quote(config['connector.class'])}/config/validate", json={**config, "name": name}
        )
        # Converters and transforms that Connect cannot load have a null here, and an error at their own option.
        values = [entry["value"] for entry in answer["configs"] if entry["value"] is not None]
        return [(value["name"], safe(problem)) for value in values for problem in value["errors"]]

    def state(self, name: str) -> ConnectorState | None:
        """The connector and its tasks now; None when there is no such connector."""
        answer = self._call("GET", f"/connectors/{quote(name)}/status", missing=None)
        if answer is None:
            return None
        connector = answer["connector"]
        return ConnectorState(
            name,
            connector["state"],
            connector.get("worker_id", ""),
            first_cause(connector.get("trace")),
            tuple(
                TaskState(task["id"], task["state"], task.get("worker_id", ""), first_cause(task.get("trace")))
                for task in answer["tasks"]
            ),
        )

    def offsets(self, name: str) -> dict[str, Any] | None:
        """The stored position, in Debezium's words; None when nothing is stored yet."""
        answer = self._call("GET", f"/connectors/{quote(name)}/offsets", missing={"offsets": []})
        return next((dict(entry["offset"]) for entry in answer["offsets"] if entry.get("offset")), None)

    def empty_position(self, name: str) -> bool:
        """Whether Connect has stored that there is no position.

        Debezium's first notification says so before it knows one, and its binlog connectors then refuse to start.
        """
        answer = self._call("GET", f"/connectors/{quote(name)}/offsets", missing={"offsets": []})
        return bool(answer["offsets"]) and not any(entry.get("offset") for entry in answer["offsets"])

    def forget_offsets(self, name: str) -> None:
        """Forget the stored position. The connector must be stopped."""
        self._call("DELETE", f"/connectors/{quote(name)}/offsets")

    def order(self, name: str, order: Literal["pause", "resume", "stop"]) -> None:
        """Ask for a state; it is reached a little later."""
        self._call("PUT", f"/connectors/{quote(name)}/{order}")

    def restart(self, name: str) -> None:
        """Restart the connector and all its tasks."""
        self._call("POST", f"/connectors/{quote(name)}/restart", params={"includeTasks": "true", "onlyFailed": "false"})

    def delete(self, name: str) -> None:
        """Remove the connector; nothing happens when there is none. Its stored position stays."""
        self._call("DELETE", f"/connectors/{quote(name)}", missing=None)

    def _call(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, str] | None = None, missing: Any = ...
    ) -> Any:
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                answer = self._http.request(method, path, json=json, params=params)
            except httpx.HTTPError as error:
                raise TransientError(
                    f"start Kafka Connect, or correct connect.url ({self.url}): not reachable ({type(error).__name__})"
                ) from None
            if answer.status_code == httpx.codes.CONFLICT and time.monotonic() < deadline:
                time.sleep(BUSY_INTERVAL_S)
                continue
            break
        if answer.status_code == httpx.codes.NOT_FOUND and missing is not ...:
            return missing
        if answer.is_success:
            return answer.json() if answer.content else None
        raise self._error(method, path, answer)

    def _error(self, method: str, path: str, answer: httpx.Response) -> ChronicleError:
        try:
            message = safe(str(answer.json().get("message", "")))
        except ValueError:
            message = ""
        if answer.status_code == httpx.codes.CONFLICT:
            return TransientError(f"try again in a minute: Connect at {self.url} is rebalancing ({message})")
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            return ConfigError(f"set connect.username and connect.password: {self.url} wants to know who asks")
        if answer.status_code == httpx.codes.BAD_REQUEST:
            return ConfigError(f"Connect refuses {path}: {message}")
        return ChronicleError(f"Connect answers {answer.status_code} to {method} {path}: {message}")


def first_cause(trace: str | None) -> str | None:
    """The root of a Java stack trace: class and message, values taken out. None when there is no trace."""
    if not trace:
        return None
    root = CAUSE.split(trace)[-1]
    # A message may go on over several lines; only the first is kept: databases put values into the others.
    head = _without_bare_data(root.split("\n\tat ", 1)[0]).splitlines()[0]
    name, colon, message = head.partition(":")
    short = name.strip().rsplit(".", 1)[-1]
    return f"{short}: {safe(message.strip())}" if colon else short


def safe(message: str) -> str:
    """An error text of a Java program without values: literals, `(column)=(value)` pairs and Avro's bare data are cut out."""
    text = KEY_VALUE.sub(r"(\g<columns>)=(…)", _without_bare_data(message))
    text = QUOTED.sub("…", text)
    text = " ".join(text.split())
    return text if len(text) <= CAUSE_LENGTH_MAX else text[: CAUSE_LENGTH_MAX - 1] + "…"


def _without_bare_data(message: str) -> str:
    for pattern, shown in UNQUOTED:
        message = pattern.sub(shown, message)
    return message
