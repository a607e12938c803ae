"""The body of a POST: read within bounds, inflated within bounds, cut into the texts of single events."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import zstandard

from chronicle.api.limits import Sizes
from chronicle.api.problems import Problem

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

JSON, NDJSON = "application/json", "application/x-ndjson"
ENCODINGS = ("", "identity", "gzip", "zstd")
BODY_S = 30.0
"""A body that comes in parts has come by then."""
_array = msgspec.json.Decoder(list[msgspec.Raw])


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
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > sizes.body_bytes_max:
            raise too_large(sizes)
        return body
    try:
        async with asyncio.timeout(BODY_S):
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
    found = bytearray()
    while body and len(found) <= most:
        one = zlib.decompressobj(wbits=31)
        found += one.decompress(body, most + 1 - len(found))
        if not one.eof and len(found) <= most:
            raise EOFError
        body = one.unused_data
    return bytes(found)


def _unzstd(body: bytes, most: int) -> bytes:
    # a frame's header names its window: a few bytes could otherwise ask for gigabytes
    reader = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024).stream_reader(body, read_across_frames=True)
    found = bytearray()
    while len(found) <= most:
        part = reader.read(min(1 << 20, most + 1 - len(found)))
        if not part:
            break
        found += part
    if body and not found:
        raise EOFError
    return bytes(found)


def cut(text: bytes, kind: str, sizes: Sizes) -> tuple[list[bytes], bool]:
    """The texts of the events, and whether the body is a batch (an array, or lines).

    Raises:
        Problem: 400 when it is neither an object, an array nor lines; 413 when there are too many.
    """
    if kind == NDJSON:
        found = [line for line in text.split(b"\n") if line.strip()]
        batch = True
    elif text[:64].lstrip()[:1] == b"[" or text.lstrip()[:1] == b"[":
        try:
            found = [bytes(one) for one in _array.decode(text)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Problem(400, {"body": "not JSON"}) from None
        batch = True
    else:
        return [text], False
    if not found:
        raise Problem(422, {"body": "holds no event"})
    if len(found) > sizes.batch_max:
        raise Problem(413, {"body": f"at most {sizes.batch_max} events"})
    return found, batch
