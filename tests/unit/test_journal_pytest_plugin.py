"""The fixture `journaled`: what is published is found, what is not is told so that one sees why, and nothing is sent."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Sequence
from datetime import date
from importlib.metadata import entry_points
from typing import Any

import pytest

from chronicle import Actor
from chronicle.errors import TransientError
from chronicle.events.types import payload_of
from chronicle.journal import Journal, tagged
from chronicle.journal.journaled import ANY, Journaled, recording
from chronicle.journal.outgoing import Outgoing

pytest_plugins = ["pytester"]
INSTALLED = any(one.value == "chronicle.journal.pytest_plugin" for one in entry_points(group="pytest11"))
ASKED = ("-p", "no:cacheprovider") if INSTALLED else ("-p", "no:cacheprovider", "-p", "chronicle.journal.pytest_plugin")
"""An environment made before the package had the entry point loads the plugin by name; with it, twice would be refused."""


class Unreachable:
    """A transport that must not be asked."""

    name = "unreachable"
    durable = True

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        raise TransientError(f"{len(batch)} events were sent")

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def journal() -> Journal:
    return Journal(source="shop", transport=Unreachable(), close_timeout_s=0.01)


@pytest.fixture
def journaled(monkeypatch: pytest.MonkeyPatch) -> Journaled:
    found = Journaled()
    recording(found, monkeypatch.setattr)
    return found


def test_each_field_counts(journal: Journal, journaled: Journaled) -> None:
    """Type by pattern, actor, resource, outcome, priority, topic, partition key, key, and what is nested."""
    journal.publish(
        "auth.login",
        actor=Actor("ann", "user"),
        resource=("user", 7),
        outcome="success",
        payload={"method": "passkey", "deep": {"list": [1, {"a": "b"}]}, "at": date(2026, 2, 1)},
        tags={"region": "eu"},
        topic="chronicle.events.auth",
        partition_key="k",
        priority="high",
    )
    fits: tuple[dict[str, Any], ...] = (
        *({"type": "auth.login"}, {"type": "auth.*"}, {"type": "**"}, {"actor": "ann"}, {"actor": Actor("ann")}),
        *(
            {"actor": {"type": "user"}},
            {"actor_id": "ann"},
            {"resource": ("user", 7)},
            {"resource": "user"},
            {"resource_id": 7},
        ),
        *(
            {"outcome": "success"},
            {"payload": {}},
            {"payload": {"method": "passkey"}},
            {"payload": {"deep": {"list": [1, ANY]}}},
        ),
        *({"payload": {"at": date(2026, 2, 1)}}, {"payload": {"method": lambda word: word.startswith("pass")}}),
        *({"tags": {"region": "eu"}}, {"topic": "chronicle.events.auth"}, {"partition_key": "k"}, {"key": "k"}),
        *(
            {"priority": "high"},
            {"source": "shop"},
            {"id": ANY},
            {"tenant": None},
            {"type": "auth.*", "actor": "ann", "key": "k"},
        ),
    )
    for wanted in fits:
        assert journaled.including(**wanted), wanted
        assert not journaled.not_including(**wanted), wanted
        assert journaled.count(**wanted) == 1
    differs: tuple[dict[str, Any], ...] = (
        *({"type": "auth"}, {"type": "login"}, {"actor": "bob"}, {"actor": Actor("ann", "service")}, {"actor": {"name": ANY}}),
        *(
            {"resource": ("user", 8)},
            {"resource": "order"},
            {"payload": {"method": "password"}},
            {"payload": {"missing": None}},
        ),
        *({"payload": {"deep": {"list": [1]}}}, {"payload": {"deep": {"list": [1, {"a": "c"}]}}}, {"tenant": ANY}),
        *({"payload": {"method": lambda word: word == "x"}}, {"topic": None}, {"priority": "normal"}, {"key": "user:7"}),
        *({"type": "auth.*", "actor": "bob"}, {"tags": {"region": "us"}}),
    )
    for wanted in differs:
        assert not journaled.including(**wanted), wanted
        assert journaled.not_including(**wanted), wanted
        assert journaled.count(**wanted) == 0


@pytest.mark.parametrize(
    ("said", "asked"), [(1, True), (True, 1), (0, False), ("1", 1.0), (None, False), ("", None), ([], None)]
)
def test_values_that_only_look_alike_are_not_the_same(journal: Journal, journaled: Journaled, said: Any, asked: Any) -> None:
    """Numbers are no truth values, nothing is not empty."""
    journal.publish("t.e", payload={"x": said})
    assert not journaled.including(payload={"x": asked})


def test_everything_that_publishes_is_heard(journal: Journal, journaled: Journaled) -> None:
    """Any journal, any way to publish, a payload of the catalogue, a context around it; receipts are confirmed."""
    import asyncio

    assert journal.publish_sync("a.sync").disposition == "confirmed"
    assert journal.publish(payload_of("auth.login")(method="passkey"), timeout=0.0).disposition == "confirmed"
    asyncio.run(journal.apublish("a.async", timeout=0.0))
    asyncio.run(journal.apublish_sync("a.async"))
    with tagged(request_id="r-1", order=7), Journal(source="other", transport="memory://") as other:
        other.publish("b.other")
    assert journaled.count(type="a.*") == 3
    assert journaled.including(type="auth.login", resource="auth", action="login", payload={"method": "passkey"})
    assert journaled.including(source="other", request_id="r-1", tags={"order": 7})
    assert len(journaled) == 5


def test_hooks_and_history_go_on(journal: Journal, journaled: Journaled) -> None:
    """What an application hangs on its journal is tested with it."""
    hooked: list[str] = []
    journal.on_enqueue(lambda event: hooked.append(event.type))
    journal.publish("t.e")
    assert hooked == ["t.e"]
    assert [event.type for event in journal.history(access="test")] == ["t.e"]
    assert journal.counts["confirmed"] == 2  # reading is an event too
    assert journaled.including(type="chronicle.history.read")


def test_events_of_a_transaction_are_heard(journal: Journal, journaled: Journaled) -> None:
    """Without a database, and marked."""
    transaction = journal.in_transaction(object())
    transaction.publish("order.paid", resource=("order", 7), topic="chronicle.events.orders")
    assert journaled.including(type="order.paid", topic="chronicle.events.orders", key="order:7")
    assert [one.in_transaction for one in journaled] == [True]


def test_a_field_that_there_is_not_is_a_mistake(journaled: Journaled) -> None:
    """A test that asks for nothing must not pass."""
    with pytest.raises(TypeError, match="no typ"):
        journaled.not_including(typ="auth.login")


def test_secrets_are_hidden_in_tests_as_well(journal: Journal, journaled: Journaled) -> None:
    """What a test sees is what would have left the process."""
    journal.publish("t.e", payload={"password": "x"})
    assert journaled.including(payload={"password": "[FILTERED]"})


def test_ids_and_numbers_may_be_given_as_they_are(journal: Journal, journaled: Journaled) -> None:
    """As the application does."""
    id_ = uuid.uuid4()
    journal.publish("t.e", actor=id_, resource=("order", id_), request_id=7)
    assert journaled.including(actor=id_, resource=("order", id_), request_id=7)


APPLICATION = """
    from chronicle.journal import Journal
    journal = Journal(source="shop", transport="http://127.0.0.1:9")

    def test_it_is_there(journaled):
        journal.publish("auth.login", actor="ann", payload={"method": "passkey"})
        assert journaled.including(type="auth.login", actor="ann")
        assert journaled.not_including(type="auth.logout")

    def test_one_test_has_nothing_of_another(journaled):
        assert len(journaled) == 0

    def test_nearly(journaled):
        journal.publish("auth.login", actor="ann", payload={"method": "passkey"})
        journal.publish("order.placed", actor="ann")
        assert journaled.including(type="auth.login", actor="ann", payload={"method": "password"})

    def test_not_at_all(journaled):
        assert journaled.including(type="auth.login")

    def test_too_much(journaled):
        journal.publish("auth.login", actor="ann")
        assert journaled.not_including(actor="ann")

    def test_without_the_fixture():
        assert False, "as it is"
