"""Ports, accounts and cache entries of the local stack: the parts that need no process."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from chronicle.dev import fetch
from chronicle.dev.accounts import Account, database_home
from chronicle.dev.java import SECRET_PATTERN, source_environment
from chronicle.dev.ports import SPAN, Ports, is_free, require_free
from chronicle.dev.stack import PARTS, Stack
from chronicle.errors import ConfigError, StackError


def test_no_two_parts_share_a_port_and_all_are_in_the_range() -> None:
    """A stack takes exactly its span, its API's port included, so the next one can start right after it."""
    ports = Ports(28000)
    taken = [*(port for part in PARTS for port in ports.of(part)), ports.api]
    assert sorted(taken) == list(range(28000, 28000 + SPAN))


@pytest.mark.parametrize("base", [0, 1023, 65535, -1])
def test_a_base_out_of_range_is_refused(base: int) -> None:
    """Privileged ports and a range that does not fit."""
    with pytest.raises(ConfigError, match="--port-base"):
        Ports(base)


def test_a_taken_port_is_named_with_its_part() -> None:
    """Whoever reads the message knows what to look for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        base = server.getsockname()[1] - 6
        assert not is_free(base + 6)
        with pytest.raises(ConfigError, match=rf"{base + 6} \(clickhouse\)"):
            require_free(Ports(base), ["clickhouse"])


def test_a_port_whose_server_is_gone_is_free() -> None:
    """Connections in TIME_WAIT do not hold it."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    accepted, _ = server.accept()
    accepted.close()
    client.close()
    server.close()
    assert is_free(port)


def test_a_database_goes_elsewhere_when_its_account_cannot_reach_the_state_directory(tmp_path: Path) -> None:
    """Below a directory of mode 0700 (as /root is) the files go to /var/lib, one place per stack."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    stranger = Account("stranger", os.getuid() + 4242, os.getgid() + 4242)
    assert not stranger.can_traverse(private / "state")
    homes = {database_home(private / name, "postgres", stranger) for name in ("one", "two")}
    assert len(homes) == 2
    assert all(home.is_relative_to("/var/lib/chronicle-dev") for home in homes)
    assert database_home(private / "one", "postgres", None) == private / "one" / "postgres"


def test_every_variable_of_the_sources_may_be_named_by_a_connector_and_others_may_not() -> None:
    """The allowlist of Connect's config provider."""
    import re

    names = [*source_environment(28000), "CHRONICLE_SECRET_CRM"]
    assert all(re.fullmatch(SECRET_PATTERN, name) for name in names)
    assert not any(re.fullmatch(SECRET_PATTERN, name) for name in ("PATH", "HOME", "AWS_SECRET_ACCESS_KEY", "XSHOP_DB_HOST"))


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """A typing error in --only does not start half a stack."""
    with pytest.raises(ConfigError, match=r"kafka, registry.*'clickhose'"):
        Stack(tmp_path / "s").up(["clickhose"])
    assert not (tmp_path / "s").exists()


def test_an_artifact_is_made_once_however_many_ask_and_never_seen_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stacks that fetch at the same time: one makes, the other waits; a maker that fails leaves nothing."""
    made: list[str] = []
    seen_half: list[bool] = []
    target = fetch.artifact(tmp_path, "runtime")

    def maker(directory: Path, _temporary: Path, _report: fetch.Report) -> None:
        if not made:
            made.append("failed")
            (directory / "half").touch()
            raise StackError("network")
        made.append("made")
        seen_half.append(target.exists())
        (directory / "jar").touch()

    monkeypatch.setitem(fetch._MAKERS, "runtime", maker)
    with pytest.raises(StackError):
        fetch.fetch(tmp_path, ["runtime"], lambda _name, _detail: None)
    assert not target.exists()
    threads = [threading.Thread(target=fetch.fetch, args=(tmp_path, ["runtime"], lambda _n, _d: None)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["failed", "made"]
    assert seen_half == [False]
    assert [path.name for path in target.iterdir()] == ["jar"]


def test_a_changed_pom_is_another_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache entry's name follows from the content."""
    pom = tmp_path / "deploy" / "local" / "runtime" / "pom.xml"
    pom.parent.mkdir(parents=True)
    monkeypatch.setattr(fetch, "CHECKOUT", tmp_path)
    pom.write_text("<project/>")
    first = fetch.artifact(tmp_path, "runtime")
    pom.write_text("<project>4.3.2</project>")
    assert fetch.artifact(tmp_path, "runtime") != first
