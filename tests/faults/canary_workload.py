"""A workload whose every protected cell is a canary, as records of a Debezium connector, and the policy that protects them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import fastavro

from chronicle.dev.stack import Stack
from tests.faults.canary import TAKEN, Canaries
from tests.stack.debezium_records import Table, framed

TRANSACTION = 100
"""Changes of each."""
DECIMAL: dict[str, Any] = {
    "type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2, "connect.version": 1,
    "connect.parameters": {"scale": "2", "connect.decimal.precision": "20"},
    "connect.name": "org.apache.kafka.connect.data.Decimal",
}  # fmt: skip


def _column(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None}


def _semantic(kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, "connect.version": 1, "connect.name": name}


COLUMNS: list[dict[str, Any]] = [
    {"name": "id", "type": "long"},
    _column("state", "string"),
    *(_column(f"{name}_text", "string") for name in ("token", "mask", "redact", "drop", "encrypt", "prefix", "scanned")),
    *(_column(f"{name}_number", "long") for name in ("token", "redact", "drop", "encrypt", "bucket")),
    _column("domain_of", "string"),
    _column("month_of", _semantic("long", "io.debezium.time.MicroTimestamp")),
    _column("amount", DECIMAL),
    _column("score", "double"),
    _column("password", "string"),
    _column("document", _semantic("string", "io.debezium.data.Json")),
    _column("words", {"type": "array", "items": ["null", "string"]}),
]
LATER = [*COLUMNS, _column("surprise", "string")]
"""With a column that nobody has classified: a writer schema that appears in mid-stream."""
KEYED: list[dict[str, Any]] = [{"name": "id", "type": "long"}, _column("owner", "string")]

POLICY = """
[defaults]
ignore = ["drop_number"]

[encryption]
key = "encrypt-1"

[context]
actor_id = "token"
actor_name = {{ class = "mask", keep = 2 }}
request_id = "redact"
reason = "redact"
ip = {{ class = "generalize", to = "net:24/48" }}
session = "token"
tags = "redact"

[[tables]]
match = "**"
[tables.columns]
id = "clear"
state = "clear"
token_text = {token_text}
mask_text = {{ class = "mask", keep = 4 }}
redact_text = "redact"
drop_text = "drop"
encrypt_text = {encrypt_text}
prefix_text = {{ class = "generalize", to = "prefix:3" }}
scanned_text = {{ class = "clear", scan = ["email", "phone"] }}
token_number = {token_number}
redact_number = "redact"
drop_number = "drop"
encrypt_number = "encrypt"
bucket_number = {{ class = "generalize", to = "bucket:{taken}" }}
domain_of = {{ class = "generalize", to = "domain" }}
month_of = {month_of}
amount = "token"
score = {score}
document = {{ class = "clear", scan = ["email"] }}
words = "mask"
"pass*" = "clear"

[[tables.label]]
columns = ["redact_text", "token_number"]
as = "touched"

[[tables.enrich]]
column = "token_text"
entity = "person:{{}}"
into = "person"

[[tables.rule]]
column = "mask_text"
matches = "^[a-z0-9]+$"
on_break = "flag"

[[tables.rule]]
column = "encrypt_text"
length = [1, 60]

[[tables]]
match = "*.public.filtered"
where = "state = 'told' OR redact_number = 5"

[[tables]]
match = "*.public.keyed"
columns = {{ id = "token", owner = "redact" }}

[[events]]
match = "**"
label = "told"
[events.columns]
resource_id = "token"
description = {{ class = "clear", scan = ["email"] }}
payload.state = "clear"
payload.masked = {{ class = "mask", keep = 4 }}
payload.coarse = {{ class = "generalize", to = "bucket:{taken}" }}
payload.dropped = "drop"
payload.named = "token"

[[routes]]
name = "rows"
match = ["*.public.*.#", "shop.#"]
where = "token_number > 0"
to = "{name}-rows"
"""
PROCESSOR = '''
"""Sees one column in clear, and is careless with it: what it says when it fails is its own exception's text."""

import polars as pl

from chronicle.processors import Counter, alerts, processor, read

seen = Counter("canary_rows", "Rows by state.", ["state"])


@processor(tables="*.public.t", extra={"state_was": pl.String}, metrics=[seen])
def told(changes: pl.DataFrame) -> pl.DataFrame:
    rows = read(changes, before={"state": pl.String, "token_text": pl.String})
    seen.count(rows.select(state=pl.col("before.state").fill_null("none")))
    gone = rows.filter(pl.col("operation") == "delete").head(3)
    alerts.raise_(rule="gone", severity="low", title="a row of {actor_id} was deleted", changes=gone)
    return rows.with_columns(state_was=pl.col("before.state"))


