"""Reading over HTTP from a real ClickHouse: filters, pages, cursors, exports, the live tail; limits of every key; injection."""

from __future__ import annotations

import csv
import io
import json
import re
import secrets
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow.parquet as pq
import pytest

from chronicle.api.openapi import document
from chronicle.dev.stack import Stack
from chronicle.trail.collections import CHANGES, EVENTS
from tests.stack.api_process import START, ApiSite
from tests.stack.worker_process import until

pytestmark = pytest.mark.stack

HOSTILE = (
    "'; DROP TABLE changes --",
    "' OR '1'='1",
    '" OR ""="',
    "{database:Identifier}",
    "{x:String}",
    "%(x)s",
    "\\'; SELECT 1; --",
    "') UNION ALL SELECT * FROM system.users --",
    "1); SELECT sleep(3); --",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "${jndi:ldap://x}",
    "\\N",
    "null",
    "%00",
    "(.*.*.*)*$",
    "ünïcödé 🙂 \u202e",
    "[" * 200,
    "a" * 1000,
)


@pytest.fixture(scope="module")
def site(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    """One trail for all tests of this module: 120 events and 60 changes of two tenants, and a service that asks for keys."""
    made = ApiSite(stack, f"t{secrets.token_hex(4)}x", tmp_path_factory.mktemp("api"))
    try:
        made.admin = made.key("admin")  # type: ignore[attr-defined]
        for n in range(120):
            tenant = ("acme", "blue", None)[n % 3]
            made.add_event(
                n, type=("order.placed", "security.login")[n % 2], tenant=tenant, actor_id=f"actor-{n % 4}",
                actor_name=f"Actor {n % 4}", outcome=("success", "failure", None)[n % 3], resource_type="order",
                resource_id=str(n), request_id=f"r-{n}", description=f"Number {n} of {tenant}: it's \\ 100% done",
                payload={"n": n, "card": f"secret-{tenant}-{n}", "tenant": tenant}, tags={"n": n},
                source=("shop", "hiring")[n % 2], labels=["odd"] if n % 2 else [],
            )  # fmt: skip
        for n in range(60):
            tenant = ("acme", "blue", None)[n % 3]
            made.add_change(
                n, "create" if n < 3 else "update", table=("customers", "orders")[n % 2], tenant=tenant,
                actor_id=f"actor-{n % 4}", request_id=f"r-{n}", changed=["email"], key={"id": n % 3},
                before={"id": n % 3, "email": f"secret-{tenant}-{n - 3}", "ssn": f"ssn-{tenant}-{n - 3}"} if n >= 3 else None,
                after={"id": n % 3, "email": f"secret-{tenant}-{n}", "ssn": f"ssn-{tenant}-{n}"},
            )  # fmt: skip
        made.serve()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def admin(site: ApiSite) -> dict[str, str]:
    """A key that sees all."""
    key: dict[str, str] = site.admin  # type: ignore[attr-defined]
    return key


def everything(site: ApiSite, path: str, headers: dict[str, str], **params: Any) -> list[dict[str, Any]]:
    """All rows, by cursors."""
    found, title = [], path.removeprefix("/")
    cursor = None
    while True:
        answer = site.get(path, headers, **params, **({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        found += answer.json()[title]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


def test_pages_say_where_they_are(site: ApiSite, admin: dict[str, str]) -> None:
    """As the contract has it; together the pages are all records, once."""
    first = site.get("/events", admin, page_size=50).json()
    assert first["metadata"] == {
        "current_page": 1, "page_size": 50, "first_page": 1, "last_page": 3, "total_records": 120
    }  # fmt: skip
    pages = [site.get("/events", admin, page_size=50, page=page).json() for page in (1, 2, 3)]
    ids = [event["event_id"] for page in pages for event in page["events"]]
    assert len(ids) == len(set(ids)) == 120
    assert [page["next_cursor"] is None for page in pages] == [False, False, True]
    beyond = site.get("/events", admin, page_size=50, page=4).json()
    assert (beyond["events"], beyond["metadata"]["current_page"]) == ([], 4)


@pytest.mark.parametrize("collection", [EVENTS, CHANGES], ids=["events", "changes"])
def test_every_order_goes_through_all_once(site: ApiSite, admin: dict[str, str], collection: Any) -> None:
    """By cursors of small pages, both ways: the same rows as at once, in the same order, the other way round reversed."""
    path, count = f"/{collection.title}", 120 if collection is EVENTS else 60
    for name in collection.sorts:
        orders = []
        for sort in (name, f"-{name}"):
            ids = [row["event_id"] for row in everything(site, path, admin, sort=sort, page_size=23)]
            assert len(ids) == len(set(ids)) == count
            whole = site.get(path, admin, sort=sort, page_size=500).json()[collection.title]
            assert ids == [row["event_id"] for row in whole], sort
            orders.append(ids)
        assert orders[0] == orders[1][::-1], name


def test_events_are_found_by_every_field(site: ApiSite, admin: dict[str, str]) -> None:
    """Each filter alone, counted; two of them hold together."""
    one = site.get("/events", admin, resource_id="7").json()["events"][0]
    counts = {
        "id": (one["event_id"], 1), "type": ("security.*", 60), "source": ("shop", 60), "resource_type": ("order", 120),
        "resource_id": ("7", 1), "outcome": ("success,failure", 80), "priority": ("high", 0), "tenant": ("acme", 40),
        "actor": ("Actor 3", 30), "request": ("r-119", 1), "label": ("odd", 60), "action": ("x", 0), "ip": ("x", 0),
        "since": ((START + timedelta(minutes=100)).isoformat(), 20), "until": ((START + timedelta(minutes=5)).isoformat(), 5),
        "q": ("number ACME 100%", 40), "session": ("x", 0), "trace": ("x", 0), "actor_type": ("x", 0), "violation": ("x", 0),
    }  # fmt: skip
    assert counts.keys() == {each.name for each in EVENTS.filters}
    for name, (value, count) in counts.items():
        answer = site.get("/events", admin, **{name: value})
        assert answer.status_code == 200, (name, answer.text)
        assert answer.json()["metadata"]["total_records"] == count, name
    assert site.get("/events", admin, type="**.login", actor="actor-3").json()["metadata"]["total_records"] == 30


def test_changes_are_found_by_every_field(site: ApiSite, admin: dict[str, str]) -> None:
    """As above, of changes."""
    one = site.get("/changes", admin, request="r-7").json()["changes"][0]
    counts = {
        "id": (one["event_id"], 1), "source": ("shop", 60), "schema": ("public", 60), "table": ("orders", 30),
        "operation": ("create", 3), "key": ('{"id":1}', 20), "column": ("email", 60), "transaction": ("7", 1),
        "entity": (one["entity"], 10), "actor": ("actor-1", 15), "request": ("r-7", 1), "tenant": ("blue", 20),
        "attribution": ("message,table", 60), "label": ("x", 0), "since": ((START + timedelta(minutes=50)).isoformat(), 10),
        "until": ((START + timedelta(minutes=5)).isoformat(), 5), "stubs": ("true", 60),
    }  # fmt: skip
    assert counts.keys() == {each.name for each in CHANGES.filters}
    for name, (value, count) in counts.items():
        answer = site.get("/changes", admin, **{name: value})
        assert answer.status_code == 200, (name, answer.text)
        assert answer.json()["metadata"]["total_records"] == count, name


def test_two_tenants_never_see_each_other(site: ApiSite) -> None:
    """On every path, with every filter that could lead to the other: nothing of it, nor of what belongs to nobody."""
    for own, other in (("acme", "blue"), ("blue", "acme")):
        key = site.key("auditor", tenants=(own,))
        until(lambda key=key: site.get("/events", key).status_code == 200, "the key is known")  # type: ignore[misc]
        texts = [site.get(path, key, page_size=1000).text for path in ("/events", "/changes")]
        texts += [site.get(f"/actors/actor-{n}/activity", key, page_size=1000).text for n in range(4)]
        texts += [
            site.get(f"/history/shop.public.{table}/{n}", key).text for table in ("customers", "orders") for n in range(3)
        ]
        texts += [site.get(f"/transactions/{n}", key).text for n in range(9)]
        texts += [site.get("/export", key, of=of).text for of in ("events", "changes")]
        texts += [site.get(path, key, tenant=other).text for path in ("/events", "/changes")]
        texts += [site.get("/events", key, q=other).text, site.get("/changes", key, transaction="1").text]
        texts += [site.get("/events", key, resource_id=str(n)).text for n in range(12)]
        assert f"secret-{own}-" in "".join(texts)
        for text in texts:
            assert f"secret-{other}-" not in text
            assert f"ssn-{other}-" not in text
            assert "secret-None" not in text
        assert site.get("/events", key).json()["metadata"]["total_records"] == 40
        assert site.get("/entities", key).status_code == 403
        assert site.get("/events", key, tenant=other).json()["metadata"]["total_records"] == 0


def test_a_limit_on_tables_and_sources_holds_everywhere(site: ApiSite) -> None:
    """Other tables are not even named, nor are they in a transaction's counts."""
    key = site.key("auditor", tables=("shop.public.customers", "shop.order.**"))
    until(lambda: site.get("/events", key).status_code == 200, "the key is known")
    assert {change["table"] for change in site.get("/changes", key, page_size=100).json()["changes"]} == {"customers"}
    assert {event["type"] for event in site.get("/events", key, page_size=200).json()["events"]} == {"order.placed"}
    assert site.get("/history/orders/1", key).status_code == 404
    assert site.get("/history/customers/1", key).status_code == 200
    assert site.get("/transactions/1", key).status_code == 404
    assert site.get("/transactions/2", key).status_code == 200
    hiring = site.key("reader", sources=("hiring",))
    until(lambda: site.get("/events", hiring).status_code == 200, "the key is known")
    assert site.get("/changes", hiring).json()["changes"] == []
    assert {event["source"] for event in site.get("/events", hiring).json()["events"]} == {"hiring"}


def test_hidden_columns_are_cut_everywhere(site: ApiSite) -> None:
    """Images, lists, histories, exports in all forms; asking about them is refused."""
    key = site.key("auditor", columns=("id", "email", "n"))
    until(lambda: site.get("/events", key).status_code == 200, "the key is known")
    texts = [site.get(path, key, page_size=100).text for path in ("/events", "/changes")]
    texts += [site.get("/history/customers/1", key).text, site.get("/transactions/5", key).text]
    texts += [site.get("/actors/actor-1/activity", key).text]
    texts += [site.get("/export", key, of=of, format=form).text for of in ("events", "changes") for form in ("ndjson", "csv")]
    for text in texts:
        assert "ssn" not in text
        assert "card" not in text
        assert "100%" not in text
    assert "secret-acme-" in texts[1]
    parquet = site.get("/export", key, of="changes", format="parquet").content
    assert "ssn" not in str(pq.read_table(io.BytesIO(parquet)).to_pylist())
    assert site.get("/changes", key, column="ssn").status_code == 422
    assert site.get("/events", key, q="done").status_code == 422


def test_a_history_tells_what_changed(site: ApiSite, admin: dict[str, str]) -> None:
    """From what to what, oldest first."""
    found = site.get("/history/customers/0", admin).json()
    assert found["table"] == "shop.public.customers"
    assert [entry["operation"] for entry in found["entries"]] == ["create", *["update"] * 9]
    columns = {one["column"]: (one["before"], one["after"]) for one in found["entries"][1]["columns"]}
    assert columns == {"email": ("secret-acme-3", "secret-acme-6")}
    assert site.get("/history/nothing/1", admin).status_code == 404
    assert site.get("/history/customers/99", admin).status_code == 404
    assert site.get('/history/customers/{"x":1}', admin).status_code == 422


def test_an_activity_is_changes_and_events_by_time(site: ApiSite, admin: dict[str, str]) -> None:
    """Interleaved, newest first; a cursor goes on where it ended, whichever kind is next."""
    found, cursor = [], None
    while True:
        answer = site.get("/actors/actor-2/activity", admin, page_size=7, **({"cursor": cursor} if cursor else {})).json()
        found += answer["activity"]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    times = [one.get("time") or one["committed_at"] for one in found]
    assert times == sorted(times, reverse=True)
    assert len({one["event_id"] for one in found}) == len(found) == 45
    assert {one["kind"] for one in found} == {"event", "change"}


def test_exports_are_the_same_in_every_form(site: ApiSite, admin: dict[str, str]) -> None:
    """NDJSON, CSV and Parquet: the same rows; what is too much is refused instead of cut."""
    for of, count in (("events", 120), ("changes", 60)):
        answers = {form: site.get("/export", admin, of=of, format=form, sort="time") for form in ("ndjson", "csv", "parquet")}
        assert {answer.headers["x-total-records"] for answer in answers.values()} == {str(count)}
        lines = [json.loads(line) for line in answers["ndjson"].text.splitlines()]
        listed = site.get(f"/{of}", admin, page_size=1000, sort="time").json()[of]
        assert lines == listed
        table = list(csv.DictReader(io.StringIO(answers["csv"].text)))
        frame = pq.read_table(io.BytesIO(answers["parquet"].content)).to_pylist()
        assert [row["event_id"] for row in table] == [row["event_id"] for row in frame] == [row["event_id"] for row in lines]
        name = "payload" if of == "events" else "after"
        assert [json.loads(row[name]) for row in table] == [json.loads(row[name]) for row in frame] == [
            row[name] for row in lines
        ]  # fmt: skip
        time_ = "time" if of == "events" else "committed_at"
        assert frame[0][time_] == START.replace(tzinfo=UTC)


@pytest.mark.parametrize("start", range(4))
def test_hostile_texts_are_only_texts(site: ApiSite, admin: dict[str, str], start: int) -> None:
    """In every parameter of every path: found nothing or refused, no error of ours, and the tables are still there.

    Each parameter meets four of the texts, each text many parameters; that none of them comes into any SQL is a law of
    `tests/unit/test_api_parameters.py`.
    """
    texts = HOSTILE[start::4] * 50
    number = 0
    for path, methods in document()["paths"].items():
        if "get" not in methods or path in ("/stream", "/health", "/ready", "/metrics"):
            continue
        names = [one["name"] for one in methods["get"].get("parameters", []) if one["in"] == "query"]
        for name in [None, *names]:
            hostile = texts[number]
            number += 1
            filled = re.sub(r"\{\w+\}", quote(hostile, safe=""), path)
            params = {} if name is None else {name: hostile}
            answer = site.get(filled, admin, **params)
            assert answer.status_code in (200, 404, 422), (path, params, answer.status_code, answer.text)
            if answer.status_code == 200 and name in ("actor", "tenant", "source", "q", "request", "label"):
                body = answer.json() if path != "/export" else {"rows": answer.text.splitlines()}
                assert not any(body.get(rows) for rows in ("events", "changes", "entities", "activity", "rows")), params
    assert site.get("/events", admin).json()["metadata"]["total_records"] >= 120


def test_the_live_tail_tells_what_comes_and_not_that_it_was_read(site: ApiSite, admin: dict[str, str]) -> None:
    """With its filters and limits; reading histories meanwhile is never told; a broken connection goes on where it was."""
    blue = site.key("reader", tenants=("blue",))
    until(lambda: site.get("/events", blue).status_code == 200, "the key is known")
    now = datetime.now(UTC)
    minute = int((now - START).total_seconds() // 60)
    got: dict[str, list[tuple[str, dict[str, Any]]]] = {"admin": [], "blue": [], "login": []}
    open_ = threading.Semaphore(0)

    def follow(name: str, headers: dict[str, str], **params: str) -> None:
        with httpx.stream("GET", f"{site.url}/stream", headers=headers, params=params, timeout=60) as tail:
            id_ = ""
            for line in tail.iter_lines():
                if line.startswith("retry"):
                    open_.release()
                if line.startswith("id: "):
                    id_ = line[4:]
                if line.startswith("data: "):
                    event = json.loads(line[6:])
                    if event["type"] == "test.end":
                        return
                    got[name].append((id_, event))

    threads = [
        threading.Thread(target=follow, args=("admin", admin)),
        threading.Thread(target=follow, args=("blue", blue)),
        threading.Thread(target=follow, args=("login", admin), kwargs={"type": "*.login"}),
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert open_.acquire(timeout=30)
    added = [
        site.add_event(minute, tenant=tenant, type=type_)
        for tenant, type_ in (("acme", "order.placed"), ("blue", "order.placed"), ("blue", "x.login"))
    ]
    site.add_event(minute, type="chronicle.history.read", source="chronicle", tenant="blue")
    site.add_event(minute - 60 * 24 * 30, type="test.old")
    until(lambda: len(got["admin"]) == 3 and len(got["blue"]) == 2 and len(got["login"]) == 1, "the tail tells")
    site.add_event(minute, type="test.end", tenant="blue")
    threads[0].join(30)
    threads[1].join(30)
    assert [event["event_id"] for _, event in got["admin"]] == added
    assert {event["tenant"] for _, event in got["blue"]} == {"blue"}
    # from the first event's id on: the window before it comes again
    headers = {**admin, "last-event-id": got["admin"][0][0]}
    got["admin"] = []
    again = threading.Thread(target=follow, args=("admin", headers))
    again.start()
    again.join(30)
    assert set(added[1:]) <= {event["event_id"] for _, event in got["admin"]}
    site.add_event(minute, type="test.end", tenant="blue")
    site.apis[-1].term()
    threads[2].join(30)
    assert [event["type"] for _, event in got["login"]] == ["x.login"]
    assert site.apis[-1].wait() == 0
    site.serve()


def test_the_live_tail_tells_changes_within_the_same_limits(site: ApiSite, admin: dict[str, str]) -> None:
    """`kind` chooses events, changes or both; tables, columns and tenants are as on `GET /changes`."""
    limits = {"tenants": ("blue",), "tables": ("shop.public.customers", "shop.order.*"), "columns": ("id", "n")}
    blue = site.key("reader", **limits)
    until(lambda: site.get("/events", blue).status_code == 200, "the key is known")
    minute = int((datetime.now(UTC) - START).total_seconds() // 60)
    got: dict[str, list[dict[str, Any]]] = {"all": [], "changes": [], "updates": []}
    open_ = threading.Semaphore(0)

    def follow(name: str, headers: dict[str, str], **params: str) -> None:
        with httpx.stream("GET", f"{site.url}/stream", headers=headers, params=params, timeout=60) as tail:
            for line in tail.iter_lines():
                if line.startswith("retry"):
                    open_.release()
                if line.startswith("data: "):
                    item = json.loads(line[6:])
                    if item["request_id"] == "end":
                        return
                    got[name].append(item)

    threads = [
        threading.Thread(target=follow, args=("all", blue), kwargs={"kind": "all"}),
        threading.Thread(target=follow, args=("changes", admin), kwargs={"kind": "changes"}),
        threading.Thread(target=follow, args=("updates", admin), kwargs={"kind": "changes", "operation": "delete"}),
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert open_.acquire(timeout=30)
    after = {"id": 9, "email": "secret"}
    own = [
        site.add_change(minute, "create", tenant="blue", key={"id": 9}, after=after),
        site.add_event(minute, tenant="blue", payload={"n": 1, "card": "secret"}),
    ]
    others = [
        site.add_change(minute, "create", tenant="acme", key={"id": 10}, after=after),
        site.add_change(minute, "create", table="orders", tenant="blue", key={"id": 9}, after=after),
    ]
    site.add_event(minute, tenant="acme")
    until(lambda: len(got["all"]) == 2 and len(got["changes"]) == 3, "the tails tell")
    for tenant in ("blue", "acme"):
        site.add_change(minute, "delete", tenant=tenant, key={"id": 11}, request_id="end")
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert [one["event_id"] for one in got["all"]] == own
    assert [one["kind"] for one in got["all"]] == ["change", "event"]
    assert (got["all"][0]["after"], got["all"][1]["payload"]) == ({"id": 9}, {"n": 1})
    assert {one["event_id"] for one in got["changes"]} == {own[0], *others}
    assert got["updates"] == []
    wrong = {"kind": "letters", "page": "1"}
    assert site.get("/stream", admin, **wrong).json()["error"].keys() == wrong.keys()
    assert site.get("/stream", admin, kind="changes", type="a").status_code == 422
    assert site.get("/stream", admin, kind="all", operation="delete").status_code == 422
    assert site.get("/stream", blue, kind="changes", column="email").status_code == 422
    assert site.get("/stream", site.key("ingest"), kind="changes").status_code in (401, 403)


def test_a_revoked_key_opens_nothing_after_a_moment(site: ApiSite) -> None:
    """Also a live tail that is open ends."""
    from chronicle.api import keys

    key = site.key("reader")
    until(lambda: site.get("/events", key).status_code == 200, "the key is known")
    with httpx.stream("GET", f"{site.url}/stream", headers=key, timeout=60) as tail:
        lines = tail.iter_lines()
        assert next(lines)
        id_ = key["authorization"].split("_")[1]
        keys.revoke(site.client, site.client, site.name, id_, now=datetime.now(UTC))
        until(lambda: site.get("/events", key).status_code == 401, "the key is taken back", 10)
        assert not any(line.startswith("data") for line in lines)


def test_entities_are_written_by_admins_and_read_by_all(site: ApiSite, admin: dict[str, str]) -> None:
    """Confirmed means on the topic; a worker's copy is what is read."""
    url = f"{site.url}/entities"
    body = [{"id": "org:acme", "name": "Acme", "metadata": {"tier": 1}}, {"id": "org:blue", "name": "Blue Ünion"}]
    assert httpx.post(url, json=body, headers=admin, timeout=60).json() == {
        "status": "written", "ids": ["org:acme", "org:blue"]
    }  # fmt: skip
    assert httpx.post(url, json=body, headers=site.key("reader"), timeout=60).status_code in (401, 403)
    assert httpx.post(url, json=[{"id": "nocolon", "name": ""}], headers=admin, timeout=60).status_code == 422
    assert httpx.delete(f"{url}/org:acme", headers=admin, timeout=60).status_code == 200
    written = site.broker.read(site.settings.kafka.entities_topic)
    assert [(key, value is None) for key, value, _ in written] == [
        (b"org:acme", False),
        (b"org:blue", False),
        (b"org:acme", True),
    ]
    now = datetime.now(UTC)
    rows = [[id_, id_.upper(), "{}", False, now, n] for n, id_ in enumerate(("org:a/b", "org:c", "person:d"))]
    names = ["id", "name", "metadata", "deleted", "put_at", "offset"]
    site.client.insert("entities", rows, column_names=names, database=site.name)
    assert [one["id"] for one in site.get("/entities", admin, kind="org").json()["entities"]] == ["org:a/b", "org:c"]
    assert site.get("/entities/org:a/b", admin).json()["name"] == "ORG:A/B"
    assert site.get("/entities", admin, q="person").json()["entities"][0]["id"] == "person:d"
    page = site.get("/entities", admin, page_size=1).json()
    assert site.get("/entities", admin, page_size=1, cursor=page["next_cursor"]).json()["entities"][0]["id"] == "org:c"


def test_the_store_away_is_told(site: ApiSite, admin: dict[str, str]) -> None:
    """503 for questions, while events are still taken with keys that are known."""
    process = site.serve(
        ready=False, CHRONICLE_CLICKHOUSE__URL="http://127.0.0.1:1", port="0", spill_directory=str(site.directory / "other")
    )
    listening = process.until_event("api.listening")
    url = f"http://127.0.0.1:{listening['port']}"
    until(lambda: _answers(url), "it answers")
    assert httpx.get(f"{url}/ready", timeout=30).status_code == 503
    assert httpx.get(f"{url}/health", timeout=30).status_code == 200
    answer = httpx.get(f"{url}/events", headers=admin, timeout=30)
    assert answer.status_code == 503
    process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
