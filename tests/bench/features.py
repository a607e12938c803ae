"""What the meaning of a change costs: one backlog, drained again and again by a real worker, with one feature more each time.

The last step is the full policy of the project's target: of 12 columns 6 are tokens or masks, one is encrypted, one
coarser; every transaction has a context; one entity is joined; one processor adds three columns. All sinks are on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka.admin import AdminClient

from chronicle import entities, setup
from chronicle.codec.entity import Entity
from chronicle.dev.stack import Stack
from chronicle.policy.keyring import Purpose
from chronicle.policy_files import add_key
from chronicle.sinks.clickhouse_client import connect
from tests.bench import contexts
from tests.bench.backlog import Backlog, create_topics, register
from tests.bench.capacity import Drained, drain, fill
from tests.bench.envelopes import FIRST_TRANSACTION, PER_TRANSACTION
from tests.bench.site import Site
from tests.own_settings import remove

TABLES = 20
VARIANTS = 50_000
"""Of rows: more than a batch has, so that no class profits from values that repeat as they never would."""
ENTITIES = 20_000
COLUMNS = {
    "email": '{ class = "token" }',
    "status": '{ class = "token" }',
    "quantity": '{ class = "token" }',
    "full_name": '{ class = "mask", keep = 2 }',
    "city": '{ class = "mask", keep = 2 }',
    "note": '{ class = "mask", keep = 4 }',
}
ENCRYPTED = {"amount": '"encrypt"'}
COARSER = {"created_at": '{ class = "generalize", to = "month" }'}
ENRICH = """
[[tables.enrich]]
column = "id"
entity = "row:{}"
into = "row"
"""
PROCESSOR = '''
"""Three columns out of what every change has: the least that an auditor's own logic does."""

import polars as pl

from chronicle.processors import processor


@processor(tables="*.public.*", extra={"night": pl.Boolean, "columns": pl.Int64, "who": pl.String})
def three(changes: pl.DataFrame) -> pl.DataFrame:
    return changes.with_columns(
        night=pl.col("committed_at").dt.hour().is_between(0, 5),
        columns=pl.col("changed").list.len().cast(pl.Int64),
        who=pl.coalesce("actor_id", pl.lit("nobody")),
    )