@processor(tables="*.public.filtered", grants={"*.public.filtered": ["redact_text"]})
def careless(changes: pl.DataFrame) -> pl.DataFrame:
    raise ValueError("cannot work with " + " ".join(changes["clear.redact_text"].drop_nulls().to_list()))
'''


CLASSES = {
    "token_text": '"token"',
    "encrypt_text": '"encrypt"',
    "token_number": '"token"',
    "month_of": '{ class = "generalize", to = "month" }',
    "score": '"redact"',
}
"""Columns that a planted leak opens."""


def policy(name: str, *, leaky: bool = False) -> str:
    """What holds for all tables. `leaky`: columns of each kind of canary are clear."""
    return POLICY.format(name=name, taken=TAKEN, **{column: '"clear"' if leaky else kind for column, kind in CLASSES.items()})


class Workload:
    """Records of one source: `t` with all classes, `keyed` with a protected key, `filtered` whose rows are mostly left out."""

    def __init__(self, stack: Stack, source: str, canaries: Canaries) -> None:
        self.source, self.canaries = source, canaries
        self.t = Table(stack.registry_url, source, "t", COLUMNS)
        self.keyed = Table(stack.registry_url, source, "keyed", KEYED)
        self.filtered = Table(stack.registry_url, source, "filtered", COLUMNS)
        self._parsed: dict[int, Any] = {}
        self.lsn = 1_000
        self.transactions = 0

    def row(self, number: int, state: str) -> dict[str, Any]:
        """A row of `t`: each cell but `id` and `state` has a marker of its own, where a class may not leave it."""
        new = self.canaries
        amount = new.number()
        return {
            "id": number,
            "state": state,
            "token_text": new.text(),
            "mask_text": new.text(),
            "redact_text": new.text() * (1 + number % 3),
            "drop_text": f"→ {new.text()} ←",
            "encrypt_text": new.text(),
            "prefix_text": f"abc{new.text()}",
            "scanned_text": f"write to {new.text()}@example.org, or call",
            "token_number": new.number(),
            "redact_number": -new.number() if number % 2 else new.number(),
            "drop_number": new.number(),
            "encrypt_number": new.number(),
            "bucket_number": new.below(number),
            "domain_of": f"{new.text()}@example.org",
            "month_of": new.instant_us,
            "amount": amount.to_bytes(9, "big", signed=True),
            "score": new.double(),
            "password": new.text(),
            "document": json.dumps({"a": [{"b": f"{new.text()}@example.org"}], "n": number}),
            "words": [new.text(), None, new.text()],
        }

    def changes(self, rows: int) -> Iterator[tuple[str, bytes, bytes | None]]:
        """(topic, key, value): created, updated and deleted rows, `rows` changes in all; four of five are of `t`."""
        t, filtered = self.t, self.filtered
        alive: list[dict[str, Any]] = []
        for number in range(rows):
            if number % 10 == 9:
                row = self.row(number, "told" if number % 100 == 9 else "draft")
                yield filtered.topic, filtered.key(number), self.envelope(filtered, "c", None, row)
            elif number % 10 == 8:
                name = self.canaries.number()
                owner = {"id": name, "owner": self.canaries.text()}
                yield self.keyed.topic, self.keyed.key(name), self.envelope(self.keyed, "c", None, owner)
            elif number % 10 == 7 and alive:
                row = self.row(alive[-1]["id"], "changed")
                yield t.topic, t.key(row["id"]), self.envelope(t, "u", alive[-1], row)
                alive[-1] = row
            elif number % 10 == 6 and alive:
                row = alive.pop()
                yield t.topic, t.key(row["id"]), self.envelope(t, "d", row, None)
                yield t.topic, t.key(row["id"]), None
            elif number % 10 == 5 and alive:  # of an ignored column alone: left out, but in the mirror
                row = {**alive[0], "drop_number": self.canaries.number()}
                yield t.topic, t.key(row["id"]), self.envelope(t, "u", alive[0], row)
                alive[0] = row
            else:
                alive.append(self.row(number, "new"))
                yield t.topic, t.key(number), self.envelope(t, "c", None, alive[-1])

    def poison(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Records that become dead letters, in all ways in which a record's own text could be told."""
        t, new = self.t, self.canaries
        whole = self.envelope(t, "c", None, self.row(1, "new"))
        long = {**self.row(2, "new"), "encrypt_text": new.text() * 20}
        yield t.topic, t.key(1), whole[: len(whole) // 2]
        yield t.topic, t.key(1), whole + new.text().encode()
        yield t.topic, t.key(1), new.text().encode()
        yield t.topic, t.key(1), b"\0\x7f\xff\xff\xf0" + new.text().encode()
        yield t.topic, t.key(1), json.dumps({"payload": {"op": "c", "after": {"id": new.text()}}}).encode()
        yield t.topic, t.key(1), b'{"op": "c", "after": {"id": "' + new.text().encode()
        yield t.topic, new.text().encode(), whole
        yield t.topic, t.key(2), self.envelope(t, "c", None, long)  # a value rule
        yield t.topic, t.key(3), self.envelope(t, "c", None, {**self.row(3, "new"), "redact_text": new.text() * 9_000})
        far = {**self.row(4, "new"), "month_of": 2**62}
        yield t.topic, t.key(4), self.envelope(t, "c", None, far)

    def later(self, stack: Stack, rows: int, first: int) -> Iterator[tuple[str, bytes, bytes]]:
        """Rows under a writer schema with a column that nobody has classified."""
        table = Table(stack.registry_url, self.source, "t", LATER)
        for number in range(first, first + rows):
            row = {**self.row(number, "new"), "surprise": self.canaries.text()}
            yield table.topic, table.key(number), self.envelope(table, "c", None, row)

    def events(self, count: int) -> Iterator[tuple[str, bytes, bytes]]:
        """What applications say themselves, of a type that is known and of one that is not; and a few that are no events."""
        new, topic = self.canaries, f"{self.source}-events"
        for number in range(count):
            payload = {
                "state": "new",
                "masked": new.text(),
                "coarse": new.below(number),
                "dropped": new.text(),
                "named": new.number() if number % 2 else new.text(),
                "password": new.text(),
                "unnamed": {"deep": [new.text(), {"n": new.number()}], "at": new.double()},
            }
            event = {
                "type": "auth.login" if number % 5 == 0 else "shop.parcel.lost",
                "source": "shop",
                "actor": {"id": new.text(), "name": new.text(), "type": "user"} if number % 3 else new.text(),
                "resource_type": "parcel",
                "resource_id": new.text(),
                "description": f"written to {new.text()}@example.org",
                "payload": payload,
                "tags": {"ticket": new.text(), "n": new.number()},
                "request_id": new.text(),
                "reason": new.text(),
                "ip": "203.0.113.9",
                "session": new.text(),
            }
            yield topic, str(number).encode(), json.dumps(event).encode()
        yield topic, b"1", new.text().encode()
        yield topic, b"2", json.dumps({"type": "shop.x", new.text(): 1}).encode()
        yield topic, b"3", json.dumps({"type": new.text() + "!", "actor": new.text()}).encode()
        yield topic, b"4", json.dumps({"type": "shop.x", "outcome": new.text()}).encode()
        yield topic, b"5", json.dumps({"type": "shop.x", "time": new.text()}).encode()

    def envelope(self, table: Table, op: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> bytes:
        """A change of the next position."""
        self.lsn += 10
        lsn, at_us = self.lsn, 1_790_000_000_000_000 + self.lsn
        transaction = self.lsn // 10 // TRANSACTION
        self.transactions = transaction
        source = {
            "version": "3.7.0.Final", "connector": "postgresql", "name": self.source, "ts_ms": at_us // 1000,
            "snapshot": "false", "db": "shop", "sequence": f'["{lsn - 1}","{lsn}"]', "ts_us": at_us, "ts_ns": at_us * 1000,
            "schema": "public", "table": table.name, "txId": transaction, "lsn": lsn, "xmin": None,
        }  # fmt: skip
        datum = {
            "before": before, "after": after, "source": source, "op": op, "ts_ms": at_us // 1000, "ts_us": at_us,
            "transaction": {"id": f"{transaction}:{lsn}", "total_order": 1, "data_collection_order": 1},
            "ts_ns": at_us * 1000,
        }  # fmt: skip
        if table.value_id not in self._parsed:
            self._parsed[table.value_id] = fastavro.parse_schema(table.value_schema)
        return framed(table.value_id, self._parsed[table.value_id], datum)

    def contexts(self) -> Iterator[bytes]:
        """One for each transaction so far, every protected field a canary."""
        new = self.canaries
        for number in range(self.transactions + 1):
            said = {
                "actor": {"id": new.text(), "name": new.text(), "type": "user"},
                "request_id": new.text(),
                "reason": f"because of {new.text()}",
                "ip": "203.0.113.7",
                "session": new.text(),
                "tags": {"ticket": new.text(), "number": new.number()},
            }
            content = base64.b64encode(json.dumps(said).encode()).decode()
            source = {"connector": "postgresql", "name": self.source, "ts_ms": 1_790_000_000_000, "txId": number, "lsn": number}
            message = {"prefix": "chronicle", "content": content}
            yield json.dumps({"op": "m", "source": source, "message": message}).encode()
