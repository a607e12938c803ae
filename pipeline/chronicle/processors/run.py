"""One batch through all processors, in order: what they add, drop and raise, and whose rows failed.

A processor is given one row a change (a change that came twice in a batch is one row), and never a stub. Those that fail or
are dropped are not given to the processors after it. What comes back is matched by `event_id`, in columns.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from chronicle.errors import StopWorker, TransientError
from chronicle.model.alerts import ALERTS
from chronicle.model.columns import empty
from chronicle.processors import alerts as alert_rows
from chronicle.processors import merge, running, texts
from chronicle.processors.faults import ProcessorFault
from chronicle.processors.frame import CLEAR, INPUT, TAGS, cast
from chronicle.processors.merge import Output, Rows
from chronicle.processors.registry import OnError, Processor
from chronicle.stages.grants import alike

Table = tuple[str, str, str]
"""Source, schema, table."""
Granted = Mapping[Table, pl.DataFrame]
"""As `Batch.granted`."""
NOTHING: Granted = {}
_READ = ("before.", "after.", "extra.", CLEAR, TAGS, "_")
"""Beginnings of columns that are not kept: they were read or are scratch."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a processor could not take the rows it was given."""

    rows: tuple[int, ...]
    """Indexes into the batch's changes."""
    detail: str
    """The processor, the class of its exception and where in its code: never the exception's text."""


@dataclass(frozen=True, slots=True)
class ProcessorResult:
    """What processors made of a batch. Columns are as long as its changes, in their order."""

    extra: pl.Series = field(repr=False)
    labels: pl.Series = field(repr=False)
    tags: pl.Series = field(repr=False)
    dropped: tuple[int, ...]
    """Rows left out of the trail; a stub stays."""
    failed: Mapping[str, Failure]
    """By processor; dead letters of stage `process`, reason `processor_failed`."""
    alerts: pl.DataFrame = field(repr=False)
    """As `model.alerts.ALERTS`; none for a row that failed."""
    seconds: Mapping[str, float]
    """By processor: wall-clock time, what Chronicle does around it included."""
    given: Mapping[str, int]
    """By processor: rows."""
    counted: Sequence[Callable[[], None]] = field(repr=False)

    def count(self) -> None:
        """Let the processors' metrics count this batch; once, when it is through."""
        for one in self.counted:
            one()


Watch = Callable[[Processor, BaseException], None]
"""Is told of a processor's exception before it becomes dead letters; what it raises itself is not caught."""


def unwatched(_processor: Processor, _error: BaseException) -> None:
    """Nobody wants to know."""


def run_processors(
    processors: Sequence[Processor],
    changes: pl.DataFrame,
    now_us: int,
    granted: Granted = NOTHING,
    watch: Watch = unwatched,
) -> ProcessorResult:
    """Run them all. `changes`: columns as in `model.columns.CHANGES`. `now_us`: of the alerts, microseconds since 1970.

    Raises:
        StopWorker: a processor failed that is declared `on_error="stop"`; or one raised StopWorker.
        TransientError: a processor raised it: what it needs is away, the batch is to be tried again.
    """
    work = _Work(changes, granted, now_us, watch)
    for one in processors:
        work.run(one)
    return work.result()


