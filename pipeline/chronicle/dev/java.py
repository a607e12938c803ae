"""The Java parts: the broker (KRaft, one node), Apicurio Registry, and Kafka Connect with Debezium."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import uuid
from base64 import urlsafe_b64encode
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import httpx

from chronicle.dev.fetch import artifact
from chronicle.dev.parts import NotHealthyYet, Part, base_environment, write_if_changed
from chronicle.dev.ports import Ports
from chronicle.dev.processes import Command
from chronicle.errors import StackError

JAVA_MINIMUM = 17
RECORD_BYTES_MAX = 10 * 1024 * 1024
SECRET_PREFIX = "CHRONICLE_SECRET_"  # noqa: S105 - the start of a name
SECRET_PATTERN = rf"^(SHOP|HIRING|MYSQL)_DB_(HOST|PORT|USER|PASSWORD)$|^{SECRET_PREFIX}[A-Z0-9_]+$"
"""Environment variables that a connector's `${env:NAME}` may name."""

# Small heaps and the serial collector: the whole stack shares a laptop with an IDE. A JVM that is out of memory must die,
# because a broker that limps on is neither up nor reported.
_JVM = (
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xss512k",
    "-Djava.net.preferIPv4Stack=true",
    "-Djava.awt.headless=true",
)


@lru_cache(maxsize=1)
def java() -> str:
    """The Java to run: JAVA_HOME's, else the one on PATH.

    Raises:
        StackError: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home, "bin", "java")) if home and Path(home, "bin", "java").exists() else shutil.which("java")
    if program is None:
        raise StackError(
            f"install a JDK, version {JAVA_MINIMUM} or newer (Debian, Ubuntu: apt install openjdk-17-jdk-headless)"
        )
    shown = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', shown)
    if found is None or int(found[1]) < JAVA_MINIMUM:
        raise StackError(f"install a JDK, version {JAVA_MINIMUM} or newer, or point JAVA_HOME at it: {program} is older")
    return program


def _jvm_environment() -> dict[str, str]:
    # glibc's per-thread arenas would add a hundred MB to each JVM
    return {**base_environment(), "MALLOC_ARENA_MAX": "2"}


def _logging(directory: Path) -> str:
    write_if_changed(
        directory / "log4j2.properties",
        "rootLogger.level=WARN\n"
        "rootLogger.appenderRef.c.ref=c\n"
        "appender.c.type=Console\n"
        "appender.c.name=c\n"
        "appender.c.layout.type=PatternLayout\n"
        "appender.c.layout.pattern=%d{ISO8601} %p %c{2} %m%n\n"
        "# Debezium 3.6 and 3.7 flood the log with 'MeasurementCollector ... queue is full' (fact 42)\n"
        "logger.measurements.name=io.debezium.metrics.stats.MeasurementCollector\n"
        "logger.measurements.level=OFF\n",
    )
    return f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}"


def _http_ok(url: str) -> None:
    try:
        httpx.get(url, timeout=5.0, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise NotHealthyYet(f"{url} to answer ({type(error).__name__})") from None


class Kafka(Part):
    """Broker and controller in one process."""

    name: ClassVar[str] = "kafka"

    def artifacts(self) -> tuple[str, ...]:
        """Jars."""
        return ("runtime",)

    def prepare(self) -> None:
        """Write the configuration; format the log directory once."""
        broker, controller = self.site.ports.of("kafka")
        data = self.home / "data"
        write_if_changed(
            self.home / "server.properties",
            "process.roles=broker,controller\n"
            "node.id=1\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n"
            "controller.listener.names=CONTROLLER\n"
            f"log.dirs={data}\n"
            "offsets.topic.replication.factor=1\n"
            "transaction.state.log.replication.factor=1\n"
            "transaction.state.log.min.isr=1\n"
            "share.coordinator.state.topic.replication.factor=1\n"
            "share.coordinator.state.topic.min.isr=1\n"
            "group.initial.rebalance.delay.ms=0\n"
            "offsets.topic.num.partitions=4\n"
            "transaction.state.log.num.partitions=4\n"
            "auto.create.topics.enable=false\n"
            f"message.max.bytes={RECORD_BYTES_MAX}\n"
            f"replica.fetch.max.bytes={RECORD_BYTES_MAX}\n",
        )
        if (data / "meta.properties").exists():
            return
        cluster = "-"
        while cluster.startswith("-"):  # the tool would take it for an option
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = ("-XX:TieredStopAtLevel=1", _logging(self.home), "-cp", self._class_path(), "kafka.tools.StorageTool")
        formatted = subprocess.run(
            [java(), *_JVM, *tool, "format", "-t", cluster, "-c", str(self.home / "server.properties")],
            capture_output=True,
            text=True,
            check=False,
            env=_jvm_environment(),
        )
        if formatted.returncode != 0:
            raise StackError(f"read why the broker's directory {data} could not be formatted:\n{formatted.stderr[-2000:]}")

    def _class_path(self) -> str:
        return f"{artifact(self.cache, 'runtime')}/*"

    def command(self) -> Command:
        """`kafka.Kafka`, as the distribution's script runs it."""
        return Command(
            argv=(
                java(),
                "-Xms160m",
                "-Xmx448m",
                *_JVM,
                _logging(self.home),
                "-cp",
                self._class_path(),
                "kafka.Kafka",
                str(self.home / "server.properties"),
            ),
            environment=_jvm_environment(),
        )

    def check(self) -> None:
        """The broker answers a metadata request with itself in it."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:  # librdkafka writes to the log about a closed port, so knock first
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            client = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0, "socket.timeout.ms": 4000})
            brokers = client.list_topics(timeout=4).brokers
        except (OSError, KafkaException):
            brokers = {}
        if not brokers:
            raise NotHealthyYet("the broker to answer a metadata request")


class Registry(Part):
    """Apicurio Registry with its file database; speaks Confluent's API as well as its own."""

    name: ClassVar[str] = "registry"

    def artifacts(self) -> tuple[str, ...]:
        """Jars."""
        return ("plugins",)

    def prepare(self) -> None:
        """Its H2 database makes itself."""
        self.home.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        """The Quarkus runner."""
        settings = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": str(self.port),
            "quarkus.http.access-log.enabled": "false",
            "quarkus.log.level": "WARN",
            "apicurio.datasource.url": f"jdbc:h2:file:{self.home / 'apicurio'};WRITE_DELAY=0",
            "apicurio.ccompat.max-subjects": "100000",  # 1,000 otherwise: two a table, and no word about the rest
        }
        flags = [f"-D{name}={value}" for name, value in settings.items()]
        jar = artifact(self.cache, "plugins") / "registry" / "registry.jar"
        return Command(
            argv=(java(), "-Xmx256m", "-XX:TieredStopAtLevel=1", *_JVM, *flags, "-jar", str(jar)),
            environment={**_jvm_environment(), "APICURIO_STORAGE_SQL_KIND": "h2"},
        )

    def check(self) -> None:
        """It lists subjects."""
        _http_ok(f"http://127.0.0.1:{self.port}/apis/ccompat/v7/subjects")


