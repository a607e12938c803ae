"""Events: what applications say themselves, from raw records of their topics to rows of `EVENTS`.

    records → texts (three forms) → one frame → marks of the catalogue → policy (context, payload, labels) → rows

Everything runs over columns; what is looked at one by one are records that no look at columns was sure of, distinct event
types and names, and what a known type's own schema says of its payload.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from chronicle.codec import events as codec
from chronicle.codec.diff import Flags
from chronicle.codec.events import ACTOR, Objects, Refusal, objects_text
from chronicle.codec.schema import WriterSchema
from chronicle.events.catalogue import Catalogue
from chronicle.events.sealed import ENVELOPE_PATTERN, SEALED
from chronicle.model import identity
from chronicle.model.chunk import Chunk
from chronicle.model.columns import MICROS, MILLIS, STORED_MS
from chronicle.model.dead_letters import DeadLetter, Reason, Stage
from chronicle.model.event_columns import EVENTS, NO_EVENTS
from chronicle.policy.events import TEXTS, EventPolicy
from chronicle.policy.rules import CLEAR, Class, Treatment
from chronicle.stages import decode, payloads
from chronicle.stages.asking import Asking
from chronicle.stages.attribute import TEXTS as CONTEXT
from chronicle.stages.ciphers import Cipher, place_of_event
from chronicle.stages.decode import HEAD_BYTES, JSON_HEAD, Indexes, Outcome, Records, Schemas, head_id
from chronicle.stages.sanitize import FILTERED
from chronicle.stages.table_plan import Rules
from chronicle.stages.treatments import of_texts

TOPIC = "chronicle.events"
PLANS_MAX = 10_000
NAMES_MAX = 1_000_000
"""Payload fields that are looked up until all plans are made anew: applications name as many of them as they like."""
TYPES_TOLD_MAX = 1_000
"""Event types that are counted by name; whoever sends more kinds of events is counted as `events:other`."""
UNKNOWN_TYPE = "unknown_type"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
"""What may be shown of a name that nobody has classified: anything else may be a value that stands where a name belongs."""
_ORDER = [column.name for column in EVENTS]


@dataclass(frozen=True, slots=True)
class EventRules:
    """Which topics hold events, and how strict their types are."""

    topic: str = TOPIC
    """And all topics that begin with it and a dot."""
    strict: bool = False
    """What the catalogue has marks for becomes a dead letter (`contract_broken`)."""
    catalogue: Catalogue = field(default_factory=Catalogue.shipped)

    def about(self, topic: str) -> bool:
        """Whether a topic holds events."""
        return topic.startswith(self.topic) and topic[len(self.topic) : len(self.topic) + 1] in ("", ".")


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a batch's event records."""

    events: pl.DataFrame = field(repr=False)
    """Columns as in `EVENTS`, in the order of the records."""
    dead_letters: Sequence[DeadLetter]
    left_out: Mapping[tuple[str, str], int]
    warnings: Sequence[str]
    unclassified: Mapping[str, int]


class _Plan:
    """What the policy makes of one type of one application."""

    def __init__(self, source: str, type_: str, policy: EventPolicy, known: bool) -> None:
        self.source, self.type, self.known = source, type_, known
        self.passes_sealed = policy.passes_sealed
        self.labels, self.skip = list(policy.labels), policy.skip
        self.texts = {name: policy.text(name).treatment for name in TEXTS}
        self._policy = policy
        self._members: dict[str, tuple[Treatment, bool]] = {}

    def member(self, name: str) -> tuple[Treatment, bool]:
        """Of a field of the payload: its treatment, and whether nobody has classified it."""
        found = self._members.get(name)
        if found is None:
            column, unclassified = self._policy.payload(name)
            found = self._members[name] = (column.treatment, unclassified)
        return found


