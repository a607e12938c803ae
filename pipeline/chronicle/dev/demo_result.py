"""What the demo found: the proof, as the terminal and a pipe show it, and all that is not as it must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chronicle.dev import demo_events, proof
from chronicle.dev.demo_contract import ContractProof
from chronicle.dev.latency import Latency
from chronicle.trail.letters import DeadLetter
from chronicle.trail.tables import TableName

SOURCES = ("hiring", "shop")


@dataclass(frozen=True, slots=True)
class TableProof:
    """One captured table: what happened to it, and whether the three sides agree."""

    name: TableName
    by_operation: Mapping[str, int]
    source: proof.Side
    mirror: proof.Side
    audit: proof.Side
    """These three by the columns that the policy leaves clear."""
    hidden: tuple[str, ...]
    """Columns that mirror and audit topic hold in another form than the source: tokens, masks, coarser values, ciphertexts."""
    hidden_mirror: proof.Side
    hidden_audit: proof.Side

    @property
    def equal(self) -> bool:
        """Source = mirror = audit topic in clear columns, mirror = audit topic in hidden ones."""
        return self.source == self.mirror == self.audit and self.hidden_mirror == self.hidden_audit


@dataclass(frozen=True, slots=True)
class Proof:
    """All that the demo shows. `problems` is empty when everything holds."""

    tables: Sequence[TableProof]
    latencies: Sequence[Latency]
    commits: int
    rollbacks: int
    dead_letters: Sequence[DeadLetter]
    planted: tuple[str, int, int]
    attributed: Mapping[str, Mapping[str, int]]
    """By source: changes by what says who did them."""
    labels: Mapping[str, int]
    stubs: Mapping[str, int]
    """Changes that the policy left out, by rule."""
    funnel: Sequence[tuple[str, int, float | None, float | None]]
    """What the recruitment processors say: stage, applications that came to it, mean quality, days from application to hire."""
    contract: ContractProof
    events: Sequence[demo_events.EventsProof]
    request: Sequence[Mapping[str, Any]]
    """What the trail has of one request: events and changes."""
    problems: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """For a pipe."""
        return {
            "tables": [
                {
                    "table": str(table.name),
                    "changes": dict(table.by_operation),
                    "rows": table.source.rows,
                    "digests": {"source": table.source.digest, "mirror": table.mirror.digest, "audit": table.audit.digest},
                    "hidden_columns": list(table.hidden),
                    "hidden_digests": {"mirror": table.hidden_mirror.digest, "audit": table.hidden_audit.digest},
                    "equal": table.equal,
                }
                for table in self.tables
            ],
            "transactions": {"committed": self.commits, "rolled_back": self.rollbacks},
            "commit_to_queryable_ms": [
                {"source": one.source, "measured": one.measured, "p50": one.p50_ms, "p99": one.p99_ms, "max": one.max_ms}
                for one in self.latencies
            ],
            "attribution": {source: dict(counts) for source, counts in self.attributed.items()},
            "labels": dict(self.labels),
            "left_out_by_policy": dict(self.stubs),
            "funnel": [
                {"stage": stage, "applications": count, "quality": quality, "days_to_hire": days}
                for stage, count, quality, days in self.funnel
            ],
            "dead_letters": [letter.as_json() for letter in self.dead_letters],
            "broken_contract": self.contract.as_json(),
            "events": [one.as_json() for one in self.events],
            "request": [{**entry, "time": entry["time"].isoformat()} for entry in self.request],
            "problems": list(self.problems),
        }


def problems(found: Proof, since: datetime) -> list[str]:
    """Everything that is not as it must be."""
    told = [f"{table.name}: source, mirror and audit topic differ" for table in found.tables if not table.equal]
    told += [f"{table.name}: no changes" for table in found.tables if not table.by_operation]
    if not any(letter.coordinates == found.planted for letter in found.dead_letters):
        told.append("the planted record is no dead letter")
    for letter in found.dead_letters:
        if letter.coordinates != found.planted and letter.timestamp > since and not letter.change_since:
            told.append(f"{letter.topic} {letter.partition} {letter.offset}: a dead letter that nobody planted")
    for source, rungs in (("shop", ("message",)), ("hiring", ("table", "comment"))):
        told += [f"{source}: nobody is known by {rung}" for rung in rungs if not found.attributed[source].get(rung)]
    told += [] if found.labels else ["no change has a label"]
    told += [] if found.funnel else ["the processors said nothing about the funnel"]
    told += [] if found.contract.holds else ["not all changes under the broken contract waited and arrived"]
    told += demo_events.problems(found.events, found.request)
    told += [] if found.stubs.get("ignored") else ["no update was ignored"]
    measured = {one.source for one in found.latencies}
    told += [f"{source}: no transaction was measured" for source in SOURCES if source not in measured]
    return told
