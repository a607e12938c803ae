"""The pure path of one batch: raw records and their schemas in, changes, mirror rows, transactions, events and dead letters
out.

    flatten → group → keys → decode → (envelopes: rules, policy, mirror) → validate → identify → meaning → Batch
                                      (transaction topic: markers, messages, context rows)
    topics of events: `stages.events`

Plans are compiled once per (source, table, writer schema, key) and kept; everything else follows from the arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from chronicle.codec import times, transaction
from chronicle.codec.debezium import Family, core_schema, family_of
from chronicle.codec.flat import Flat, column, flat
from chronicle.codec.schema import Kind
from chronicle.model import identity
from chronicle.model.batch import Batch
from chronicle.model.chunk import Chunk, SourceSpec
from chronicle.model.dead_letters import LIMITS, Limits, Reason
from chronicle.stages import decode, gather
from chronicle.stages.attribute import kept, stored
from chronicle.stages.changes import Changes, Tables
from chronicle.stages.decode import Outcome, Part, Pending, Records, Schemas
from chronicle.stages.events import EventRules, Events
from chronicle.stages.keys import KeyReader, Keys
from chronicle.stages.sanitize import sanitized_context
from chronicle.stages.table_plan import Rules

_OWN_TOPICS = ("__debezium-heartbeat.", "chronicle.notifications.")
NO_SOURCE = SourceSpec("", "")
"""Stands for the source of a topic that belongs to none: guessed settings would take placeholders for values."""


class Path:
    """The compiled pure path of some sources. Not thread-safe: one batch at a time."""

    def __init__(
        self,
        sources: Sequence[SourceSpec],
        identity_key: bytes,
        rules: Rules,
        limits: Limits = LIMITS,
        *,
        events: EventRules | None = None,
    ) -> None:
        """`identity_key`: of the deployment, at most 64 bytes; event ids follow from it. `events`: of the topic
        chronicle.events, in open mode, where nothing is said."""
        if not 0 < len(identity_key) <= identity.KEY_BYTES_MAX:
            raise ValueError(f"an identity key has 1 to {identity.KEY_BYTES_MAX} bytes")
        self._sources = sorted(sources, key=lambda one: len(one.name), reverse=True)
        self._schemas = Schemas(limits)
        self._keys = KeyReader(self._schemas)
        self._rules = rules
        self._tables = Tables(rules, limits)
        self._identity_key = identity_key
        self._events = Events(events or EventRules(), rules, self._schemas, identity_key)

    def schema_ids(self, chunks: Sequence[Chunk]) -> frozenset[int]:
        """Registry ids that `run` needs the schemas of."""
        read, events = self._apart(chunks)
        ids = decode.schema_ids(chunk for chunk in read if self._spec(chunk.topic) is not NO_SOURCE)
        return ids | self._events.schema_ids(events) if events else ids

    def run(self, chunks: Sequence[Chunk], schemas: Mapping[int, str | None], now_us: int) -> Batch:
        """Process a batch. Each input record is accounted for once (`Batch.rows`).

        `schemas`: texts by registry id; None, or absent: the registry does not know it. `now_us`: microseconds since 1970.
        """
        chunks, said = self._apart(chunks)
        batch = self._changes(chunks, schemas, now_us)
        if not said:
            return batch
        told = self._events.run(said, schemas, now_us)
        return replace(
            batch,
            events=told.events,
            dead_letters=(*batch.dead_letters, *told.dead_letters),
            left_out={**batch.left_out, **told.left_out},
            warnings=(*batch.warnings, *told.warnings),
            unclassified={**batch.unclassified, **told.unclassified},
        )

    def _apart(self, chunks: Sequence[Chunk]) -> tuple[Sequence[Chunk], Sequence[Chunk]]:
        """What sources wrote, and what applications said."""
        said = [chunk for chunk in chunks if self._events.about(chunk.topic)]
        return ([chunk for chunk in chunks if not self._events.about(chunk.topic)], said) if said else (chunks, said)

    def _changes(self, chunks: Sequence[Chunk], schemas: Mapping[int, str | None], now_us: int) -> Batch:
        records = decode.flatten(chunks)
        facts = gather.facts(records, [self._spec(topic) for topic in records.topics])
        outcome = Outcome(records)
        waiting = self._waiting(records, facts.specs, schemas, outcome)
        envelopes = [one for one in waiting if one.schema.kind is Kind.ENVELOPE]
        keys = self._keys.read(records, [(one.key_head, one.rows) for one in envelopes], schemas, outcome)
        changes = Changes(records, facts, keys, self._tables, outcome)
        run = _Run(records, facts, outcome, tables=self._tables, changes=changes, now_us=now_us)
        parts: list[Pending] = []
        for one in waiting:
            if one.schema.kind is Kind.TRANSACTION:
                run.markers(decode.decode(one, outcome))
            elif one.schema.kind is Kind.MESSAGE:
                run.messages(decode.decode(one, outcome))
            else:
                parts += _readable(one, keys)
        run.envelopes([decode.decode(one, outcome) for one in parts])
        rows, tables = changes.finish(self._identity_key, now_us)
        transactions = run.transactions.frame()
        if transactions["context"].null_count() < len(transactions):
            transactions = transactions.with_columns(stored(transactions["context"], self._rules.hide))
        return Batch(
            rows,
            tables,
            transactions,
            tuple(outcome.dead_letters),
            outcome.left_out,
            tuple(dict.fromkeys(outcome.warnings)),
            outcome.unclassified,
            changes.granted,
            references=changes.references,
        )

    def _spec(self, topic: str) -> SourceSpec:
        """The source a topic belongs to."""
        for spec in self._sources:
            if topic.startswith(spec.name + ".") or topic in (spec.name, *(one + spec.name for one in _OWN_TOPICS)):
                return spec
        return NO_SOURCE

    def _waiting(
        self, records: Records, specs: Sequence[SourceSpec], schemas: Mapping[int, str | None], outcome: Outcome
    ) -> list[Pending]:
        """Values under their schemas; records of no source, tombstones, and kinds that mean nothing here, end at once."""
        waiting: list[Pending] = []
        for group in decode.groups(records):
            topic = records.topics[group.topic]
            if specs[group.topic] is NO_SOURCE:
                outcome.fail(group.rows, Reason.UNKNOWN_SOURCE, "the topic belongs to no source file")
                continue
            if group.value_head is None:
                outcome.leave_out(topic, "tombstone", len(group.rows))
                continue
            for one in decode.pending(records, group, self._schemas, schemas, outcome):
                kind = one.schema.kind
                if kind in decode.LEFT_OUT:
                    outcome.leave_out(topic, decode.LEFT_OUT[kind], len(one.rows))
                elif kind in (Kind.TRANSACTION, Kind.MESSAGE) or (kind is Kind.ENVELOPE and family_of(one.schema)):
                    waiting.append(one)
                else:
                    detail = "an envelope of no known connector" if kind is Kind.ENVELOPE else "no Debezium envelope"
                    outcome.fail(one.rows, Reason.NOT_AN_ENVELOPE, detail, one.schema.id or None)
        return waiting


class _Run:
    """One batch's decoded parts on their way into changes and transactions."""

    def __init__(
        self, records: Records, facts: gather.Facts, outcome: Outcome, *, tables: Tables, changes: Changes, now_us: int
    ) -> None:
        self._topics, self._specs = records.topics, facts.specs
        self._outcome, self._tables, self._changes = outcome, tables, changes
        self.transactions = gather.Transactions(records, facts, now_us)

    def envelopes(self, parts: Sequence[Part]) -> None:
        """Rows of captured tables; those of Chronicle's own tables go their own way.

        Step by step for all parts, and not part by part: each step's code then stays in the processor's caches, which
        makes a batch of 200 tables a sixth cheaper.
        """
        for (schema, table), one, group in [found for part in parts if len(part.rows) for found in _by_table(part)]:
            spec, topic = self._specs[one.topic], self._topics[one.topic]
            if table in spec.signal_tables:
                self._outcome.leave_out(topic, "signal", len(one.rows))
            elif table in spec.heartbeat_tables:
                self._outcome.leave_out(topic, "heartbeat", len(one.rows))
            elif table in spec.context_tables:
                self._context_rows(one, group)
            else:
                self._changes.add(one, group, schema, table)

    def _context_rows(self, part: Part, group: Flat) -> None:
        plan = self._tables.plain(part.schema, self._specs[part.topic])
        core = dict(zip(core_schema(plan.family), plan.run(group).core, strict=True))
        committed = zip(core["source_us"], core["source_ms"], strict=True)
        ids = core["transaction"] if plan.family is Family.BINLOG else core["tx_id"].cast(pl.String)
        low, high = times.YEARS_US
        columns = (part.rows.tolist(), core["op"], core["after"], core["has_after"], ids, committed)
        told: list[tuple[int, str, int, str]] = []
        for index, op, after, given, id_, (us, ms) in zip(*columns, strict=True):
            if op != "c":  # a context is written once; a snapshot or a clean-up says nothing about a transaction
                self._outcome.leave_out(self._topics[part.topic], "message")
                continue
            context = _sanitized_text(transaction.context_of_row(after if given else None))
            committed_us = us if us is not None else ms * 1000 if ms is not None else None
            if context is None or id_ is None or committed_us is None or not low <= committed_us <= high:
                detail = "a row of the context table without a transaction, a context or a time in the years 1 to 9999"
                self._outcome.refuse(index, Reason.BAD_ENVELOPE, detail, part.schema.id or None)
            else:
                told.append((index, id_, committed_us, context))
        if told:
            rows, *fields = zip(*told, strict=True)
            frame = pl.DataFrame(dict(zip(("transaction_id", "occurred_us", "context"), fields, strict=True)))
            self.transactions.add_contexts(np.asarray(rows, np.int64), frame, "table")

    def messages(self, part: Part) -> None:
        """Logical messages: contexts, heartbeats, and other applications' own."""
        found, topic, rows = transaction.messages(part.frame), self._topics[part.topic], part.rows
        prefix, known = pl.col("prefix"), pl.col("transaction_id").is_not_null()
        heartbeat, context = prefix == transaction.HEARTBEAT_PREFIX, (prefix == transaction.MESSAGE_PREFIX) & known
        masks = found.select(prefix.is_null(), heartbeat.fill_null(False).alias("h"), context.fill_null(False).alias("c"))
        bad, beats, said = (mask.to_numpy() for mask in masks)
        for index in rows[bad].tolist():
            self._outcome.refuse(index, Reason.BAD_ENVELOPE, "not a logical message", part.schema.id or None)
        self._outcome.leave_out(topic, "heartbeat", int(beats.sum()))
        self._outcome.leave_out(topic, "message", int((~bad & ~beats & ~said).sum()))
        if not said.any():
            return
        ours, rows = found.filter(masks["c"]), rows[said]
        texts = pl.Series("context", [_context_text(content) for content in ours["content"].to_list()], dtype=pl.String)
        good = texts.is_not_null() & ours["committed_us"].is_not_null()
        for index in rows[~good.to_numpy()].tolist():
            detail = "a message with the prefix chronicle without a JSON object or a time in the years 1 to 9999"
            self._outcome.refuse(index, Reason.NOT_DECODABLE, detail, part.schema.id or None)
        told = ours.select("transaction_id", pl.col("committed_us").alias("occurred_us")).with_columns(texts)
        self.transactions.add_contexts(rows[good.to_numpy()], told.filter(good), "message")

    def markers(self, part: Part) -> None:
        """BEGIN and END."""
        frame = transaction.markers(part.frame, part.schema, self._specs[part.topic])
        bad = frame.select(pl.any_horizontal(pl.col("kind", "transaction_id", "occurred_us").is_null())).to_series()
        wrong = bad.to_numpy()
        for index in part.rows[wrong].tolist():
            self._outcome.refuse(
                index, Reason.BAD_ENVELOPE, "neither a BEGIN nor an END of a transaction", part.schema.id or None
            )
        self.transactions.add_markers(part.rows[~wrong], frame.filter(~bad) if wrong.any() else frame)


