"""The local stack itself: it comes up, tells when a part dies, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pymysql
import pytest

from chronicle.dev import processes
from chronicle.dev.stack import PartStatus, Progress, Stack
from chronicle.errors import ConfigError, StackError

pytestmark = pytest.mark.stack

BASE = int(os.environ.get("CHRONICLE_TEST_PORT_BASE", "28500")) + 20


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of one test's own, not started; gone afterwards whatever happened."""
    made = Stack(tmp_path_factory.mktemp("stack") / "state", BASE)
    yield made
    made.reset()


def state(stack: Stack, part: str) -> PartStatus:
    return next(one for one in stack.status() if one.part == part)


def of_stack(stack: Stack) -> list[str]:
    """Command lines of every process that carries the stack's mark or works in its directories."""
    return [
        Path(f"/proc/{one.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for name in ("kafka", "registry", "connect", "postgres", "mariadb", "clickhouse", "mysql")
        for one in processes.members(stack.part(name).owner, None)
        if processes.is_running(one)
    ]


def chronicle_dev(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "chronicle.cli.dev", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return done


def test_every_part_of_the_stack_is_healthy_and_small(stack: Stack) -> None:
    """All default parts run, each answers, and together they stay under 2 GiB."""
    parts = {one.part: one for one in stack.status()}
    assert {name for name, one in parts.items() if one.health == "ok"} >= {
        "kafka", "registry", "connect", "postgres", "mariadb", "clickhouse",
    }  # fmt: skip
    assert sum(one.memory_bytes for one in parts.values()) < 2 * 2**30


def test_connect_sees_every_plugin(stack: Stack) -> None:
    """The quick discovery finds the connectors, the transforms and the Avro converter."""
    plugins = httpx.get(f"{stack.connect_url}/connector-plugins?connectorsOnly=false").json()
    assert {plugin["class"] for plugin in plugins} >= {
        "io.debezium.connector.postgresql.PostgresConnector",
        "io.debezium.connector.mysql.MySqlConnector",
        "io.debezium.connector.mariadb.MariaDbConnector",
        "io.chronicle.connect.KeepNulls",
        "io.chronicle.connect.KeepComment",
        "io.chronicle.connect.KeepInserts",
        "io.debezium.transforms.outbox.EventRouter",
        "io.apicurio.registry.utils.converter.AvroConverter",
    }


def test_connect_resolves_the_environment_but_only_what_is_meant_for_connectors(stack: Stack) -> None:
    """`${env:…}` gives a source's variables, and does not reach the rest of the environment."""
    config = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "topic.prefix": "probe",
        "database.hostname": "${env:SHOP_DB_HOST}",
        "database.port": "${env:SHOP_DB_PORT}",
        "database.user": "${env:SHOP_DB_USER}",
        "database.password": "${env:SHOP_DB_PASSWORD}",
        "database.dbname": "postgres",
    }
    plugin = f"{stack.connect_url}/connector-plugins/PostgresConnector/config/validate"
    good = httpx.put(plugin, json={"name": "probe", **config}, timeout=60)
    assert good.status_code == 200
    assert good.json()["error_count"] == 0
    bad = httpx.put(plugin, json={"name": "probe", **config, "database.hostname": "${env:PATH}"}, timeout=60)
    assert os.environ["PATH"] not in bad.text
    assert bad.status_code != 200 or bad.json()["error_count"] > 0


def test_the_databases_are_set_for_change_capture(stack: Stack) -> None:
    """Logical decoding, a complete row-based binlog, UTC, and no anonymous users."""
    with psycopg.connect(stack.postgres_dsn()) as postgres:
        row = postgres.execute("SELECT current_setting('wal_level'), current_setting('timezone')").fetchone()
        assert row == ("logical", "UTC")
    with pymysql.connect(**stack.mariadb_params()) as mariadb, mariadb.cursor() as cursor:
        cursor.execute("SELECT @@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata, @@gtid_strict_mode")
        assert cursor.fetchone() == (1, "ROW", "FULL", "FULL", 1)
        cursor.execute("SELECT count(*) FROM mysql.user WHERE User = ''")
        assert cursor.fetchone() == (0,)


def test_the_reader_of_clickhouse_cannot_write(stack: Stack) -> None:
    """`chronicle_reader` may select, and neither write nor lift its own limits."""

    def ask(query: str) -> httpx.Response:
        return httpx.post(stack.clickhouse_url, params={"user": "chronicle_reader"}, content=query)

    assert ask("SELECT 1").text == "1\n"
    assert "READONLY" in ask("CREATE TABLE t (a Int8) ENGINE = Memory").text
    assert "READONLY" in ask("SET max_memory_usage = 0").text


def test_clickhouse_logs_its_queries_after_a_kill_too(own: Stack) -> None:
    """Who looks into `system.query_log` finds what was asked since the start, the first one or any other."""

    def ask(query: str) -> str:
        return httpx.post(own.clickhouse_url, content=query).text

    for _ in range(2):
        own.up(["clickhouse"])
        ask("SELECT 'asked'")
        ask("SYSTEM FLUSH LOGS")
        assert int(ask("SELECT count() FROM system.query_log WHERE query = 'SELECT \\'asked\\''")) > 0
        own.kill("clickhouse")


def test_a_server_that_says_it_is_mysql_starts_when_asked_for(own: Stack) -> None:
    """The part for the MySQL connector's tests names a version that the connector accepts."""
    own.up(["mysql"])
    login = {**own.mariadb_params(), "port": own.ports.mysql}
    with pymysql.connect(**login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version()")
        assert cursor.fetchone() == ("5.7.10-log",)


def test_two_stacks_run_side_by_side_and_share_nothing(own: Stack, tmp_path: Path) -> None:
    """The same part twice: two processes, two ports, two sets of data; stopping one leaves the other."""
    other = Stack(tmp_path / "other", BASE + 10)
    try:
        threads = [threading.Thread(target=one.up, args=(["clickhouse", "postgres"],)) for one in (own, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with psycopg.connect(own.postgres_dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE only_here (id int)")
        with psycopg.connect(other.postgres_dsn()) as connection:
            assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
        own.down()
        assert of_stack(own) == []
        assert state(other, "postgres").state == "running"
        assert state(other, "clickhouse").state == "running"
    finally:
        other.reset()


def test_a_killed_part_is_reported_and_starts_again_with_its_data(own: Stack) -> None:
    """SIGKILL shows as `died`, not as stopped; a start brings it back, what was committed included."""
    own.up(["postgres", "mariadb", "clickhouse"])
    with psycopg.connect(own.postgres_dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    for part in ("postgres", "mariadb", "clickhouse"):
        before = state(own, part).pid
        own.kill(part)
        assert state(own, part).state == "died"
        own.start(part)
        assert state(own, part).state == "running"
        assert state(own, part).pid != before
    with psycopg.connect(own.postgres_dsn()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_part_that_dies_at_its_start_is_reported_with_the_end_of_its_log(own: Stack) -> None:
    """The error names the part, its log, and the server's own reason."""
    own.up(["postgres"])
    own.down()
    version = own.part("postgres").home / "data" / "global" / "pg_control"
    version.write_bytes(b"not a control file")
    with pytest.raises(StackError, match=r"(?s)postgres died.*postgres\.log.*(FATAL|PANIC)"):
        own.up(["postgres"])


def test_up_may_be_repeated(own: Stack) -> None:
    """A second `up` starts nothing and says so."""
    own.up(["clickhouse"])
    first = state(own, "clickhouse").pid
    steps: list[Progress] = []
    own.up(["clickhouse"], steps.append)
    assert state(own, "clickhouse").pid == first
    assert [(one.part, one.step) for one in steps] == [("clickhouse", "running")]


def test_an_up_that_was_killed_leaves_nothing_after_down(own: Stack) -> None:
    """Whenever `up` dies, `down` finds every process, even one whose pid file is gone."""
    run = [sys.executable, "-m", "chronicle.cli.dev", "up", "--dir", str(own.directory), "--port-base", str(BASE)]
    up = subprocess.Popen([*run, "--only", "kafka,postgres,clickhouse"], stderr=subprocess.DEVNULL)
    assert processes.wait_until(lambda: own.site.pid_file("clickhouse").exists(), 120)
    up.send_signal(signal.SIGKILL)
    up.wait()
    own.site.pid_file("clickhouse").unlink()
    assert of_stack(own) != []
    own.down()
    assert of_stack(own) == []


def test_a_taken_port_is_named_before_anything_starts(own: Stack) -> None:
    """The message has the port, the part, and the option to change; exit code 2."""
    with socket.create_server(("127.0.0.1", own.ports.clickhouse)):
        with pytest.raises(ConfigError, match=rf"--port-base.*{own.ports.clickhouse} \(clickhouse\)"):
            own.up(["clickhouse", "postgres"])
        chronicle_dev("up", "--dir", str(own.directory), "--port-base", str(BASE), "--only", "clickhouse", expect=2)
    assert of_stack(own) == []


def test_the_command_line_goes_through_a_whole_life(own: Stack) -> None:
    """up, status, logs, down and reset by the commands; the port base is remembered, JSON goes to stdout alone."""
    at = ("--dir", str(own.directory))
    shown = chronicle_dev("up", *at, "--port-base", str(BASE), "--only", "clickhouse", "--json")
    assert json.loads(shown.stdout)["clickhouse"] == own.clickhouse_url
    assert "ready" in shown.stderr
    assert f'url = "{own.clickhouse_url}"' in own.settings_file.read_text()
    parts = {one["part"]: one for one in json.loads(chronicle_dev("status", *at, "--json").stdout)}
    assert parts["clickhouse"]["state"] == "running"
    assert parts["clickhouse"]["port"] == own.ports.clickhouse
    assert parts["kafka"]["state"] == "stopped"
    own.kill("clickhouse")
    died = chronicle_dev("status", *at, expect=1)
    assert "clickhouse died" in died.stderr
    chronicle_dev("logs", "clickhouse", *at, "-n", "5")
    chronicle_dev("down", *at)
    assert own.directory.exists()
    chronicle_dev("reset", *at, "--yes")
    assert not own.directory.exists()


def test_a_directory_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    """`reset` deletes a state directory, so somebody's project never becomes one."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="--dir"):
        Stack(tmp_path, BASE).up(["clickhouse"])
    Stack(tmp_path, BASE).reset()
    assert (tmp_path / "thesis.tex").exists()
