"""Chronicle in a user's own tests: what becomes of given changes, without a broker, a registry, ClickHouse or a clock.

from chronicle.testing import assert_audited, change, run

def test_a_hire_is_on_the_trail():
    outcome = run([change("hiring.hiring.applications", "create", after={"id": 1, "stage": "hired"}, actor="alice")])
    assert_audited(outcome, table="applications", operation="create", actor="alice", including={"stage": "hired"})
"""

from __future__ import annotations

from chronicle.testing.asserting import assert_alerted, assert_audited, assert_not_alerted, assert_not_audited
from chronicle.testing.changes import NOON, Change, change
from chronicle.testing.records import Record, chunks
from chronicle.testing.running import IDENTITY_KEY, Outcome, rules, run

__all__ = [
    "IDENTITY_KEY",
    "NOON",
    "Change",
    "Outcome",
    "Record",
    "assert_alerted",
    "assert_audited",
    "assert_not_alerted",
    "assert_not_audited",
    "change",
    "chunks",
    "rules",
    "run",
]
