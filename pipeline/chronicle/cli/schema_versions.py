"""The registry, asked for all versions of a subject."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from urllib.parse import quote

from chronicle.codec.columns import UnsupportedSchema, WriterSchema
from chronicle.codec.contract import VALUE
from chronicle.codec.schema import parse_avro
from chronicle.errors import ConfigError
from chronicle.registry import Registry


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a subject."""

    subject: str
    number: int
    id: int
    text: str = field(repr=False)

    @property
    def schema(self) -> WriterSchema:
        """Parsed.

        Raises:
            ConfigError: no decoder reads it.
        """
        try:
            return parse_avro(self.id, self.text)
        except UnsupportedSchema as error:
            raise ConfigError(f"look at version {self.number} of {self.subject}: {error}") from None

    @property
    def columns(self) -> int:
        """How many the rows have."""
        return len(self.schema.row.columns if self.schema.row else self.schema.columns)


def subject_of(name: str) -> str:
    """The subject of a table's rows; a subject stays as it is."""
    return name if name.endswith((VALUE, "-key")) else name + VALUE


class Versions(Registry):
    """A client that knows versions. All methods raise as `Registry.resolve` does."""

    def known(self, subject: str, given: str) -> str:
        """The subject, or what was given where that is one.

        Raises:
            ConfigError: there is neither.
        """
        names = self.names()
        for name in (subject, given):
            if name in names:
                return name
        close = get_close_matches(subject, names, 1)
        hint = f"did you mean {close[0].removesuffix(VALUE)}?" if close else "the registry has no such subject"
        raise ConfigError(f"name a captured table or a subject instead of {given}: {hint}")

    def numbers(self, subject: str) -> list[int]:
        """Numbers of all versions, oldest first; empty: there is no such subject."""
        return sorted(int(one) for one in self._get(f"/subjects/{quote(subject, safe='')}/versions") or ())

    def newest(self, subject: str) -> Version:
        """Raises ConfigError where there is no such subject."""
        numbers = self.numbers(self.known(subject, subject))
        return self.version(subject, numbers[-1])

    def version(self, subject: str, number: int) -> Version:
        """One version.

        Raises:
            ConfigError: there is none of this number, or it is no Avro schema.
        """
        found = self._get(f"/subjects/{quote(subject, safe='')}/versions/{number}")
        if found is None:
            numbers = ", ".join(map(str, self.numbers(subject)))
            raise ConfigError(f"choose a version of {subject} instead of {number}: there are {numbers}")
        if found.get("schemaType", "AVRO") != "AVRO":
            raise ConfigError(f"name a subject with Avro schemas: {subject} has {found['schemaType']}")
        text = found["schema"]
        if found.get("references"):
            text = self._inlined(text, found["references"], 0)
        return Version(subject, number, int(found["id"]), text)
