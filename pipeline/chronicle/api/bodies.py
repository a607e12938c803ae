"""The body of a POST: read within bounds, inflated within bounds, cut into the texts of single events."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar

import msgspec
import zstandard

from chronicle.api.limits import Sizes
from chronicle.api.problems import Problem

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

JSON, NDJSON = "application/json", "application/x-ndjson"
ENCODINGS = ("", "identity", "gzip", "zstd")
BODY_S = 30.0
"""A body has come by then."""
MEMBERS_MAX = 4_096
"""Of a gzip body. Each costs time whatever is in it, and an empty one has 20 bytes."""
COMMAS = 64
"""So many for each event that a batch may have: an array with more of them may have any number of elements, each of which
would take many times its size in memory."""
_STEP = 4_096
_array = msgspec.json.Decoder(list[msgspec.Raw])
_END = b"this is the end"
_LAST_FRAME = zstandard.ZstdCompressor(write_checksum=True).compress(_END)


class _Counted(msgspec.Struct):
    """An element of an array, of which nothing is kept: it is only counted. Used by one thread, which does not wait."""

    left: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _Counted.left -= 1
        if _Counted.left < 0:
            raise ValueError


_counted = msgspec.json.Decoder(list[_Counted])


class Gone(Exception):
    """The caller has closed the connection: nobody waits for an answer."""


async def read(receive: Receive, length: bytes | None, sizes: Sizes) -> bytes:
    """The whole body, as it is on the wire.

    Raises:
        Problem: 413, 400, 408.
        Gone: the caller went away.
    """
    if length is not None:
        if not length.isdigit():
            raise Problem(400, {"content-length": "is no number"})
        if int(length) > sizes.body_bytes_max:
            raise too_large(sizes)
    try:
        async with asyncio.timeout(BODY_S):
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                body: bytes = message.get("body", b"")
                if len(body) > sizes.body_bytes_max:
                    raise too_large(sizes)
                return body
            return await _rest(message, receive, sizes)
    except TimeoutError:
        raise Problem(408, {"body": f"took longer than {BODY_S:.0f} s to come"}, {"Connection": "close"}) from None


async def _rest(message: MutableMapping[str, Any], receive: Receive, sizes: Sizes) -> bytes:
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise Gone
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > sizes.body_bytes_max:
            raise too_large(sizes)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


def too_large(sizes: Sizes) -> Problem:
    """The body has more bytes than it may."""
    return Problem(413, {"body": f"at most {sizes.body_bytes_max} bytes"}, {"Connection": "close"})


def inflated(body: bytes, encoding: str, sizes: Sizes) -> bytes:
    """The body without its Content-Encoding; never more than the limit is inflated.

    Raises:
        Problem: 413, 415, 400.
    """
    most = sizes.inflated_bytes_max
    if encoding in ("", "identity"):
        return body
    try:
        text = _gunzipped(body, most) if encoding == "gzip" else _unzstd(body, most) if encoding == "zstd" else None
    except (zlib.error, zstandard.ZstdError, EOFError):
        raise Problem(400, {"body": f"is not {encoding}"}) from None
    if text is None:
        raise Problem(415, {"content-encoding": "choose gzip or zstd, or none"}, {"Accept-Encoding": "gzip, zstd"})
    if len(text) > most:
        raise Problem(413, {"body": f"at most {most} bytes when it is decompressed"})
    return text


def _gunzipped(body: bytes, most: int) -> bytes:
    """May hold several members, as gzip's files do."""
    found, at, members = bytearray(), 0, 0
    while at < len(body) and len(found) <= most:
        members += 1
        if members > MEMBERS_MAX:
            raise EOFError
        one = zlib.decompressobj(wbits=31)
        while not one.eof and len(found) <= most:
            # piece by piece: what comes after a member's end is copied by zlib, all of it for each member
            part = body[at : at + _STEP]
            if not part:
                raise EOFError
            found += one.decompress(part, most + 1 - len(found))
            at += len(part) - len(one.unused_data)
    return bytes(found)


def _unzstd(body: bytes, most: int) -> bytes:
    # a frame's header names its window: a few bytes could otherwise ask for gigabytes
    decompressor = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024)
    # the reader says nothing of a body that ends in the middle of a frame: then a frame after it is not found
    reader = decompressor.stream_reader(body + _LAST_FRAME, read_across_frames=True)
    found, reach = bytearray(), most + len(_END)
    while len(found) <= reach:
        part = reader.read(min(1 << 20, reach + 1 - len(found)))
        if not part:
            break
        found += part
    if len(found) > reach:
        return bytes(found)
    if not found.endswith(_END):
        raise EOFError
    return bytes(found[: -len(_END)])


def cut(text: bytes, kind: str, sizes: Sizes) -> tuple[list[bytes], bool]:
    """The texts of the events, and whether the body is a batch (an array, or lines).

    Raises:
        Problem: 400 when it is neither an object, an array nor lines; 413 when there are too many.
    """
    most = sizes.batch_max
    if kind == NDJSON:
        if text.count(b"\n") > 2 * most:  # also empty ones: each would be an object
            raise _too_many(most)
        found = [line for line in text.split(b"\n") if line.strip()]
        batch = True
    elif text[:64].lstrip()[:1] == b"[" or text.lstrip()[:1] == b"[":
        if text.count(b",") > COMMAS * most:
            _count(text, most)
        try:
            found = [bytes(one) for one in _array.decode(text)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Problem(400, {"body": "not JSON"}) from None
        batch = True
    else:
        return [text], False
    if not found:
        raise Problem(422, {"body": "holds no event"})
    if len(found) > most:
        raise _too_many(most)
    return found, batch


def _count(text: bytes, most: int) -> None:
    _Counted.left = most
    try:
        _counted.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if _Counted.left < 0:
            raise _too_many(most) from None
        raise Problem(400, {"body": "not JSON, or an array that holds more than objects"}) from None


def _too_many(most: int) -> Problem:
    return Problem(413, {"body": f"at most {most} events"})
