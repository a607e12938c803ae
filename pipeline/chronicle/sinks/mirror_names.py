"""What a mirror's table, its view and its columns are called: readable, and never the same for two captured tables. Pure.

`shop.public.order_items` is mirrored in `shop__public__order_items`, read by the view `shop__public__order_items__current`.
A part with other characters than letters, digits and single inner underscores would make that ambiguous (`a.b_.c`,
`a.b._c`): then the readable name gets a hash of the exact parts. After the primary key changes, the mirror's next
generation is `…__2`. None of these endings can be a part of another table's name.
"""

from __future__ import annotations

import hashlib
import re

_PLAIN = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
_OTHER = re.compile(r"[^A-Za-z0-9]+")
_LENGTH_MAX = 150
"""ClickHouse makes file names of it."""
META = {
    "_position": "UInt128",
    "_deleted": "UInt8",
    "_event_id": "UUID",
    "_unavailable": "Array(LowCardinality(String))",
    "_flags": "Array(LowCardinality(String))",
    "_nulls": "Array(LowCardinality(String))",
}
"""The mirror's own columns that come with every row."""
INSERTED_AT = "_inserted_at"
_RESERVED = frozenset({*META, INSERTED_AT, "_row", "_missing"})


def mirror_name(source: str, schema: str, table: str) -> str:
    """The mirror's table (first generation) in the mirror database."""
    parts = (source, schema, table)
    name = "__".join(parts)
    if all(_PLAIN.fullmatch(part) for part in parts) and len(name) <= _LENGTH_MAX:
        return name
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()
    readable = "__".join(_OTHER.sub("_", part).strip("_") or "x" for part in parts)
    return f"{readable[:_LENGTH_MAX].rstrip('_')}__h{digest}"


def generation_name(name: str, generation: int) -> str:
    """The table of a generation, counted from 1."""
    return name if generation == 1 else f"{name}__{generation}"


def current_name(source: str, schema: str, table: str) -> str:
    """The view that shows the rows as they are now."""
    return f"{mirror_name(source, schema, table)}__current"


def column_name(name: str) -> str:
    """The mirror's column for a captured column.

    A dot would make array columns Nested in ClickHouse (their lengths then must agree); the mirror's own names are taken.
    """
    safe = name.replace(".", "_") or "_"
    return f"{safe}__column" if safe in _RESERVED else safe
