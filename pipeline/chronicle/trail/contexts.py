"""Who did a transaction and why: the best context that the trail holds for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client

from chronicle.trail.changes import Change
from chronicle.trail.reading import rows

RUNGS = {1: "table", 2: "message"}
"""`best_context.rank` in ClickHouse → rung of the ladder."""
IDS_PER_QUERY = 500
"""Bound values travel in the URL, which has a limit."""

Contexts = Mapping[tuple[str, int, str], "Context"]
"""By source, epoch and transaction id."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an application said about one transaction."""

    rung: str
    """message (a logical message) or table (a row of the context table)."""
    said: Mapping[str, Any]

    @property
    def actor(self) -> str | None:
        """Who did it: the text `actor`, or `actor.id` or `actor.name` where it is an object."""
        actor = self.said.get("actor")
        if isinstance(actor, Mapping):
            actor = actor.get("name") or actor.get("id")
        return None if actor is None else str(actor)

    @property
    def reason(self) -> str | None:
        """Why, where it was said."""
        reason = self.said.get("reason")
        return None if reason is None else str(reason)

    def as_json(self) -> dict[str, Any]:
        """The context as it was said, and by which rung."""
        return {"rung": self.rung, "said": dict(self.said)}


def of(client: Client, database: str, found: Sequence[Change]) -> Contexts:
    """The contexts of these changes' transactions; a transaction without one is absent."""
    by_source: dict[str, set[str]] = {}
    for change in found:
        if change.transaction_id is not None:
            by_source.setdefault(change.name.source, set()).add(change.transaction_id)
    sql = """
        SELECT epoch, transaction_id, tupleElement(best_context, 'rank') AS rank, tupleElement(best_context, 'text') AS text
        FROM {database:Identifier}.transactions FINAL
        WHERE source = {source:String} AND transaction_id IN {ids:Array(String)} AND rank > 0
    """
    contexts: dict[tuple[str, int, str], Context] = {}
    for source, wanted in by_source.items():
        ids = sorted(wanted)
        for start in range(0, len(ids), IDS_PER_QUERY):
            part = {"database": database, "source": source, "ids": ids[start : start + IDS_PER_QUERY]}
            for row in rows(client, sql, part):
                said = json.loads(row["text"])
                key = (source, row["epoch"], row["transaction_id"])
                contexts[key] = Context(
                    RUNGS.get(row["rank"], str(row["rank"])), said if isinstance(said, dict) else {"said": said}
                )
    return contexts


def look_up(contexts: Contexts, change: Change) -> Context | None:
    """The context of one change."""
    return contexts.get((change.name.source, change.epoch, change.transaction_id)) if change.transaction_id else None
