"""Which writer schemas of events are asked for: anybody may write an id that no registry knows, and each such id costs a wait.

An id that is unknown is asked for until `registry.unknown_id_wait_s` is over, because a registry may learn it a moment after
its first record. Sources are trusted with that; applications are trusted with a few.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from chronicle.model.chunk import Chunk
from chronicle.stages.decode import HEAD_BYTES, head_id

ASKED_MAX = 1_000
"""New ids of one batch: each costs a call, known or not."""
UNKNOWN_MAX = 16
"""Ids that turned out unknown, after which no other is asked for …"""
FORGIVEN_US = 60_000_000
"""… until so long after, one by one (microseconds): a wait a minute at most, whatever comes."""


class Asking:
    """How many more unknown ids are waited for. Ids that are not asked for make dead letters, which can be sent back."""

    def __init__(self) -> None:
        self._unknown = 0.0
        self._asked: frozenset[int] = frozenset()
        self._now_us: int | None = None

    def ids(self, chunks: Sequence[Chunk], known: Collection[int]) -> frozenset[int]:
        """Ids in the frames of values that are to be asked for; `known`: those that need not be. An event's key is any bytes.

        While some of the latest were unknown there are few: the ids of most records.
        """
        heads = Counter(value[:HEAD_BYTES] for chunk in chunks for value in chunk.values if value is not None)
        count = Counter({head_id(head): rows for head, rows in heads.items() if len(head) == HEAD_BYTES and head[0] == 0})
        new = [id_ for id_, _ in count.most_common() if id_ not in known]
        most = ASKED_MAX if self._unknown <= 0 else UNKNOWN_MAX - math.ceil(self._unknown)
        self._asked = frozenset(new[: max(0, most)])
        return self._asked

    def answered(self, schemas: Mapping[int, str | None], now_us: int) -> None:
        """What the registry said of the latest `ids`. `now_us`: microseconds since 1970."""
        if self._now_us is not None and self._unknown:
            self._unknown = max(0.0, self._unknown - max(0, now_us - self._now_us) / FORGIVEN_US)
        self._now_us = now_us
        unknown = sum(1 for id_ in self._asked if schemas.get(id_) is None)
        self._unknown = min(float(UNKNOWN_MAX), self._unknown + unknown)
        self._asked = frozenset()