"""


def test_a_failed_test_shows_what_there_was(pytester: pytest.Pytester) -> None:
    """What was asked for, what came nearest and where it differs, and all that was published."""
    pytester.makepyfile(APPLICATION)
    result = pytester.runpytest_subprocess(*ASKED)
    result.assert_outcomes(passed=2, failed=4)
    result.stdout.fnmatch_lines(
        [
            "*There is no event with type='auth.login', actor='ann', payload={'method': 'password'}.",
            "*Nearest: auth.login(actor='ann', payload={'method': 'passkey'})",
            "*payload: wanted {'method': 'password'}, found {'method': 'passkey'}",
            "*Published (2):",
            "*order.placed(actor='ann')",
            "*There is no event with type='auth.login'.",
            "*Nothing was published.",
            "*There is an event with actor='ann':",
            "*auth.login(actor='ann')",
        ]
    )


def test_a_journal_without_a_transport_gets_one_from_the_settings(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the application is imported; the environment wins."""
    monkeypatch.delenv("CHRONICLE_JOURNAL_TRANSPORT", raising=False)
    pytester.makeini("[pytest]\njournal_transport = memory://\n")
    pytester.makepyfile(
        "from chronicle.journal import Journal\njournal = Journal(source='shop')\ndef test(journaled): journal.publish('t.e')"
    )
    result = pytester.runpytest_subprocess(*ASKED)
    result.assert_outcomes(passed=1)


def test_the_plugin_is_light() -> None:
    """Whoever has Chronicle installed loads it in every test run: nothing but the journal's package comes with it."""
    program = (
        "import pytest, sys; before = set(sys.modules); import chronicle.journal.pytest_plugin; "
        "print(*sorted(name for name in set(sys.modules) - before if name.partition('.')[0] not in sys.stdlib_module_names))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) == {"chronicle", "chronicle.journal", "chronicle.journal.pytest_plugin"}