class _Work:
    """A batch between two processors."""

    def __init__(self, changes: pl.DataFrame, granted: Granted, now_us: int, watch: Watch) -> None:
        self._changes, self._granted, self._now_us, self._watch = changes, granted, now_us, watch
        self._length = len(changes)
        self._alive = (changes["stub"].fill_null("") == "").to_numpy().copy()
        # changes of one table stand in runs: a pattern is tried once a run, not once a row
        runs = changes.select(_TABLE).to_struct("table").rle().struct.unnest()
        self._lengths = runs["len"].to_numpy()
        self._names: list[Table] = runs["value"].struct.unnest().rows()
        self._outputs: list[Output] = []
        self._labels, self._tags = changes["labels"], changes["tags"]
        self._dropped: list[int] = []
        self._failed: dict[str, Failure] = {}
        self._alerts: list[pl.DataFrame] = []
        self._seconds: dict[str, float] = {}
        self._given: dict[str, int] = {}
        self._counted: list[Callable[[], None]] = []

    def run(self, one: Processor) -> None:
        """Give a processor its rows, and take what it makes of them."""
        began = time.perf_counter()
        takes = {table: one.takes(*table) for table in dict.fromkeys(self._names)}
        mine = np.repeat(np.asarray([takes[table] for table in self._names], np.bool_), self._lengths)
        rows = np.flatnonzero(mine & self._alive)
        if not len(rows):
            return
        self._given[one.name] = len(rows)
        given, again = _distinct(self._changes["event_id"], rows)
        frame = self._frame(one, given)  # what fails here is our fault, and no processor's
        try:
            with running.said(one.metrics) as said:
                made = one.function(frame)
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001  # whatever the user's code raises
            self._fail(one, rows, error)
        else:
            try:
                self._take(one, made, said, rows=rows, given=given, again=again)
            except (ProcessorFault, pl.exceptions.PolarsError) as error:  # of a column that is not what it should be
                self._fail(one, rows, error)
        self._seconds[one.name] = time.perf_counter() - began

    def _take(self, one: Processor, made: pl.DataFrame, said: running.Said, *, rows: Rows, given: Rows, again: Rows) -> None:
        """`given`: the distinct ones of `rows`; `again`: for each of `rows` its place among them."""
        at = _aligned(made, self._changes["event_id"].gather(pl.Series(given)), drops=one.drops)[again]
        raised = self._alert_rows(one, said.alerts, given)
        kept = rows[at >= 0]
        made = _picked(made, at[at >= 0])
        columns = _new_columns(one, made)
        labels = self._added_labels(made, kept)
        tags = self._added_tags(made, kept)
        texts.check(columns)
        # only from here on is anything taken: a processor that fails has said nothing
        gone = rows[at < 0]
        self._alive[gone] = False
        self._dropped += gone.tolist()
        self._outputs.append(Output(kept, columns))
        self._labels, self._tags = labels, tags
        self._alerts.append(raised)
        self._counted += said.counted

    def _alert_rows(self, one: Processor, raised: Sequence[alert_rows.Raised], given: Rows) -> pl.DataFrame:
        if not raised:
            return empty(ALERTS)
        named = [spec.name for spec in ALERTS if spec.name in self._changes.columns]
        rows = self._changes.select(pl.col([*named, "committed_at"]).gather(pl.Series(given)))
        return alert_rows.frame_of(raised, rows, one.name, self._now_us)

    def _frame(self, one: Processor, rows: Rows) -> pl.DataFrame:
        """What a processor sees of these rows."""
        index = pl.Series(rows)
        whole = len(rows) == self._length
        frame = self._changes.select(list(INPUT)) if whole else self._changes.select(pl.col(list(INPUT)).gather(index))
        frame = frame.with_columns(self._labels.gather(index), self._tags.gather(index))
        earlier = merge.earlier(self._outputs, rows, self._length)
        clear = self._clear(one, rows)
        return frame.hstack([*earlier.get_columns(), *clear])

    def _clear(self, one: Processor, rows: Rows) -> list[pl.Series]:
        """Columns that were granted to it, and to it alone."""
        parts, wanted = [], []
        for table in dict.fromkeys(self._names):
            columns = one.granted(*table)
            wanted += [name for name in columns if name not in wanted]
            if columns and table not in self._granted:
                raise StopWorker(
                    f"the columns granted to the processor {one.name} were not kept: a bug; nothing was acknowledged"
                )
            if columns:
                frame = self._granted[table]
                parts.append(frame.select("_row", *(name for name in columns if name in frame.columns)))
        if not wanted:
            return []
        both = pl.concat(alike(parts), how="diagonal")
        found = pl.DataFrame({"_row": pl.Series(rows, dtype=pl.UInt32)}).join(
            both, on="_row", how="left", maintain_order="left"
        )
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(rows))
        return [(found[name] if name in found.columns else nothing).alias(f"{CLEAR}{name}") for name in wanted]

    def _added_labels(self, made: pl.DataFrame, rows: Rows) -> pl.Series:
        before = self._labels.gather(pl.Series(rows))
        if "labels" not in made.columns or made["labels"].equals(before):
            return self._labels
        return merge.placed(self._labels, rows, merge.labels(before, cast(made["labels"], pl.List(pl.String))))

    def _added_tags(self, made: pl.DataFrame, rows: Rows) -> pl.Series:
        columns = [name for name in made.columns if name.startswith(TAGS)]
        if not columns:
            return self._tags
        return merge.placed(
            self._tags, rows, merge.tags(self._tags.gather(pl.Series(rows)), [cast(made[name], pl.String) for name in columns])
        )

    def _fail(self, one: Processor, rows: Rows, error: BaseException) -> None:
        """Its rows become dead letters; or everything stops, as it was declared, and where no row is at fault."""
        self._watch(one, error)
        where = f"processor {one.name}: {_why(error)}"
        if isinstance(error, TransientError):
            raise TransientError(f"{where}: it asks to be tried again") from None
        if isinstance(error, MemoryError | StopWorker) or one.on_error is OnError.STOP:
            raise StopWorker(f"{where}; nothing was acknowledged") from None
        self._alive[rows] = False
        self._failed[one.name] = Failure(tuple(rows.tolist()), where)

    def result(self) -> ProcessorResult:
        """Everything, put together."""
        return ProcessorResult(
            extra=merge.extras(self._outputs, self._length),
            labels=self._labels,
            tags=self._tags,
            dropped=tuple(sorted(self._dropped)),
            failed=self._failed,
            alerts=self._good_alerts(),
            seconds=self._seconds,
            given=self._given,
            counted=tuple(self._counted),
        )

    def _good_alerts(self) -> pl.DataFrame:
        """Without those of rows that failed later: they are raised again when those are sent back."""
        found = pl.concat([empty(ALERTS), *self._alerts]).unique("alert_id", keep="last", maintain_order=True)
        if not self._failed or not len(found):
            return found
        failed = pl.Series([row for one in self._failed.values() for row in one.rows])
        return found.join(self._changes.select(pl.col("event_id").gather(failed)), on="event_id", how="anti")


