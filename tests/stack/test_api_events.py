"""Events over HTTP on the real stack: in by POST, through the worker, out by GET; and a broker that is away in between."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chronicle.dev.stack import Stack
from tests.stack.api_process import ApiSite, Forwarder
from tests.stack.worker_process import until

pytestmark = pytest.mark.stack

LOGIN = {"type": "security.login", "source": "shop", "actor": {"id": "ann", "type": "user", "name": "Ann"}}


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path) -> Iterator[ApiSite]:
    """A deployment of its own, with nothing running."""
    made = ApiSite(stack, unique, tmp_path)
    yield made
    made.close()


def test_what_is_posted_is_found(site: ApiSite) -> None:
    """One event and a batch: confirmed by the broker, processed by the worker, found by what was said; twice sent is once."""
    site.serve()
    one = site.post({**LOGIN, "description": "Ann logged in from home", "payload": {"method": "password"}}).json()
    assert one["durability"] == "confirmed"
    batch = [{"type": "order.placed", "source": "shop", "resource_type": "order", "resource_id": str(n)} for n in range(10)]
    repeat = {"idempotency-key": "batch-1"}
    ids = [result["id"] for result in site.post(batch, repeat).json()["results"]]
    assert [result["id"] for result in site.post(batch, repeat).json()["results"]] == ids
    assert len(site.events_on_topic()) == 21
    site.worker_once()
    found = site.get("/events", page_size=100).json()
    assert found["metadata"]["total_records"] == 11
    assert {event["event_id"] for event in found["events"]} == {one["id"], *ids}
    [login] = site.get("/events", q="HOME logged", type="security.*").json()["events"]
    assert (login["event_id"], login["actor_name"], login["payload"]) == (one["id"], "Ann", {"method": "password"})
    [seventh] = site.get("/events", resource_id="7").json()["events"]
    assert seventh["event_id"] == ids[7]


def test_an_id_that_is_known_in_another_tenant_replaces_nothing_and_shows_nothing(site: ApiSite) -> None:
    """Two keys of two tenants, one source, type and id: both events stay, in the trail and on the audit topic, and neither key
    meets the other's, by any way to ask."""
    site.serve()
    tenants = ("acme", "blue")
    keys = {tenant: site.key("ingest", "auditor", tenants=(tenant,), sources=("shop",)) for tenant in tenants}
    admin = site.key("admin")
    until(lambda: site.get("/events").status_code == 401, "keys are noticed")
    id_ = "7cf66a67-4ecd-4e1f-bd59-48c66caaad14"
    given = {"id": id_, "type": "order.placed", "actor": "ann", "time": "2026-11-20T08:00:00Z"}
    for tenant in tenants:
        assert site.post({**given, "description": f"of {tenant}"}, keys[tenant]).status_code == 202
    site.worker_once()
    assert site.post({**given, "description": "stolen"}, keys["blue"]).status_code == 202
    for nobody in (None, ""):  # one and the same
        assert site.post({**given, "source": "shop", "tenant": nobody, "description": "of nobody"}, admin).status_code == 202
    site.worker_once()
    whose = {"acme": "of acme", "blue": "stolen"}
    for tenant, said in whose.items():
        asked = {"page_size": 1, "id": id_}
        page = site.get("/events", keys[tenant], **asked).json()
        assert [(one["tenant"], one["description"]) for one in page["events"]] == [(tenant, said)]
        assert (page["metadata"]["total_records"], page["next_cursor"]) == (1, None)
        assert [one["description"] for one in site.get("/events", keys[tenant], sort="actor").json()["events"]] == [said]
        activity = site.get("/actors/ann/activity", keys[tenant]).json()["activity"]
        assert [one["description"] for one in activity] == [said]
        exported = site.get("/export", keys[tenant], type="order.*").text.splitlines()
        assert [json.loads(line)["description"] for line in exported] == [said]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while len(found) < 9:
        page = site.get("/events", admin, type="order.*", page_size=1, sort="source", **cursor).json()
        found += [one["description"] for one in page["events"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(found) == ["of acme", "of nobody", "stolen"]
    topic = site.settings.kafka.audit_topic
    latest = {key.decode(): json.loads(value) for key, value, _ in site.broker.read(topic) if key and value}
    audited = {key: record["core"]["message"] for key, record in latest.items() if key.endswith(id_)}
    place = f"event:shop:{{}}:order.placed:{id_}"
    assert audited == {place.format("acme"): "of acme", place.format("blue"): "stolen", place.format(""): "of nobody"}


def test_records_have_the_key_that_orders(site: ApiSite) -> None:
    """partition_key, else the resource, else the actor, else the event itself."""
    site.serve()
    bodies: list[dict[str, Any]] = [
        {**LOGIN, "partition_key": "p", "resource_type": "order", "resource_id": "7"},
        {**LOGIN, "resource_type": "order", "resource_id": "7"},
        LOGIN,
        {"type": "a", "source": "s"},
    ]
    ids = [result["id"] for result in site.post(bodies).json()["results"]]
    found = {json.loads(value)["id"]: key for key, value, _ in site.broker.read(site.settings.kafka.events_topic) if value}
    assert [found[id_] for id_ in ids] == [b"p", b"order:7", b"ann", ids[3].encode()]


def test_reading_a_history_is_on_the_trail(site: ApiSite) -> None:
    """Who, what and which filters, never their values; a list of events is not a history."""
    site.serve()
    auditor = site.key("auditor")
    until(lambda: site.get("/events").status_code == 401, "keys are noticed")
    site.add_change(1, after={"id": 7, "email": "a@example.org"}, operation="create")
    assert site.get("/events", auditor).status_code == 200
    assert site.get("/history/customers/7", auditor).status_code == 200
    assert site.get("/transactions/1", auditor, source="shop").status_code == 200
    assert site.get("/actors/ann@secret/activity", auditor, since="2h").status_code == 200
    assert site.get("/export", auditor, of="changes", actor="secret").status_code == 200
    read = sorted((event["payload"]["endpoint"], event["payload"]["filters"]) for event in site.events_on_topic())
    assert read == [("/actors", ["since"]), ("/export", ["actor", "of"]), ("/history", []), ("/transactions", ["source"])]
    [event, *_] = site.events_on_topic()
    assert event["type"] == "chronicle.history.read"
    assert event["actor"]["id"].startswith("key:")
    assert "secret" not in json.dumps(site.events_on_topic())
    site.worker_once()
    assert site.get("/events", auditor, type="chronicle.**").json()["metadata"]["total_records"] == 4


def test_a_history_that_cannot_be_recorded_is_not_read(site: ApiSite) -> None:
    """Neither broker nor spill: 503, nothing is told."""
    site.add_change(1, after={"id": 7, "email": "a@example.org"}, operation="create")
    site.serve(CHRONICLE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1", confirm_timeout_s="0.2", spill_directory="")
    answer = site.get("/history/customers/7")
    assert answer.status_code == 503
    assert "example.org" not in answer.text
    assert site.get("/ready").status_code == 503
    assert site.post(LOGIN).status_code == 503


def test_what_was_spilled_is_recovered_in_order(site: ApiSite) -> None:
    """The broker is away: 202 and `spilled`; kill -9 and a new start later it comes back, and all is there in order, once."""
    forwarder = Forwarder(site.stack.kafka)
    away: dict[str, Any] = {"CHRONICLE_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{forwarder.port}", "confirm_timeout_s": "0.3"}
    process = site.serve(**away)
    answers = [site.post({**LOGIN, "partition_key": "one", "tags": {"n": n}}).json() for n in range(60)]
    assert {answer["durability"] for answer in answers} == {"spilled"}
    process.kill()
    process = site.serve(**away)
    more = [{**LOGIN, "partition_key": "one", "tags": {"n": n}} for n in range(60, 100)]
    found = site.post(more).json()
    assert found["durability"] == "spilled"
    forwarder.open()
    until(lambda: len(site.events_on_topic()) >= 100, "all is recovered")
    process.until_event("publisher.direct")
    until(lambda: "chronicle_api_spilled 0.0" in site.get("/metrics").text, "the spill is empty")
    last = site.post({**LOGIN, "partition_key": "one", "tags": {"n": 100}}).json()
    assert last["durability"] == "confirmed"
    events = site.events_on_topic()
    order = list(dict.fromkeys(event["tags"]["n"] for event in events))
    assert order == list(range(101))
    ids = [answer["id"] for answer in answers] + [result["id"] for result in found["results"]] + [last["id"]]
    assert [event["id"] for event in events] == ids
    forwarder.close()


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_an_outage_in_between_loses_and_reorders_nothing(site: ApiSite, silent: bool) -> None:
    """Confirmed, spilled while the broker refuses or is silent, confirmed again: on the topic in the order of the answers."""
    forwarder = Forwarder(site.stack.kafka)
    forwarder.open()
    process = site.serve(CHRONICLE_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{forwarder.port}", confirm_timeout_s="0.5")
    ids: list[str] = []
    durabilities: list[str] = []
    with httpx.Client(base_url=site.url, timeout=60) as client:

        def hand_in(until_: str, at_least: int) -> None:
            count, end = 0, time.monotonic() + 60
            while count < at_least or durabilities[-1] != until_:
                assert time.monotonic() < end, durabilities[-5:]
                answer = client.post("/events", json={**LOGIN, "partition_key": "one"}).json()
                ids.append(answer["id"])
                durabilities.append(answer["durability"])
                count += 1

        for _ in range(2):
            hand_in("confirmed", 20)
            (forwarder.silence if silent else forwarder.close)()
            hand_in("spilled", 20)
            forwarder.open()
        hand_in("confirmed", 20)
    assert set(durabilities) == {"confirmed", "spilled"}
    there = [event["id"] for event in site.events_on_topic()]
    assert list(dict.fromkeys(there)) == ids
    assert len(process.events("publisher.direct")) >= 2
    forwarder.close()


def test_a_spill_that_is_full_says_so(site: ApiSite) -> None:
    """503 with Retry-After, nothing half kept; what was answered before is still there."""
    process = site.serve(
        CHRONICLE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1", confirm_timeout_s="0.2", spill_bytes_max=str(1024 * 1024)
    )
    large = {**LOGIN, "payload": {"text": "x" * 100_000}}
    statuses = [site.post(large).status_code for _ in range(12)]
    assert statuses[0] == 202
    assert statuses[-1] == 503
    assert "retry-after" in site.post(large).headers
    assert site.get("/ready").status_code == 503
    process.kill()
    site.serve()
    until(lambda: len(site.events_on_topic()) == statuses.count(202), "what was answered is recovered")


def test_a_kill_loses_nothing_that_was_answered(site: ApiSite) -> None:
    """kill -9 in the middle of many requests, again and again: every answered event is on the topic."""
    answered: list[str] = []
    stop = threading.Event()

    def hand_in() -> None:
        while not stop.is_set():
            try:
                answer = httpx.post(f"{site.url}/events", json=[LOGIN] * 5, timeout=20)
            except httpx.HTTPError:
                time.sleep(0.01)
                continue
            if answer.status_code == 202:
                answered.extend(result["id"] for result in answer.json()["results"])

    threads = [threading.Thread(target=hand_in) for _ in range(4)]
    process = site.serve()
    for thread in threads:
        thread.start()
    try:
        for number in range(3):
            enough = 300 * (number + 1)
            until(lambda enough=enough: len(answered) >= enough, "events are taken")  # type: ignore[misc]
            process.kill()
            process = site.serve()
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    there = {event["id"] for event in site.events_on_topic()}
    assert len(answered) >= 900
    assert set(answered) <= there


def test_a_stop_ends_what_is_under_way(site: ApiSite) -> None:
    """SIGTERM: open live tails end, what is answered is confirmed, exit code 0."""
    process = site.serve()
    with httpx.stream("GET", f"{site.url}/stream", timeout=30) as tail:
        lines = tail.iter_lines()
        assert next(lines).startswith("retry")
        assert site.post(LOGIN).status_code == 202
        process.term()
        assert not [line for line in lines if line.startswith(("event", "retry"))]
    assert process.wait() == 0, process.log_text()[-2000:]
    assert len(site.events_on_topic()) == 1


def test_several_processes_share_a_port(site: ApiSite) -> None:
    """Each has a spill of its own; all that is answered is on the topic."""
    process = site.serve("--workers", "2")
    with httpx.Client(base_url=site.url, timeout=30) as client:
        ids = [client.post("/events", json=LOGIN).json()["id"] for _ in range(20)]
    assert {event["id"] for event in site.events_on_topic()} == set(ids)
    for _ in range(4):  # whichever of them answers
        metrics = site.get("/metrics").text
        assert 'chronicle_api_events_total{disposition="confirmed"} 20.0' in metrics
        assert "chronicle_api_spilled 0.0" in metrics
    process.term()
    assert process.wait() == 0, process.log_text()[-2000:]
