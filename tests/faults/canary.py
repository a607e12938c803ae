"""Canaries: markers that stand in every protected cell of a workload, and the search for them in whatever comes out.

A marker begins with letters (or digits, in numbers) that occur nowhere else. What a class may leave of a value (the tail of
a mask, a domain, a bucket, a month, the first characters) never has that beginning, so one find is one leak.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

LETTERS = "bcdfghjklmnpqrstvwxz"
"""No vowels: no word of anybody's is made of these alone."""
PREFIX, DIGITS = 12, 12
TAKEN = 1_000_000_000_000
"""What a bucket of so many takes away: `DIGITS` digits."""
DAY = datetime(1987, 6, 5, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Needle:
    """One way in which a marker may show."""

    name: str
    text: str


class Canaries:
    """The markers of one run, numbered by their cell."""

    def __init__(self, seed: int) -> None:
        chosen = random.Random(seed)
        self.prefix = "".join(chosen.choices(LETTERS, k=PREFIX))
        self.digits = chosen.choice("1234567") + "".join(chosen.choices("0123456789", k=DIGITS - 1))
        self.at = DAY + timedelta(
            hours=chosen.randrange(1, 24), minutes=chosen.randrange(1, 60), microseconds=chosen.randrange(1_000_001, 59_999_999)
        )
        self._cells = 0

    def text(self) -> str:
        """A text that no other cell has."""
        self._cells += 1
        return f"{self.prefix}{self._cells:x}"

    def number(self) -> int:
        """A number of 18 digits that no other cell has, up to a million cells."""
        self._cells += 1
        return int(self.digits) * 1_000_000 + self._cells % 1_000_000

    def below(self, bucket_of: int) -> int:
        """A number whose marker is all that a bucket of 10**12 takes away."""
        return bucket_of % 1_000_000 * TAKEN + int(self.digits)

    def double(self) -> float:
        """A number that a double holds exactly."""
        self._cells += 1
        return float(int(self.digits) * 1_000 + self._cells % 1_000)

    @property
    def instant_us(self) -> int:
        """An instant, in microseconds since 1970: its time of day is the marker."""
        return (self.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    @property
    def needles(self) -> tuple[Needle, ...]:
        """What is looked for: as it is, in capitals, in hex, in base64 at any alignment; numbers with an exponent; times."""
        raw = self.prefix.encode()
        found = [
            Needle("text", self.prefix),
            Needle("capitals", self.prefix.upper()),
            Needle("hex", raw.hex()),
            Needle("hex in capitals", raw.hex().upper()),
            Needle("number", self.digits),
            Needle("number with an exponent", f"{self.digits[0]}.{self.digits[1:]}"),
            Needle("time of day", f"{self.at:%H:%M:%S.%f}"),
            Needle("instant", str(self.instant_us)),
        ]
        for shift in range(3):
            # without the characters that bits of neighbours are in
            encoded = base64.b64encode(b"\0" * shift + raw + b"\0" * ((-shift - len(raw)) % 3)).decode()
            first, last = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
            found.append(Needle(f"base64, {shift} bytes after a start", encoded[first:last]))
        return tuple(found)

    def found(self, data: bytes) -> set[str]:
        """Names of the needles that are in these bytes."""
        return {one.name for one in self.needles if one.text.encode() in data}
