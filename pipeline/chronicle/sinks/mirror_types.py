"""When a captured column's type changes: the smallest ClickHouse type that holds both, or none. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_INTEGER = re.compile(r"U?Int(8|16|32|64|128|256)")
_FLOATS = ("Float32", "Float64")
_DECIMAL_DIGITS_MAX = 76
_STRINGS = frozenset({"String", "LowCardinality(String)"})
_ENUM_VALUE = re.compile(r"('(?:[^'\\]|\\.|'')*')\s*=\s*(-?\d+)")


@dataclass(frozen=True, slots=True)
class _Type:
    name: str
    arguments: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})" if self.arguments else self.name


def normal(text: str) -> str:
    """A type's text with ClickHouse's own spacing, so that equal types compare equal."""
    parsed = _parsed(text)
    if parsed.name in ("Enum8", "Enum16"):
        return f"{parsed.name}({', '.join(f'{name} = {number}' for name, number in _enum(text).items())})"
    if parsed.name in ("Nullable", "Array", "Map", "LowCardinality"):
        return _Type(parsed.name, tuple(normal(argument) for argument in parsed.arguments)).text
    return parsed.text


def base(text: str) -> str:
    """The type without its Nullable(…)."""
    parsed = _parsed(text)
    return parsed.arguments[0] if parsed.name == "Nullable" else parsed.text


def slug(text: str) -> str:
    """The type as the end of a column name: `String` → string, `Decimal(10, 2)` → decimal_10_2, an Enum → enum."""
    plain = base(text).removeprefix("LowCardinality(")
    if plain.startswith("Enum"):
        return "enum"
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")


def join(existing: str, wanted: str) -> str | None:
    """The type an existing column needs to hold values of both types; `existing` itself when it already does.

    None when there is none that keeps every value exact, which then take a column of their own.
    """
    old, new = normal(existing), normal(wanted)
    joined = _join(base(old), base(new))
    if joined is None:
        return None
    nullable = old != base(old) or new != base(new)
    return f"Nullable({joined})" if nullable else joined


def _join(old: str, new: str) -> str | None:  # noqa: PLR0911  # one return a family of types
    if old == new:
        return old
    if old in _STRINGS and (new in _STRINGS or new.startswith("Enum")):
        return old
    if old.startswith("Enum"):
        return _join_enum(old, new)
    if _INTEGER.fullmatch(old) and _INTEGER.fullmatch(new):
        return _join_integer(old, new)
    if old in _FLOATS and new in _FLOATS:
        return "Float64"
    first, second = _parsed(old), _parsed(new)
    if first.name == second.name == "Decimal":
        return _join_decimal(first, second)
    if {old, new} == {"Date", "Date32"}:
        return "Date32"
    if first.name == second.name == "DateTime64" and first.arguments[1:] == second.arguments[1:]:
        precision = max(first.arguments[0], second.arguments[0])
        return _Type("DateTime64", (precision, *first.arguments[1:])).text
    if first.name == second.name and first.name in ("Array", "Map"):
        inner = [join(*pair) for pair in zip(first.arguments, second.arguments, strict=True)]
        held = [each for each in inner if each is not None]
        return _Type(first.name, tuple(held)).text if len(held) == len(inner) else None
    return None


def _join_integer(old: str, new: str) -> str | None:
    low = min(_range(old)[0], _range(new)[0])
    high = max(_range(old)[1], _range(new)[1])
    candidates = (f"{sign}Int{bits}" for bits in (8, 16, 32, 64, 128, 256) for sign in ("", "U"))
    if _range(old) == (low, high):
        return old
    return next((name for name in candidates if _range(name)[0] <= low and high <= _range(name)[1]), None)


def _range(name: str) -> tuple[int, int]:
    bits = int(name.rpartition("t")[2])
    return (0, 2**bits - 1) if name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _join_decimal(old: _Type, new: _Type) -> str | None:
    sizes = [(int(each.arguments[0]), int(each.arguments[1])) for each in (old, new)]
    scale = max(scale for _, scale in sizes)
    whole = max(precision - scale for precision, scale in sizes)
    return f"Decimal({whole + scale}, {scale})" if whole + scale <= _DECIMAL_DIGITS_MAX else None


def _join_enum(old: str, new: str) -> str | None:
    if new in _STRINGS:
        return "LowCardinality(String)"  # an enum grown past what an Enum16 should hold: its names stay its values
    if not new.startswith("Enum"):
        return None
    values = _enum(old)
    added = [name for name in _enum(new) if name not in values]
    if not added:
        return old
    # The numbers are ClickHouse's own: names are what is inserted, and old parts keep their numbers.
    first = max(values.values(), default=0) + 1
    values.update({name: first + i for i, name in enumerate(added)})
    return f"Enum16({', '.join(f'{name} = {number}' for name, number in values.items())})"


def _enum(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in _ENUM_VALUE.findall(text)}


def _parsed(text: str) -> _Type:
    name, opened, rest = text.strip().partition("(")
    if not opened:
        return _Type(name.strip(), ())
    return _Type(name.strip(), tuple(_split(rest[: rest.rindex(")")])))


def _split(text: str) -> list[str]:
    """Arguments at the top level: commas inside quotes and parentheses do not count."""
    parts, depth, quoted, start, i = [], 0, False, 0, 0
    while i < len(text):
        char = text[i]
        if quoted:
            if char == "\\":
                i += 1
            elif char == "'":
                quoted = False
        elif char == "'":
            quoted = True
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "," and not depth:
            parts.append(text[start:i].strip())
            start = i + 1
        i += 1
    return [*parts, text[start:].strip()]
