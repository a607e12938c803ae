"""Chronicle as a company runs it: SASL_SSL and ACLs at the broker, HTTPS and users at registry and ClickHouse, a private CA.

Rights are those that README lists, no more: who takes one out of that list, or needs one more in the product, sees it here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chronicle.dev.stack import Stack
from chronicle.journal import Journal
from chronicle.journal.transports import TransportAway
from chronicle.journal.transports.http import Http
from chronicle.journal.transports.kafka import Kafka
from tests.stack.secured_services import MECHANISM, Right
from tests.stack.secured_site import STRANGER, SecuredSite
from tests.stack.test_worker import free_port
from tests.stack.worker_process import until

pytestmark = pytest.mark.stack

ROWS = 300


@pytest.fixture(scope="module")
def site(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredSite]:
    """Secured services, set up by the command; a captured table with `ROWS` changes and a record that is none."""
    directory = tmp_path_factory.mktemp("secured")
    made = SecuredSite(stack, f"t{directory.stat().st_ino}x", directory)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def ready(site: SecuredSite) -> SecuredSite:
    """After `chronicle setup`, with records to work on."""
    done = site.run("setup", "setup", "--json")
    assert done.code == 0, done.err
    site.capture(ROWS)
    return site


def journal_settings(site: SecuredSite, **changed: str) -> dict[str, str]:
    """As CHRONICLE_JOURNAL_KAFKA has them, of the application's user."""
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": MECHANISM,
        "sasl.username": "application",
        "sasl.password": site.secrets["application"],
        "ssl.ca.location": str(site.authority.ca),
        **changed,
    }


def drained(site: SecuredSite) -> dict[str, Any]:
    """The summary of a worker that has read everything."""
    done = site.run("worker", "worker", "--until-drained", "--json")
    assert done.code == 0, done.err[-3000:]
    summary: dict[str, Any] = json.loads(done.out)
    return summary


def test_setup_may_be_repeated_and_puts_settings_right(ready: SecuredSite) -> None:
    """With the rights of `setup`: a setting that somebody changed is changed back."""
    ready.kafka.allow("setup", Right("topic", "chronicle.*", "DESCRIBE"))  # twice is once
    assert ready.run("setup", "setup", "--json").code == 0
    ready.kafka.set_topic("chronicle.audit", "cleanup.policy", "delete")
    done = ready.run("setup", "setup", "--json")
    assert done.code == 0, done.err
    assert "cleanup.policy=compact" in done.out


def test_changes_go_through_and_dead_letters_come_back(ready: SecuredSite) -> None:
    """Worker, listing, replay and original bytes, each as a user with its own rights."""
    drained(ready)
    assert ready.ask(f"SELECT count() FROM chronicle.changes FINAL WHERE source = '{ready.name}'") == [[ROWS]]
    assert ready.ask(f"SELECT count() FROM mirror.{ready.name}__public__t__current") == [[ROWS]]
    audited = [key for key, _, _ in ready.broker.read("chronicle.audit")]
    assert len(set(audited)) == ROWS
    listed = ready.run("operator", "dead-letters", "list", "--json")
    [letter] = map(json.loads, listed.out.splitlines())
    assert (letter["topic"], letter["reason"]) == (f"{ready.name}.public.t", "wrong_frame")
    where = [str(letter[name]) for name in ("topic", "partition", "offset")]
    shown = ready.run("operator", "dead-letters", "show", *where, "--raw")
    assert shown.code == 0, shown.err
    assert "no record" in shown.out
    replayed = ready.run("operator", "dead-letters", "replay")
    assert replayed.code == 0, replayed.err
    assert drained(ready)["dead_letters"] == {"wrong_frame": 1}


