"""Decode: chunks of raw records to groups of one topic and one writer schema, and those to frames.

Two steps with the registry between them: `schema_ids` names what must be known, then everything else is pure. Records
are handled as columns; what runs per record in Python is the look at the first bytes, nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import polars as pl

from chronicle.codec import avro, json
from chronicle.codec.schema import Kind, UnsupportedSchema, WriterSchema, parse_avro
from chronicle.model.chunk import Chunk, Headers
from chronicle.model.dead_letters import LIMITS, DeadLetter, Limits, Reason, Stage

Indexes = npt.NDArray[np.int64]

HEAD_BYTES = 5
"""The Confluent frame: magic byte 0, then the schema's id in 4 bytes, big-endian."""
JSON_HEAD = b"{"
NO_HEAD = b""
"""Stands for bytes that have neither frame."""


def schema_ids(chunks: Iterable[Chunk]) -> frozenset[int]:
    """The registry ids in keys and values of these chunks; bytes without the Confluent frame name none."""
    heads: set[bytes] = set()
    for chunk in chunks:
        heads.update(value[:HEAD_BYTES] for value in chunk.values if value is not None)
        heads.update(key[:HEAD_BYTES] for key in chunk.keys if key is not None)
    return frozenset(head_id(head) for head in heads if len(head) == HEAD_BYTES and head[0] == 0)


def head_id(head: bytes) -> int:
    """The schema id in a Confluent frame's first five bytes."""
    return int.from_bytes(head[1:HEAD_BYTES], "big")


def _frame_of(head: bytes | None) -> bytes | None:
    """A head as a group's name: the Confluent frame whole, all of JSON alike, all of the rest alike."""
    if head is None or (len(head) == HEAD_BYTES and head[0] == 0):
        return head
    return JSON_HEAD if head[:1] == JSON_HEAD else NO_HEAD


@dataclass(frozen=True, slots=True)
class Records:
    """All records of a batch, flat: one index runs through all columns."""

    topics: tuple[str, ...]
    topic: Indexes
    """Index into `topics`."""
    partition: Indexes
    offset: Indexes
    timestamp_ms: Indexes
    keys: list[bytes | None] = field(repr=False)
    values: list[bytes | None] = field(repr=False)
    headers: list[Headers] = field(repr=False)
    longest: int
    """No record's key and value have together more bytes than this: the longest key's and the longest value's."""

    def __len__(self) -> int:
        return len(self.values)

    def size(self, index: int) -> int:
        """Bytes of this record's key and value."""
        return len(self.keys[index] or b"") + len(self.values[index] or b"")

    def dead_letter(
        self, index: int, reason: Reason, detail: str, schema_id: int | None = None, *, stage: Stage = Stage.DECODE
    ) -> DeadLetter:
        """The record at this index as a dead letter."""
        return DeadLetter(
            self.topics[self.topic[index]],
            int(self.partition[index]),
            int(self.offset[index]),
            int(self.timestamp_ms[index]),
            self.keys[index],
            self.values[index],
            self.headers[index],
            stage,
            reason,
            detail,
            schema_id,
        )


