"""For an application's tests: `journaled` has every event that is published while a test runs; no broker, nothing is sent.

    def test_a_login_is_journaled(client, journaled):
        client.post("/login", …)
        assert journaled.including(type="auth.login", actor="ann", payload={"method": "passkey"})
        assert journaled.not_including(type="security.**", outcome="failure")
        assert journaled.count(type="http.**") == 2

Whatever `Journal` of the process publishes, in whatever thread, and what goes into a transaction's outbox (whether that commits
is not looked at; nothing is written to the database). Where the application makes its journal without a transport, name one for
tests in pytest's settings: `journal_transport = memory://`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from chronicle.journal.journaled import Journaled


def pytest_addoption(parser: pytest.Parser) -> None:
    """The setting."""
    parser.addini("journal_transport", "CHRONICLE_JOURNAL_TRANSPORT in tests, where the environment names none: memory://")


def pytest_configure(config: pytest.Config) -> None:
    """Before the application is imported."""
    transport = config.getini("journal_transport")
    if transport:
        os.environ.setdefault("CHRONICLE_JOURNAL_TRANSPORT", transport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test that uses `journaled` shows what was published."""
    report = yield
    if report.when == "call" and report.failed:
        found = getattr(item, "funcargs", {}).get("journaled")
        if found is not None and hasattr(found, "report"):
            report.sections.append(("journaled", found.report))
    return report


@pytest.fixture
def journaled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Journaled]:
    """The events that are published in this test."""
    from chronicle.journal.journaled import Journaled, recording

    found = Journaled()
    recording(found, monkeypatch.setattr)
    yield found
    found.close()
