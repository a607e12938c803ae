"""Bounds of audit records, known before any sink: none is larger than what validation allows it."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
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


@settings(deadline=None)
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


@settings(deadline=None)
@given(WORDS, WORDS, st.integers(1, 50))
def test_no_contexts_record_is_larger_than_its_bound(value: str, transaction: str, by: int) -> None:
    """It passes under a limit only if its record fits, key included."""
    context = batches.context("shop", transaction * by, 2, json.dumps({"v": value * by}))
    frame = batches.transactions([context])
    records = audit.contexts(frame, partitions=1, version="1")
    size = len(records.values[0]) + len(records.keys[0])
    refused = frame.select(validate.context_too_large(size - FIXED_BYTES + validate.MARGIN_BYTES - 1)).to_series()
    assert refused.to_list() == [True]


def test_only_contexts_are_bounded_as_contexts() -> None:
    """BEGIN and END are not written to the audit topic."""
    rows = [batches.transaction_record("shop", "5" * 99, 1, "begin"), batches.context("shop", "5" * 99, 2)]
    bounded = batches.transactions(rows).select(validate.context_too_large(validate.MARGIN_BYTES + 99))
    assert bounded.to_series().to_list() == [False, True]
