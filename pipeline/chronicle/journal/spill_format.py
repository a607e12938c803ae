"""How the spill's files are written and read: records that say whether they are whole, and a number that does so."""

from __future__ import annotations

import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = b"\xc7SPL"
_HEADER = struct.Struct("<4sIIQ")
_CHECKED = struct.Struct("<IQ")
HEADER_BYTES = _HEADER.size


def written(number: int, body: bytes) -> bytes:
    """One record of a segment."""
    checked = _CHECKED.pack(len(body), number)
    return _HEADER.pack(_MAGIC, zlib.crc32(body, zlib.crc32(checked)), len(body), number) + body


def records_in(data: bytes, first: int, stop: int) -> Iterator[tuple[int, bytes, int]]:
    """(number, body, where it ends) of each whole record with a number from `first` on and below `stop`; what is between
    them is passed over."""
    at = 0
    while 0 <= at <= len(data) - _HEADER.size:
        magic, crc, length, number = _HEADER.unpack_from(data, at)
        start = at + _HEADER.size
        end = start + length
        whole = magic == _MAGIC and first <= number < stop and end <= len(data)
        if whole and zlib.crc32(data[start:end], zlib.crc32(data[at + 8 : start])) == crc:
            yield number, data[start:end], end
            first = number + 1
            at = end
        else:
            at = data.find(_MAGIC, at + 1)


def numbered(position: int) -> bytes:
    """As `forgotten` holds it: always of one length."""
    number = b"%020d" % position
    return b"%s %010d\n" % (number, zlib.crc32(number))


def number_in(text: bytes) -> int:
    """0 where there is none, or none that can be trusted: then records may come again."""
    try:
        number, _, crc = text.strip().partition(b" ")
        return int(number) if int(crc) == zlib.crc32(number) else 0
    except ValueError:
        return 0
