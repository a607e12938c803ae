"""A first policy for tables nobody has classified yet: classes from names and kinds, each with its reason, for a person to
review. Where in doubt, a value is hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tomlkit
from tomlkit.items import InlineTable, Table

from chronicle.policy.names import looks_secret, words
from chronicle.policy.rules import REDACTED, Class, Treatment
from chronicle.policy.tables import Kind, SeenColumn, SeenTable

PERSON = "person"
TOKEN_KEY = "token-1"  # noqa: S105  # a key's id
_PERSON_TOKEN = Treatment(Class.TOKEN, domain=PERSON)
_HIDDEN = REDACTED
_YEAR = Treatment(Class.GENERALIZE, to="year")

_NUMBERS = frozenset({Kind.NUMBER})
_DATES = frozenset({Kind.DATE, Kind.TIME})
_TEXTS = frozenset({Kind.TEXT})
_ANY = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class _Looks:
    """A name with one of these words, on a column of one of these kinds, is proposed so."""

    words: frozenset[str]
    treatment: Treatment
    reason: str
    kinds: frozenset[Kind] = _ANY


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _looks(names: str, treatment: Treatment, reason: str, kinds: frozenset[Kind] = _ANY) -> _Looks:
    return _Looks(_words(names), treatment, reason, kinds)


_PERSONAL = (
    _looks("email mail emails mails", _PERSON_TOKEN, "an e-mail address: joinable, not readable", _TEXTS),
    _looks("phone mobile telephone tel fax cell", Treatment(Class.MASK, keep=2), "a phone number", _TEXTS),
    _looks("iban bic account accountnumber", Treatment(Class.MASK, keep=4), "a bank account?", _TEXTS),
    _looks("ip ipaddress ipv4 ipv6", Treatment(Class.GENERALIZE, to="net:24/48"), "an IP address: its network", _TEXTS),
    _looks("zip zipcode postcode postal plz", Treatment(Class.GENERALIZE, to="prefix:2"), "a postcode: its region", _TEXTS),
    _looks("birth born birthday birthdate dob", _YEAR, "a date of birth: the year", _DATES),
    _looks("death died deceased", _YEAR, "a date of a person's life: the year", _DATES),
    _looks("salary income wage", Treatment(Class.GENERALIZE, to="bucket:10000"), "what someone earns: in steps", _NUMBERS),
    _looks("lat latitude lon lng longitude gps geo location", _HIDDEN, "a place"),
    _looks("address street city town", _HIDDEN, "an address?"),
    _looks(
        "gender sex religion ethnicity race nationality citizenship health diagnosis disability union", _HIDDEN, "sensitive"
    ),
    _looks("passport license licence taxid vat nin nhs tax national", _HIDDEN, "an official number?"),
    _looks("username login user author owner", _PERSON_TOKEN, "a person? joinable, not readable", _TEXTS),
    _looks("firstname lastname fullname surname forename nickname", Treatment(Class.MASK, keep=1), "a person's name", _TEXTS),
    _looks("name", Treatment(Class.MASK, keep=1), "a person's name? clear, if it is a thing's", _TEXTS),
    _looks("birth born dob salary income wage phone mobile ip", _HIDDEN, "personal by its name"),
)
"""The first that fits is proposed."""

_FREE = _words("note notes comment comments description text body message resume bio remark remarks subject summary")
_CODES = _words(
    "status state type kind code currency country language locale sku tier stage level role category unit version slug"
)
_PLAIN = frozenset({Kind.NUMBER, Kind.BOOLEAN, Kind.DATE, Kind.TIME, Kind.UUID, Kind.WORD})
_SHAPELESS = {Kind.DOCUMENT: "a document: anything may be in it", Kind.LIST: "a list", Kind.PLACE: "a place"}


def proposed(column: SeenColumn, *, key: bool = False) -> tuple[Treatment, str]:
    """A treatment and why, for a person."""
    treatment, reason = _of_value(column)
    if key and treatment.kind not in (Class.CLEAR, Class.TOKEN):
        return Treatment(Class.TOKEN), f"a key, and {reason}"
    return treatment, reason


def _of_value(column: SeenColumn) -> tuple[Treatment, str]:
    parts = frozenset(words(column.name))
    if looks_secret(column.name):
        return _HIDDEN, "looks secret"
    for look in _PERSONAL:
        if parts & look.words and column.kind in look.kinds:
            return look.treatment, look.reason
    if column.kind in _PLAIN or (column.kind is Kind.TEXT and parts & _CODES and not parts & _FREE):
        return Treatment(Class.CLEAR), ""
    return _of_content(column.kind, parts)


def _of_content(kind: Kind, parts: frozenset[str]) -> tuple[Treatment, str]:
    if kind is Kind.BYTES:
        return Treatment(Class.DROP), "bytes"
    if kind in _SHAPELESS:
        return _HIDDEN, _SHAPELESS[kind]
    if parts & _FREE:
        return _HIDDEN, 'what people write; or clear with scan = ["email", "phone", …]'
    return _HIDDEN, "text: clear, if nothing in it is about a person"


def proposal(tables: Iterable[SeenTable]) -> str:
    """The text of a policy that classifies every column of these tables."""
    ordered = sorted(tables, key=lambda table: table.parts)
    chosen = {table: [(one, *proposed(one, key=one.name in table.key)) for one in _columns(table)] for table in ordered}
    document = tomlkit.document()
    for line in (
        "Proposed by `chronicle policy init` from names and types: read every line, then `chronicle policy check`.",
        "Classes: clear, drop, redact, mask, token, generalize, encrypt. A column that no rule names is redacted.",
        "Events need no line: the types that Chronicle brings, and schemas/events/*.avsc, say what may be seen of their fields",
        "(chronicle.class; `chronicle policy show events:TYPE`). Other fields are redacted until [[events]] names them.",
    ):
        document.add(tomlkit.comment(line))
    defaults = tomlkit.table()
    defaults.add("unclassified", "redact")
    document.add("defaults", defaults)
    if any(treatment.domain == PERSON for rows in chosen.values() for _, treatment, _ in rows):
        document.add("domains", _domains())
    blocks = tomlkit.aot()
    for table, rows in chosen.items():
        blocks.append(_block(table, rows))
    if ordered:
        document.add("tables", blocks)
    return tomlkit.dumps(document)


def _columns(table: SeenTable) -> Sequence[SeenColumn]:
    """None with a `*` in its name: written down, it would stand for others."""
    known = {column.name for column in table.columns}
    columns = (*table.columns, *(SeenColumn(name) for name in table.key if name not in known))
    return [column for column in columns if "*" not in column.name]


def _domains() -> Table:
    domains, person = tomlkit.table(is_super_table=True), tomlkit.table()
    person.add("key", TOKEN_KEY)
    person["key"].comment(f"make it: chronicle policy keys new {TOKEN_KEY} --purpose token")
    domains.add(PERSON, person)
    return domains


def _block(table: SeenTable, rows: Sequence[tuple[SeenColumn, Treatment, str]]) -> Table:
    block, columns = tomlkit.table(), tomlkit.table()
    block.add("match", ".".join(f'"{part}"' if "." in part else part for part in table.parts))
    for column, treatment, reason in rows:
        key = tomlkit.key(column.name)
        columns.add(key, _written(treatment))
        if reason:
            columns[column.name].comment(reason)
    block.add("columns", columns)
    return block


def _written(treatment: Treatment) -> str | InlineTable:
    options: dict[str, object] = {}
    if treatment.kind is Class.MASK:
        options["keep"] = treatment.keep
    if treatment.kind is Class.GENERALIZE:
        options["to"] = treatment.to
    if treatment.kind is Class.TOKEN and treatment.domain != "default":
        options["domain"] = treatment.domain
    if not options:
        return str(treatment.kind)
    inline = tomlkit.inline_table()
    inline.update({"class": str(treatment.kind), **options})
    return inline
