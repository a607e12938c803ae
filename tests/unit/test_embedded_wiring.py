"""What the embedded mode makes of settings, and its small adapters: keys are never made twice, the last word counts."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest

from chronicle import wiring_embedded
from chronicle.api.parts import Unavailable
from chronicle.cli.run import commands
from chronicle.codec.entity import Entity, InvalidEntity, Record
from chronicle.config import Settings
from chronicle.embedded.pipeline import Overloaded, Stopped
from chronicle.errors import ConfigError
from chronicle.policy.file import parse
from chronicle.wiring_embedded import POLICY, PipelinePublisher, StoreEntities, first_start
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
    for name in ("identity.key", "keys.toml"):
        assert (tmp_path / "a" / "b" / name).stat().st_mode & 0o077 == 0


def test_a_store_whose_key_is_gone_gets_no_other(tmp_path: Path) -> None:
    """What came under the old one would be somebody else."""
    settings = Settings().embedded(tmp_path)
    first_start(settings)
    (settings.chdb_path / "store").mkdir(parents=True)
    settings.identity_key_file.unlink()
    with pytest.raises(ConfigError, match=r"^restore the identity key"):
        first_start(settings)
    assert not settings.identity_key_file.exists()


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


def test_workers_beside_the_service_have_names_and_ports_of_their_own() -> None:
    """One is just `worker`; any free port stays any free port."""
    assert commands(Settings(), 1) == {"api": ["api"], "worker": ["worker", "--http-port", "28007"]}
    ports = [words[-1] for name, words in commands(Settings(), 3).items() if name != "api"]
    assert ports == ["28007", "28008", "28010"]
    free = Settings(worker={"http_port": 0})
    assert [words[-1] for name, words in commands(free, 2).items() if name != "api"] == ["0", "0"]
