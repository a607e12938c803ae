"""Reference data as people and programs keep it: put, delete, read once, and files of many entities.

The compacted topic `chronicle.entities` is the truth; workers follow it (`worker.entities`).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from chronicle.codec.entity import Entity, InvalidEntity, check_id, entity_of, metadata_of
from chronicle.config import Kafka
from chronicle.errors import ChronicleError, ConfigError, TransientError
from chronicle.refusals import refused
from chronicle.worker.entity_log import EntityLog, covered

Format = Literal["ndjson", "json", "csv"]
SUFFIXES: dict[str, Format] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "json", ".csv": "csv"}
FILE_BYTES_MAX = 256 * 1024 * 1024
PROBLEMS_MAX = 20
"""Bad lines that are named; the rest is counted."""
ANSWER_S = 15.0
FLUSH_S = 60.0
_MEMBERS = frozenset({"id", "name", "metadata"})


class InvalidFile(ConfigError):
    """Some lines are no entities: each is named, with what is wrong, never with what stands there. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the topic held when it was read to its end."""

    entities: Sequence[Entity] = field(repr=False)
    """Those asked for, by id."""
    records: int
    """Read, outdated ones included."""
    unreadable: int
    """Records that are no entities; another program wrote them."""


# --- writing


def put(kafka: Kafka, entities: Sequence[Entity], progress: Callable[[int], None] | None = None) -> None:
    """Write these entities, each whole; returns when the broker has confirmed all of them.

    Args:
        progress: called with the number confirmed so far, now and then.

    Raises:
        ConfigError: the topic is not there, or the broker refuses us.
        TransientError: not every one was confirmed. Running it again is safe.
    """
    _send(kafka, ((one.key, one.value) for one in entities), len(entities), progress)


def delete(kafka: Kafka, ids: Sequence[str]) -> None:
    """Delete these entities, whether they are there or not. Raises as `put`, and InvalidEntity."""
    for id_ in ids:
        check_id(id_)
    _send(kafka, ((id_.encode(), None) for id_ in ids), len(ids), None)


def _send(
    kafka: Kafka, records: Iterable[tuple[bytes, bytes | None]], count: int, progress: Callable[[int], None] | None
) -> None:
    confirmed, failures = 0, list[KafkaError]()

    def delivered(error: KafkaError | None, _message: Message) -> None:
        nonlocal confirmed
        confirmed += error is None
        failures.extend([error] if error is not None else [])

    producer = Producer(
        {
            **kafka.client_config(),
            "enable.idempotence": True,
            "compression.type": "lz4",
            "message.timeout.ms": int(ANSWER_S * 1000),
            # short, for a topic that is not there: it otherwise looks like a broker that does not answer
            "topic.metadata.propagation.max.ms": 3000,
        }
    )
    try:
        for number, (key, value) in enumerate(records):
            while not failures:
                try:
                    producer.produce(kafka.entities_topic, value=value, key=key, on_delivery=delivered)
                    break
                except BufferError:  # the queue is full: wait until something was confirmed
                    producer.poll(1.0)
            producer.poll(0)
            if progress is not None and number % 1000 == 0:
                progress(confirmed)
    except KafkaException as error:
        failures.append(error.args[0])
    producer.flush(FLUSH_S)
    if failures:
        raise _meaning(kafka, failures[0], confirmed, count)
    if confirmed != count:
        raise TransientError(f"run it again, which is safe: the broker confirmed {confirmed} of {count} entities")
    if progress is not None:
        progress(confirmed)


def _meaning(kafka: Kafka, error: KafkaError, confirmed: int, count: int) -> ChronicleError:
    code, name = error.code(), error.name()
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return ConfigError(f"run `chronicle setup`: there is no topic {kafka.entities_topic}")
    if wrong := refused(error, kafka.client_config(), about=kafka.entities_topic):
        return wrong
    return TransientError(
        f"start the broker or correct kafka.bootstrap_servers, then run it again, which is safe: {confirmed} of {count} "
        f"entities are confirmed ({name})"
    )


# --- reading


def get(kafka: Kafka, id_: str, progress: Callable[[int], None] | None = None) -> Entity | None:
    """The entity of this id, as the topic has it now. Raises as `read`, and InvalidEntity."""
    check_id(id_)
    found = read(kafka, lambda one: one == id_, progress).entities
    return found[0] if found else None


def read(
    kafka: Kafka, chosen: Callable[[str], bool] = lambda _id: True, progress: Callable[[int], None] | None = None
) -> Found:
    """The entities whose id is `chosen`, from the topic's start to its end as it is now.

    Args:
        progress: called with the number of records read so far.

    Raises:
        ConfigError: the topic is not there, or the broker refuses us.
        TransientError: the broker does not answer.
    """
    log = EntityLog(kafka)
    bodies: dict[str, str] = {}
    records = unreadable = 0
    try:
        reached = log.open()
        ends = log.ends()
        while not covered(reached, ends):
            got = log.read(ANSWER_S)
            if got.reached == reached:
                raise TransientError("start the broker or correct kafka.bootstrap_servers: no answer from it")
            reached = got.reached
            for record in got.records:
                if record.body is None:
                    bodies.pop(record.id, None)
                elif chosen(record.id):
                    bodies[record.id] = record.body
            records, unreadable = records + len(got.records), unreadable + got.unreadable
            if progress is not None:
                progress(records)
    finally:
        log.close()
    return Found([entity_of(id_, bodies[id_]) for id_ in sorted(bodies)], records, unreadable)


# --- files


def parsed(path: Path, format_: Format | None = None) -> list[Entity]:
    """All entities of a file, or none: NDJSON (an object a line), JSON (an array of objects), or CSV.

    An object has `id`, `name` and, where there is any, `metadata`. CSV has columns of these names, metadata as JSON; every
    other column is a member of the metadata, as text, where it is not empty.

    Raises:
        InvalidFile: some line is no entity, or two have one id.
        ConfigError: the file cannot be read, or its format is not known.
    """
    format_ = format_ or SUFFIXES.get(path.suffix.lower())
    if format_ is None:
        raise ConfigError(f"name the --format ({', '.join(get_args(Format))}): it does not follow from the file's name")
    rows = {"ndjson": _lines, "json": _array, "csv": _table}[format_](_text(path))
    entities: dict[str, Entity] = {}
    places: dict[str, str] = {}
    problems: list[str] = []
    for place, make in rows:
        try:
            entity = make()
        except ConfigError as error:
            problems.append(f"{place}: {error}")
            continue
        if entity.id in entities:
            problems.append(f"{place}: the same id as {places[entity.id]}")
        else:
            entities[entity.id], places[entity.id] = entity, place
    if problems:
        more = f"\n… and {len(problems) - PROBLEMS_MAX} more" if len(problems) > PROBLEMS_MAX else ""
        named = "\n".join(problems[:PROBLEMS_MAX])
        raise InvalidFile(f"correct {path}: {len(problems)} of its entities cannot be; nothing was sent\n{named}{more}")
    return list(entities.values())


_Row = tuple[str, Callable[[], Entity]]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"split {path}: a file may have {FILE_BYTES_MAX // 1024 // 1024} MiB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"write {path} in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"name a file that can be read: {path} ({error.strerror})") from None


def _lines(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", lambda line=line: _of_object(_json(line))  # type: ignore[misc]


def _array(text: str) -> Iterator[_Row]:
    found = _json(text)
    if not isinstance(found, list):
        raise InvalidFile('write the file as a JSON array of objects, [{"id":…,"name":…}], or choose --format ndjson')
    for number, one in enumerate(found, start=1):
        yield f"entity {number}", lambda one=one: _of_object(one)  # type: ignore[misc]


def _table(text: str) -> Iterator[_Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = reader.fieldnames or []
        if not {"id", "name"} <= set(names) or len(set(names)) < len(names):
            raise InvalidFile("begin the file with a line of column names: id, name, and each only once")
        for row in reader:
            yield f"line {reader.line_num}", lambda row=row: _of_row(row)  # type: ignore[misc]
    except csv.Error as error:
        raise InvalidFile(f"line {reader.line_num}: not readable as CSV ({error})") from None


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        where = re.search(r"\(byte (\d+)\)", str(error))
        raise InvalidFile("not readable as JSON" + (f" at byte {where[1]}" if where else "")) from None


def _of_object(found: Any) -> Entity:
    if not isinstance(found, dict):
        raise InvalidEntity('write an object: {"id":…,"name":…,"metadata":{…}}')
    if found.keys() - _MEMBERS:
        raise InvalidEntity("move what is not id, name or metadata into metadata")
    return Entity(found.get("id", ""), found.get("name", ""), found.get("metadata", {}))


def _of_row(row: dict[str | None, Any]) -> Entity:
    if None in row or None in row.values():
        raise InvalidEntity("give the line as many cells as there are columns")
    cells: dict[str, str] = {str(name): cell for name, cell in row.items()}
    metadata = metadata_of(cells["metadata"]) if cells.get("metadata") else {}
    others = {name: cell for name, cell in cells.items() if name not in _MEMBERS and cell}
    return Entity(cells["id"], cells["name"], {**metadata, **others})
