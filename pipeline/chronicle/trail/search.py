"""Questions that a program asks of the trail: filters, what the asker may see, an order, a page or what follows a cursor.

Whatever comes from outside is bound; names of columns and tables come from the tables of `trail.collections` alone.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chronicle.trail.collections import Collection, Order, plain_row
from chronicle.trail.reading import rows
from chronicle.trail.store import Store, as_client
from chronicle.trail.words import anchored

CURSOR_LENGTH_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Sight:
    """What an asker may see: conditions that every query has, whatever else is asked."""

    sources: tuple[str, ...] | None = None
    """None: all. An empty tuple: none."""
    tenants: tuple[str, ...] | None = None
    """As `sources`; what has no tenant is not seen then."""
    names: tuple[str, ...] = ()
    """Expressions (`words.expression`), all of which the dotted name must match."""

    def conditions(self, collection: Collection) -> tuple[list[str], dict[str, Any]]:
        """In SQL, with their values."""
        found, bound = [], dict[str, Any]()
        if self.sources is not None:
            found.append("source IN {sight_sources:Array(String)}")
            bound["sight_sources"] = list(self.sources)
        if self.tenants is not None:
            found.append("ifNull(tenant, '') != '' AND ifNull(tenant, '') IN {sight_tenants:Array(String)}")
            bound["sight_tenants"] = list(self.tenants)
        for number, text in enumerate(self.names):
            found.append(f"match({collection.name}, {{sight_name_{number}:String}})")
            bound[f"sight_name_{number}"] = anchored(text)
        return found, bound


ALL = Sight()


class BadCursor(ValueError):
    """This is no cursor of this question."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place after one row in an order."""

    sort: str
    value: int | str
    tie: str

    @property
    def text(self) -> str:
        """For a URL."""
        return base64.urlsafe_b64encode(msgspec.json.encode([self.sort, self.value, self.tie])).decode().rstrip("=")

    @classmethod
    def read(cls, text: str, order: Order) -> Cursor:
        """The cursor in a text.

        Raises:
            BadCursor: it is none, or one of another order.
        """
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if len(text) <= CURSOR_LENGTH_MAX else b""
            sort, value, tie = msgspec.json.decode(raw, type=tuple[str, int | str, str])
            value.encode() if isinstance(value, str) else None
            tie.encode()
        except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
            raise BadCursor from None
        if sort != order.text or isinstance(value, int) != (order.by.type == "Int64") or "\0" in tie:
            raise BadCursor
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise BadCursor
        return cls(sort, value, tie)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    collection: Collection
    order: Order
    conditions: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sight: Sight = ALL
    after: Cursor | None = None
    base: str = ""
    """A relation that answers conditions and order without what makes the collection's own one slow (images, who did it).
    Then rows are chosen there by their keys, and only the chosen ones are read whole. Empty: there is none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an answer, and where it stands."""

    item: dict[str, Any]
    cursor: Cursor


def found(store: Store, database: str, question: Question, *, limit: int, offset: int = 0) -> list[Row]:
    """Rows in the question's order. Raises as `trail.reading.rows`."""
    sql, bound = _select(question, database, chosen=bool(question.base))
    sql += " LIMIT {limit:UInt64} OFFSET {offset:UInt64}"
    answer = rows(as_client(store), sql, {**bound, "limit": limit, "offset": offset, "reach": limit + offset})
    return [_row(question, one) for one in answer]


def total(store: Store, database: str, question: Question) -> int:
    """How many rows there are, whatever the cursor. Raises as `trail.reading.rows`."""
    text, bound = _where(question, database, with_cursor=False)
    relation = question.base or question.collection.relation
    sql = f"SELECT count() AS n FROM {relation} WHERE {text}"  # noqa: S608 (own texts; values are bound)
    return int(rows(as_client(store), sql, bound)[0]["n"])


def streamed(store: Store, database: str, question: Question, *, limit: int) -> Iterator[list[dict[str, Any]]]:
    """All rows in blocks, by one query that is read as it comes. Raises clickhouse-connect's errors, also in mid-stream."""
    sql, bound = _select(question, database)
    with store.query_row_block_stream(sql + " LIMIT {limit:UInt64}", parameters={**bound, "limit": limit}) as blocks:
        names = list(blocks.source.column_names)
        for block in blocks:
            yield [plain_row(question.collection, dict(zip(names, row, strict=True))) for row in block]


def _select(question: Question, database: str, *, chosen: bool = False) -> tuple[str, dict[str, Any]]:
    """`chosen`: by `base`, which takes `reach` from the parameters."""
    collection, order = question.collection, question.order
    text, bound = _where(question, database, with_cursor=True)
    way = "DESC" if order.descending else "ASC"
    columns = ", ".join(collection.columns)
    if chosen:
        by = f"{order.by.expression} {way}, {collection.tie} {way}"
        inner = f"SELECT {collection.row} FROM {question.base} WHERE {text} ORDER BY {by} LIMIT {{reach:UInt64}}"  # noqa: S608
        text = f"({collection.row}) IN ({inner})"
    sql = (
        f"SELECT {columns}, {order.by.expression} AS _sort, {collection.tie} AS _tie "  # noqa: S608
        f"FROM {collection.relation} WHERE {text} ORDER BY _sort {way}, _tie {way}"
    )
    return sql, bound


def _where(question: Question, database: str, *, with_cursor: bool) -> tuple[str, dict[str, Any]]:
    seen, bound = question.sight.conditions(question.collection)
    conditions = [*question.conditions, *seen]
    bound = {**question.parameters, **bound, "database": database}
    if with_cursor and question.after is not None:
        order, after = question.order, question.after
        sign = "<" if order.descending else ">"
        tuple_ = f"({order.by.expression}, {question.collection.tie})"
        conditions.append(f"{tuple_} {sign} ({{after_value:{order.by.type}}}, {{after_tie:String}})")
        if order.by.column:  # said once more in a way that an index answers
            conditions.append(f"{order.by.column} {sign}= fromUnixTimestamp64Micro({{after_value:Int64}}, 'UTC')")
        bound |= {"after_value": after.value, "after_tie": after.tie}
    return " AND ".join(f"({one})" for one in conditions) or "1", bound


def _row(question: Question, row: dict[str, Any]) -> Row:
    cursor = Cursor(question.order.text, row.pop("_sort"), row.pop("_tie"))
    return Row(plain_row(question.collection, row), cursor)
