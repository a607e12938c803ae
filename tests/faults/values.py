"""Seeded values of each kind, extremes among them, that both the database and Debezium carry without loss."""

from __future__ import annotations

import datetime as dt
import json
import string
import uuid
from decimal import Decimal
from random import Random
from typing import Any

UTC = dt.UTC
_TEXTS = (
    "",
    " ",
    "none",
    "Grüße aus Köln",
    "日本語テキスト",
    "🦜🔬",
    "a\tb\nc\r\nd",
    'quote " and \\ back',
    "it's",
    "[FILTERED]",
    "NULL",
    "null",
    "\\x00",
    "e\u0301 ≠ é",
    "\u202eright to left",
    "<xml a='1'>&amp;</xml>",
    '{"json": true}',
    "\u00a0\u200b",
    "a,b;c",
    "%s ${env:HOME} {0}",
    "\x01\x1f\x7f",
)
_DECIMAL_EDGES = {
    (12, 2): ("9999999999.99", "-9999999999.99", "0.00", "0.01", "-0.01"),
    (10, 2): ("99999999.99", "-99999999.99", "0.00"),
    (14, 3): ("99999999999.999", "-0.001", "0.000"),
    (38, 10): (
        "9999999999999999999999999999.9999999999",
        "-9999999999999999999999999999.9999999999",
        "0.0000000001",
        "1.0000000000",
    ),
}


class Values:
    """Draws values; equal seeds draw equal values."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def maybe(self, value: Any, share: float = 0.15) -> Any:
        """The value, or now and then NULL (which a column's default must not hide)."""
        return None if self.random.random() < share else value

    def text(self) -> str:
        """A short text of any characters, or one of the nasty ones."""
        if self.random.random() < 0.4:
            return self.random.choice(_TEXTS)
        return "".join(self.random.choices(string.ascii_letters + " äöüßéñ中文🙂'\"\\", k=self.random.randint(1, 40)))

    def word(self) -> str:
        """A plain word, for places where only the count matters."""
        return "".join(self.random.choices(string.ascii_lowercase, k=10))

    def long_text(self) -> str:
        """A text that Postgres stores out of line: no compression helps it."""
        return "".join(self.random.choices(string.printable[:94], k=self.random.randint(2_500, 9_000)))

    def binary(self, size_max: int = 60) -> bytes:
        """Any bytes, none of them special."""
        return self.random.randbytes(self.random.randint(0, size_max))

    def integer(self, bits: int) -> int:
        """A signed integer, its extremes more often than chance."""
        edge = 1 << (bits - 1)
        return self.random.choice(
            (0, 1, -1, edge - 1, -edge, self.random.randint(-edge, edge - 1), self.random.randint(-100, 100))
        )

    def unsigned(self) -> int:
        """An unsigned 64-bit integer."""
        return self.random.choice((0, 1, 2**63, 2**64 - 1, self.random.getrandbits(64)))

    def decimal(self, precision: int, scale: int) -> Decimal:
        """A decimal of the column's scale."""
        if self.random.random() < 0.3:
            return Decimal(self.random.choice(_DECIMAL_EDGES[(precision, scale)]))
        digits = self.random.randint(1, precision)
        return Decimal(self.random.randint(-(10**digits) + 1, 10**digits - 1)).scaleb(-scale)

    def number(self, special: bool) -> float:
        """A double; `special`: NaN and the infinities too."""
        if special and self.random.random() < 0.15:
            return self.random.choice((float("nan"), float("inf"), float("-inf")))
        return self.random.choice((0.0, 1.5, -2.25, 1e300, 5e-324, 1.7976931348623157e308, self.random.gauss(0, 1e6), 0.1))

    def single(self) -> float:
        """A number that Postgres' real holds."""
        return self.random.choice((0.0, 0.1, -2.25, 3.4028235e38, 1.17549435e-38, self.random.randint(-999, 999) / 8))

    def date(self, first_year: int) -> dt.date:
        """A date from the first of January of that year to the end of 9999."""
        edges = (
            dt.date(first_year, 1, 1),
            dt.date(9999, 12, 31),
            dt.date(1970, 1, 1),
            dt.date(2024, 2, 29),
            dt.date(1899, 12, 31),
        )
        return self.random.choice((*edges, dt.date(1900, 1, 1) + dt.timedelta(days=self.random.randint(0, 80_000))))

    def moment(self, first_year: int, last: dt.datetime = dt.datetime(9999, 12, 31, 23, 59, 59, 999999)) -> dt.datetime:
        """A time without zone, microseconds included."""
        edges = (
            dt.datetime(first_year, 1, 2),
            last,
            dt.datetime(2024, 2, 29, 23, 59, 59, 999999),
            dt.datetime(1970, 1, 2, 0, 0, 0, 1),
        )
        span = dt.timedelta(seconds=self.random.randint(0, 2_000_000_000), microseconds=self.random.randint(0, 999_999))
        return self.random.choice((*edges, dt.datetime(1970, 1, 2) + span))

    def time(self) -> dt.time:
        """A time of day."""
        return self.random.choice(
            (dt.time(0), dt.time(23, 59, 59, 999999), dt.time(12, 30, 1, self.random.randint(0, 999_999)))
        )

    def uuid(self) -> uuid.UUID:
        """A random UUID."""
        return uuid.UUID(int=self.random.getrandbits(128))

    def json(self) -> str:
        """A JSON document (an object or an array) as text."""
        document: Any = {"text": self.text(), "n": self.integer(53), "list": [1, None, True, {"deep": self.word()}], "ü": 1.5}
        return json.dumps(self.random.choice((document, {}, [], [self.text(), 1], {"a": {"b": {"c": []}}})), ensure_ascii=False)

    def texts(self) -> list[str | None]:
        """Elements of a text array, NULLs among them."""
        return [self.maybe(self.text()) for _ in range(self.random.randint(0, 4))]

    def integers(self) -> list[int | None]:
        """Elements of an integer array, NULLs among them."""
        return [self.maybe(self.integer(32)) for _ in range(self.random.randint(0, 4))]
