"""Which port each part of a local stack listens on, and whether it is free."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from chronicle.errors import ConfigError

DEFAULT_BASE = 28000
SPAN = 10
"""Ports a stack may take, from its base on."""


@dataclass(frozen=True)
class Ports:
    """The port range of one stack; two stacks side by side need bases at least `SPAN` apart."""

    base: int

    def __post_init__(self) -> None:
        if not 1024 <= self.base <= 65535 - SPAN:
            raise ConfigError(f"choose a --port-base between 1024 and {65535 - SPAN}: {self.base} is out of range")

    @property
    def kafka(self) -> int:
        """The broker's client listener."""
        return self.base

    @property
    def controller(self) -> int:
        """The KRaft controller's listener, in the same process as the broker."""
        return self.base + 1

    @property
    def registry(self) -> int:
        """Apicurio Registry's HTTP."""
        return self.base + 2

    @property
    def connect(self) -> int:
        """Kafka Connect's REST interface."""
        return self.base + 3

    @property
    def postgres(self) -> int:
        """Postgres, TCP on loopback only."""
        return self.base + 4

    @property
    def mariadb(self) -> int:
        """MariaDB, TCP on loopback only."""
        return self.base + 5

    @property
    def clickhouse(self) -> int:
        """ClickHouse's HTTP."""
        return self.base + 6

    @property
    def worker(self) -> int:
        """The worker's own HTTP: health and metrics."""
        return self.base + 7

    @property
    def mysql(self) -> int:
        """A MariaDB server that names itself MySQL 5.7, for the MySQL connector."""
        return self.base + 8

    @property
    def api(self) -> int:
        """`chronicle api`, which a person starts: no part of the stack."""
        return self.base + 9

    def of(self, part: str) -> tuple[int, ...]:
        """Every port that a part listens on, its main one first."""
        return (self.kafka, self.controller) if part == "kafka" else (int(getattr(self, part)),)


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection's TIME_WAIT is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(ports: Ports, parts: Iterable[str]) -> None:
    """Check the ports of parts that are about to start.

    Raises:
        ConfigError: names every port that something else holds, and what to change.
    """
    taken = [f"{port} ({part})" for part in parts for port in ports.of(part) if not is_free(port)]
    if taken:
        raise ConfigError(
            f"choose another --port-base (now {ports.base}), or end what listens there: port {', '.join(taken)} is taken"
        )
