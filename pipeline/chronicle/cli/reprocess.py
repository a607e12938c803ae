"""`chronicle reprocess`: recorded changes of a table again, under the policy in force now; the latest processing wins."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.asking import moment, quiet
from chronicle.cli.terminal import command, err, interruptible, out, print_json
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from chronicle.config import Settings
    from chronicle.model.chunk import SourceSpec
    from chronicle.raw_records import Span
    from chronicle.reprocess import Behind, Delivered, Done
    from chronicle.sinks.mirror_remnants import Remnant
    from chronicle.stages.table_plan import Rules

EPILOG = "Example: chronicle reprocess shop.public.customers --from 7d --dry-run"


@command
def reprocess(
    table: Annotated[str, typer.Argument(help="A captured table: source.schema.table.")],
    *,
    since: Annotated[str, typer.Option("--from", help="Received since: 10m, 2h, 3d ago, or ISO 8601.", show_default=False)],
    until: Annotated[str | None, typer.Option("--to", help="Received before; default: all there are now.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would make of them; nothing is written anywhere.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Process a table's recorded changes again, under the policy as it is now.

    The latest processing of a change wins in ClickHouse and on the audit topic; mirrors follow by position. Workers go on
    beside it, and their offsets do not move: start them under the new policy first. Repeating it is safe. Routes are not fed
    again. It says what of earlier processing is still there, and how to remove it.
    """
    from chronicle import config, wiring
    from chronicle.observe import configure_logging
    from chronicle.raw_records import RawTopic

    settings = config.load()
    quiet()
    configure_logging("warning")
    specs = wiring.sources(settings)
    parts = _parts(table, specs)
    policy = wiring.rules(settings)
    from_, to = moment(since), moment(until)
    if from_ is None or (to is not None and to <= from_):
        raise ConfigError("give --to a later time than --from")
    if not dry_run:
        wiring.check(settings, specs, policy.policy)
    newer = _last_policy(settings)
    if newer is not None and newer != policy.policy.hash:
        err.print(
            f"warning: restart the workers first: the last to write did so under policy {newer}, this is {policy.policy.hash}",
            markup=False,
            soft_wrap=True,
        )

    def all_of_it() -> tuple[Sequence[Span], Done, int]:
        with RawTopic(settings.kafka, table) as raw:
            spans = raw.between(from_, to)
            return spans, *_processed(settings, specs, policy, raw, spans, dry_run=dry_run)

    spans, done, retracted = interruptible(all_of_it)
    told = _left(settings, parts, policy, spans)
    asked = {"table": table, "policy": policy.policy.hash, "from": from_.isoformat(), "to": to.isoformat() if to else None}
    read = {"partitions": [asdict(span) for span in spans], **done.as_json(), "retracted": retracted}
    result = {**asked, **read, **told.as_json()}
    if as_json:
        print_json({**result, "dry_run": dry_run})
        return
    _show(result, told, dry_run=dry_run)


def _processed(
    settings: Settings, specs: Sequence[SourceSpec], policy: Rules, raw: Any, spans: Sequence[Span], *, dry_run: bool
) -> tuple[Done, int]:
    from chronicle import wiring
    from chronicle.reprocess import run
    from chronicle.worker.status import Status

    again = wiring.build_reprocessing(settings, specs, policy, Status(), dry_run=dry_run)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("records", total=sum(span.length for span in spans))
            done = run(
                again.engine,
                raw.chunks(spans, settings.worker.batch_rows_max),
                spans=spans,
                need_from=again.need_from,
                progress=lambda records: progress.update(task, completed=records),
            )
    finally:
        again.close()
    return done, again.retracted()


def _parts(table: str, specs: Sequence[SourceSpec]) -> tuple[str, str, str]:
    """Source, schema and table of a topic's name."""
    mine = [spec.name for spec in specs if table.startswith(f"{spec.name}.")]
    source = max(mine, key=len, default="")
    schema, _, name = table.removeprefix(f"{source}.").partition(".")
    if not source or not schema or not name:
        known = ", ".join(spec.name for spec in specs)
        raise ConfigError(f"name a captured table as source.schema.table, of the sources {known}: {table} is none")
    return source, schema, name


def _last_policy(settings: Settings) -> str | None:
    """The policy under which a worker wrote last; None: it is not known."""
    from chronicle.sinks.clickhouse_client import connect
    from chronicle.sinks.policies import latest

    with closing(connect(settings.clickhouse)) as client:
        return latest(client, settings.clickhouse.database)


