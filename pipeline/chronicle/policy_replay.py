"""Recorded raw changes through the pure path under two policies at once: what would look different. Nothing is written."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from chronicle.engine import Resolver
from chronicle.model.chunk import Chunk
from chronicle.policy.file import Policy
from chronicle.policy.keyring import KeyRing
from chronicle.stages.path import Path
from chronicle.stages.policy_effects import Comparison
from chronicle.stages.table_plan import compiled

if TYPE_CHECKING:
    from chronicle.codec.contract import Contract
    from chronicle.model.chunk import SourceSpec


def compare(
    policies: tuple[Policy, Policy],
    batches: Iterable[Sequence[Chunk]],
    registry: Resolver,
    *,
    specs: Sequence[SourceSpec],
    ring: KeyRing,
    identity_key: bytes,
    contracts: Mapping[str, Contract],
    progress: Callable[[int], None] = lambda _records: None,
) -> Comparison:
    """What the old and the new policy make of these records, added up.

    Args:
        ring: the keys of both policies.
        progress: told after each batch how many records are done.

    Raises:
        ConfigError: a key that a policy needs is not in the ring, or the registry refuses us.
        TransientError: the registry, or what the batches come from, is away.
    """
    nonce = secrets.token_hex(16)
    rules = [compiled(one, ring, identity_key, nonce=nonce, contracts=contracts) for one in policies]
    before, after = (Path(specs, identity_key, one) for one in rules)
    found = Comparison(*policies)
    for chunks in batches:
        schemas = registry.resolve(before.schema_ids(chunks))
        now_us = time.time_ns() // 1000
        found.add(before.run(chunks, schemas, now_us), after.run(chunks, schemas, now_us))
        progress(found.records)
    return found
