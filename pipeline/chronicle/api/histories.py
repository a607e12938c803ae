"""`/history`, `/transactions` and `/actors`: what an auditor asks, each question of which is itself put on the trail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from chronicle.api import sight
from chronicle.api.access import Principal, Role
from chronicle.api.gate import Gate
from chronicle.api.parameters import Asked, question
from chronicle.api.parts import Parts
from chronicle.api.problems import Problem, answered
from chronicle.api.reading import asked_of_store
from chronicle.api.recording import recorded
from chronicle.errors import ChronicleError
from chronicle.trail import changes as trail_changes
from chronicle.trail import history as trail_history
from chronicle.trail import keys, search, tables
from chronicle.trail.collections import CHANGES, EVENTS
from chronicle.trail.history import ABSENT, Entry
from chronicle.trail.reading import rows
from chronicle.trail.search import Row
from chronicle.trail.store import as_client
from chronicle.trail.tables import TableName

TEXT_LENGTH_MAX = 1_024
TRANSACTION_CHANGES_MAX = 10_000
ACTIVITY_FILTERS = ("since", "until", "tenant", "source", "request")
_TRANSACTIONS = """
    SELECT source, epoch, began_at, ended_at, context, rung, tables, expected, seen, missing, status
    FROM {database:Identifier}.transaction_status
    WHERE transaction_id = {id:String} AND ({source:String} = '' OR source = {source:String})
    ORDER BY source, epoch LIMIT 100
