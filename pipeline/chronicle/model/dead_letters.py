"""A record that could not be processed: its original bytes, a typed reason and its coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from chronicle.model.chunk import Headers


class Stage(StrEnum):
    """Where on the path a record failed."""

    DECODE = "decode"
    VALIDATE = "validate"
    SANITIZE = "sanitize"
    PROCESS = "process"
    SINK = "sink"


class Reason(StrEnum):
    """Why; the values are part of the product's interface (headers, tables, metrics, `--reason`)."""

    UNKNOWN_SOURCE = "unknown_source"  # its topic belongs to no source file
    WRONG_FRAME = "wrong_frame"  # neither the Confluent frame nor JSON
    UNKNOWN_SCHEMA = "unknown_schema"  # the registry does not know the id
    UNSUPPORTED_SCHEMA = "unsupported_schema"  # a schema that no decoder reads
    NOT_DECODABLE = "not_decodable"  # bytes do not fit their schema, or invalid JSON
    NOT_AN_ENVELOPE = "not_an_envelope"  # decodes, but is not a Debezium change
    NOT_AN_EVENT = "not_an_event"  # decodes, but is not what an application's event is (`events.event.checked`)
    BAD_ENVELOPE = "bad_envelope"  # an envelope that breaks its contract (no op, create without after …)
    MISSING_KEY = "missing_key"  # no key although its table is not declared keyless
    CONTRACT_BROKEN = "contract_broken"  # its writer schema breaks the table's contract; an event, its type's schema
    RULE_BROKEN = "rule_broken"  # a value rule of the policy
    UNCLASSIFIED = "unclassified"  # a column that the policy does not name, and wants refused
    PROCESSOR_FAILED = "processor_failed"  # a user's processor raised
    BAD_POSITION = "bad_position"  # source block without a usable position
    VALUE_REFUSED = "value_refused"  # the store refuses a value
    TOO_LARGE = "too_large"  # larger than a record may be, or than its audit record may be


DECLARED = frozenset(
    {Reason.CONTRACT_BROKEN, Reason.RULE_BROKEN, Reason.UNCLASSIFIED, Reason.PROCESSOR_FAILED, Reason.NOT_AN_EVENT}
)
"""Reasons that the operator asked for, or that an application alone is at fault for: however many, they are no sign that
something is wrong with the worker, and no application's nonsense stops the changes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a record may be before it is a dead letter (`too_large`), in bytes."""

    record: int = 8 * 1024 * 1024
    """Key and value of a raw record: a larger one is not read."""
    audit: int = 32 * 1024 * 1024
    """What the audit topic takes (`sinks.kafka.RECORD_BYTES_MAX`): images in JSON may be six times as large as in Avro."""


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One failed record. `detail` is written by Chronicle from schema facts alone, never from row values; `repr` has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: Headers = field(repr=False)
    stage: Stage
    reason: Reason
    detail: str
    schema_id: int | None = None