def test_events_of_service_and_journal_arrive(ready: SecuredSite) -> None:
    """By HTTPS with a key, and over SASL_SSL from an application: in the trail, and read back through the service."""
    key = ready.run("worker", "keys", "create", "--name", "test", "--role", "admin", "--json", secret=True)
    assert key.code == 0, key.err
    text = json.loads(key.out)["key"]
    port = free_port()
    service = ready.serve("application", "api", API__PORT=str(port))
    try:
        until(lambda: service.log_text().count("api.listening"), "the service listens")
        url = ready.https_before(port)
        with Journal(source="shop", transport=Http(url, key=text, ca=str(ready.authority.ca))) as journal:
            assert journal.publish_sync("order.placed", payload={"n": 1}).disposition == "confirmed"
        with Journal(source="shop", transport=Kafka(ready.kafka.servers, config=journal_settings(ready))) as journal:
            assert journal.publish_sync("order.placed", payload={"n": 2}).disposition == "confirmed"
        client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {text}"}, verify=ready.authority.client_context(), timeout=30
        )
        posted = client.post("/events", json={"type": "order.placed", "source": "shop", "payload": {"n": 3}})
        assert posted.status_code == 202
        entity = {"id": "org:acme", "name": "Acme", "metadata": {}}
        assert client.post("/entities", json=entity).status_code == 200
        drained(ready)
        found = client.get("/events", params={"type": "order.placed"}).raise_for_status().json()["events"]
        assert sorted(event["payload"]["n"] for event in found) == [1, 2, 3]
    finally:
        service.term()
        assert service.wait() == 0
    assert ready.run("operator", "entities", "get", "org:acme").code == 0
    assert ready.run("operator", "entities", "put", "org:other", "--name", "Other").code == 0
    assert text not in service.log_text()


