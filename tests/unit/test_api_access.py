"""Who gets in, and what each role and limit opens."""

from __future__ import annotations

import asyncio
import re
import threading
from datetime import timedelta
from typing import Any

import httpx
import pytest
from anyio import to_thread
from hypothesis import given
from hypothesis import strategies as st

from chronicle.api import keys
from chronicle.api.access import Limits, Principal, Role, parsed_roles
from chronicle.api.app import create
from chronicle.api.gate import is_loopback
from chronicle.api.limits import Rate
from chronicle.errors import ChronicleError, ConfigError
from chronicle.trail.words import anchored, expression
from tests.unit.api_double import NOW, Clock, Listed, Service, bearer

LOGIN = {"type": "security.login", "source": "shop"}
WORDS = st.from_regex(r"[a-z$|()\[\].*+?^\\ü-]{1,12}", fullmatch=True)


def get(path: str, headers: dict[str, str] | None = None) -> tuple[Any, ...]:
    return ("GET", path, {"headers": headers or {}})


def test_without_any_key_whoever_is_on_this_machine_gets_in() -> None:
    """By its own names only: a web page that leads a browser here under another name is turned away."""
    service = Service()
    answers = service.ask(
        *(get("/events", {"host": host}) for host in ("localhost", "127.0.0.1:28009", "[::1]:80", "evil.example", "", "[")),
    )
    assert [answer.status_code for answer in answers] == [200, 200, 200, 403, 403, 403]
    assert service.post(LOGIN, headers={"host": "evil.example"}).status_code == 403


def test_an_open_service_answers_no_proxy_and_no_page_of_another_site() -> None:
    """Both come from this machine, for somebody who is elsewhere; a key tells who that is."""
    service = Service()
    strangers = (
        {"x-forwarded-for": "203.0.113.7"}, {"forwarded": "for=203.0.113.7"}, {"x-real-ip": "203.0.113.7"},
        {"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
    )  # fmt: skip
    for headers in strangers:
        [answer] = service.ask(get("/events", headers))
        assert answer.status_code == 403, headers
        assert service.post(LOGIN, headers=headers).status_code == 403, headers
    assert service.publisher.records == []
    for headers in ({"origin": "http://localhost:3000"}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}):
        assert service.post(LOGIN, headers=headers).status_code == 202, headers
    key = bearer(service.store.key(1, "ingest"))
    for headers in strangers:
        assert service.post(LOGIN, headers=headers | key).status_code == 202, headers


