"""Points in time as a person writes them: `10m`, `2h`, `3d`, or ISO 8601. Pure: the caller says what time it is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from chronicle.errors import ConfigError

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse(text: str, now: datetime) -> datetime:
    """The instant that `text` means: so long before `now`, or an ISO 8601 time (UTC when it names no zone).

    Raises:
        ConfigError: it is neither.
    """
    span = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text.strip())
    try:
        if span:
            return now - timedelta(**{UNITS[span[2]]: int(span[1])})
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            "write a time as 30s, 10m, 2h, 3d, 1w, or ISO 8601 (2026-11-23, 2026-11-23T08:30:00Z): this one is neither"
        ) from None
