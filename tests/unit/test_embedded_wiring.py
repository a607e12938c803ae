"""What the embedded mode makes of settings, and its small adapters: keys are never made twice, the last word counts."""

from __future__ import annotations

import asyncio
import errno
import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chronicle import wiring_embedded
from chronicle.api.parts import Unavailable
from chronicle.cli.run import commands
from chronicle.codec.entity import Entity, InvalidEntity, Record
from chronicle.config import Settings
from chronicle.embedded import pipeline
from chronicle.embedded.pipeline import Overloaded, Stopped
from chronicle.errors import ConfigError, StopWorker
from chronicle.journal.transports import TransportAway
from chronicle.policy.file import parse
from chronicle.policy.keyring import Purpose
from chronicle.policy_files import add_key, read_key_ring
from chronicle.wiring_embedded import POLICY, EmbeddedTransport, PipelinePublisher, StoreEntities, first_start
from chronicle.worker.status import Status


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHRONICLE_POLICY_FILE", raising=False)


def test_what_the_settings_name_stays_and_the_rest_is_in_the_directory(tmp_path: Path) -> None:
    """A file of one's own, a store of one's own."""
    plain = Settings().embedded(tmp_path)
    assert (plain.transport, plain.store, plain.clickhouse.url) == ("memory", "chdb", f"chdb://{tmp_path}/chdb")
    assert plain.policy_file == tmp_path / "policy.toml"
    own = Settings(policy_file=Path("mine.toml"), store="memory", chdb_path=Path("/elsewhere")).embedded(tmp_path)
    assert (own.policy_file, own.clickhouse.url, own.chdb_path) == (Path("mine.toml"), "chdb://memory", Path("/elsewhere"))
    assert own.identity_key_file == tmp_path / "identity.key"
    server = Settings(store="clickhouse").embedded(tmp_path)
    assert server.clickhouse.url == Settings().clickhouse.url


def test_the_first_start_makes_three_files_for_their_owner_once(tmp_path: Path) -> None:
    """A second one changes nothing; keys are nobody else's to read."""
    settings = Settings().embedded(tmp_path / "a" / "b")
    assert len(first_start(settings)) == 3
    files = {file.name: file.read_bytes() for file in (tmp_path / "a" / "b").iterdir()}
    assert sorted(files) == ["identity.key", "keys.toml", "policy.toml"]
    assert first_start(settings) == []
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "a" / "b").iterdir()}
    for name in files:
        assert (tmp_path / "a" / "b" / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("name", "what"), [("identity.key", "identity key"), ("keys.toml", "key ring"), ("policy.toml", "policy")]
)
def test_a_store_whose_keys_or_policy_are_gone_gets_no_others(tmp_path: Path, name: str, what: str) -> None:
    """Under another key what came before is somebody else's, or unreadable; the first policy shows what another one hid."""
    settings = Settings().embedded(tmp_path)
    first_start(settings)
    (settings.chdb_path / "store").mkdir(parents=True)
    assert first_start(settings) == []
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=f"^restore the {what} to "):
        first_start(settings)
    assert not (tmp_path / name).exists()


def test_a_first_start_that_was_interrupted_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two keys, and while the policy is written: what is there then is never taken for all of it."""
    settings = Settings().embedded(tmp_path)
    first_start(settings)
    whole = (tmp_path / "keys.toml").read_text()
    (tmp_path / "keys.toml").write_text(whole[: whole.index("[", whole.index("[") + 1)])  # as after the first of them
    assert len(read_key_ring(settings).keys) == 1
    assert len(first_start(settings)) == 1
    assert {one.purpose for one in read_key_ring(settings).keys.values()} == set(Purpose)
    (tmp_path / "policy.toml").unlink()

    def full(descriptor: int, *_: object) -> None:
        if "policy" in str(Path(f"/dev/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(ConfigError, match=r"^make .*policy\.toml writable"):
        patched.setattr("os.fsync", full)
        first_start(settings)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["identity.key", "keys.toml"]
    first_start(settings)
    assert (tmp_path / "policy.toml").read_text() == POLICY


def test_a_start_writes_nothing_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept on a disk that is full can be read."""
    settings = Settings().embedded(tmp_path)
    first_start(settings)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        assert first_start(settings) == []
    settings.identity_key_file.write_text("no key")
    with pytest.raises(ConfigError):
        first_start(settings)


def test_a_key_ring_of_ones_own_stays_as_it_is(tmp_path: Path) -> None:
    """Keys are only added to those that a first start made."""
    settings = Settings().embedded(tmp_path)
    add_key(settings.key_ring_file, "mine", Purpose.TOKEN, datetime.now(UTC).replace(microsecond=0))
    text = settings.key_ring_file.read_text()
    first_start(settings)
    assert settings.key_ring_file.read_text() == text