_TABLE = ("source", "schema", "table")


def _distinct(events: pl.Series, rows: Rows) -> tuple[Rows, Rows]:
    """The first row of each change, and for each of `rows` its place among those."""
    mine = events.gather(pl.Series(rows))
    if mine.n_unique() == len(rows):
        return rows, np.arange(len(rows))
    number = mine.rank("dense").to_numpy() - 1
    _, first, again = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(first)  # in the order of the rows
    return rows[first[order]], np.argsort(order)[again]


def _aligned(made: object, events: pl.Series, *, drops: bool) -> Rows:
    """For each event given: its row in what came back, -1 where it did not.

    Raises:
        ProcessorFault: what came back is not what was given.
    """
    if not isinstance(made, pl.DataFrame):
        raise ProcessorFault("it returned no pl.DataFrame")
    if made.schema.get("event_id") != pl.Binary:
        raise ProcessorFault("it returned rows without their event_id")
    back = made["event_id"]
    if back.equals(events):
        return np.arange(len(events))
    known = pl.DataFrame([events.alias("event_id")]).join(
        pl.DataFrame([back.alias("event_id")]).with_row_index("at"), on="event_id", how="left", maintain_order="left"
    )
    if len(known) != len(events) or len(known) - known["at"].null_count() != len(back):
        raise ProcessorFault("it returned a row twice, or one that it was not given")
    if known["at"].null_count() and not drops:
        raise ProcessorFault("it returned fewer rows than it was given, and is not declared with drops=True")
    return known["at"].cast(pl.Int64).fill_null(-1).to_numpy()


def _picked(made: pl.DataFrame, at: Rows) -> pl.DataFrame:
    if len(at) == len(made) and bool((at == np.arange(len(at))).all()):
        return made
    return made.select(pl.all().gather(pl.Series(at)))


def _new_columns(one: Processor, made: pl.DataFrame) -> pl.DataFrame:
    """Those that it declared, with their types, and others that it made."""
    for name in one.extra:
        if name not in made.columns:
            raise ProcessorFault(f"it returned no column {name}, which it declares")
    own = [name for name in made.columns if name not in INPUT and not name.startswith(_READ)]
    return pl.DataFrame([cast(made[name], one.extra[name]) if name in one.extra else made[name] for name in own])


def _why(error: BaseException) -> str:
    """What may be said of an exception: a fault in its own words, of any other its class and the line of code."""
    if isinstance(error, ProcessorFault):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _HERE not in frame.filename and "/polars/" not in frame.filename]
    place = f" at {own[-1].filename.rpartition('/')[2]}:{own[-1].lineno}" if own else ""
    return f"{type(error).__name__}{place}"


_HERE = "chronicle/processors/"
