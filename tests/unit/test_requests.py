"""What a transaction asks of the trail: whole images, or to be counted only; as far as the policy allows it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle.attribution import AttributionError, ContextRefused, with_snapshots, without_audit
from chronicle.attribution.context import AUDIT_TAG, Audit, fields, written
from chronicle.attribution.watching import Block, Watch
from chronicle.errors import ConfigError
from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.model.columns import TRANSACTIONS
from chronicle.model.event_columns import EVENTS
from chronicle.policy.file import Policy, parse
from chronicle.policy.requests import Requests
from chronicle.stages.attribute import CONTEXTS, attributed, stored
from chronicle.stages.path import Path
from chronicle.stages.requests import SUMMARY_TYPE, UNAUDITED, Granted, asked, ended, granted, summaries
from chronicle.testing import IDENTITY_KEY, Record, chunks, rules
from tests.unit.envelopes import Table, recorded
from tests.unit.test_path import GOLDEN, SOURCES

ITEMS = Table([("id", "long"), ("a", ["null", "string"]), ("b", ["null", "string"])], name="items", schema_id=720)
SHOP = SourceSpec("shop", "postgresql", full_identity=None)
CLEAR = '[[tables]]\nmatch = "**"\ncolumns = { "*" = "clear" }\n'
ALLOWING = parse(
    f'[context]\nallow_without_audit = ["price import*"]\nallow_snapshots = true\n[defaults]\nignore = []\n{CLEAR}'
)
NOTHING = parse(f"[defaults]\nignore = []\n{CLEAR}")
TIME = datetime(2026, 11, 23, 8, tzinfo=UTC)


def context(audit: Audit | None, **said: Any) -> str:
    """As an application writes it, and the worker keeps it."""
    kept: str = stored(pl.Series([written(fields(actor="ann", named={}, tags=said, audit=audit))]))[0]
    return kept


def contexts(**of: Audit | None) -> pl.DataFrame:
    """Of transactions t1, t2, …"""
    rows = [("shop", 0, name.removeprefix("t"), "message", at, context(one)) for at, (name, one) in enumerate(of.items())]
    return pl.DataFrame(rows, schema=dict(CONTEXTS), orient="row")


def batch(*records: Record, policy: Policy = ALLOWING, whole: bool = True) -> Batch:
    path = Path([SHOP], IDENTITY_KEY, replace(rules(policy), keep_whole=whole))
    return path.run(chunks(records), ITEMS.schemas, 1)


def update(number: int, transaction: int, **more: Any) -> Record:
    before, after = {"id": number, "a": "1", "b": "1"}, {"id": number, "a": "2", "b": "1"}
    return ITEMS.change("u", before=before, after=after, txId=transaction, lsn=100 + number, **more)


def heeded(found: Batch, said: pl.DataFrame, policy: Policy = ALLOWING, *, reduces: bool = False) -> Granted:
    return granted(attributed(found.changes, said, ()), policy.requests, reduces=lambda *_: reduces)


def test_a_request_reaches_its_changes_as_it_was_said() -> None:
    """Through the application's JSON, the stored form and the column `tags`; beside other tags."""
    for audit, expected in ((without_audit("price import"), ("price import", False)), (with_snapshots(), (None, True))):
        kept = context(audit, campaign="spring")
        request = asked(json.dumps(json.loads(kept)["tags"]))
        assert (request.without, request.snapshots) == expected
        assert json.loads(kept)["tags"]["campaign"] == "spring"


@given(
    st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda one: st.dictionaries(st.text(), one)).map(json.dumps)
)
def test_whatever_stands_in_tags_is_read_without_raising(text: str) -> None:
    """An application may write any JSON there."""
    for tags in (text, f'{{"{AUDIT_TAG}": {text}}}'):
        request = asked(tags)
        assert request.without is None or isinstance(request.without, str)
        assert request.snapshots in (False, True)
    assert asked(None) == asked("{") == asked(f'{{"{AUDIT_TAG}": {{"without": 7, "snapshots": "true"}}}}')


@pytest.mark.parametrize("reason", ["", " ", "x" * 201, "\ud800", 7, None])
def test_an_operation_without_a_name_is_not_left_out(reason: Any) -> None:
    """Refused where it is written."""
    with pytest.raises(ContextRefused):
        without_audit(reason)


