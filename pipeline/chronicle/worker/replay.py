"""Dead letters sent back: records of the retry topic become chunks with their original coordinates again."""

from __future__ import annotations

from collections.abc import Iterable

from chronicle.model.chunk import Chunk, Headers

Coordinates = tuple[str, int, int]
"""Topic, partition, offset."""

TIMESTAMP_MS_MAX = 253_402_300_800_000
"""The year 10000: no clock says more, and no column holds it."""
OWN_HEADERS = ("chronicle.dead-letter.", "chronicle.original.")


def restore(chunks: Iterable[Chunk], retry_topic: str) -> tuple[list[Chunk], frozenset[Coordinates]]:
    """Chunks as the pure path wants them, and the coordinates of what was sent back.

    Records of the retry topic get topic, partition, offset and time from their `chronicle.original.*` headers and lose
    Chronicle's own headers. One without usable coordinates keeps those of the retry topic: the path makes it a dead
    letter again, because no source has that topic.
    """
    restored: list[Chunk] = []
    coordinates: set[Coordinates] = set()
    for chunk in chunks:
        if chunk.topic != retry_topic:
            restored.append(chunk)
            continue
        rows: dict[tuple[str, int], list[tuple[int, int, int, Headers]]] = {}  # → (offset, timestamp, index, headers)
        for index in range(len(chunk)):
            topic, partition, offset, timestamp = _origin(chunk, index)
            headers = tuple(header for header in chunk.headers[index] if not header[0].startswith(OWN_HEADERS))
            rows.setdefault((topic, partition), []).append((offset, timestamp, index, headers))
            coordinates.add((topic, partition, offset))
        restored += [_chunk(chunk, partition, found) for partition, found in rows.items()]
    return restored, frozenset(coordinates)


def _origin(chunk: Chunk, index: int) -> tuple[str, int, int, int]:
    headers = dict(chunk.headers[index])
    try:
        topic = headers["chronicle.original.topic"].decode()
        partition = int(headers["chronicle.original.partition"])
        offset = int(headers["chronicle.original.offset"])
        timestamp = int(headers["chronicle.original.timestamp"])
    except (KeyError, ValueError, TypeError, AttributeError):  # UnicodeDecodeError is a ValueError
        return chunk.topic, chunk.partition, chunk.offsets[index], chunk.timestamps_ms[index]
    if not topic or not 0 <= partition < 1 << 31 or not 0 <= offset < 1 << 63 or not 0 <= timestamp < TIMESTAMP_MS_MAX:
        return chunk.topic, chunk.partition, chunk.offsets[index], chunk.timestamps_ms[index]
    return topic, partition, offset, timestamp


def _chunk(chunk: Chunk, partition: tuple[str, int], rows: list[tuple[int, int, int, Headers]]) -> Chunk:
    rows.sort(key=lambda row: row[0])  # stable: a letter that was sent twice keeps its order
    picked = [index for _, _, index, _ in rows]
    return Chunk(
        topic=partition[0],
        partition=partition[1],
        offsets=[offset for offset, _, _, _ in rows],
        timestamps_ms=[timestamp for _, timestamp, _, _ in rows],
        keys=[chunk.keys[index] for index in picked],
        values=[chunk.values[index] for index in picked],
        headers=[headers for _, _, _, headers in rows],
    )