def test_the_first_policy_is_one(tmp_path: Path) -> None:
    """Payloads are clear in it, whatever looks secret is not."""
    policy = parse(POLICY, name="policy.toml").event("shop", "order.placed", {})
    assert policy is not None


class Table:
    """Stands for the store's table: the state with the highest version counts, as in ReplacingMergeTree."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, records: Iterable[Record]) -> None:
        self.records += records

    def state(self, id_: str) -> Record:
        return max((one for one in self.records if one.id == id_), key=lambda one: (one.at_ms, one.offset))


def test_the_last_word_counts_whatever_the_clock_does() -> None:
    """It stands still, goes back, jumps; the table's own latest time is ahead of it."""
    table, clock = Table(), itertools.cycle([5_000, 5_000, 10, 9_000_000, 0])
    writer = StoreEntities(cast("Any", table), 6_000, now_ms=lambda: next(clock))
    for number in range(50):
        if number % 7 == 6:
            writer.delete(["org:acme"])
            assert table.state("org:acme").body is None
        else:
            writer.put([Entity("org:acme", "first"), Entity("org:acme", f"name {number}")])
            assert f"name {number}" in (table.state("org:acme").body or "")
    with pytest.raises(InvalidEntity):
        writer.delete(["no id"])


class Pipeline:
    """Answers as it is told."""

    def __init__(self, answer: Callable[[], Future[None]]) -> None:
        self.answer, self.ended = answer, False

    def hand_in(self, _records: object) -> Future[None]:
        return self.answer()


def future(error: Exception | None = None) -> Future[None]:
    made: Future[None] = Future()
    made.set_running_or_notify_cancel()
    made.set_exception(error) if error else made.set_result(None)
    return made


def never() -> Future[None]:
    made: Future[None] = Future()
    made.set_running_or_notify_cancel()
    return made


def refuse(error: Exception) -> Future[None]:
    raise error


@pytest.mark.parametrize(
    "answer",
    [lambda: refuse(Overloaded("x")), lambda: refuse(Stopped("x")), lambda: future(Stopped("x")), never],
    ids=["overloaded", "stopped", "ended under way", "store away"],
)
def test_what_is_not_held_is_never_told_as_accepted(
    answer: Callable[[], Future[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is told when to come again."""
    monkeypatch.setattr(wiring_embedded, "CONFIRM_S", 0.05)
    publisher = PipelinePublisher(cast("Any", _Embedded(Pipeline(answer))))
    with pytest.raises(Unavailable) as refused:
        asyncio.run(publisher.publish([(b"k", b"v")]))
    assert refused.value.retry_after_s > 0


def test_what_is_held_is_told_and_a_wait_shows() -> None:
    """`/ready` names what is waited for."""
    embedded = _Embedded(Pipeline(future))
    publisher = PipelinePublisher(cast("Any", embedded))
    assert asyncio.run(publisher.publish([(b"k", b"v")])) == "confirmed"
    assert publisher.problem() is None
    embedded.status.retrying("clickhouse", OSError())
    assert publisher.problem() == "waiting for clickhouse"
    embedded.status.recovered("clickhouse")
    embedded.pipeline.ended = True
    assert publisher.problem() == "the pipeline has ended"


class _Embedded:
    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.status = pipeline, Status()
        self.lock = threading.Lock()


def test_a_transport_whose_store_has_ended_says_why() -> None:
    """Nobody but the application can start it again; without the reason it would only see that nothing is taken."""

    def breaks(_chunk: object) -> None:
        raise StopWorker("look at the disk")

    status = Status()
    line = pipeline.Pipeline(breaks, "chronicle.events", 0, stopping=status.stopping, failed=status.fail)
    transport = EmbeddedTransport(cast(Any, SimpleNamespace(pipeline=line, status=status)), durable=True, timeout_s=30)
    out = cast(Any, SimpleNamespace(key=b"k", text=b"{}"))
    for _ in range(3):  # the one that was under way, and all after it
        with pytest.raises(TransportAway, match=r"start the process again.*: look at the disk"):
            transport.send([out])


def test_workers_beside_the_service_have_names_and_ports_of_their_own() -> None:
    """One is just `worker`; any free port stays any free port."""
    assert commands(Settings(), 1) == {"api": ["api"], "worker": ["worker", "--http-port", "28007"]}
    ports = [words[-1] for name, words in commands(Settings(), 3).items() if name != "api"]
    assert ports == ["28007", "28008", "28010"]
    free = Settings(worker={"http_port": 0})
    assert [words[-1] for name, words in commands(free, 2).items() if name != "api"] == ["0", "0"]
