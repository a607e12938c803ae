"""Models say what is to be recorded of them; the policy gets it as rules, because the change stream sees what callbacks miss.

    from chronicle.declared import audit_log, journal_changes

    class Customer(Base): ...

    journal_changes(Customer, "email", "name", as_="identity_change")
    audit_log(Customer, ignore=["last_seen_at"])

A declaration does nothing by itself: `chronicle policy from-models my_app.models --source shop` prints the rules for the
policy file, which people review, and `--check policy.toml` says in a CI what it lacks of them. A bulk UPDATE, raw SQL and psql
are then recorded and labelled like a save through the model.

Models are those of SQLAlchemy (mapped classes, `Table` objects) and Django. Nothing but the standard library is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chronicle.declared.models import Column, DeclarationRefused, column_of, tables_of

__all__ = ["DeclarationRefused", "Declarations", "assert_journals_changes", "audit_log", "declared", "journal_changes"]


class Declarations:
    """What models have declared, in the order of the first word about each."""

    def __init__(self) -> None:
        self._labels: dict[tuple[Column, str], None] = {}
        self._ignored: dict[Column, None] = {}
        self._audited: dict[tuple[str | None, str], None] = {}

    def label(self, column: Column, name: str) -> None:
        """A change that touches this column is also this."""
        self._labels.setdefault((column, name))

    def audit(self, tables: Iterable[tuple[str | None, str]], ignored: Iterable[Column]) -> None:
        """These tables are recorded; an update that changes nothing but ignored columns is not."""
        for table in tables:
            self._audited.setdefault(table)
        for column in ignored:
            self._ignored.setdefault(column)

    @property
    def tables(self) -> tuple[tuple[str | None, str], ...]:
        """Schema (None: where the search path finds it) and name of each table that something was said about."""
        found = dict.fromkeys((column.schema, column.table) for column, _ in self._labels)
        return tuple(dict.fromkeys((*self._audited, *found)))

    def labels(self, table: tuple[str | None, str]) -> dict[str, tuple[str, ...]]:
        """Labels of a table, each with its columns."""
        found: dict[str, list[str]] = {}
        for column, name in self._labels:
            if (column.schema, column.table) == table:
                found.setdefault(name, []).append(column.name)
        return {name: tuple(columns) for name, columns in found.items()}

    def ignored(self, table: tuple[str | None, str]) -> tuple[str, ...]:
        """Columns of a table whose changes alone are not recorded."""
        return tuple(column.name for column in self._ignored if (column.schema, column.table) == table)

    def audited(self, table: tuple[str | None, str]) -> bool:
        """Whether the table is said to be recorded, whatever a general rule skips."""
        return table in self._audited


declared = Declarations()
"""Those of this process."""


def journal_changes(model: Any, /, *fields: str, as_: str) -> None:
    """A change that touches one of these fields (created, deleted, or changed) is also `as_`, a label of the policy.

    Args:
        model: a mapped class or `Table` of SQLAlchemy, or a Django model.
        fields: attributes of the model, as the model names them.
        as_: the label, as `identity_change`.

    Raises:
        DeclarationRefused: the model is none, has no such field, or nothing is named.
    """
    if not fields or not as_ or not isinstance(as_, str):
        raise DeclarationRefused('say which fields and as what: journal_changes(Model, "email", as_="identity_change")')
    for column in [column_of(model, field) for field in fields]:  # all of them, or none
        declared.label(column, as_)


def audit_log(model: Any = None, /, *, ignore: Sequence[str] = ()) -> Callable[[Any], Any]:
    """The model's changes are recorded; an update that changes nothing but fields in `ignore` is not.

    `audit_log(Model, ignore=[…])`, or as a decorator: `@audit_log(ignore=[…])`. Without it the policy decides alone.

    Raises:
        DeclarationRefused: the model is none, or has no such field.
    """
    if isinstance(ignore, str):
        raise DeclarationRefused('write ignore=["field"]: a list of fields')

    def declare(which: Any) -> Any:
        declared.audit(tables_of(which), [column_of(which, field) for field in ignore])
        return which

    if model is not None:
        declare(model)
    return declare


def assert_journals_changes(model: Any, /, *fields: str, as_: str) -> None:
    """For tests: `journal_changes` has been said of these fields, so that nobody takes it away unnoticed.

    Whether the policy says it too is for `chronicle policy from-models … --check policy.toml`.

    Raises:
        AssertionError: it has not; says what has been said of the model.
        DeclarationRefused: the model has no such field.
    """
    if not fields:
        raise DeclarationRefused("say which fields")
    columns = [column_of(model, field) for field in fields]
    missing = [
        field
        for field, column in zip(fields, columns, strict=True)
        if column.name not in declared.labels((column.schema, column.table)).get(as_, ())
    ]
    if missing:
        found = {(one.schema, one.table): declared.labels((one.schema, one.table)) for one in columns}
        said = [f"{', '.join(names)} as {name!r}" for labels in found.values() for name, names in labels.items()]
        name = getattr(model, "__name__", None) or getattr(model, "name", "the model")
        raise AssertionError(
            f"{name} does not journal changes of {', '.join(missing)} as {as_!r}; it journals {'; '.join(said) or 'nothing'}"
        )
