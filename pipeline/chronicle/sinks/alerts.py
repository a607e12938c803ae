"""Alerts as the Arrow table that ClickHouse takes for its table `alerts`."""

from __future__ import annotations

from typing import Any

import polars as pl

from chronicle.model.alerts import ALERTS
from chronicle.sinks import arrow

_PLAIN = [spec.name for spec in ALERTS if spec.dtype != pl.Binary]
_IDENTIFIERS = [spec.name for spec in ALERTS if spec.dtype == pl.Binary]


def alerts(frame: pl.DataFrame) -> Any:
    """Rows of the table `alerts`; `frame` has the columns of `model.alerts.ALERTS`."""
    table = arrow.plain(frame.select(_PLAIN))
    for name in _IDENTIFIERS:
        table = table.append_column(name, arrow.sixteen(frame[name]))
    return table