"""


class Histories:
    """The endpoints that only auditors have."""

    def __init__(self, parts: Parts, gate: Gate) -> None:
        self._parts, self._gate = parts, gate

    async def history(self, request: Request) -> Response:
        """`GET /history/{table}/{key}`."""
        principal = await self._gate.reader(request.headers, Role.AUDITOR)
        asked = Asked.of(request.query_params.multi_items(), ("stubs", "all"))
        table, key = _path(request, asked, "table"), _path(request, asked, "key")
        stubs, everything = (asked.choice(name, "false", ("true", "false")) == "true" for name in ("stubs", "all"))
        asked.refuse_wrong()
        await recorded(self._parts, request, principal, "/history", asked.values)
        name, entries, cut = await asked_of_store(lambda: self._history(principal, table, key))
        shown = [
            entry
            for entry in entries
            if (everything or not (entry.says_nothing_new or entry.given_up)) and (stubs or not entry.change.stub)
        ]
        return answered(200, {"table": str(name), "entries": [_entry(principal, one) for one in shown], "cut": cut})

    def _history(self, principal: Principal, table: str, key: str) -> tuple[TableName, list[Entry], bool]:
        client, database = as_client(self._parts.store), self._parts.database
        seen = [one for one in tables.known(client, database) if principal.sees_table(one.source, f"{one.schema}.{one.table}")]
        try:
            name = tables.resolve(table, seen)
        except ChronicleError:
            raise Problem(404, {"table": "there are no changes of such a table, or of several: name it whole"}) from None
        shapes = keys.shapes(client, database, name)
        if principal.column_limited:
            place = name.source, f"{name.schema}.{name.table}"
            if not all(principal.sees_column(*place, column) for shape in shapes for column in shape):
                raise Problem(403, {"key": "is of columns that this key does not see"})
        try:
            texts = keys.texts(key, shapes)
        except ChronicleError:
            raise Problem(422, {"key": "does not fit the table's primary key: write 7, or 1,2, or JSON"}) from None
        found = trail_history.history(client, database, name, texts)
        # what is not seen is taken out before entries are compared with each other: a difference would tell it
        changes = [one for entry in found.entries if (one := sight.recorded(principal, entry.change)) is not None]
        if not changes:
            raise Problem(404, {"key": "there are no changes under this key"})
        return name, trail_history.told(changes), found.cut

    async def transaction(self, request: Request) -> Response:
        """`GET /transactions/{id}`."""
        principal = await self._gate.reader(request.headers, Role.AUDITOR)
        asked = Asked.of(request.query_params.multi_items(), ("source",))
        id_ = _path(request, asked, "id")
        asked.refuse_wrong()
        await recorded(self._parts, request, principal, "/transactions", asked.values)
        source = asked.values.get("source", "")
        body = await asked_of_store(lambda: self._transaction(principal, id_, source))
        return answered(200, body)

    def _transaction(self, principal: Principal, id_: str, source: str) -> dict[str, Any]:
        client, database = as_client(self._parts.store), self._parts.database
        filters = trail_changes.Filters(source=source or None, transaction=id_)
        found = trail_changes.changes(client, database, filters, limit=TRANSACTION_CHANGES_MAX + 1)
        seen = [one for each in found if (one := sight.recorded(principal, each)) is not None]
        said = rows(client, _TRANSACTIONS, {"database": database, "id": id_, "source": source})
        if principal.limited:
            visible = {(one.name.source, one.epoch) for one in seen}
            said = [_limited(principal, row) for row in said if (row["source"], row["epoch"]) in visible]
        if not said and not seen:
            raise Problem(404, {"id": "there is no such transaction"})
        changes = seen[-TRANSACTION_CHANGES_MAX:]
        return {
            "transaction_id": id_,
            "transactions": [_transaction(row) for row in said],
            "changes": [sight.change(principal, _flat(one.as_json())) for one in changes],
            "cut": len(found) > TRANSACTION_CHANGES_MAX,
        }

    async def activity(self, request: Request) -> Response:
        """`GET /actors/{id}/activity`: changes and events of one actor, newest first."""
        principal = await self._gate.reader(request.headers, Role.AUDITOR)
        asked = Asked.of(request.query_params.multi_items(), (*ACTIVITY_FILTERS, "page_size", "cursor"))
        actor = _path(request, asked, "id")
        size = asked.number("page_size", 50, self._parts.reads.page_rows_max)
        now = self._parts.now()
        names = set(asked.values)
        if not asked.errors:
            asked.values["actor"] = actor
        questions = [question(one, asked, principal, now, sort="-time") for one in (CHANGES, EVENTS)]
        asked.refuse_wrong()
        await recorded(self._parts, request, principal, "/actors", names)

        def ask() -> list[tuple[str, Row]]:
            store, database = self._parts.store, self._parts.database
            return [
                (one.collection.title, row) for one in questions for row in search.found(store, database, one, limit=size + 1)
            ]

        both = await asked_of_store(ask)
        both.sort(key=lambda pair: (pair[1].cursor.value, pair[1].cursor.tie.encode()), reverse=True)
        more, both = len(both) > size, both[:size]
        cuts = {EVENTS.title: sight.event, CHANGES.title: sight.change}
        items = [{"kind": kind.removesuffix("s"), **cuts[kind](principal, row.item)} for kind, row in both]
        return answered(200, {"activity": items, "next_cursor": both[-1][1].cursor.text if more else None})


def _path(request: Request, asked: Asked, name: str) -> str:
    text = str(request.path_params[name])
    if not text or len(text) > TEXT_LENGTH_MAX or any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in text):
        asked.errors[name] = f"write 1 to {TEXT_LENGTH_MAX} characters, none of them a control character"
    return text


def _entry(principal: Principal, entry: Entry) -> dict[str, Any]:
    columns = []
    for one in entry.columns:
        told: dict[str, Any] = {"column": one.column}
        told |= {} if one.before is ABSENT else {"before": one.before}
        told |= {} if one.after is ABSENT else {"after": one.after}
        columns.append({**told, "before_from": one.known.value, "hidden": one.hidden})
    return {
        **sight.change(principal, _flat(entry.change.as_json())),
        "columns": columns,
        "says_nothing_new": entry.says_nothing_new,
        "uncompared": list(entry.uncompared),
    }


def _flat(item: dict[str, Any]) -> dict[str, Any]:
    """A change as `/changes` has it: without where it was in Kafka, the actor in three fields."""
    actor = item.get("actor") or {}
    item |= {f"actor_{name}": actor.get(name) for name in ("id", "type", "name")}
    return {name: item[name] for name in CHANGES.columns}


def _transaction(row: Mapping[str, Any]) -> dict[str, Any]:
    context = row["context"]
    return {
        **{name: row[name] for name in ("source", "epoch", "rung", "expected", "seen", "status")},
        **{name: _iso(row[name]) for name in ("began_at", "ended_at")},
        **{name: dict(row[name]) for name in ("tables", "missing") if row[name] is not None},
        "context": json.loads(context) if context else None,
    }


def _limited(principal: Principal, row: dict[str, Any]) -> dict[str, Any]:
    """What a limited caller may know of a transaction: nothing of tables and tenants that are not theirs."""
    context = json.loads(row["context"]) if row["context"] else None
    tenant = context.get("tenant") if isinstance(context, dict) else None
    source = row["source"]
    names = {
        each: {name: count for name, count in (row[each] or {}).items() if principal.sees_table(source, name)}
        for each in ("tables", "missing")
    }
    told = context is not None and principal.sees_tenant(tenant) and not principal.column_limited
    unsure = principal.only("tenants") is not None
    return row | {
        **({"tables": {}, "missing": {}} if unsure else names),
        "context": row["context"] if told else None,
        "expected": None,
        "seen": None,
        "status": "limited",
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
