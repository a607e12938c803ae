"""Celery: who asks for a task acts in it, through a message and a real worker's threads; nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from celery import Celery, signals  # type: ignore[import-untyped]
from celery.contrib.testing.worker import start_worker  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from chronicle import Actor
from chronicle.journal import Journal, current, tagged
from chronicle.journal.context import ENVELOPE
from chronicle.journal.journaled import ANY, Journaled, recording
from chronicle.journal.middleware import celery

SECRET = "Zq7XvKp92LmW"
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
JOURNAL = Journal(source="shop", transport="memory://")
APP = Celery("shop", broker="memory://", backend="cache+memory://")
APP.conf.update(worker_hijack_root_logger=False, task_always_eager=False, task_default_queue="journal-tests")


@pytest.fixture
def journaled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Journaled]:
    found = Journaled()
    recording(found, monkeypatch.setattr)
    undo = celery.install(tags=lambda task: {"retries": task.request.retries})
    yield found
    undo()


@pytest.fixture(scope="module")
def worker() -> Iterator[Any]:
    with start_worker(APP, pool="threads", concurrency=4, perform_ping_check=False, shutdown_timeout=20) as running:
        yield running


@APP.task(name="shop.work")  # type: ignore[untyped-decorator]
def work(number: int) -> dict[str, Any]:
    JOURNAL.publish("work.done", payload={"number": number})
    return {name: str(value) for name, value in current().items() if name in ENVELOPE}


@APP.task(name="shop.outer")  # type: ignore[untyped-decorator]
def outer(number: int) -> None:
    JOURNAL.publish("outer.done")
    work.delay(number)


@APP.task(name="shop.fails")  # type: ignore[untyped-decorator]
def fails() -> None:
    raise ValueError(SECRET)


@APP.task(name="shop.again", bind=True, max_retries=2)  # type: ignore[untyped-decorator]
def again(self: Any) -> int:
    JOURNAL.publish("again.tried")
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


def test_who_asks_is_who_acts(worker: Any, journaled: Journaled) -> None:
    """Actor, request, trace, address, tenant, tags; and the task is named."""
    with tagged(
        actor=Actor("ann", "user", "Ann"),
        request_id="r-1",
        traceparent=TRACE,
        ip="10.1.2.3",
        tenant="acme",
        reason="why",
        order=7,
    ):
        result = work.delay(1)
    assert result.get(timeout=20)["request_id"] == "r-1"
    assert journaled.including(
        type="work.done",
        actor=Actor("ann", "user", "Ann"),
        request_id="r-1",
        traceparent=TRACE,
        ip="10.1.2.3",
        tenant="acme",
        reason="why",
        tags={"order": 7, "task": "shop.work", "task_id": result.id, "retries": 0},
    )


def test_a_task_that_nobody_asked_for_has_its_own_request(worker: Any, journaled: Journaled) -> None:
    """And nothing of the task before it in the same thread."""
    with tagged(actor="ann", request_id="r-1", order=7):
        first = [work.delay(number) for number in range(8)]
    assert [one.get(timeout=20)["request_id"] for one in first] == ["r-1"] * 8
    later = [work.delay(number) for number in range(8)]
    assert [one.get(timeout=20) for one in later] == [{"request_id": one.id} for one in later]
    assert journaled.count(actor="ann") == 8
    assert journaled.count(actor={"type": "process"}, tags={"task": "shop.work"}) == 8
    assert all("order" not in one.event.tags for one in journaled if one.event.request_id != "r-1")


def test_tasks_of_tasks_have_it_too(worker: Any, journaled: Journaled) -> None:
    """Down the line."""
    with tagged(actor="ann", request_id="r-1"):
        outer.delay(3).get(timeout=20)
    _until(lambda: journaled.count(type="work.done") == 1)
    assert journaled.including(type="work.done", actor="ann", request_id="r-1", tags={"task": "shop.work"})


def test_a_retry_keeps_it(worker: Any, journaled: Journaled) -> None:
    """Each attempt, with its number."""
    with tagged(actor="ann", request_id="r-1"):
        assert again.delay().get(timeout=20) == 2
    assert [one.event.tags["retries"] for one in journaled] == [0, 1, 2]
    assert journaled.count(actor="ann", request_id="r-1") == 3


def test_a_failed_task_leaves_nothing_behind(worker: Any, journaled: Journaled) -> None:
    """The next one in its thread is nobody's."""
    with tagged(actor="ann"):
        failed = [fails.delay() for _ in range(8)]
    for one in failed:
        with pytest.raises(ValueError, match=SECRET):
            one.get(timeout=20)
    assert "actor" not in work.delay(1).get(timeout=20)


def test_an_eager_task_is_part_of_the_caller(journaled: Journaled) -> None:
    """Run at once, in the same context; which is the caller's again afterwards."""
    with tagged(actor="ann", request_id="r-1", order=7):
        work.apply(args=(1,))
        assert current() == {"actor": "ann", "request_id": "r-1", "tags": {"order": 7}}
    assert journaled.including(type="work.done", actor="ann", request_id="r-1", tags={"order": 7, "task": "shop.work"})
    assert current() == {}


def test_secrets_do_not_travel(worker: Any, journaled: Journaled) -> None:
    """The broker gets what an event would have."""
    sent: list[Any] = []

    def look(headers: Any = None, **_: Any) -> None:
        sent.append(headers["chronicle"])

    with tagged(actor="ann", reason=f"password={SECRET}", token=SECRET):
        signals.before_task_publish.connect(look)  # after ours
        try:
            work.delay(1).get(timeout=20)
        finally:
            signals.before_task_publish.disconnect(look)
    assert SECRET not in repr(sent)
    assert sent[0]["tags"] == {"token": "[FILTERED]"}
    assert journaled.including(reason="password=[FILTERED]", id=ANY)


def test_installing_twice_is_once(worker: Any, journaled: Journaled) -> None:
    """And it can be undone."""
    undo = celery.install()
    with tagged(actor="ann"):
        work.delay(1).get(timeout=20)
    assert journaled.count(actor="ann") == 1
    undo()
    with tagged(actor="ann", request_id="r-1"):
        assert work.delay(1).get(timeout=20) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON | st.dictionaries(st.sampled_from([*ENVELOPE, "tags", "x"]), JSON))
def test_a_header_that_says_no_context_is_none(header: Any) -> None:
    """Whatever an older or foreign publisher puts there: a task is never stopped by it."""
    found = celery.received(header)
    assert found.keys() <= {*ENVELOPE, "tags"}
    with tagged(**{**found.get("tags", {}), **{name: value for name, value in found.items() if name != "tags"}}):
        JOURNAL.prepared("t.e")


@given(
    st.dictionaries(
        st.sampled_from([name for name in ENVELOPE if name != "traceparent"]), st.text("abc-1", min_size=1, max_size=5)
    ),
    st.dictionaries(st.text("ab", min_size=1), JSON),
)
def test_what_is_carried_arrives(said: dict[str, str], tags: dict[str, Any]) -> None:
    """Through a message's JSON."""
    sent = celery.carried({**said, **({"tags": tags} if tags else {})})
    arrived = celery.received(msgspec.json.decode(msgspec.json.encode(sent)))
    assert {name: value for name, value in arrived.items() if name != "tags"} == said


@pytest.mark.parametrize("said", [{}, {"tags": {}}, {"tags": {"x": object()}}, {"tags": {"x": "y" * 20_000}}])
def test_what_cannot_be_carried_stops_no_task(said: dict[str, Any]) -> None:
    """It is left out."""
    assert celery.carried(said) is None


def _until(condition: Any) -> None:
    import time

    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
