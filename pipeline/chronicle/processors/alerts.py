"""Alerts: a processor says that somebody should look at a change. They become rows of `chronicle.alerts`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import Formatter

import polars as pl

from chronicle.model.alerts import ALERTS, Severity, alert_ids
from chronicle.model.columns import MICROS, empty
from chronicle.processors import running, texts
from chronicle.processors.faults import ProcessorFault
from chronicle.processors.frame import CLEAR

__all__ = ["Raised", "Severity", "raise_"]

_RULE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,79}")
NAMEABLE = (
    *("source", "schema", "table", "operation", "transaction_id", "actor_id", "actor_type", "actor_name", "request_id"),
    *("tenant", "committed_at"),
)
"""Columns that a title may name without declaring them in `extra`."""
_UNKNOWN = "(unknown)"


@dataclass(frozen=True, slots=True)
class Raised:
    """One call of `raise_`."""

    rule: str
    severity: Severity
    title: str
    rows: pl.DataFrame = field(repr=False)
    """`event_id`, and the columns that the title, the subject and `extra` name."""
    extra: tuple[str, ...]
    subject: tuple[str, ...]


def raise_(
    *,
    rule: str,
    severity: str,
    title: str,
    changes: pl.DataFrame,
    extra: Sequence[str] = (),
    subject: Sequence[str] = (),
) -> None:
    """Raise one alert for each row of `changes`; none where there is no row. May come again: the same alert replaces itself.

    Args:
        rule: short and fixed; with the change (or the subject) it is the alert's identity.
        severity: low, medium, high or critical.
        title: for a person. `{name}` stands for a column: one of `NAMEABLE`, or of `extra`.
        changes: rows of the frame that the processor was given, with more columns or fewer; `event_id` links them.
        extra: columns to keep beside it as JSON. Never a column that was granted in clear.
        subject: columns that say what it is about, instead of the change: an alert about a transaction is then one alert,
            however many of its rows, in however many batches, it is raised for. Raise it for one row a subject.

    Raises:
        ProcessorFault: a rule, severity, title or column that cannot be.
    """
    if not _RULE.fullmatch(rule):
        raise ProcessorFault("an alert's rule is a short name with letters, digits, . _ and -")
    if severity not in set(Severity):
        raise ProcessorFault(f"alert {rule}: severity is low, medium, high or critical")
    named = _names(rule, title)
    if foreign := sorted(set(named) - set(NAMEABLE) - set(extra)):
        raise ProcessorFault(f"alert {rule}: the title names {foreign[0]}, which extra does not declare")
    wanted = list(dict.fromkeys(["event_id", *named, *subject, *extra]))
    for column in wanted:
        if column not in changes.columns or column.startswith(CLEAR):
            raise ProcessorFault(f"alert {rule}: there is no column {column} that it may show")
    if len(changes):
        running.raised(Raised(rule, Severity(severity), title, changes.select(wanted), tuple(extra), tuple(subject)))


def frame_of(raised: Sequence[Raised], changes: pl.DataFrame, name: str, now_us: int) -> pl.DataFrame:
    """Rows of `ALERTS` of what the processor `name` raised. `changes`: the rows it was given, with `entity`.

    Raises:
        ProcessorFault: an alert for a row that it was not given.
    """
    frames = [_rows(one, changes, name, now_us) for one in raised]
    if not frames:
        return empty(ALERTS)
    return pl.concat(frames).unique("alert_id", keep="last", maintain_order=True)


def _rows(raised: Raised, changes: pl.DataFrame, name: str, now_us: int) -> pl.DataFrame:
    taken = (*(spec.name for spec in ALERTS if spec.name in changes.columns), "committed_at")
    both = raised.rows.rename({one: f"*{one}" for one in raised.rows.columns if one != "event_id"}).join(
        changes.select(taken).unique("event_id"), on="event_id", how="inner", maintain_order="left"
    )
    if len(both) < len(raised.rows):
        raise ProcessorFault(f"alert {raised.rule}: raise it for rows that the processor was given")
    own = both.select(pl.col(f"*{one}").alias(one) for one in raised.rows.columns if one != "event_id")
    extra = (
        texts.objects(own.select(raised.extra))
        if raised.extra
        else pl.Series([None], dtype=pl.String).new_from_index(0, len(both))
    )
    return both.with_columns(
        pl.Series("alert_id", _ids(raised, both, own), dtype=pl.Binary),
        pl.lit(raised.rule).alias("rule"),
        pl.lit(raised.severity.value).alias("severity"),
        _title(raised, own).alias("title"),
        pl.lit(name).alias("processor"),
        pl.col("committed_at").alias("occurred_at"),
        pl.lit(now_us, pl.Int64).cast(MICROS).alias("raised_at"),
        extra.alias("extra"),
    ).select(spec.name for spec in ALERTS)


def _ids(raised: Raised, rows: pl.DataFrame, own: pl.DataFrame) -> list[bytes]:
    if not raised.subject:
        return alert_ids([(raised.rule, "event", event.hex()) for event in rows["event_id"]])
    about = own.select(pl.col(raised.subject).cast(pl.String).fill_null("")).rows()
    return alert_ids([(raised.rule, "subject", source, *one) for source, one in zip(rows["source"], about, strict=True)])


def _names(rule: str, title: str) -> list[str]:
    try:
        parts = list(Formatter().parse(title))
    except ValueError:
        raise ProcessorFault(f"alert {rule}: write {{{{ and }}}} for braces in the title") from None
    return [name for _, name, _, _ in parts if name is not None]


def _title(raised: Raised, own: pl.DataFrame) -> pl.Series:
    pieces: list[pl.Expr] = []
    for text, name, _, _ in Formatter().parse(raised.title):
        pieces.append(pl.lit(text))
        if name is not None:
            pieces.append(pl.col(name).cast(pl.String).fill_null(_UNKNOWN))
    title = own.select(pl.concat_str(pieces)).to_series() if own.width else pl.Series([raised.title.format()])
    return title if len(title) == len(raised.rows) else title.new_from_index(0, len(raised.rows))
