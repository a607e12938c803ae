"""`GET /export`: all that a question finds, as NDJSON, CSV or Parquet, written while it is read."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

import msgspec
import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from chronicle.api.access import Principal, Role
from chronicle.api.gate import Gate
from chronicle.api.parameters import Asked, question
from chronicle.api.parts import Parts
from chronicle.api.problems import Problem
from chronicle.api.reading import CUTS, asked_of_store
from chronicle.api.recording import recorded
from chronicle.trail import search
from chronicle.trail.collections import COLLECTIONS, EVENTS, TRUTHS, Collection
from chronicle.trail.reading import translated
from chronicle.trail.search import Question

Blocks = Iterator[list[dict[str, Any]]]
ROW_GROUP = 20_000
_encoder = msgspec.json.Encoder()
_log = structlog.get_logger("chronicle.api")


class Export:
    """The endpoint that exports. Limited in rows and in time; more is asked for in parts, by `since` and `until`."""

    def __init__(self, parts: Parts, gate: Gate) -> None:
        self._parts, self._gate = parts, gate

    async def export(self, request: Request) -> Response:
        """`GET /export`."""
        parts = self._parts
        principal = await self._gate.reader(request.headers, Role.AUDITOR)
        own = ("of", "format", "sort")
        title = request.query_params.get("of", EVENTS.title)
        collection = COLLECTIONS.get(title, EVENTS)
        asked = Asked.of(request.query_params.multi_items(), (*(one.name for one in collection.filters), *own))
        asked.choice("of", EVENTS.title, COLLECTIONS)
        form = asked.choice("format", "ndjson", WRITERS)
        wanted = question(collection, asked, principal, parts.now())
        asked.refuse_wrong()
        await recorded(parts, request, principal, "/export", asked.values)
        total, blocks = await asked_of_store(lambda: self._begun(wanted))
        kind, write = WRITERS[form]
        headers = {
            "Content-Disposition": f'attachment; filename="chronicle-{collection.title}.{form}"',
            "X-Total-Records": str(total),
        }
        return StreamingResponse(write(collection, _cut(principal, collection, blocks)), 200, headers, kind)

    def _begun(self, wanted: Question) -> tuple[int, Blocks]:
        """How many there are, and the blocks, of which the first is read already: what fails at once is told as a status."""
        parts = self._parts
        most, store = parts.reads.export_rows_max, parts.export_store or parts.store
        total = search.total(store, parts.database, wanted)
        if total > most:
            raise Problem(422, {"since": f"an export holds at most {most} records, and there are more: ask for less"})
        blocks = search.streamed(store, parts.database, wanted, limit=most)
        try:
            first = next(blocks, [])
        except ClickHouseError as error:
            raise translated(error) from None
        return total, chain([first], blocks)


def _cut(principal: Principal, collection: Collection, blocks: Blocks) -> Blocks:
    cut = CUTS[collection.title]
    try:
        for block in blocks:
            yield [cut(principal, item) for item in block]
    except ClickHouseError as error:
        _log.warning("export.broken_off", reason=str(translated(error)))
        raise RuntimeError("the store broke off") from None  # the connection is cut, so that nobody takes a part for the whole


def _ndjson(_collection: Collection, blocks: Blocks) -> Iterator[bytes]:
    for block in blocks:
        yield b"".join(_encoder.encode(item) + b"\n" for item in block)


def _csv(collection: Collection, blocks: Blocks) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(collection.columns)
    for block in blocks:
        writer.writerows([_cell(item[name]) for name in collection.columns] for item in block)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


class _Sink(io.RawIOBase):
    """What Parquet's writer writes to: keeps no more than what was not sent yet."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _parquet(collection: Collection, blocks: Blocks) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, _type(name)) for name in collection.columns])
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in _grouped(blocks):
            columns = [_column(field, [item[field.name] for item in group]) for field in schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            yield sink.taken()
    yield sink.taken()


def _grouped(blocks: Blocks) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for block in blocks:
        group += block
        if len(group) >= ROW_GROUP:
            yield group
            group = []
    if group:
        yield group


TIMES = frozenset({"time", "committed_at", "received_at", "processed_at"})
LISTS = frozenset({"labels", "violations", "changed", "unavailable"})


def _type(name: str) -> Any:
    """JSON stays a text, and so do ids and positions."""
    import pyarrow as pa

    if name in TIMES:
        return pa.timestamp("us", "UTC")
    return pa.bool_() if name in TRUTHS else pa.list_(pa.string()) if name in LISTS else pa.string()


def _column(field: Any, values: list[Any]) -> Any:
    import pyarrow as pa

    if field.name in TIMES:
        return pa.array([None if value is None else datetime.fromisoformat(value) for value in values], field.type)
    if field.name in TRUTHS:
        return pa.array([None if value is None else bool(value) for value in values], field.type)
    if field.name in LISTS:
        return pa.array(values, field.type)
    return pa.array([value if value is None or isinstance(value, str) else _text(value) for value in values], field.type)


def _text(value: Any) -> str:
    return _encoder.encode(value).decode()


WRITERS: dict[str, tuple[str, Callable[[Collection, Blocks], Iterator[bytes]]]] = {
    "ndjson": ("application/x-ndjson", _ndjson),
    "csv": ("text/csv; charset=utf-8", _csv),
    "parquet": ("application/vnd.apache.parquet", _parquet),
}