def test_a_comment_asks_for_nothing() -> None:
    """It is about a statement, a request about a transaction: refused, also when the block around says `comment`."""
    watch = Watch("mysql")
    watch.enter(Block({"actor": "a"}, True, None, None))
    with pytest.raises(AttributionError, match="without `comment`"):
        watch.enter(Block(fields(named={}, audit=with_snapshots()), None, None, None))


def test_what_is_left_out_leaves_lines_that_count() -> None:
    """Of the whole transaction, and of no other; without images, labels or names of columns; the rest as ever."""
    found = batch(update(1, 1), update(2, 2), ITEMS.change("d", before={"id": 3, "a": "x", "b": "y"}, txId=1, lsn=103))
    result = heeded(found, contexts(t1=without_audit("price import of May"), t2=None))
    assert result.rows == {UNAUDITED: 2}
    assert result.changes["stub"].to_list() == [UNAUDITED, "", UNAUDITED]
    left = result.changes.filter(pl.col("stub") != "").select("before", "after", "changed", "labels", "actor_id", "operation")
    assert left.rows() == [(None, None, [], [], "ann", "update"), (None, None, [], [], "ann", "delete")]
    unchanged = [name for name in found.changes.columns if name not in ("before", "after", "changed", "stub")]
    before = attributed(found.changes, contexts(t1=without_audit("price import of May"), t2=None), ())
    assert result.changes.select(unchanged).equals(before.select(unchanged))
    assert result.changes.row(1) == before.row(1)


@pytest.mark.parametrize("policy", [NOTHING, parse(f'[context]\nallow_without_audit = ["price"]\n{CLEAR}')])
def test_what_the_policy_does_not_allow_is_recorded_as_ever(policy: Policy) -> None:
    """And counted."""
    found = batch(update(1, 1), update(2, 1), policy=policy, whole=False)
    said = contexts(t1=without_audit("price import"))
    result = heeded(found, said, policy)
    assert result.rows == {"refused": 2}
    assert result.changes.equals(attributed(found.changes, said, ()))
    said = contexts(t1=with_snapshots())
    assert heeded(found, said, policy).rows == {"refused": 2}


def test_a_comment_that_looks_like_a_request_is_none() -> None:
    """Only a message and the context table speak for a transaction."""
    said = attributed(batch(update(1, 1)).changes, contexts(t1=without_audit("price import")), ())
    said = said.with_columns(pl.lit("comment").alias("attribution"))
    assert granted(said, ALLOWING.requests, reduces=lambda *_: False).rows == {}


def test_a_line_that_the_policy_left_out_keeps_its_rule() -> None:
    """Whatever its transaction asks."""
    policy = parse(f'[context]\nallow_without_audit = ["x"]\n{CLEAR}\n[[tables]]\nmatch = "shop.public.items"\nskip = true\n')
    result = heeded(batch(update(1, 1), policy=policy), contexts(t1=without_audit("x")), policy)
    assert result.changes["stub"].to_list() == ["skipped"]


def test_a_snapshot_keeps_whole_images_where_the_policy_keeps_what_changed() -> None:
    """Of that transaction; the other's hold the key and what changed."""
    found = batch(update(1, 1), update(2, 2))
    result = heeded(found, contexts(t1=with_snapshots()), reduces=True)
    assert result.rows == {"snapshots": 1}
    assert result.changes["before"].to_list() == ['{"a":"1","b":"1","id":1}', '{"a":"1","id":2}']
    assert result.changes["after"].to_list() == ['{"a":"2","b":"1","id":1}', '{"a":"2","id":2}']


@pytest.mark.parametrize("name", GOLDEN)
def test_images_that_are_reduced_late_are_those_that_are_made_so(name: str) -> None:
    """Byte for byte, for every record that real connectors wrote, of tables whose old rows are known and of others."""
    data = recorded(name)
    plain = parse(f'[defaults]\nignore = []\nimages = "changed"\n{CLEAR}')
    runs = [
        Path(SOURCES, IDENTITY_KEY, replace(rules(plain), keep_whole=whole)).run(chunks(data.records), data.schemas, 1)
        for whole in (False, True)
    ]
    native, whole = (one.changes for one in runs)
    columns = ["attributed_at", *CONTEXT_COLUMNS]
    late = granted(whole, Requests(snapshots=True), reduces=lambda *_: True)
    assert late.changes.drop(columns).equals(native.drop(columns))
    assert not whole.equals(native) or not (native["operation"] == "update").any()