class Connect(Part):
    """Kafka Connect, distributed mode with one worker."""

    name: ClassVar[str] = "connect"
    needs: ClassVar[tuple[str, ...]] = ("kafka",)

    def artifacts(self) -> tuple[str, ...]:
        """Jars."""
        return ("runtime", "plugins", "converter", "transforms")

    def prepare(self) -> None:
        """Write the worker's configuration."""
        plugins = ",".join(str(artifact(self.cache, name) / "connect") for name in ("plugins", "converter", "transforms"))
        write_if_changed(
            self.home / "connect.properties",
            f"bootstrap.servers=127.0.0.1:{self.site.ports.kafka}\n"
            "group.id=chronicle-connect\n"
            "config.storage.topic=connect-configs\n"
            "offset.storage.topic=connect-offsets\n"
            "status.storage.topic=connect-status\n"
            "config.storage.replication.factor=1\n"
            "offset.storage.replication.factor=1\n"
            "status.storage.replication.factor=1\n"
            "offset.storage.partitions=2\n"
            "status.storage.partitions=1\n"
            "offset.flush.interval.ms=5000\n"
            "key.converter=org.apache.kafka.connect.json.JsonConverter\n"
            "value.converter=org.apache.kafka.connect.json.JsonConverter\n"
            f"listeners=http://127.0.0.1:{self.port}\n"
            "rest.advertised.host.name=127.0.0.1\n"
            f"plugin.path={plugins}\n"
            # a hybrid scan takes 25 s and 870 MB; every plugin here has its service file
            "plugin.discovery=service_load\n"
            # costs 3 times the throughput and 5 times the latency, and identity makes redelivery harmless (fact 30)
            "exactly.once.source.support=disabled\n"
            "topic.creation.enable=true\n"
            f"producer.max.request.size={RECORD_BYTES_MAX}\n"
            "connector.client.config.override.policy=All\n"
            # a restarted worker is not made to wait for its dead predecessor's session
            "scheduled.rebalance.max.delay.ms=0\n"
            "session.timeout.ms=6000\n"
            "heartbeat.interval.ms=2000\n"
            "config.providers=env\n"
            "config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider\n"
            f"config.providers.env.param.allowlist.pattern={SECRET_PATTERN}\n",
        )

    def command(self) -> Command:
        """`ConnectDistributed`, with the secrets that connectors name in its environment."""
        secrets = {name: value for name, value in os.environ.items() if name.startswith(SECRET_PREFIX)}
        return Command(
            argv=(
                java(),
                "-Xms128m",
                "-Xmx640m",
                *_JVM,
                _logging(self.home),
                "-cp",
                f"{artifact(self.cache, 'runtime')}/*",
                "org.apache.kafka.connect.cli.ConnectDistributed",
                str(self.home / "connect.properties"),
            ),
            environment={**_jvm_environment(), **secrets, **source_environment(self.site.ports.base)},
        )

    def check(self) -> None:
        """The herder has joined its group, so that connectors can be made."""
        _http_ok(f"http://127.0.0.1:{self.port}/health")


def source_environment(port_base: int) -> dict[str, str]:
    """What `${env:NAME}` in the demo's connector files resolves to, for the stack at this port base."""
    ports = Ports(port_base)
    logins = {
        "SHOP": (ports.postgres, "postgres", "postgres"),
        "HIRING": (ports.mariadb, "chronicle", "chronicle"),
        "MYSQL": (ports.mysql, "chronicle", "chronicle"),
    }
    resolved: dict[str, str] = {}
    for source, (port, user, password) in logins.items():
        resolved |= {
            f"{source}_DB_HOST": "127.0.0.1",
            f"{source}_DB_PORT": str(port),
            f"{source}_DB_USER": user,
            f"{source}_DB_PASSWORD": password,
        }
    return resolved
