"""Which table and column a model's field is: for SQLAlchemy and Django, without importing either."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chronicle.errors import ChronicleError


class DeclarationRefused(ChronicleError, TypeError):
    """The developer: this cannot be declared; the message says what can."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a database."""

    schema: str | None
    """None: where the connection's search path finds the table."""
    table: str
    name: str


def tables_of(model: Any) -> tuple[tuple[str | None, str], ...]:
    """Schema and name of the model's table; several, where it inherits by joined tables, its own last.

    Raises:
        DeclarationRefused: it has none.
    """
    if _is_mapped(model):
        return tuple(_named(table) for table in _mapper(model).tables)
    if _is_table(model):
        return (_named(model),)
    if _is_django(model):
        parents = [parent for parent in model._meta.get_parent_list() if not parent._meta.proxy]
        return tuple(_django_table(one) for one in (*reversed(parents), model))
    raise _no_model(model)


def column_of(model: Any, field: str) -> Column:
    """The column that is behind a field.

    Raises:
        DeclarationRefused: the model is none, or has no such field; or the field has no column of its own.
    """
    if _is_mapped(model):
        columns = _mapper(model).columns
        return _column(model.__name__, field, {str(key): columns[key] for key in columns.keys()})  # noqa: SIM118
    if _is_table(model):
        return _column(model.name, field, {str(key): model.c[key] for key in model.c.keys()})  # noqa: SIM118
    if _is_django(model):
        known: dict[str, Any] = {}
        for one in model._meta.concrete_fields:
            known[one.name] = known[one.attname] = one
        if field not in known:
            raise _no_field(model.__name__, field, (one.name for one in model._meta.concrete_fields))
        found = known[field]
        schema, table = _django_table(found.model)
        return _checked(Column(schema, table, str(found.column)))
    raise _no_model(model)


def _column(name: str, field: str, columns: dict[str, Any]) -> Column:
    found = columns.get(field)
    if found is None:
        raise _no_field(name, field, columns)
    if getattr(found, "table", None) is None or not _is_table(found.table):
        raise DeclarationRefused(f"{name}.{field} is computed: name a field that has a column")
    schema, table = _named(found.table)
    return _checked(Column(schema, table, str(found.name)))


def _checked(column: Column) -> Column:
    if any("*" in part for part in (column.schema or "", column.table, column.name)):
        raise DeclarationRefused("a name with * in it cannot be written into a policy: there it stands for any characters")
    return column


def _is_mapped(model: Any) -> bool:
    return isinstance(model, type) and hasattr(model, "__mapper__")


def _mapper(model: Any) -> Any:
    return model.__mapper__


def _is_table(model: Any) -> bool:
    return not isinstance(model, type) and all(hasattr(model, name) for name in ("c", "name", "schema", "primary_key"))


def _named(table: Any) -> tuple[str | None, str]:
    return (None if table.schema is None else str(table.schema)), str(table.name)


def _is_django(model: Any) -> bool:
    return isinstance(model, type) and hasattr(getattr(model, "_meta", None), "concrete_fields")


def _django_table(model: Any) -> tuple[str | None, str]:
    """With a schema where the model's `db_table` has one, in the way that is in use: `audit"."users`."""
    if model._meta.abstract:
        raise DeclarationRefused(f"{model.__name__} is abstract: declare it of the models that have tables")
    schema, dot, table = str(model._meta.db_table).replace("`", '"').partition('"."')
    return (schema.strip('"'), table.strip('"')) if dot else (None, schema.strip('"'))


def _no_model(model: Any) -> DeclarationRefused:
    kind = "an object" if not isinstance(model, type) else "a class"
    return DeclarationRefused(f"pass a mapped class or Table of SQLAlchemy, or a Django model: this is {kind} without a table")


def _no_field(model: str, field: str, known: Iterable[str]) -> DeclarationRefused:
    return DeclarationRefused(f"{model} has no field {field!r} with a column; it has {', '.join(map(str, known))}")