class _Left:
    """What earlier processing left, and until when the raw topic has clear text."""

    def __init__(
        self,
        behind: Behind,
        remnants: Sequence[Remnant],
        merges: Sequence[str],
        clear_until: datetime | None,
        delivered: Sequence[Delivered],
    ) -> None:
        self.behind, self.remnants, self.merges = behind, remnants, merges
        self.clear_until, self.delivered = clear_until, delivered

    def as_json(self) -> dict[str, Any]:
        """For a pipe."""
        oldest, within = self.behind.oldest, self.behind.within
        return {
            "older_rows": {
                "within": within,
                "outside": self.behind.outside,
                "oldest": oldest.isoformat() if oldest else None,
                "statement": self.behind.statement if within else None,
            },
            "mirror_columns": [{**asdict(one), "statements": list(one.statements)} for one in self.remnants],
            "merges": list(self.merges),
            "routes_not_fed": [
                {"route": one.route, "topic": one.topic, "until": one.until.isoformat() if one.until else None}
                for one in self.delivered
            ],
            "raw_topic_clear_until": self.clear_until.isoformat() if self.clear_until else None,
        }


def _left(settings: Settings, parts: tuple[str, str, str], policy: Rules, spans: Sequence[Span]) -> _Left:
    from datetime import UTC, datetime

    from chronicle.reprocess import behind, clear_until, delivered
    from chronicle.sinks.clickhouse_client import connect
    from chronicle.sinks.mirror_remnants import merges, remnants
    from chronicle.worker.topics import Broker

    topic = ".".join(parts)
    with closing(connect(settings.clickhouse)) as client:
        rows = behind(client, settings.clickhouse, topic, spans, policy.policy.hash)
        columns = remnants(client, settings.clickhouse, parts, policy.policy)
        merge = merges(client, settings.clickhouse, parts)
    routes, now = policy.policy.routes, datetime.now(UTC)
    broker = Broker(settings.kafka.client_config())
    kept = broker.retention_s({topic, *(route.to for route in routes)} & set(broker.topics()))
    return _Left(rows, columns, merge, clear_until(kept, topic, now), delivered(routes, parts, kept, now))


def _show(result: dict[str, Any], told: _Left, *, dry_run: bool) -> None:
    counted = [("records", shown.cell(result["records"])), ("policy", Text(result["policy"]))]
    for name in ("changes", "stubs", "dead_letters", "left_out"):
        if result[name]:
            words = ", ".join(f"{count:,} {what}" for what, count in result[name].items())
            counted.append((name.replace("_", " "), Text(words)))
    if result["retracted"]:
        counted.append(("taken back from the audit topic", shown.cell(result["retracted"])))
    out.print("would be processed again" if dry_run else "processed again", style="bold")
    shown.print_record(counted)
    if told.behind.within:
        verb = "would be replaced, or stay where they become dead letters" if dry_run else "stay: dead letters now. Remove them"
        out.print(f"\n{told.behind.within:,} rows of these records are of another policy: they {verb}", style="bold")
        if not dry_run:
            out.print(Text(f"{told.behind.statement};"), soft_wrap=True)
    if told.behind.outside:
        since = f", since {shown.instant(told.behind.oldest)}" if told.behind.oldest else ""
        out.print(f"\n{told.behind.outside:,} rows of other times are of another policy{since}: reprocess from an earlier time")
    if told.remnants:
        out.print("\nmirror columns of an older class: they keep what they hold until you drop them", style="bold")
    for one in told.remnants:
        out.print(Text(f"{one.table}.{one.column}: {one.how}, now {one.now}"), soft_wrap=True)
    if not dry_run:
        for statement in dict.fromkeys(statement for one in told.remnants for statement in one.statements):
            out.print(Text(f"  {statement};"), soft_wrap=True)
        out.print("\nClickHouse forgets earlier versions of rows when it merges them. To have it now:", style="bold")
        out.print(Text("\n".join(f"  {statement};" for statement in told.merges)), soft_wrap=True)
    if told.delivered:
        out.print(
            "\nroutes get nothing again and nothing is taken back from them, for what they delivered was acted on:",
            style="bold",
        )
    for fed in told.delivered:
        out.print(Text(f"  {fed.topic} (route {fed.route}) keeps what it was sent {_end(fed.until)}"), soft_wrap=True)
    out.print(
        Text(f"\nthe raw topic {result['table']} keeps what it holds now in clear {_end(told.clear_until)}"), soft_wrap=True
    )


def _end(at: datetime | None) -> str:
    return f"until about {shown.instant(at)} (UTC)" if at else "for ever (no retention)"