class Events:
    """The path of events, compiled as far as it can be. Not thread-safe: one batch at a time."""

    def __init__(self, settings: EventRules, rules: Rules, schemas: Schemas, identity_key: bytes) -> None:
        """`schemas`: parsed writer schemas, shared with the path of changes."""
        self.about = settings.about
        self._settings, self._rules, self._schemas, self._identity_key = settings, rules, schemas, identity_key
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._looked_up = 0
        self._cells: dict[Treatment, payloads.Cells] = {}
        self._names_told: set[str] = set()
        self._asking = Asking()

    def schema_ids(self, chunks: Sequence[Chunk]) -> frozenset[int]:
        """Ids of writer schemas to ask the registry for."""
        return self._asking.ids(chunks, self._schemas.known)

    def run(self, chunks: Sequence[Chunk], schemas: Mapping[int, str | None], now_us: int) -> Told:
        """Process the event records of a batch. `schemas`, `now_us`: as in `path.Path.run`."""
        records = decode.flatten(chunks)
        outcome = Outcome(records)
        self._asking.answered(schemas, now_us)
        texts = self._texts(records, schemas, outcome)
        at = np.asarray([index for index, text in enumerate(texts) if text is not None], np.int64)
        found = codec.read([text for text in texts if text is not None])
        for index, refusal in found.refused.items():
            _refuse(outcome, int(at[index]), refusal)
        frame = self._rows(records, found, at[found.rows], outcome, now_us) if len(found.rows) else NO_EVENTS
        warnings = tuple(dict.fromkeys(outcome.warnings))
        return Told(frame, outcome.dead_letters, outcome.left_out, warnings, outcome.unclassified)

    # --- wire

    def _texts(self, records: Records, schemas: Mapping[int, str | None], outcome: Outcome) -> list[bytes | None]:
        """Each record as JSON; None for those that end here."""
        texts: list[bytes | None] = [None] * len(records)
        framed: dict[bytes, list[int]] = {}
        bytes_max = self._schemas.limits.record
        for index, value in enumerate(records.values):  # a look at the first bytes, nothing more
            if value is None:
                outcome.leave_out(records.topics[records.topic[index]], "tombstone")
            elif records.longest > bytes_max and records.size(index) > bytes_max:
                detail = f"key and value have together more than the {bytes_max} bytes of worker.record_bytes_max"
                outcome.fail([index], Reason.TOO_LARGE, detail)
            elif value[:1] == JSON_HEAD:
                texts[index] = value
            elif value[:1] == b"\0" and len(value) >= HEAD_BYTES:
                framed.setdefault(value[:HEAD_BYTES], []).append(index)
            else:
                outcome.fail([index], Reason.WRONG_FRAME, "the value begins with neither magic byte 0 nor {")
        for head, rows in framed.items():
            if head_id(head) not in schemas and head_id(head) not in self._schemas.known:
                detail = f"schema id {head_id(head)} was not asked for: the latest ids were all unknown to the registry"
                outcome.fail(rows, Reason.UNKNOWN_SCHEMA, detail, head_id(head))
                continue
            schema = self._schemas.get(head, schemas)
            if isinstance(schema, WriterSchema):
                made, bad = codec.texts_of([records.values[row] or b"" for row in rows], schema)
                for index, refusal in bad.items():
                    _refuse(outcome, rows[index], refusal, schema.id)
                for index, row in enumerate(rows):
                    texts[row] = None if index in bad else made[index]
            else:
                outcome.fail(rows, *schema, head_id(head))
        return texts

    # --- policy

    def _rows(self, records: Records, found: codec.Read, rows: Indexes, outcome: Outcome, now_us: int) -> pl.DataFrame:
        frame = found.frame.with_columns(_place(records, rows))
        frame = frame.with_columns(self._ids(frame))
        plans, plan = self._planned(frame)
        violations, broken = self._marks(found, plans, plan)
        payload, hidden = self._payload(found.payloads, plans, plan, frame, outcome)
        skip = np.asarray([one.skip for one in plans], np.bool_)[plan]
        for topic, count in zip(*np.unique(records.topic[rows[skip]], return_counts=True), strict=True):
            outcome.leave_out(records.topics[topic], "skipped", int(count))
        keep = ~skip
        refusals = ((broken, Reason.CONTRACT_BROKEN, Stage.VALIDATE), (hidden, Reason.UNCLASSIFIED, Stage.SANITIZE))
        for mask, reason, stage in refusals:
            for row in np.flatnonzero(mask & keep).tolist():
                detail = ", ".join(violations[row]) if mask is broken else "the policy does not name all fields of the payload"
                outcome.refuse(int(rows[row]), reason, detail, stage=stage)
            keep &= ~mask
        labels = pl.Series([one.labels for one in plans], dtype=pl.List(pl.String)).gather(pl.Series(plan))
        made = frame.with_columns(
            *self._envelope(frame, plans, plan),
            payload.alias("payload"),
            self._tags(found.tags).alias("tags"),
            labels.alias("labels"),
            violations.alias("violations"),
            pl.lit(self._rules.policy.hash).alias("policy"),
            pl.col("at").fill_null(pl.col("received_at").cast(MICROS)).alias("time"),
            pl.lit(now_us, pl.Int64).cast(MICROS).alias("processed_at"),
        )
        return made.select(_ORDER).filter(pl.Series(keep))

    def _planned(self, frame: pl.DataFrame) -> tuple[list[_Plan], Indexes]:
        """The distinct plans of these events, and each event's."""
        names = ["source", "type"]
        pairs = frame.select(names).unique(maintain_order=True).with_row_index("_plan")
        plan = frame.select(names).join(pairs, on=names, how="left", maintain_order="left")["_plan"].to_numpy().astype(np.int64)
        return [self._plan(source, type_) for source, type_ in pairs.select(names).iter_rows()], plan

    def _plan(self, source: str, type_: str) -> _Plan:
        found = self._plans.get((source, type_))
        if found is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            catalogue = self._settings.catalogue
            policy = self._rules.policy.event(source, type_, catalogue.classes(type_))
            found = self._plans[source, type_] = _Plan(source, type_, policy, catalogue.known(type_))
        return found

    def _marks(self, found: codec.Read, plans: Sequence[_Plan], plan: Indexes) -> tuple[pl.Series, Flags]:
        """What of each event does not fit its type, and which of them strict mode refuses."""
        known = np.asarray([one.known for one in plans], np.bool_)[plan]
        marks: list[list[str]] = [[], [UNKNOWN_TYPE]]
        codes = np.where(known, 0, 1)
        if known.any():
            texts = objects_text(found.payloads.there, found.payloads.lengths, found.payloads.names, found.payloads.texts)
            rows = np.flatnonzero(known)
            types = found.frame["type"].gather(pl.Series(rows)).to_list()
            for row, problems in self._settings.catalogue.marks(types, texts.gather(pl.Series(rows)).to_list()).items():
                codes[rows[row]] = len(marks)
                marks.append(list(problems))
        broken = (codes != 0) & self._settings.strict
        return pl.Series(marks, dtype=pl.List(pl.String)).gather(pl.Series(codes)), np.asarray(broken, np.bool_)

    def _payload(
        self, objects: Objects, plans: Sequence[_Plan], plan: Indexes, frame: pl.DataFrame, outcome: Outcome
    ) -> tuple[pl.Series, Flags]:
        """Payloads as the policy wants them, and the rows that it wants refused for what it does not name."""
        rows = objects.rows()
        members = pl.DataFrame({"row": rows, "plan": plan[rows], "name": objects.names, "text": objects.texts})
        pairs = members.select("plan", "name").unique()
        treatments: dict[Treatment, int] = {}
        decided = []
        for index, name in pairs.iter_rows():  # distinct names of distinct types
            treatment, unclassified = plans[index].member(name)
            shown = name if not unclassified or _IDENTIFIER.fullmatch(name) else FILTERED
            decided.append((treatments.setdefault(treatment, len(treatments)), unclassified, shown))
        self._looked_up += len(decided)
        if self._looked_up > NAMES_MAX:
            self._plans.clear()
            self._looked_up = 0
        schema = {"how": pl.Int64, "unclassified": pl.Boolean, "shown": pl.String}
        pairs = pairs.hstack(pl.DataFrame(decided, schema=schema, orient="row"))
        members = members.join(pairs, on=["plan", "name"], how="left", maintain_order="left")
        if SEALED in pairs["name"]:
            members = _passing_sealed(members, objects, plans)
        hidden = self._count_unclassified(members, frame, outcome)
        texts = members["text"].clone()
        for treatment, number in treatments.items():
            mine = (members["how"] == number).arg_true()
            if treatment.kind is Class.ENCRYPT and self._rules.cipher is not None:
                texts = texts.scatter(mine, _encrypted(members[mine], plans, frame["event_id"], self._rules.cipher))
            else:
                texts = texts.scatter(mine, self._cells_of(treatment)(members["text"].gather(mine)))
        made = members.select("row", pl.col("shown").alias("name"), texts.alias("text")).filter(pl.col("text").is_not_null())
        if (pairs["shown"] == FILTERED).any():
            made = made.unique(["row", "name"], keep="first", maintain_order=True)
        lengths = np.bincount(made["row"].to_numpy(), minlength=len(plan)).astype(np.int64)
        return objects_text(objects.there, lengths, made["name"], made["text"]), hidden

    def _count_unclassified(self, members: pl.DataFrame, frame: pl.DataFrame, outcome: Outcome) -> Flags:
        refused = np.zeros(len(frame), np.bool_)
        unnamed = members.filter("unclassified")
        if not len(unnamed):
            return refused
        types = frame["type"].gather(unnamed["row"])
        for type_, count in types.value_counts().iter_rows():
            name = f"events:{type_}" if self._may_name(type_) else "events:other"
            outcome.unclassified[name] = outcome.unclassified.get(name, 0) + count
            outcome.warnings.append(f"{name}: the payload has fields that the policy does not name (hidden until then)")
        if self._rules.policy.unclassified == "deadletter":
            refused[unnamed["row"].to_numpy()] = True
        return refused

    def _may_name(self, type_: str) -> bool:
        if type_ not in self._names_told and len(self._names_told) < TYPES_TOLD_MAX:
            self._names_told.add(type_)
        return type_ in self._names_told

    def _cells_of(self, treatment: Treatment) -> payloads.Cells:
        found = self._cells.get(treatment)
        if found is None:
            found = self._cells[treatment] = payloads.cells(treatment, self._rules.keys)
        return found

    def _envelope(self, frame: pl.DataFrame, plans: Sequence[_Plan], plan: Indexes) -> list[pl.Series | pl.Expr]:
        """The texts of the envelope: as `[context]` says, `resource_id` and `description` as the type's plan does."""
        made: list[pl.Series | pl.Expr] = [
            pl.col("traceparent").str.slice(at, length).alias(name) for name, at, length in _TRACE
        ]
        made.append(pl.when(pl.col("outcome") != "").then("outcome").alias("outcome"))
        for name in dict.fromkeys(("action", "resource_type", *TEXTS, *ACTOR, *CONTEXT)):
            said = frame[name]
            text = said.set(said == "", None) if (said == "").any() else said
            if name in self._rules.hide:
                text = self._rules.hide[name](text).cast(pl.String)
            if name in TEXTS:
                text = self._treated(name, text, plans, plan)
            made.append(text.alias(name))
        return made

    def _treated(self, name: str, texts: pl.Series, plans: Sequence[_Plan], plan: Indexes) -> pl.Series:
        for treatment in {one.texts[name] for one in plans} - {CLEAR}:
            mine = pl.Series(np.asarray([one.texts[name] == treatment for one in plans], np.bool_)[plan])
            change = of_texts(name, treatment, self._rules.keys)
            texts = texts.clone().scatter(mine.arg_true(), change(texts.filter(mine)).cast(pl.String))
        return texts

    def _tags(self, tags: Objects) -> pl.Series:
        cells = payloads.secret_cells(tags.names, tags.texts) if len(tags.names) else tags.texts
        texts = objects_text(tags.lengths > 0, tags.lengths, tags.names, cells)
        match self._rules.policy.context.get("tags", CLEAR).kind:
            case Class.CLEAR:
                return texts
            case Class.DROP:
                return texts.clear(len(texts))
            case _:
                return texts.set(texts.is_not_null(), f'{{"tags":"{FILTERED}"}}')  # an object all the same

    def _ids(self, frame: pl.DataFrame) -> pl.Series:
        """16 bytes each. An event without an id has that of its place: the same on every redelivery."""
        ids = frame.select(pl.col("id").str.replace_all("-", "", literal=True).str.decode("hex")).to_series().alias("event_id")
        without = (frame["id"] == "").arg_true()
        if not len(without):
            return ids
        texts = frame[without].select(
            pl.concat_str(pl.lit("event"), "topic", "partition", "offset", separator=identity.SEPARATOR)
        )
        made = pl.Series(identity.event_ids(texts.to_series().to_list(), self._identity_key), dtype=pl.Binary)
        return ids.scatter(without, made)


