"""Who did it and why: what the workload said in each transaction, and no other, is what the trail says about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tests.faults.catalog import Tables
from tests.faults.contexts import RANKS
from tests.faults.observation import Observation, TruthContext
from tests.faults.report import Difference, Report, show
from tests.faults.transaction_check import latest, normal

Names = Mapping[tuple[str, str], str]
"""(source, the truth's name of a transaction) → the trail's, as the transaction's changes tell it."""


def check_contexts(
    tables: Tables, truth: Iterable[TruthContext], names: Names, observation: Observation, report: Report
) -> None:
    """No context is lost, made up, or on another transaction; the best one of each transaction is the best that was said.

    Where the truth knows the trail's name of a transaction (Postgres), that is its name. Elsewhere (MariaDB) its changes
    say which it is; a transaction without a change of a keyed table is known by its contexts alone, which must then agree.
    """
    exact = {table.source: True for table in tables.by_topic.values()}
    for table in tables.by_topic.values():
        exact[table.source] &= table.exact_transactions
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for record in latest(observation.contexts):
        found[(record.source, record.rung, normal(record.text))].add(record.transaction_id)
    named = dict(names)
    wanted: dict[tuple[str, str], list[TruthContext]] = defaultdict(list)
    for context in truth:
        if context.observed:
            continue
        if exact.get(context.source):
            named[(context.source, context.tx)] = context.tx
        where = found.pop((context.source, context.rung, context.text), set())
        if len(where) == 1:
            named.setdefault((context.source, context.tx), next(iter(where)))
        name = named.get((context.source, context.tx))
        if where != {name}:
            detail = "lost" if not where else "on another transaction" if name not in where else "on two transactions"
            report.add(Difference("context", context.source, name or context.tx, show(context), sorted(where), detail))
        wanted[(context.source, context.tx)].append(context)
    for (source, rung, text), where in found.items():
        report.add(Difference("context", source, sorted(where), None, f"{rung} {text}", "nobody said so"))
    report.counts["contexts"] += sum(map(len, wanted.values()))
    _check_names(named, report)
    _check_best(wanted, named, observation, report)


def _check_names(named: Names, report: Report) -> None:
    """Two transactions do not share a name."""
    owners: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (source, tx), name in named.items():
        owners[(source, name)].add(tx)
    for (source, name), written in owners.items():
        if len(written) > 1:
            report.add(Difference("context", source, name, "one transaction", sorted(written), "contexts of two in one"))


def _check_best(
    wanted: Mapping[tuple[str, str], list[TruthContext]], named: Names, observation: Observation, report: Report
) -> None:
    """`transactions.best_context`, row by row: of the best rung the last one that was said; none where none was."""
    best = {}
    for (source, tx), said in wanted.items():
        chosen = max(said, key=lambda context: (RANKS[context.rung], context.seq))
        best[(source, named.get((source, tx), tx))] = (chosen.rung, chosen.text)
    for row in observation.transactions:
        right = best.pop((row.source, row.transaction_id), ("", ""))
        shown = (row.rung, normal(row.text) if row.text else "")
        if shown != right:
            report.add(Difference("context", row.source, row.transaction_id, right, shown, "the best context"))
    for (source, name), right in best.items():
        report.add(Difference("context", source, name, right, None, "no such transaction"))
