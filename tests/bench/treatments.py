"""`python -m tests.bench.treatments`: what each class of the policy costs, in microseconds of CPU per value, in one thread."""

from __future__ import annotations

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # as the worker has it; before Polars is imported

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from chronicle.codec.columns import DECIMAL, Column
from chronicle.policy.rules import Class, Treatment
from chronicle.policy.treatments import SCANS
from chronicle.stages.ciphers import Cipher, Group, Sentinel, sealed
from chronicle.stages.tokens import TokenKeys
from chronicle.stages.treatments import treated

VALUES = 100_000
LOW = 100
"""Distinct values of a column of low cardinality."""
REPEATS = 5
DECIMALS = {"scale": "2", "connect.decimal.precision": "12"}


@dataclass(frozen=True, slots=True)
class Cost:
    """One measurement."""

    what: str
    cardinality: str
    us_per_value: float


def fastest(call: Callable[[], object], *, values: int = VALUES) -> float:
    """Microseconds of CPU per value, the best of a few runs: what others do on the machine only ever adds."""
    best = float("inf")
    for _ in range(REPEATS):
        begun = time.process_time()
        call()
        best = min(best, time.process_time() - begun)
    return best / values * 1e6


def columns(values: int) -> Iterator[tuple[str, Column, Treatment, pl.Series]]:
    """Name, column, treatment and values, all of them distinct."""
    numbers = np.arange(values, dtype=np.int64)
    emails = pl.Series("v", [f"user.{n}@mail{n % 97}.example.org" for n in range(values)])
    plain = pl.Series("v", [f"The parcel was left with the neighbour, who has signed for it, {n}" for n in range(values)])
    hits = pl.Series("v", [f"write to user{n}@example.org or call +49 30 {1_000_000 + n}" for n in range(values)])
    notes = pl.Series("v", [json.dumps({"note": f"no. {n}", "by": "desk", "tags": ["a", "b"]}) for n in range(values)])
    addresses = pl.Series("v", [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(values)])
    micros = pl.Series("v", numbers * 1_234_567_891 + 1_600_000_000_000_000)
    text, micro = Column("v", pl.String()), Column("v", pl.Int64(), semantic="io.debezium.time.MicroTimestamp")
    zoned = Column("v", pl.String(), semantic="io.debezium.time.ZonedTimestamp")
    zoned_texts = (micros % 10**15 + 10**15).cast(pl.Datetime("us")).dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
    amounts = pl.Series("v", numbers).cast(pl.Decimal(38, 2))
    amount = Column("v", pl.Decimal(38, 2), semantic=DECIMAL, params=DECIMALS)
    document = Column("v", pl.String(), semantic="io.debezium.data.Json")
    scan = Treatment(Class.CLEAR, scan=SCANS)
    yield "redact", text, Treatment(Class.REDACT), emails
    yield "mask", text, Treatment(Class.MASK), emails
    yield "token", text, Treatment(Class.TOKEN), emails
    yield "token of a number", Column("v", pl.Int64()), Treatment(Class.TOKEN), pl.Series("v", numbers)
    for step in ("hour", "month", "year"):
        yield f"generalize timestamp to {step}", micro, Treatment(Class.GENERALIZE, to=step), micros
    yield "generalize timestamptz to month", zoned, Treatment(Class.GENERALIZE, to="month"), zoned_texts
    yield (
        "generalize date to month",
        _date(),
        Treatment(Class.GENERALIZE, to="month"),
        (micros // 86_400_000_000).cast(pl.Int32),
    )
    yield "generalize bigint to bucket", Column("v", pl.Int64()), Treatment(Class.GENERALIZE, to="bucket:100"), micros
    yield "generalize numeric to bucket", amount, Treatment(Class.GENERALIZE, to="bucket:100"), amounts
    yield "generalize IPv4 to net:24", text, Treatment(Class.GENERALIZE, to="net:24/48"), addresses
    yield "generalize e-mail to domain", text, Treatment(Class.GENERALIZE, to="domain"), emails
    yield "generalize text to prefix:3", text, Treatment(Class.GENERALIZE, to="prefix:3"), emails
    yield "scan of text, no hits", text, scan, plain
    yield "scan of text, two hits each", text, scan, hits
    yield "scan of JSON, no hits", document, scan, notes


def measured() -> Iterator[Cost]:
    """All classes over columns of distinct values and of few; expression in, text of the image out."""
    keys = TokenKeys({"default": secrets.token_bytes(32)})
    for what, column, treatment, values in columns(VALUES):
        found = treated(column, treatment, keys)
        assert found is not None
        assert found.text is not None
        made = found.text(pl.col("v"))
        few = values.gather(pl.Series(np.arange(VALUES) % LOW))
        for cardinality, frame in (("all distinct", values.to_frame("v")), (f"{LOW} distinct", few.to_frame("v"))):
            yield Cost(what, cardinality, fastest(lambda frame=frame, made=made: frame.select(made)))  # type: ignore[misc]
    yield Cost("encrypt, put into the image", "all distinct", _encryption())


def _date() -> Column:
    return Column("v", pl.Int32(), semantic="io.debezium.time.Date")


def _encryption() -> float:
    sentinel, cipher = Sentinel(secrets.token_hex(16)), Cipher("bench", secrets.token_bytes(32))
    images = pl.Series([f'{{"email":"{sentinel.mark("email")}","id":{n},"name":"somebody"}}' for n in range(VALUES)])
    texts = pl.Series([f"user.{n}@mail{n % 97}.example.org" for n in range(VALUES)])
    ids = pl.Series([n.to_bytes(16, "big") for n in range(VALUES)])
    group = Group("shop.public.customers", np.arange(VALUES), {"email": texts})
    return fastest(lambda: sealed(images, [group], ids, image="after", cipher=cipher, sentinel=sentinel))


if __name__ == "__main__":
    for cost in measured():
        sys.stdout.write(f"{cost.what:34} {cost.cardinality:14} {cost.us_per_value:8.3f} us/value\n")