'''


@dataclass(frozen=True, slots=True)
class Step:
    """One drain: what is switched on, and how the trail shows that it was."""

    name: str
    adds: str
    """The feature that the step before did not have, for the table."""
    columns: dict[str, str]
    shown: str
    """Condition over `changes` that holds for every change, but for deletes where the column is about the new row."""
    more: str = ""
    contexts: bool = False
    processors: tuple[str, ...] = ()

    @property
    def policy(self) -> str:
        """The policy's text."""
        classes = "".join(f"{name} = {kind}\n" for name, kind in self.columns.items())
        return f'[defaults]\nignore = []\n[[tables]]\nmatch = "**"\n[tables.columns]\n"*" = "clear"\n{classes}{self.more}'


HIDDEN = {**COLUMNS, **ENCRYPTED, **COARSER}
IMAGE = "ifNull(after, before)"
STEPS = (
    Step("clear", "the spine alone, everything clear", {}, f"position({IMAGE}, '@example.com') > 0"),
    Step("token_mask", "3 columns token, 3 mask", COLUMNS, f'position({IMAGE}, \'"email":"t1.\') > 0'),
    Step("encrypt", "1 column encrypt", {**COLUMNS, **ENCRYPTED}, f"position({IMAGE}, 'e1.') > 0"),
    Step("generalize", "1 column generalize (month)", HIDDEN, f"position({IMAGE}, '-01T00:00:00') > 0"),
    Step("contexts", "a context for every transaction", HIDDEN, "attribution IN ('message', 'pending')", contexts=True),
    Step("entity", "1 entity joined", HIDDEN, "position(enriched, '\"tier\"') > 0", ENRICH, True),
    Step("processor", "1 processor, 3 columns", HIDDEN, "JSONHas(extra, 'who')", ENRICH, True, ("bench_processor",)),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One step's cheapest drain: what others do on the machine only ever adds."""

    step: Step
    drained: Drained
    added_us: float | None
    """CPU per change more than the step before; None: there is none."""
    attributed: float
    """Share of the changes that had their context when they were written; the others are `pending`, and get it in the view."""


def measure(stack: Stack, name: str, *, changes: int, seed: int, repeats: int) -> tuple[Backlog, list[Measured]]:
    """All steps in turn, as often as asked, over one backlog.

    Raises:
        RuntimeError: a worker failed, or what a step switches on is not on every change.
    """
    with tempfile.TemporaryDirectory(prefix="chronicle-bench-") as directory:
        site = Site(stack, name, Path(directory))
        try:
            backlog = _prepare(site, changes, seed)
            found: dict[str, list[tuple[Drained, float]]] = {step.name: [] for step in STEPS}
            for round_ in range(repeats):
                for step in STEPS:
                    found[step.name].append(_drained(site, step, backlog, f"r{round_}{step.name}"))
                _forget_contexts(site)
            return backlog, list(_compared(found))
        finally:
            site.close()


def _prepare(site: Site, changes: int, seed: int) -> Backlog:
    backlog = fill(site, tables=TABLES, changes=changes, partitions=4, seed=seed, variants=VARIANTS)
    made = [Entity(f"row:{n}", f"Row {n}", {"tier": "gold" if n % 3 else "standard", "seats": n}) for n in range(1, ENTITIES)]
    entities.put(site.settings.kafka, made)
    add_key(site.settings.key_ring_file, "encrypt-1", Purpose.ENCRYPT, datetime.now(UTC))
    (site.directory / "bench_processor.py").write_text(PROCESSOR)
    return backlog


def _drained(site: Site, step: Step, backlog: Backlog, suffix: str) -> tuple[Drained, float]:
    if step.contexts:
        _tell_contexts(site, backlog.changes)
    file = site.directory / f"{step.name}.policy.toml"
    file.write_text(step.policy)
    own = site.again(suffix, policy_file=file, processors=step.processors)
    try:
        setup.run(own.settings)
        drained = drain(own, backlog)
        return drained, _checked(own, step, backlog.changes)
    finally:
        remove(own.settings)


def _checked(site: Site, step: Step, changes: int) -> float:
    """The share of changes with a context, when what the step switches on is on all of them."""
    with connect(site.settings.clickhouse) as client:
        counts = f"countIf({step.shown}), countIf(attribution = 'message')"
        query = f"SELECT {counts} FROM {site.settings.clickhouse.database}.changes FINAL"
        [(shown, attributed)] = client.query(query).result_rows
    if shown != changes:
        raise RuntimeError(f"{step.name}: {shown} of {changes} changes show it")
    return float(attributed / changes)


def _tell_contexts(site: Site, changes: int) -> None:
    """Fill the transaction topic, once in a round."""
    topic, stack = f"{site.source}.transaction", site.stack
    if topic in AdminClient({"bootstrap.servers": stack.kafka}).list_topics(timeout=30).topics:
        return
    create_topics(stack.kafka, [topic], 1)
    ids = {name: register(stack.registry_url, f"{topic}-{name}", text) for name, text in contexts.schemas().items()}
    transactions = range(FIRST_TRANSACTION, FIRST_TRANSACTION + -(-changes // PER_TRANSACTION))
    made = contexts.records(site.source, transactions, PER_TRANSACTION, int(datetime.now(UTC).timestamp() * 1000))
    contexts.produce(stack.kafka, topic, ids, made)


def _forget_contexts(site: Site) -> None:
    admin = AdminClient({"bootstrap.servers": site.stack.kafka})
    for future in admin.delete_topics([f"{site.source}.transaction"], operation_timeout=30).values():
        future.result(30)


def _compared(found: dict[str, list[tuple[Drained, float]]]) -> Iterator[Measured]:
    before: Drained | None = None
    for step in STEPS:
        best, attributed = min(found[step.name], key=lambda one: one[0].worker_us)
        yield Measured(step, best, None if before is None else best.worker_us - before.worker_us, attributed)
        before = best
