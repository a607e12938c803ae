"""Changes written as dicts, and the records of a connector that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from chronicle.errors import ConfigError
from chronicle.model.chunk import SourceSpec
from chronicle.testing.columns import Row, Shape, shapes
from chronicle.testing.records import Record

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
"""When a change was committed unless it says otherwise: a Monday."""
CONNECTORS = {"postgres": "postgresql", "mysql": "mysql", "mariadb": "mariadb"}
_OPS = {"snapshot": "r", "create": "c", "update": "u", "delete": "d", "truncate": "t"}
_NEEDS = {"r": (False, True), "c": (False, True), "u": (False, True), "d": (True, False), "t": (False, False)}
"""Operation → whether before and after must be given."""
_CONTEXT_TABLE = "chronicle_context"
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row, as a test tells it; `change` makes it."""

    source: str
    schema: str
    table: str
    op: str
    before: Row | None
    after: Row | None
    key: tuple[str, ...]
    context: Mapping[str, Any]
    at: datetime
    transaction: str | None
    kind: str

    @property
    def name(self) -> str:
        """Table with schema and source."""
        return f"{self.source}.{self.schema}.{self.table}"


def change(
    table: str,
    operation: str = "create",
    *,
    before: Row | None = None,
    after: Row | None = None,
    key: str | Sequence[str] | None = None,
    actor: str | Mapping[str, str] | None = None,
    request_id: str | None = None,
    reason: str | None = None,
    tags: Mapping[str, Any] | None = None,
    at: datetime = NOON,
    transaction: str | None = None,
    kind: str = "postgres",
) -> Change:
    """A change as a connector would send it. Types of columns follow from the values (`testing.columns`).

    Args:
        table: `source.schema.table`.
        operation: create, update, delete, truncate, or snapshot.
        before: the old row, whole (an update without one: the database does not send it).
        after: the new row.
        key: names of the key columns; unless given `id`, if there is such a column, else none.
        actor: who did it: an id, or {"id", "type", "name"}; with `request_id`, `reason` and `tags` it is the context that
            the application writes into the transaction.
        at: commit in the database.
        transaction: any name; changes with the same one, of one source, are one transaction. None: one of its own.
        kind: postgres, mysql or mariadb.

    Raises:
        ConfigError: what no connector would send.
    """
    parts = table.split(".")
    if len(parts) != 3 or not all(parts):
        raise ConfigError(f"write the table as source.schema.table, not {table}")
    if operation not in _OPS or kind not in CONNECTORS:
        raise ConfigError(f"write one of {', '.join(_OPS)} and one of {', '.join(CONNECTORS)}")
    op = _OPS[operation]
    for name, row, needed in (("before", before, _NEEDS[op][0]), ("after", after, _NEEDS[op][1])):
        if needed != (row is not None) and not (op == "u" and name == "before"):
            raise ConfigError(f"{operation} of {table}: {'give' if needed else 'leave out'} {name}")
    if at.tzinfo is None:
        raise ConfigError(f"{operation} of {table}: give `at` with a time zone")
    row = after or before or {}
    names = (key,) if isinstance(key, str) else tuple(key) if key is not None else ("id",) if "id" in row else ()
    if missing := [name for name in names if row and name not in row]:
        raise ConfigError(f"{operation} of {table}: the key column {missing[0]} is not in the row")
    said = {"actor": actor, "request_id": request_id, "reason": reason, "tags": tags}
    context = {name: value for name, value in said.items() if value is not None}
    return Change(parts[0], parts[1], parts[2], op, before, after, names, context, at, transaction, kind)


@dataclass(slots=True)
class _Transactions:
    """Numbers for the transactions of a run; each context is written once."""

    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    told: set[tuple[str, str]] = field(default_factory=set)

    def number(self, one: Change, index: int) -> tuple[int, bool]:
        """The transaction's, and whether its context is still to be written."""
        name = (one.source, one.transaction if one.transaction is not None else f"\0{index}")
        number = self.numbers.setdefault(name, 700 + len(self.numbers))
        first = bool(one.context) and name not in self.told
        self.told |= {name} if one.context else set()
        return number, first


def records(given: Iterable[Record | Change]) -> list[Record]:
    """All as records: a change becomes its own, before which stands its context where it has one.

    Raises:
        ConfigError: values of one column have different types.
    """
    items = list(given)
    by_table: dict[str, list[Row]] = {}
    for one in items:
        if isinstance(one, Change):
            by_table.setdefault(one.name, []).extend(row for row in (one.before, one.after) if row is not None)
    columns = {name: shapes(rows, name) for name, rows in by_table.items()}
    found, transactions = [], _Transactions()
    for index, one in enumerate(items):
        if isinstance(one, Record):
            found.append(one)
            continue
        number, first = transactions.number(one, index)
        if first:
            found.append(_context(one, index, number))
        found.append(_record(one, columns[one.name], index, number))
    return found


