"""A persistence as a subscriber: each accepted event is kept as it was accepted, whatever the transport does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from chronicle.errors import ConfigError
from chronicle.events.event import decoded
from chronicle.journal import Journal
from chronicle.journal.encryption import Encryption, is_sealed
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.persistence import keep
from chronicle.journal.persistence.files import EventFiles, read
from chronicle.journal.persistence.sql import SqlEvents
from chronicle.journal.protection import Protection
from chronicle.journal.transports import TransportAway
from chronicle.journal.transports.memory import Memory
from chronicle.journal.transports.tee import Tee
from chronicle.policy.keyring import KeyRing, Purpose, entry

RING = KeyRing.parse(entry("one", Purpose.ENCRYPT, bytes(range(64)), datetime(2026, 1, 1, tzinfo=UTC)))


class Away(Memory):
    """Away until it is told to come back."""

    def __init__(self) -> None:
        super().__init__()
        self.back = threading.Event()

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        if not self.back.is_set():
            raise TransportAway("away")
        return super().send(batch)


def test_what_is_sent_is_kept_as_it_was_sent(tmp_path: Path) -> None:
    """The same bytes: protected once, sealed once, with the same id and context."""
    memory = Memory()
    journal = Journal(source="shop", transport=memory, protect=Protection(encryption=Encryption.of(RING)))
    keeper = keep(journal, EventFiles(tmp_path))
    for number in range(100):
        journal.publish("t.e", actor="ann", payload={"number": number, "password": "x"}, request_id=number)
    journal.close()
    keeper.close()
    kept = list(read(tmp_path))
    assert kept == [out.text for out in memory.sent]
    assert len(kept) == 100
    assert all(is_sealed(decoded(text).payload) for text in kept)
    assert keeper.counts["confirmed"] == 100


def test_only_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    """By pattern."""
    journal = Journal(source="shop", transport="memory://")
    keeper = keep(journal, EventFiles(tmp_path), "security.**")
    journal.publish("security.login.failed")
    journal.publish("shop.order")
    journal.close()
    keeper.close()
    assert [decoded(text).type for text in read(tmp_path)] == ["security.login.failed"]


def test_a_kept_copy_is_made_while_the_transport_is_away(tmp_path: Path) -> None:
    """And the other way round: a database that is away holds nothing up, and gets each event once when it is back."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/events.db")
    away = Away()
    journal = Journal(source="shop", transport=away, breaker_reset_s=0.01, breaker_reset_max_s=0.02)
    keeper = keep(journal, SqlEvents(engine))
    ids = [journal.publish("t.e", payload={"n": number}).id for number in range(20)]
    assert journal.flush(0.01) is False
    assert keeper.counts is not None
    assert journal.queued == 20
    away.back.set()
    assert journal.flush(20)
    journal.close()
    keeper.close()
    with engine.connect() as connection:
        assert sorted(connection.execute(sa.text("SELECT id FROM journal_events")).scalars()) == sorted(ids)
    assert len(away.sent) == 20


def test_a_database_that_comes_back_gets_each_event_once(tmp_path: Path) -> None:
    """In batches, retried by the queue; nothing is dropped."""
    place = tmp_path / "later"
    store = SqlEvents(f"sqlite:///{place}/events.db")
    journal = Journal(source="shop", transport=store, breaker_reset_s=0.01, breaker_reset_max_s=0.02, on_error=lambda *_: None)
    receipts = [journal.publish("t.e") for _ in range(50)]
    assert journal.flush(0.05) is False
    place.mkdir()
    assert [receipt.wait(20).disposition for receipt in receipts] == ["confirmed"] * 50
    journal.close()
    with sa.create_engine(f"sqlite:///{place}/events.db").connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM journal_events")).scalar() == 50


def test_beside_another_transport_both_have_it(tmp_path: Path) -> None:
    """`Tee`: confirmed means on the disk too; and a URL can say so."""
    memory = Memory()
    journal = Journal(source="shop", transport=Tee(memory, EventFiles(tmp_path / "a")))
    assert journal.publish_sync("t.e").disposition == "confirmed"
    assert list(read(tmp_path / "a")) == [out.text for out in memory.sent]
    journal.close()
    with Journal(source="shop", transport=f"memory:// file://{tmp_path}/b?compress=0", production=True) as other:
        other.publish_sync("t.e")
    assert len(list(read(tmp_path / "b"))) == 1


@pytest.mark.parametrize(("variable", "value"), [("PROTECT", "0"), ("SECRET_NAMES", "diagnosis"), ("ENCRYPT", "t.*")])
def test_the_environment_says_what_is_protected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """On without a word; off, further names, encryption."""
    (tmp_path / "keys.toml").write_text(entry("one", Purpose.ENCRYPT, bytes(range(64)), datetime(2026, 1, 1, tzinfo=UTC)))
    monkeypatch.setenv("CHRONICLE_JOURNAL_KEY_RING_FILE", str(tmp_path / "keys.toml"))
    memory = Memory()
    with Journal(source="s", transport=memory) as journal:
        journal.publish("t.e", payload={"password": "x", "diagnosis": "flu"})
    monkeypatch.setenv(f"CHRONICLE_JOURNAL_{variable}", value)
    with Journal(source="s", transport=memory) as journal:
        journal.publish("t.e", payload={"password": "x", "diagnosis": "flu"})
    with Journal(source="s", transport=memory, protect=False) as journal:
        journal.publish("t.e", payload={"password": "x"})
    first, second, third = (out.event.payload for out in memory.sent)
    assert first == {"password": "[FILTERED]", "diagnosis": "flu"}
    if variable == "ENCRYPT":
        assert is_sealed(second)
    else:
        assert (
            second
            == {
                "PROTECT": {"password": "x", "diagnosis": "flu"},
                "SECRET_NAMES": {"password": "[FILTERED]", "diagnosis": "[FILTERED]"},
            }[variable]
        )
    assert third == {"password": "x"}


def test_encryption_without_a_key_stops_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a fall-back to clear."""
    monkeypatch.setenv("CHRONICLE_JOURNAL_ENCRYPT", "**")
    with pytest.raises(ConfigError, match="key ring"):
        Journal(source="s", transport="memory://")