def test_a_service_that_is_not_on_loopback_is_never_open() -> None:
    """Without a key nobody gets in."""
    service = Service(open_to_all=False)
    assert service.post(LOGIN).status_code == 401
    [answer] = service.ask(get("/events"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_first_key_closes_the_door_and_its_end_does_not_open_it() -> None:
    """A key that was revoked or is over still says that keys are in use."""
    options: dict[str, Any]
    for options in ({}, {"revoked": True}, {"expires": NOW - timedelta(days=1)}):
        service = Service()
        service.store.key(1, "admin", **options)
        assert service.post(LOGIN).status_code == 401, options


def test_before_keys_were_read_nobody_gets_in() -> None:
    """The store is away at the start: not known is not none."""
    service = Service()
    key = service.store.key(1, "ingest")
    service.store.away = True
    for headers in ({}, bearer(key)):
        parts = service.parts()
        request = ("POST", "/events", {"content": b"{}", "headers": {"content-type": "application/json", **headers}})
        [answer] = service.ask(request, parts=parts, refreshed=False)
        assert answer.status_code == (503 if headers else 401)


def test_a_key_opens_what_its_roles_open() -> None:
    """ingest < reader < auditor < admin, except that only ingest and admin hand in."""
    service = Service()
    opens = {
        "ingest": {"POST /events"},
        "reader": {"GET /events", "GET /changes", "GET /entities"},
        "auditor": {"GET /events", "GET /changes", "GET /entities", "GET /actors/a/activity", "GET /transactions/1"},
        "admin": {
            *("POST /events", "GET /events", "GET /changes", "GET /entities", "GET /actors/a/activity"),
            *("GET /transactions/1", "DELETE /entities/org:a", "POST /entities"),
        },
    }
    body = {"POST /events": b'{"type":"a","source":"s"}', "POST /entities": b'{"id":"org:a","name":"A"}'}
    for number, (role, wanted) in enumerate(opens.items()):
        key = bearer(service.store.key(number, role))
        found = set()
        for request in opens["admin"]:
            method, path = request.split(" ")
            options = {"content": body.get(request), "headers": {"content-type": "application/json", **key}}
            [answer] = service.ask((method, path, options))
            assert answer.status_code < 500, request
            if answer.status_code not in (401, 403):
                found.add(request)
        assert found == wanted, role


@pytest.mark.parametrize(
    "wrong",
    [
        "chr_000000000001_" + "t" * 43,
        "chr_000000000002_" + "s" * 43,
        "chr_000000000001_",
        "chr_",
        "",
        "x" * 30_000,
        "chr_000000000001_" + "s" * 42 + "é",
    ],
)
def test_a_wrong_key_opens_nothing(wrong: str) -> None:
    """Whatever is wrong about it, the answer is the same."""
    service = Service()
    service.store.key(1, "admin")
    answer = service.post(LOGIN, headers={"authorization": f"Bearer {wrong}".encode()})
    assert answer.status_code == 401
    assert answer.json() == {"error": {"authorization": "this key or token is wrong, over, or taken back"}}


def test_a_key_ends_when_it_says() -> None:
    """Without anything being read again."""
    service = Service()
    key = bearer(service.store.key(1, "ingest", expires=NOW + timedelta(seconds=10)))
    parts = service.parts()
    assert service.post(LOGIN, headers=key, parts=parts).status_code == 202
    service.clock.seconds += 10
    assert service.post(LOGIN, headers=key, parts=parts).status_code == 401


def test_known_keys_open_for_a_while_without_the_store() -> None:
    """Applications go on handing in events; but not for ever, since nobody could take a key back."""
    service = Service()
    key = bearer(service.store.key(1, "ingest"))
    parts = service.parts()
    assert service.post(LOGIN, headers=key, parts=parts).status_code == 202
    service.store.away = True
    request = ("POST", "/events", {"json": LOGIN, "headers": key})
    service.clock.seconds += 599
    assert service.ask(request, parts=parts, refreshed=False)[0].status_code == 202
    service.clock.seconds += 2
    assert service.ask(request, parts=parts, refreshed=False)[0].status_code == 503


def test_a_new_key_works_at_once_and_strangers_cannot_have_keys_read_all_the_time() -> None:
    """An unknown id is asked for, once in a second."""
    service = Service()
    service.store.key(1, "ingest")
    parts = service.parts()
    parts.keys.refresh()
    service.clock.seconds += 2
    new = bearer(service.store.key(2, "ingest"))
    request = ("POST", "/events", {"json": LOGIN, "headers": new})
    assert service.ask(request, parts=parts, refreshed=False)[0].status_code == 202
    before = service.store.queries
    strangers = [("POST", "/events", {"json": LOGIN, "headers": bearer(f"chr_{n:012x}_{'t' * 43}")}) for n in range(9, 59)]
    assert {answer.status_code for answer in service.ask(*strangers, parts=parts, refreshed=False)} == {401}
    assert service.store.queries <= before + 1


class Slow(Listed):
    """Answers what it is asked about events when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.answer = threading.Semaphore(0), threading.Event()

    def query(self, query: str, *, parameters: dict[str, Any] | None = None, settings: dict[str, Any] | None = None) -> Any:
        if "api_keys" not in query:
            self.waiting.release()
            assert self.answer.wait(60)
        return super().query(query, parameters=parameters, settings=settings)


def test_slow_questions_keep_nobody_out() -> None:
    """As many as there are threads: a key that was made meanwhile still opens, so that events come in."""
    store = Slow()
    service = Service(store=store)
    reader, made = bearer(store.key(1, "reader")), service.parts()

    async def run() -> None:
        made.keys.refresh()
        transport = httpx.ASGITransport(app=create(made))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=reader) as client:
            threads = int(to_thread.current_default_thread_limiter().total_tokens)
            slow = [asyncio.create_task(client.get("/events")) for _ in range(threads + 5)]
            try:
                while store.waiting._value < threads:
                    await asyncio.sleep(0.01)  # until each thread has a question
                service.clock.seconds += keys.ASK_AGAIN_S
                asked = client.post("/events", json=LOGIN, headers=bearer(store.key(2, "ingest")))
                assert (await asyncio.wait_for(asked, 20)).status_code == 202
            finally:
                store.answer.set()
            assert {answer.status_code for answer in await asyncio.gather(*slow)} == {200}

    asyncio.run(asyncio.wait_for(run(), 60))


def test_reads_have_a_rate_of_their_own() -> None:
    """Per key."""
    service = Service(reads_per_s=1)
    one, two = (bearer(service.store.key(number, "reader")) for number in (1, 2))
    answers = service.ask(*(get("/events", one) for _ in range(3)), get("/events", two))
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200]


def test_limits_of_a_role_hold_beside_those_of_the_key() -> None:
    """Settings can narrow every reader."""
    service = Service(role_limits={Role.INGEST: Limits(sources=("shop",))})
    key = bearer(service.store.key(1, "ingest", tenants=["acme", "blue"]))
    assert service.post(LOGIN, headers=key).status_code == 422
    assert service.post(LOGIN | {"tenant": "acme"}, headers=key).status_code == 202
    assert service.post(LOGIN | {"tenant": "acme", "source": "hiring"}, headers=key).status_code == 422


class Versioned:
    """Writes to a table of which the newest version of a row counts, as the store's."""

    def __init__(self, store: Listed) -> None:
        self.store = store
        self.versions: dict[str, Any] = {}

    def insert(
        self, table: str, data: Any, column_names: Any, database: str, *, settings: dict[str, Any] | None = None
    ) -> None:
        row = dict(zip(column_names, data[0], strict=True))
        version = row.pop("version")
        if version >= self.versions.get(row["id"], version):
            self.versions[row["id"]] = version
            self.store.keys = [one for one in self.store.keys if one["id"] != row["id"]]
            self.store.keys.append(row)


def test_a_key_is_taken_back_also_by_a_clock_that_is_behind() -> None:
    """Made where it is a minute later than where it is taken back: the newest version of a key is still the last one."""
    service = Service()
    table = Versioned(service.store)
    key, text = keys.create(table, "trail", "shop", ["ingest"], Limits(), now=NOW + timedelta(minutes=1), expires_at=None)
    assert service.post(LOGIN, headers=bearer(text)).status_code == 202
    keys.revoke(table, service.store, "trail", key.id, now=NOW)
    assert service.post(LOGIN, headers=bearer(text)).status_code == 401


class Table:
    """What `keys.create` writes to."""

    def __init__(self, store: Listed) -> None:
        self.store = store

    def insert(
        self, table: str, data: Any, column_names: Any, database: str, *, settings: dict[str, Any] | None = None
    ) -> None:
        assert table == "api_keys"
        self.store.keys = [one for one in self.store.keys if one["id"] != data[0][0]]
        self.store.keys.append(dict(zip(column_names[:-1], data[0][:-1], strict=True)))


def test_a_key_is_kept_as_a_hash_and_taken_back_for_good() -> None:
    """Its text is nowhere in what is kept; what is revoked stays so."""
    service = Service()
    table = Table(service.store)
    key, text = keys.create(table, "trail", "shop", ["ingest"], Limits(), now=NOW, expires_at=None)
    secret = text.rpartition("_")[2]
    assert secret not in repr(service.store.keys)
    assert service.post(LOGIN, headers=bearer(text)).status_code == 202
    taken = keys.revoke(table, service.store, "trail", key.id, now=NOW + timedelta(days=1))
    assert keys.revoke(table, service.store, "trail", key.id, now=NOW + timedelta(days=2)).revoked_at == taken.revoked_at
    assert service.post(LOGIN, headers=bearer(text)).status_code == 401
    with pytest.raises(ChronicleError, match="no such key"):
        keys.revoke(table, service.store, "trail", "nothing", now=NOW)


@pytest.mark.parametrize(("name", "roles"), [("", ["ingest"]), ("a\nb", ["ingest"]), ("a", []), ("a", ["root"])])
def test_a_key_that_says_too_little_is_not_made(name: str, roles: list[str]) -> None:
    """Nothing is written."""
    store = Listed()
    with pytest.raises(ConfigError):
        keys.create(Table(store), "trail", name, roles, Limits(), now=NOW, expires_at=None)
    assert store.keys == []


def test_there_is_no_role_of_another_name() -> None:
    """A typing error must not make a key that opens less, or more, than was meant."""
    assert parsed_roles(["ingest", "admin"]) == {Role.INGEST, Role.ADMIN}
    with pytest.raises(ConfigError):
        parsed_roles(["Admin"])


@given(st.lists(WORDS, min_size=1, max_size=4), WORDS)
def test_a_pattern_without_stars_is_its_own_text(words: list[str], other: str) -> None:
    """Whatever means something to a regular expression means nothing in a name."""
    name = ".".join(word.replace("*", "x") for word in words)
    other = other.replace("*", "x")
    assert re.fullmatch(anchored(expression([name])), name)
    assert bool(re.fullmatch(anchored(expression([name])), other)) == (name == other)


def test_a_star_is_one_word_and_two_are_any() -> None:
    """As in routes and in the policy."""
    limits = Limits(tables=("shop.public.*", "hiring.**", "a.b*.c"))
    assert limits.sees_table("shop", "public.orders")
    assert not limits.sees_table("shop", "public.orders.x")
    assert not limits.sees_table("shop", "private.orders")
    assert limits.sees_table("hiring", "a.b.c")
    assert limits.sees_table("a", "bee.c")
    assert not limits.sees_table("xa", "b.c")


NAMES = st.text(st.characters(codec="utf-8").filter(str.isprintable) | st.sampled_from(".*"), min_size=1, max_size=6)


@given(source=NAMES, type_=st.from_regex(r"[a-z]{1,2}(\.[a-z]{1,2}){0,3}", fullmatch=True))
def test_what_is_meant_by_a_limit_is_no_other_sources(source: str, type_: str) -> None:
    """A pattern with a source's text is met by that source alone, however another one is called."""
    words = type_.split(".")
    for cut in range(1, len(words)):
        longer, rest = ".".join([source, *words[:cut]]), ".".join(words[cut:])
        for pattern in (f"shop.{type_}", "shop.**", f"shop.{words[0]}.*"):
            assert not Limits(tables=(pattern,)).sees_table(".".join(["shop", *words[:cut]]), rest)
        assert Limits(tables=("**", "*.x")).sees_table(longer, rest)
    assert Limits(tables=(f"*.{type_}",)).sees_table(source, type_)
    assert Limits(sources=(source,), tables=(f"*.{type_}",)).sees_table(source, type_)
    assert Limits(columns=(f"*.{type_}.a",)).sees_column(source, type_, "a")
    assert not Limits(columns=(f"*.{type_}.a.b",)).sees_column(source, type_, "a.b")


def test_limits_narrow_each_other() -> None:
    """Two of them leave what both leave; nothing in common is nothing."""
    both = Principal("a", "a", "user", frozenset(), (Limits(tenants=("a", "b")), Limits(tenants=("b", "c")), Limits()))
    none = Principal("a", "a", "user", frozenset(), (Limits(tenants=("a",)), Limits(tenants=("c",))))
    assert both.only("tenants") == ("b",)
    assert none.only("tenants") == ()
    assert both.only("sources") is None
    assert both.sees_tenant("b")
    assert not both.sees_tenant(None)
    assert not none.sees_tenant("a")


@pytest.mark.parametrize("wrong", ["", "a\nb", "x" * 301])
def test_a_limit_that_limits_nothing_known_is_refused(wrong: str) -> None:
    """Empty and unprintable names."""
    with pytest.raises(ConfigError):
        Limits(tenants=(wrong,))


def test_a_column_is_named_alone_or_with_its_table() -> None:
    """Both ways."""
    limits = Limits(columns=("id", "shop.public.customers.email", "*.public.orders.**"))
    assert limits.sees_column("any", "where.it.is", "id")
    assert limits.sees_column("shop", "public.customers", "email")
    assert not limits.sees_column("shop", "public.suppliers", "email")
    assert limits.sees_column("shop", "public.orders", "total")
    assert Limits().sees_column("a", "b", "c")


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 30)), max_size=40), st.floats(0.5, 100), st.floats(1, 50))
def test_a_rate_lets_through_no_more_than_it_says(asked: list[tuple[float, float]], per_s: float, burst: float) -> None:
    """Over any time: the burst, what flowed in since, and at most one more request's cost."""
    clock = Clock()
    rate = Rate(per_s, burst, clock)
    through, begun, largest = 0.0, clock.seconds, 0.0
    for pause, cost in asked:
        clock.seconds += pause
        largest = max(largest, cost)
        wait_s = rate.wait_s("a", cost)
        if not wait_s:
            through += cost
        else:
            clock.seconds += wait_s + 1e-6
            assert rate.wait_s("a", cost) == 0
            through += cost
        assert through <= burst + (clock.seconds - begun) * per_s + largest + 1e-6


def test_what_is_this_machine() -> None:
    """Names and addresses."""
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.1.2.3", "::1")))
    assert not any(map(is_loopback, ("::", "10.0.0.1", "localhost.evil.example", "", "2130706433")))