CONTEXT_COLUMNS = ("actor_id", "actor_type", "actor_name", "request_id", "reason", "ip", "session", "tenant", "tags")


# -- the summary -------------------------------------------------------------------------------------------------------


def end(transaction: str, tables: dict[str, int] | None, offset: int = 5) -> pl.DataFrame:
    row = {
        "source": "shop", "epoch": 0, "transaction_id": transaction, "kind": "end", "occurred_at": TIME,
        "event_count": 0, "tables": [{"table": table, "count": count} for table, count in (tables or {}).items()] or None,
        "context": None, "rung": None, "topic": "shop.transaction", "partition": 0, "offset": offset, "processed_at": TIME,
    }  # fmt: skip
    return ended(pl.DataFrame([row], schema={column.name: column.dtype for column in TRANSACTIONS}))


def test_a_transaction_that_is_left_out_leaves_one_summary() -> None:
    """Who, why, and how many rows of which tables; the same one each time its END is read."""
    said = contexts(t1=without_audit("price import"), t2=None)
    made = summaries(end("1", {"public.items": 3, "public.prices": 4}), said, ALLOWING.requests, "hash")
    assert made.schema == pl.Schema({column.name: column.dtype for column in EVENTS})
    row = made.row(0, named=True)
    assert (row["type"], row["source"], row["actor_id"], row["time"]) == (SUMMARY_TYPE, "shop", "ann", TIME)
    assert (row["action"], row["resource_type"], row["resource_id"], row["policy"]) == ("left_out", "transaction", "1", "hash")
    assert json.loads(row["payload"]) == {
        "reason": "price import", "rows": 7, "tables": {"public.items": 3, "public.prices": 4}, "transaction": "1",
    }  # fmt: skip
    again = summaries(end("1", {"public.items": 3}, offset=9), said, ALLOWING.requests, "hash")
    assert again["event_id"].to_list() == made["event_id"].to_list()
    other = summaries(end("3", None), contexts(t3=without_audit("price import")), ALLOWING.requests, "hash")
    assert other["event_id"].to_list() != made["event_id"].to_list()
    assert json.loads(other["payload"][0])["rows"] == 0


def test_nobody_else_has_a_summary() -> None:
    """Not a transaction that asked for nothing, for what is not allowed, or for snapshots; nor an unknown one."""
    said = contexts(t1=None, t2=without_audit("something else"), t3=with_snapshots())
    for transaction in ("1", "2", "3", "4"):
        assert len(summaries(end(transaction, {"t": 1}), said, ALLOWING.requests, "hash")) == 0
    assert len(summaries(end("1", None), contexts(t1=without_audit("price import")), NOTHING.requests, "hash")) == 0


def test_the_last_context_of_a_transaction_speaks_for_it() -> None:
    """As for who did it."""
    said = pl.concat([contexts(t1=without_audit("price import")), contexts(t0=None, t1=None)])
    assert len(summaries(end("1", None), said, ALLOWING.requests, "hash")) == 0
    assert heeded(batch(update(1, 1)), said).rows == {}


# -- the policy --------------------------------------------------------------------------------------------------------


def test_a_policy_allows_named_reasons_only() -> None:
    """`*` within a reason; a pattern that allows everything is refused, as is what is no list of texts."""
    assert ALLOWING.requests.allows("price import of May")
    assert not ALLOWING.requests.allows("a price import")
    assert not NOTHING.requests.allows("")
    assert not NOTHING.requests.snapshots
    for text in (
        'allow_without_audit = ["*"]',
        "allow_without_audit = [1]",
        "allow_without_audit = true",
        "allow_snapshots = 1",
    ):
        with pytest.raises(ConfigError, match="context"):
            parse(f"[context]\n{text}\n")
    assert parse('[context]\nallow_without_audit = ["a"]\n').hash != parse("").hash
