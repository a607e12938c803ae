"""A test's changes through Chronicle: the engine with the real path, attribution and processors, and no sink."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl

from chronicle.engine import Engine, Failed, Flood, Step
from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.policy.file import ALL_CLEAR, Policy, parse
from chronicle.policy.keyring import EMPTY, KeyRing, Purpose, entry
from chronicle.processors import Processor
from chronicle.processors.run import unwatched
from chronicle.processors.step import Processing
from chronicle.stages import attribute
from chronicle.stages.path import Path
from chronicle.stages.table_plan import Rules, compiled
from chronicle.testing import changes as told
from chronicle.testing.changes import Change
from chronicle.testing.records import Record, chunks

IDENTITY_KEY = b"chronicle.testing: not a secret."
"""Event ids of a test are not those of any deployment."""
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome(Batch):
    """What became of the records: the batch as sinks would hold it."""

    def audited(self) -> list[dict[str, Any]]:
        """The changes that are told whole (no stubs), one dict each, with `key`, images, `tags`, `enriched` and `extra` as
        Python values (`extra` is {} where there is none)."""
        told_whole = self.changes.filter(pl.col("stub").fill_null("") == "")
        return [_opened(row) for row in told_whole.iter_rows(named=True)]


_TEXTS = ("key", "previous_key", "before", "after", "tags", "enriched", "extra")


def _opened(row: Mapping[str, Any]) -> dict[str, Any]:
    opened = {name: msgspec.json.decode(row[name]) if row[name] else None for name in _TEXTS}
    return {**row, **opened, "extra": opened["extra"] or {}}


def run(
    given: Iterable[Record | Change],
    *,
    policy: Policy | str = ALL_CLEAR,
    processors: Sequence[Processor] = (),
    ring: KeyRing | None = None,
    schemas: Mapping[int, str | None] | None = None,
    sources: Sequence[SourceSpec] = (),
    identity_key: bytes = IDENTITY_KEY,
    steps: Sequence[Step] = (),
    raising: bool = True,
    now_us: int = 0,
) -> Outcome:
    """Take changes through the whole path, as one batch. The same input gives the same output: table by table, in the order
    in which tables and rows are given.

    Args:
        given: changes (`change`), or records with the bytes that a connector wrote.
        policy: a policy, or the text of its file. Unless given, all is clear but what looks secret.
        processors: in this order.
        ring: the keys that the policy needs; unless given, some are made, the same in every run.
        schemas: Avro schemas by registry id, for records in Avro.
        sources: unless given, they follow from `given`; of records with the most careful settings.
        steps: run after attribution, before processors.
        raising: a processor's exception leaves as it is; else it does what a worker does: dead letters, or StopWorker.
        now_us: time of processing, microseconds since 1970.

    Raises:
        ConfigError: the policy, or a change, cannot be.
        StopWorker: what would stop a worker, as a processor declared `on_error="stop"` does.
    """
    items = list(given)
    processing = Processing(processors, lambda: now_us, _raise if raising else unwatched)
    path_rules = replace(rules(policy, identity_key, ring), granted=processing.granted)
    engine = Engine(
        Path(sources or told.sources(items), identity_key, path_rules),
        _Schemas(schemas or {}),
        (),
        watch=_Impatient(),
        flood=Flood(1.0, 2**62),
        steps=(_Attribution(), *steps, processing),
        now_us=lambda: now_us,
    )
    batch = engine.process(chunks(told.records(items))).batch
    return Outcome(**{one.name: getattr(batch, one.name) for one in fields(Batch)})


def rules(policy: Policy | str = ALL_CLEAR, identity_key: bytes = IDENTITY_KEY, ring: KeyRing | None = None) -> Rules:
    """A policy with its keys, as the pure path takes it; secrets of a test protect nothing."""
    found = parse(policy) if isinstance(policy, str) else policy
    return compiled(found, _keys(found) if ring is None else ring, identity_key, nonce="0" * 32)


def _keys(policy: Policy) -> KeyRing:
    """The keys that a policy names."""
    wanted = dict.fromkeys(policy.domains.values(), Purpose.TOKEN)
    if policy.encrypts:
        wanted[policy.encrypt_key or "testing"] = Purpose.ENCRYPT
    texts = [entry(id_, purpose, hashlib.sha256(id_.encode()).digest(), _CREATED) for id_, purpose in wanted.items()]
    return KeyRing.parse("\n".join(texts)) if texts else EMPTY


def _raise(_processor: Processor, error: BaseException) -> None:
    raise error


class _Schemas:
    """A registry that knows what it was given."""

    def __init__(self, texts: Mapping[int, str | None]) -> None:
        self._texts = texts

    def resolve(self, ids: Iterable[int]) -> dict[int, str | None]:
        return {id_: self._texts.get(id_) for id_ in ids}


class _Impatient:
    """A worker would wait for what is away; a test hears of it at once."""

    def __init__(self) -> None:
        self.stopping = threading.Event()

    def retrying(self, name: str, error: BaseException) -> None:
        raise AssertionError(f"{name} asks to be tried again: {error}")

    def recovered(self, name: str) -> None:
        """Nothing was away."""


class _Attribution:
    """Contexts of the batch itself onto its changes."""

    name = "attribution"

    def __call__(self, batch: Batch) -> tuple[Batch, Sequence[Failed]]:
        contexts = batch.transactions.filter(pl.col("kind") == "context")
        if not len(contexts):
            return batch, ()
        found = contexts.select(pl.col(name) for name in attribute.CONTEXTS if name != "at")
        found = found.with_columns(contexts["offset"].cast(pl.UInt64).alias("at")).select(list(attribute.CONTEXTS))
        return replace(batch, changes=attribute.attributed(batch.changes, found, ())), ()