def _context_text(content: bytes) -> str | None:
    """What a message says, without values under secret-looking names; None: it is no context."""
    return kept(content) or _sanitized_text(transaction.context_of_message(content))


def _sanitized_text(context: Mapping[str, object] | None) -> str | None:
    try:
        return None if context is None else transaction.context_text(sanitized_context(context))
    except (RecursionError, ValueError, TypeError):  # nested deeper than can be written again
        return None


def _readable(one: Pending, keys: Keys) -> Iterable[Pending]:
    """The records whose keys could be read, in parts of one key layout each (more than one only in JSON)."""
    shapes = keys.shape[one.rows]
    good = np.ones(len(one.rows), np.bool_)
    if keys.bad:
        good = np.fromiter((row not in keys.bad for row in one.rows), np.bool_, len(one.rows))
    distinct = np.unique(shapes[good])
    if len(distinct) == 1 and good.all():
        yield one
        return
    for shape in distinct:
        at = np.flatnonzero(good & (shapes == shape)).tolist()
        yield Pending(one.topic, one.schema, one.key_head, [one.rows[i] for i in at], [one.values[i] for i in at])


def _by_table(part: Part) -> Iterable[tuple[tuple[str, str], Part, Flat]]:
    """A part by the tables its records name: more than one only where a router joins tables into one topic."""
    group = flat(part.frame, part.schema)
    names = ("s:schema" if family_of(part.schema) is Family.POSTGRES else "s:db", "s:table")
    schemas, tables = (column(group, name, pl.String()) for name in names)
    if schemas.n_unique() == 1 and tables.n_unique() == 1:
        yield (schemas[0] or "", tables[0] or ""), part, group
        return
    pairs = [(schema or "", table or "") for schema, table in zip(schemas, tables, strict=True)]
    for pair in dict.fromkeys(pairs):
        mine = np.fromiter((other == pair for other in pairs), np.bool_, len(pairs))
        frame = part.frame.filter(pl.Series(mine))
        yield pair, Part(part.topic, part.schema, part.rows[mine], frame), flat(frame, part.schema)
