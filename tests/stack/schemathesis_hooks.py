"""What schemathesis must know about the service: how lines of JSON are written. Loaded by its command line."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Texts as they are."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")
