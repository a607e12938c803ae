"""`chronicle policy show events:TYPE`: what becomes of the events of a type, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from chronicle.cli import shown
from chronicle.cli.terminal import out, print_json
from chronicle.errors import ConfigError

if TYPE_CHECKING:
    from chronicle.config import Settings
    from chronicle.policy.file import Policy
    from chronicle.policy.rules import ColumnPolicy

PREFIX = "events:"
STYLES = {"clear": "green", "drop": "dim", "redact": "red"}


def show(settings: Settings, policy: Policy, name: str, *, as_json: bool) -> None:
    """Print it. `name`: `events:TYPE`, or `events:SOURCE:TYPE` for the events of one application.

    Fields are those that the type's schema has, and those that a rule names exactly.

    Raises:
        ConfigError: no type is named, or a schema of an event type cannot be read.
    """
    from chronicle.policy.events import PAYLOAD, TEXTS
    from chronicle.schema_files import event_types

    source, _, type_ = name.removeprefix(PREFIX).rpartition(":")
    if not type_:
        raise ConfigError("name an event type, as in events:security.login")
    catalogue = event_types(settings.schemas_dir)
    known = catalogue.known(type_)
    found = policy.event(source, type_, catalogue.classes(type_))
    named = [rule.column.text for block in found.blocks for rule in block.columns if rule.column.exact]
    fields = list(catalogue.columns(type_)) if known else []
    fields += [one.removeprefix(PAYLOAD) for one in named if one not in TEXTS]
    columns: dict[str, ColumnPolicy] = {text: found.text(text) for text in TEXTS}
    columns |= {f"{PAYLOAD}{field}": found.payload(field)[0] for field in dict.fromkeys(fields)}
    columns[f"{PAYLOAD}*"] = found.payload("")[0]
    if as_json:
        facts = {"type": type_, "source": source or None, "policy": policy.hash, "known": known, "skip": found.skip}
        print_json({**facts, "labels": list(found.labels), "columns": {at: _as_json(one) for at, one in columns.items()}})
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("column", "class", "", "rule"):
        table.add_column(title, overflow="fold")
    for column, one in columns.items():
        kind, label = one.treatment.kind, one.treatment.label
        detail = label.removeprefix(kind).strip()
        table.add_row(Text(column), Text(kind, STYLES.get(kind, "yellow")), Text(detail), Text(one.origin))
    shown.print_table(table)
    others = {"skip": "all of them" if found.skip else "", "labels": ", ".join(found.labels), "schema": "" if known else "none"}
    if told := [(title, Text(text)) for title, text in others.items() if text]:
        out.print()
        shown.print_record(told)


def _as_json(column: ColumnPolicy) -> dict[str, Any]:
    return {"class": str(column.treatment.kind), "as": column.treatment.label, "rule": column.origin}