def sources(given: Iterable[Record | Change]) -> list[SourceSpec]:
    """The sources of the changes: their old rows are whole. Other records' topics begin with their source's name, which then
    has the most careful settings."""
    found: dict[str, SourceSpec] = {}
    for one in given:
        if isinstance(one, Change):
            found[one.source] = SourceSpec(one.source, CONNECTORS[one.kind], full_identity=None)
        else:
            name = one.topic.partition(".")[0]
            found.setdefault(name, SourceSpec(name, ""))
    return list(found.values())


def _record(one: Change, columns: Mapping[str, Shape], index: int, number: int) -> Record:
    names = [name for name in columns if name in one.key]
    row = one.after or one.before
    key = None
    if names and row is not None and one.op != "t":
        schema = {"type": "struct", "name": f"{one.name}.Key", "fields": [columns[name].field(name) for name in names]}
        key = _encode({"schema": schema, "payload": _written({name: row[name] for name in names}, columns)})
    value = _encode({"schema": _envelope(one, columns), "payload": _payload(one, columns, index, number)})
    return Record(one.name, value, key, timestamp_ms=_ms(one.at) + 20)


def _written(row: Row | None, columns: Mapping[str, Shape]) -> dict[str, Any] | None:
    if row is None:
        return None
    return {name: None if row.get(name) is None else shape.write(row[name]) for name, shape in columns.items() if name in row}


def _payload(one: Change, columns: Mapping[str, Shape], index: int, number: int) -> dict[str, Any]:
    whole = dict.fromkeys(columns)
    before, after = (None if row is None else _written(whole | dict(row), columns) for row in (one.before, one.after))
    source = _source(one, index, number)
    id_ = f"{number}:{source['lsn']}" if one.kind == "postgres" else source["gtid"]
    transaction = None if one.op == "r" else {"id": id_, "total_order": index + 1, "data_collection_order": index + 1}
    return {
        "before": before,
        "after": after,
        "source": source,
        "transaction": transaction,
        "op": one.op,
        "ts_ms": _ms(one.at) + 10,
    }


def _source(one: Change, index: int, number: int) -> dict[str, Any]:
    block: dict[str, Any] = {
        "version": "3.7.0.Final",
        "connector": CONNECTORS[one.kind],
        "name": one.source,
        "ts_ms": _ms(one.at),
        "ts_us": int(one.at.timestamp()) * 1_000_000 + one.at.microsecond,
        "snapshot": "true" if one.op == "r" else "false",
        "table": one.table,
    }
    position = 1_000 + 100 * index
    if one.kind == "postgres":
        lsn = {"txId": number, "lsn": position, "sequence": f'["{position - 1}","{position}"]'}
        return block | {"db": one.source, "schema": one.schema} | lsn
    return block | {"db": one.schema, "gtid": f"0-1-{number}", "file": "binlog.000001", "pos": position, "row": 0}


_INTEGERS = {"ts_ms", "ts_us", "txId", "lsn", "pos", "row", "total_order", "data_collection_order"}


def _envelope(one: Change, columns: Mapping[str, Shape]) -> dict[str, Any]:
    row = [shape.field(name) for name, shape in columns.items()]
    image = {"type": "struct", "optional": True, "name": f"{one.name}.Value", "fields": row}
    block = {
        "type": "struct",
        "optional": True,
        "name": "event.block",
        "fields": _texts("id", "total_order", "data_collection_order"),
    }
    fields = [
        {"field": "before", **image},
        {"field": "after", **image},
        {"field": "source", "type": "struct", "name": "io.debezium.connector.Source", "fields": _texts(*_source(one, 0, 0))},
        {"field": "transaction", **block},
        *_texts("op", "ts_ms"),
    ]
    return {"type": "struct", "name": f"{one.name}.Envelope", "fields": fields}


def _texts(*names: str) -> list[dict[str, Any]]:
    return [{"field": name, "type": "int64" if name in _INTEGERS else "string", "optional": True} for name in names]


def _context(one: Change, index: int, number: int) -> Record:
    """What the application wrote into the transaction: a logical message, or a row of the context table."""
    text = msgspec.json.encode(one.context).decode()
    if one.kind != "postgres":
        row = {"id": index, "context": text}
        written = Change(one.source, one.schema, _CONTEXT_TABLE, "c", None, row, ("id",), {}, one.at, None, one.kind)
        return _record(written, shapes([row], written.name), index, number)
    payload = {
        "op": "m",
        "ts_ms": _ms(one.at),
        "source": _source(one, index, number),
        "message": {"prefix": "chronicle", "content": _base64(text)},
    }
    return Record(f"{one.source}.transaction", _encode(payload), timestamp_ms=_ms(one.at) + 15)


def _base64(text: str) -> str:
    return msgspec.json.encode(text.encode()).decode().strip('"')


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1_000)
