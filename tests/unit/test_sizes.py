"""Bounds of audit records, known before any sink: none is larger than what validation allows it."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chronicle import setup
from chronicle.codec import audit
from chronicle.codec.diff import NameLists
from chronicle.dev import java
from chronicle.model.dead_letters import LIMITS
from chronicle.sinks import kafka
from chronicle.stages import validate
from tests.sinks import batches

FIXED_BYTES = 8192
"""What is in an audit record besides images, keys, names and transaction: far below the margin."""
WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=200)


def test_the_limits_are_those_of_the_topics() -> None:
    """The audit topic takes what the path lets through; the dead-letter topic takes what the raw topics do."""
    assert LIMITS.audit == kafka.RECORD_BYTES_MAX
    assert LIMITS.record < java.RECORD_BYTES_MAX < setup.DEAD_LETTER_BYTES_MAX
    assert FIXED_BYTES < validate.MARGIN_BYTES / 10


@given(WORDS, WORDS, WORDS, st.lists(WORDS, max_size=5), st.integers(1, 50))
def test_no_changes_record_is_larger_than_its_bound(
    value: str, table: str, transaction: str, names: list[str], by: int
) -> None:
    """Whatever is escaped, and however often it is repeated."""
    image = json.dumps({"v": value * by})
    change = batches.change(
        "shop", 1, operation="update", before=image, after=image, previous_key=image, schema=table * by,
        table=table * by, transaction_id=transaction * by, changed=names * by, unavailable=names * by,
    )  # fmt: skip
    frame = batches.frame([change | {"key": image}])
    (text,) = audit.changes(frame, partitions=1, version="1").values
    lists = NameLists((tuple(names * by),), np.zeros(1, np.int64))
    (bound,) = validate.audit_bytes(frame.rename({"transaction_id": "transaction"}), (lists, lists))
    assert len(text) <= bound + FIXED_BYTES
