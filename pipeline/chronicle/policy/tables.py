"""Tables as a policy is checked against: names and kinds of columns, from whatever says what there is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the values of a column are, as far as it matters for what may be seen of them."""

    TEXT = "text"
    WORD = "word"  # one of a few: an enumeration
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time"  # an instant, or a time of day
    UUID = "uuid"
    DOCUMENT = "document"  # JSON, XML, a record, a map
    BYTES = "bytes"
    PLACE = "place"  # geometry
    LIST = "list"


@dataclass(frozen=True, slots=True)
class SeenColumn:
    """One column of a captured table."""

    name: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class SeenTable:
    """One captured table."""

    source: str
    schema: str
    table: str
    columns: tuple[SeenColumn, ...]
    key: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, str, str]:
        """Source, schema and table."""
        return self.source, self.schema, self.table

    @property
    def name(self) -> str:
        """`source.schema.table`."""
        return ".".join(self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """All its columns, those of the key that the row lacks included."""
        return tuple(dict.fromkeys((*(column.name for column in self.columns), *self.key)))