def _passing_sealed(members: pl.DataFrame, objects: Objects, plans: Sequence[_Plan]) -> pl.DataFrame:
    """Payloads that the application sealed go on as they are, with whatever of a policy's rules would hide their one field."""
    alone = pl.Series(objects.lengths == 1).gather(members["row"])
    passes = pl.Series([one.passes_sealed for one in plans]).gather(members["plan"])
    sealed = (members["name"] == SEALED) & members["text"].str.contains(ENVELOPE_PATTERN) & alone & passes
    return members.with_columns(
        pl.when(sealed).then(pl.lit(-1, pl.Int64)).otherwise("how").alias("how"),
        (pl.col("unclassified") & ~sealed).alias("unclassified"),
        pl.when(sealed).then("name").otherwise("shown").alias("shown"),
    )


def _encrypted(members: pl.DataFrame, plans: Sequence[_Plan], ids: pl.Series, cipher: Cipher) -> pl.Series:
    """Members as JSON texts of ciphertexts over their JSON texts; null stays null."""
    made = pl.Series([None], dtype=pl.String).new_from_index(0, len(members))
    for (index, name), part in members.with_row_index("at").group_by("plan", "name"):
        plan = plans[int(index)]
        texts = part["text"].set(part["text"] == "null", None)
        place = place_of_event(plan.source, plan.type, str(name))
        made = made.scatter(part["at"], cipher.encrypted(texts, ids.gather(part["row"]), **place))
    return codec.quoted(made).fill_null("null")


_TRACE = (("trace_id", 3, 32), ("span_id", 36, 16))


def _place(records: Records, rows: Indexes) -> list[pl.Series]:
    topics = pl.Series("topic", records.topics, dtype=pl.String).gather(pl.Series(records.topic[rows]))
    return [
        topics.alias("topic"),
        pl.Series("partition", records.partition[rows].astype(np.uint32)),
        pl.Series("offset", records.offset[rows].astype(np.uint64)),
        pl.Series("received_at", records.timestamp_ms[rows].clip(*STORED_MS)).cast(MILLIS),
    ]


def _refuse(outcome: Outcome, row: int, refusal: Refusal, schema_id: int | None = None) -> None:
    stage = Stage.VALIDATE if refusal.reason is Reason.NOT_AN_EVENT else Stage.DECODE
    outcome.refuse(row, refusal.reason, refusal.detail, schema_id, stage=stage)
