"""What the headers of Kafka records say: the epoch, and the other half of a primary-key change.

A poll returns thousands of records with a handful of distinct header sets, so sets are read once each and not per row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from chronicle.model.chunk import Headers

EPOCH = "chronicle.epoch"
OLD_KEY = "__debezium.oldkey"
EPOCH_MAX = 255


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """One distinct header set, read."""

    epoch: int | None
    """0 to 255; None when the header is absent or unreadable: the source's own epoch is then meant."""
    old_key: str | None = field(repr=False)
    """The key before a primary-key change, as a JSON object of the key's columns; only on its create half."""


NOTHING = HeaderFacts(None, None)


def read(headers: Headers) -> HeaderFacts:
    """Read one header set. Unreadable headers count as absent: they never make a dead letter of a good record."""
    if not headers:
        return NOTHING
    epoch: int | None = None
    old_key: str | None = None
    for name, value in headers:
        if name == EPOCH:
            epoch = _epoch(value)
        elif name == OLD_KEY:
            old_key = _object(value)
    return HeaderFacts(epoch, old_key)


def read_all(headers: list[Headers]) -> tuple[list[HeaderFacts], list[int]]:
    """The distinct header sets of many records, and for each record the index of its own."""
    if headers and headers.count(headers[0]) == len(headers):  # nearly always, and compared without a loop
        return [read(headers[0])], [0] * len(headers)
    distinct: dict[Headers, int] = {}
    indexes = [distinct.setdefault(one, len(distinct)) for one in headers]
    return [read(one) for one in distinct], indexes


def _payload(value: bytes) -> msgspec.Raw:
    """The JSON text of a header value without the `schema`/`payload` wrapper of a JsonConverter with schemas."""
    try:
        wrapper = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        return msgspec.Raw(value)
    return wrapper["payload"] if wrapper.keys() == {"schema", "payload"} else msgspec.Raw(value)


def _epoch(value: bytes | None) -> int | None:
    """`0`, `"0"`, or either of them as a payload, depending on Connect's header converter."""
    if not value:
        return None
    digits = bytes(_payload(value)).strip().strip(b'"')
    if not digits.isdigit() or len(digits) > 3:
        return None
    epoch = int(digits)
    return epoch if epoch <= EPOCH_MAX else None


def _object(value: bytes | None) -> str | None:
    if not value:
        return None
    payload = bytes(_payload(value))
    try:
        text = payload.decode()
        known = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return text if known else None
