"""The local stack that all tests of real components share: one per session, never the user's own."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from chronicle.config import Settings
from chronicle.dev.stack import DEFAULT_PARTS, Progress, Stack
from tests.own_settings import own_settings, remove

DEFAULT_PORT_BASE = 28500
# The judge repeats the same examples, so that a red run is red again; everyone else's runs look for new ones.
# No deadline in either: how long an example takes says how busy the machine is.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("everywhere", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "everywhere")

os.environ.setdefault("CHRONICLE_POLICY_FILE", str(Path(__file__).parent / "data" / "clear.policy.toml"))
"""Tests of other things than the policy see everything; those of the policy name their own."""

REAL = ("stack", "sinks", "faults", "acceptance")
"""Folders whose tests run against real services."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A failed test against real services runs once more, and the summary says so.

    Eight servers on two cores miss a deadline now and then. A lost or doubled change cannot pass by repetition: the checker
    looks at everything since its module began.
    """
    for item in items:
        if Path(item.fspath).relative_to(Path(__file__).parent).parts[0] in REAL:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[Stack]:
    """A running stack.

    `CHRONICLE_TEST_STACK` names the directory of one that is up already and is left so (for quick development);
    otherwise one of the tests' own is brought up (`CHRONICLE_TEST_DIR`, `CHRONICLE_TEST_PORT_BASE`) and deleted at the end.
    The part `mysql` is not started: a test that needs it calls `stack.start("mysql")`.
    """
    existing = os.environ.get("CHRONICLE_TEST_STACK")
    if existing:
        shared = Stack(Path(existing))
        down = [part.part for part in shared.status() if part.part in DEFAULT_PARTS and part.state != "running"]
        if down:
            pytest.exit(f"start {', '.join(down)} of CHRONICLE_TEST_STACK={existing} first, or unset it", returncode=2)
        yield shared
        return
    base = int(os.environ.get("CHRONICLE_TEST_PORT_BASE", str(DEFAULT_PORT_BASE)))
    directory = Path(
        os.environ.get("CHRONICLE_TEST_DIR") or Path(tempfile.gettempdir(), f"chronicle-test-{os.getuid()}-{base}")
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    # the name is fixed, so that a session finds and removes what a killed one left; the lock keeps a running one's
    with directory.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.exit(f"set CHRONICLE_TEST_PORT_BASE: another test session uses the ports from {base} on", returncode=2)
        own = Stack(directory, base)
        own.reset()
        reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")

        def show(progress: Progress) -> None:
            if reporter is not None and progress.step in ("fetching", "ready", "failed"):
                reporter.write_line(f"stack: {progress.part} {progress.step} {progress.elapsed_s:.1f} s {progress.detail}")

        try:
            own.up(report=show)
            yield own
        finally:
            own.reset()


@pytest.fixture
def unique() -> str:
    """A name no other test has: valid at the start of a Postgres, MariaDB, Kafka or ClickHouse name; ten characters."""
    return f"t{secrets.token_hex(4)}x"


@pytest.fixture
def settings(stack: Stack, unique: str, tmp_path: Path) -> Iterator[Settings]:
    """Names of the test's own on the stack. Nothing is made (`setup.run` does that); what was made is gone afterwards."""
    found = own_settings(stack, unique, tmp_path)
    yield found
    remove(found)
