"""Who acts and why, around the code that publishes: inherited inwards, never seen sideways."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle import Actor
from chronicle.journal import Event, EventRefused, Journal, actor, carried, current, tag, tagged
from chronicle.journal.context import process_actor
from chronicle.journal.transports.memory import Memory


def published(what: Any = "thing.done", **said: Any) -> Event:
    """The event as it would be sent."""
    with Journal(source="test", transport="memory://") as journal:
        out = journal.prepared(what, **said)
    assert out is not None
    return out.event


def test_what_is_said_around_is_in_the_event() -> None:
    """Actor, fields and tags; the inner block adds to the outer one."""
    with actor("ann", type="user"), tagged(request_id="r-1", campaign="spring"):
        with tagged(request_id="r-2", step=3):
            tag(order=7)
            event = published()
        after = published()
    assert isinstance(event.actor, object)
    assert (getattr(event.actor, "id", None), getattr(event.actor, "type", None)) == ("ann", "user")
    assert (event.request_id, event.tags) == ("r-2", {"campaign": "spring", "step": 3, "order": 7})
    assert (after.request_id, after.tags) == ("r-1", {"campaign": "spring"})
    assert current() == {}


def test_what_the_call_says_wins() -> None:
    """Then the event given, then the block, then the process."""
    with tagged(actor="around", reason="around", tenant="around", a=1, b=1, c=1):
        event = published(Event(type="x.y", actor="given", reason="given", tags={"b": 2, "c": 2}), actor="said", tags={"c": 3})
    assert (event.actor, event.reason, event.tenant) == ("said", "given", "around")
    assert event.tags == {"a": 1, "b": 2, "c": 3}


def test_without_an_actor_the_process_acts() -> None:
    """The operating system's user and the program."""
    event = published()
    assert getattr(event.actor, "type", None) == "process"
    assert getattr(event.actor, "id", None) == process_actor()["id"]
    assert "@" in process_actor()["id"]


def test_actors_may_be_what_applications_have() -> None:
    """Ids of several kinds, the library's Actor, an event's actor."""
    assert published(actor=7).actor == "7"
    assert published(actor=UUID(int=7)).actor == str(UUID(int=7))
    with actor(Actor("bot", "service", "The bot")):
        event = published()
    assert (getattr(event.actor, "id", 0), getattr(event.actor, "name", 0)) == ("bot", "The bot")
    for refused in (True, 1.5, object(), Actor(None), {"type": "user"}, b"ann"):  # type: ignore[arg-type]
        with pytest.raises(EventRefused):
            published(actor=refused)


def test_fields_take_numbers_and_addresses() -> None:
    """And refuse what has no text of its own, without repeating it."""
    event = published(request_id=7, ip=ip_address("10.0.0.1"), session=UUID(int=1), resource=("order", 12))
    assert (event.request_id, event.ip, event.resource_id) == ("7", "10.0.0.1", "12")
    with pytest.raises(EventRefused) as refusal:
        published(reason=["hunter2"])
    assert "hunter2" not in str(refusal.value)


@given(value=st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.binary(), st.lists))
def test_a_tag_of_any_kind_is_taken_or_refused(value: object) -> None:
    """Never another error, whatever the application has in its hands."""
    with tagged(odd=value):
        try:
            event = published()
        except EventRefused:
            return
    assert (value is None) == ("odd" not in event.tags)


def test_tasks_do_not_see_each_others_tags() -> None:
    """Of one block each has its own copy; what was said before they began they all have."""

    async def work(name: str) -> dict[str, Any]:
        tag(name=name)
        await asyncio.sleep(0)
        return published().tags

    async def both() -> list[dict[str, Any]]:
        with tagged(request="r"):
            found = list(await asyncio.gather(work("a"), work("b")))
            assert current()["tags"] == {"request": "r"}
        return found

    assert asyncio.run(both()) == [{"request": "r", "name": "a"}, {"request": "r", "name": "b"}]


def test_threads_begin_with_nothing_unless_it_is_carried_over() -> None:
    """A plain thread and an executor's have no context; `carried` and `to_thread` take it along, and tags do not come back."""
    seen: list[Any] = []
    with tagged(request_id="r-1"):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(2) as pool:
            plain = pool.submit(current)

            def work(n: int) -> Any:
                tag(n=n)
                return current()

            taken = list(pool.map(carried(work), range(20)))
        assert plain.result() == {}
        assert taken == [{"request_id": "r-1", "tags": {"n": n}} for n in range(20)]

        async def elsewhere() -> Any:
            return await asyncio.to_thread(current)

        assert asyncio.run(elsewhere()) == {"request_id": "r-1"}
        assert current() == {"request_id": "r-1"}
    assert seen == [{}]


def test_a_block_left_in_another_context_is_no_error() -> None:
    """Web frameworks finish generators where they did not begin them."""
    block = tagged(request_id="r")
    copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert current() == {}


def test_the_payload_is_a_copy() -> None:
    """What the application does to its objects afterwards changes no event."""
    payload = {"items": [1]}
    memory = Memory()
    with Journal(source="test", transport=memory) as journal:
        journal.publish("a.b", payload=payload)
        payload["items"].append(2)
        journal.flush(10)
        assert [event.payload for event in journal.history(access="test")] == [{"items": [1]}]
    assert b"2]" not in memory.sent[0].text