KAFKA_LOGIN = "correct kafka.sasl_username, kafka.sasl_password or kafka.sasl_mechanism"
KAFKA_TRUST = "correct kafka.ssl_ca_location, kafka.bootstrap_servers or kafka.security_protocol"
WORKER = ("worker", "--until-drained")
KEY = ("keys", "create", "--name", "x", "--role", "reader")
WRONG: dict[str, tuple[dict[str, str], str, tuple[tuple[str, ...], ...]]] = {
    "password of the broker": ({"KAFKA__SASL_PASSWORD": "{wrong}"}, KAFKA_LOGIN, (("setup",), ("dead-letters", "replay"))),
    "user of the broker": ({"KAFKA__SASL_USERNAME": "nobody"}, KAFKA_LOGIN, (WORKER,)),
    "mechanism": ({"KAFKA__SASL_MECHANISM": "PLAIN"}, KAFKA_LOGIN, (("api",),)),
    "CA of the broker": ({"KAFKA__SSL_CA_LOCATION": "{another}"}, KAFKA_TRUST, (WORKER,)),
    "file of the CA": ({"KAFKA__SSL_CA_LOCATION": "/nowhere"}, "correct kafka.ssl_ca_location: /nowhere", (("setup",),)),
    "protocol": ({"KAFKA__SECURITY_PROTOCOL": "SSL"}, "set kafka.security_protocol to SASL_SSL", (("dead-letters", "replay"),)),
    "password of the registry": (
        {"REGISTRY__PASSWORD": "{wrong}"}, "registry.username and registry.password", (("setup",), WORKER),
    ),
    "CA of the registry": ({"REGISTRY__CA_LOCATION": "{another}"}, "correct registry.ca_location", (("setup",), WORKER)),
    "password of ClickHouse": ({"CLICKHOUSE__PASSWORD": "{wrong}"}, "correct clickhouse.username, its password", (WORKER,)),
    "CA of ClickHouse": ({"CLICKHOUSE__CA_LOCATION": "{another}"}, "correct clickhouse.ca_location", (("setup",), ("api",))),
    "password of the service's reader": ({"API__CLICKHOUSE_PASSWORD": "{wrong}"}, "correct clickhouse.username", (("api",),)),
    "rights in ClickHouse": ({"CLICKHOUSE__USERNAME": "without_insert"}, "lacks INSERT", (KEY,)),
    "rights in ClickHouse at all": (
        {"CLICKHOUSE__USERNAME": "without_rights"}, "lacks CREATE DATABASE ON chronicle.*", (("setup",),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named(ready: SecuredSite, what: str) -> None:
    """Exit 2 and the setting to correct, in seconds, not a wait for a service that is there."""
    changed, said, commands = WRONG[what]
    words = {"wrong": ready.secrets["wrong"], "another": str(ready.another_authority.ca)}
    given = {name: value.format(**words) for name, value in changed.items()}
    who = {"setup": "setup", "worker": "worker", "api": "application", "keys": "worker"}
    for command in commands:
        done = ready.run(who.get(command[0], "operator"), *command, changed=given)
        assert (done.code, said in done.error) == (2, True), (command, done.code, done.err[-2000:])
        assert "Traceback" not in done.err


MISSING: dict[str, tuple[str, Right, tuple[str, ...], str]] = {
    "read the retry topic": ("worker", Right("topic", "chronicle.retry", "READ"), WORKER, "there is no topic chronicle.retry"),
    "join the group": ("worker", Right("group", "chronicle", "READ"), WORKER, "group chronicle"),
    "write the audit topic": ("worker", Right("topic", "chronicle.audit", "WRITE"), WORKER, "chronicle.audit"),
    "make topics": ("setup", Right("topic", "chronicle.*", "CREATE"), ("setup",), "chronicle.entities"),
    "read dead letters": (
        "operator", Right("topic", "chronicle.dead-letters", "READ"), ("dead-letters", "replay"), "grant this user its rights",
    ),
    "send dead letters back": (
        "operator", Right("topic", "chronicle.retry", "WRITE"), ("dead-letters", "replay"), "grant this user its rights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MISSING)
def test_a_right_that_lacks_is_named(ready: SecuredSite, what: str) -> None:
    """One right is taken away (and given back): the command ends with what to grant."""
    who, right, command, said = MISSING[what]
    if what == "make topics":
        ready.broker.delete("chronicle.entities")
    ready.kafka.forbid(who, right)
    try:
        done = ready.run(who, *command)
        assert (done.code != 0, said in done.error) == (True, True), (done.code, done.err[-2000:])
        assert "Traceback" not in done.err
    finally:
        ready.kafka.allow(who, right)
    if command == ("setup",):
        assert ready.run(who, *command).code == 0


def test_to_see_a_group_is_not_to_be_in_it(ready: SecuredSite) -> None:
    """DESCRIBE without READ: the worker ends, and does not wait for partitions that nobody will give it."""
    see, join = (Right("group", "chronicle", operation) for operation in ("DESCRIBE", "READ"))
    ready.kafka.allow("worker", see)
    ready.kafka.forbid("worker", join)
    try:
        done = ready.run("worker", *WORKER)
        assert (done.code, "grant this user READ on the group chronicle" in done.error) == (2, True), done.err[-2000:]
    finally:
        ready.kafka.allow("worker", join)
        ready.kafka.forbid("worker", see)


def test_a_user_without_rights_reads_nothing(ready: SecuredSite) -> None:
    """Logged in; whether its group or a topic is asked for first is chance."""
    done = ready.run(STRANGER, *WORKER)
    assert done.code == 2
    assert "grant this user READ on the groups" in done.error or "there is no topic chronicle.audit" in done.error


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"sasl.password": "{wrong}"}, "_AUTHENTICATION: correct"), ({"ssl.ca.location": "{another}"}, "_SSL: correct")],
)
def test_a_journal_that_is_not_let_in_says_why(ready: SecuredSite, changed: dict[str, str], said: str) -> None:
    """Its events wait, as for a broker that is away, but what it tells is what to correct."""
    words = {"wrong": ready.secrets["wrong"], "another": str(ready.another_authority.ca)}
    given = {name: value.format(**words) for name, value in changed.items()}
    transport = Kafka(ready.kafka.servers, config=journal_settings(ready, **given), timeout_s=2.0)
    with Journal(source="shop", transport="memory://") as journal:
        out = journal.prepared("a.b")
    assert out is not None
    with pytest.raises(TransportAway, match=said) as raised:
        transport.send([out])
    transport.close()
    assert ready.secrets["wrong"] not in str(raised.value)


def test_a_journal_does_not_trust_another_authority(ready: SecuredSite) -> None:
    """Over HTTPS: no event is sent to whom the CA does not vouch for."""
    transport = Http(ready.https_before(1), ca=str(ready.another_authority.ca), timeout_s=5.0)
    with Journal(source="shop", transport="memory://") as journal:
        out = journal.prepared("a.b")
    assert out is not None
    with pytest.raises(TransportAway, match="correct CHRONICLE_JOURNAL_CA"):
        transport.send([out])


def test_no_secret_stands_in_any_output(ready: SecuredSite) -> None:
    """Of all commands above, and in the logs of service and broker; and the search finds what is there."""
    logs = {path.name: path.read_text(errors="replace") for path in (ready.directory / "services" / "logs").glob("kafka*")}
    assert ready.said
    assert ready.leaks(logs) == []
    assert ready.leaks({"planted": f"x{ready.secrets['registry']}x"}) == ["planted"]
    assert not [path for path in ready.directory.rglob("chronicle.toml") if ready.leaks({"it": path.read_text()})]


def test_the_listed_rights_are_all_in_use(ready: SecuredSite) -> None:
    """README's lists were read: every kind of work has rights, and both users of ClickHouse their grants."""
    assert {who: len(found) for who, found in ready.rights.items()} == {
        "setup": 4, "worker": 11, "application": 2, "operator": 6,
    }  # fmt: skip