def flatten(chunks: Sequence[Chunk]) -> Records:
    """Chunks one after the other."""
    codes: dict[str, int] = {}
    of_chunk = [codes.setdefault(chunk.topic, len(codes)) for chunk in chunks]
    lengths = [len(chunk) for chunk in chunks]
    total = sum(lengths)

    def numbers(columns: Iterable[Sequence[int]]) -> Indexes:
        return np.fromiter(chain.from_iterable(columns), np.int64, total)

    keys = list(chain.from_iterable(chunk.keys for chunk in chunks))
    values = list(chain.from_iterable(chunk.values for chunk in chunks))
    return Records(
        tuple(codes),
        np.repeat(np.asarray(of_chunk, np.int64), lengths),
        np.repeat(np.asarray([chunk.partition for chunk in chunks], np.int64), lengths),
        numbers(chunk.offsets for chunk in chunks),
        numbers(chunk.timestamps_ms for chunk in chunks),
        keys,
        values,
        list(chain.from_iterable(chunk.headers for chunk in chunks)),
        sum(max(map(len, filter(None, column)), default=0) for column in (keys, values)),
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Records of one topic whose values, and whose keys, begin alike."""

    topic: int
    value_head: bytes | None
    key_head: bytes | None
    rows: list[int]


def groups(records: Records) -> list[Group]:
    """All records, grouped; within a group in the order of the records."""
    value_heads = [None if value is None else value[:HEAD_BYTES] for value in records.values]
    key_heads = [None if key is None else key[:HEAD_BYTES] for key in records.keys]
    found: dict[tuple[int, bytes | None, bytes | None], list[int]] = {}
    for index, name in enumerate(zip(records.topic.tolist(), value_heads, key_heads, strict=True)):
        rows = found.get(name)
        if rows is None:
            found[name] = [index]
        else:
            rows.append(index)
    merged: dict[tuple[int, bytes | None, bytes | None], list[int]] = {}
    for (topic, value_head, key_head), rows in found.items():
        name = (topic, _frame_of(value_head), _frame_of(key_head))
        if name in merged:
            merged[name] += rows
        else:
            merged[name] = rows
    return [Group(*name, rows if _ascending(rows) else sorted(rows)) for name, rows in merged.items()]


def _ascending(rows: Sequence[int]) -> bool:
    return len(rows) < 2 or bool((np.diff(np.asarray(rows)) > 0).all())


class Schemas:
    """What is needed to read records: their limits, and writer schemas by registry id, parsed once; what the registry does
    not know is asked for again each batch."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self._parsed: dict[int, WriterSchema | UnsupportedSchema] = {}

    @property
    def known(self) -> KeysView[int]:
        """Ids of those that were parsed."""
        return self._parsed.keys()

    def get(self, head: bytes, texts: Mapping[int, str | None]) -> WriterSchema | tuple[Reason, str]:
        """The schema a head names, or why there is none."""
        id_ = head_id(head)
        known = self._parsed.get(id_)
        if known is None:
            text = texts.get(id_)
            if text is None:
                return Reason.UNKNOWN_SCHEMA, f"the registry does not know schema id {id_}"
            known = self._parsed[id_] = _parse(id_, text)
        return (Reason.UNSUPPORTED_SCHEMA, str(known)) if isinstance(known, UnsupportedSchema) else known


def _parse(id_: int, text: str) -> WriterSchema | UnsupportedSchema:
    try:
        return parse_avro(id_, text)
    except UnsupportedSchema as error:
        return error


@dataclass(frozen=True, slots=True)
class Pending:
    """Values of one topic and one writer schema, not decoded yet."""

    topic: int
    schema: WriterSchema
    key_head: bytes | None
    rows: list[int]
    values: Sequence[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Part:
    """A decoded frame and, for each of its rows, the index of its record."""

    topic: int
    schema: WriterSchema
    rows: Indexes
    frame: pl.DataFrame = field(repr=False)


class Outcome:
    """What became of a batch's records on the way: dead letters, and what was left out by which rule."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.dead_letters: list[DeadLetter] = []
        self.left_out: dict[tuple[str, str], int] = {}
        self.warnings: list[str] = []
        self.unclassified: dict[str, int] = {}
        """Table → values of columns that no rule names."""

    def leave_out(self, topic: str, rule: str, rows: int = 1) -> None:
        """Count records that become nothing on purpose."""
        if rows:
            self.left_out[topic, rule] = self.left_out.get((topic, rule), 0) + rows

    def count_unclassified(self, table: str, columns: Sequence[str], rows: int) -> None:
        """Values of these columns of a table that the policy does not name, and that are hidden therefore."""
        if columns:
            self.unclassified[table] = self.unclassified.get(table, 0) + rows * len(columns)
            self.warnings.append(f"{table}: classify in the policy: {', '.join(columns)} (hidden until then)")

    def fail(self, rows: Iterable[int], reason: Reason, detail: str, schema_id: int | None = None) -> None:
        """Make these records dead letters of the decode stage."""
        self.dead_letters += (self._records.dead_letter(row, reason, detail, schema_id) for row in rows)

    def refuse(
        self, row: int, reason: Reason, detail: str, schema_id: int | None = None, *, stage: Stage = Stage.VALIDATE
    ) -> None:
        """Make this record a dead letter of the validate stage, or of a later one."""
        self.dead_letters.append(self._records.dead_letter(row, reason, detail, schema_id, stage=stage))


def pending(
    records: Records, group: Group, schemas: Schemas, texts: Mapping[int, str | None], outcome: Outcome
) -> list[Pending]:
    """A group's values under their writer schemas; records without one, and too large ones, become dead letters here."""
    group = _bounded(records, group, schemas.limits.record, outcome)
    if not group.rows:
        return []
    head = group.value_head
    if not head:
        outcome.fail(group.rows, Reason.WRONG_FRAME, "the value begins with neither magic byte 0 nor {")
        return []
    values = [records.values[row] or b"" for row in group.rows]
    if head == JSON_HEAD:
        return _pending_json(group, values, outcome)
    schema = schemas.get(head, texts)
    if isinstance(schema, tuple):
        outcome.fail(group.rows, *schema, head_id(head))
        return []
    return [Pending(group.topic, schema, group.key_head, group.rows, values)]


def _bounded(records: Records, group: Group, bytes_max: int, outcome: Outcome) -> Group:
    """The group without its too large records. Whatever is in them: nobody has looked."""
    if records.longest <= bytes_max:
        return group
    large = {row for row in group.rows if records.size(row) > bytes_max}
    detail = f"key and value have together more than the {bytes_max} bytes of worker.record_bytes_max"
    outcome.fail(sorted(large), Reason.TOO_LARGE, detail)
    return replace(group, rows=[row for row in group.rows if row not in large])


def _pending_json(group: Group, values: Sequence[bytes], outcome: Outcome) -> list[Pending]:
    payloads, bad = json.split(values)
    for index, detail in bad.items():
        outcome.fail([group.rows[index]], Reason.NOT_DECODABLE, detail)
    return [
        Pending(group.topic, one.schema, group.key_head, [group.rows[index] for index in one.indices], one.values)
        for one in payloads
    ]


def decode(waiting: Pending, outcome: Outcome) -> Part:
    """The values as a frame; those that do not fit their schema become dead letters."""
    decoder = avro.decode if waiting.schema.id else json.decode
    frame, bad = decoder(waiting.values, waiting.schema)
    rows = np.asarray(waiting.rows, np.int64)
    if bad:
        for index, detail in bad.items():
            outcome.fail([waiting.rows[index]], Reason.NOT_DECODABLE, detail, waiting.schema.id or None)
        rows = np.delete(rows, list(bad))
    return Part(waiting.topic, waiting.schema, rows, frame)


LEFT_OUT: Mapping[Kind, str] = {
    Kind.HEARTBEAT: "heartbeat",
    Kind.SCHEMA_CHANGE: "schema_change",
    Kind.NOTIFICATION: "notification",
}
"""Kinds of records that are nothing to Chronicle, and the rule that says so."""
