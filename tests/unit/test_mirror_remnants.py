"""Mirror columns of an older class are found, whatever they are called, and no others."""

from __future__ import annotations

from chronicle.config import ClickHouse
from chronicle.policy.file import Policy, parse
from chronicle.sinks.mirror_remnants import MirrorHas, _whole, _with_statements, older

TABLE = ("shop", "public", "customers")
NAME = "shop__public__customers"


def has(column: str, how: str = "", kind: str = "Nullable(String)", *, key: bool = False, table: str = NAME) -> MirrorHas:
    return MirrorHas(table, column, kind, key, how)


def policy(columns: str) -> Policy:
    return parse(f'[[tables]]\nmatch = "**"\ncolumns = {{ {columns} }}\n')


ID = has("id", kind="Int64", key=True)
META = [has("_position", kind="UInt128"), has("_deleted", kind="UInt8"), has("_inserted_at", kind="DateTime64(6, 'UTC')")]


def found(columns: list[MirrorHas], columns_of_policy: str) -> list[tuple[str, str]]:
    return [(one.column, now) for one, now in older([*columns, *META], TABLE, policy(columns_of_policy))]


def test_columns_as_the_policy_has_them_are_no_remnants() -> None:
    """Those of a class of their own neither, nor those of another type."""
    mirror = [ID, has("email", "token default"), has("note"), has("note__int64", kind="Nullable(Int64)")]
    assert found(mirror, 'id = "clear", email = "token", note = "clear"') == []


def test_a_column_that_was_clear_is_one_after_it_got_another_class() -> None:
    """Its values go to a column of their own; the old one keeps what it has."""
    mirror = [ID, has("email"), has("email__token_default", "token default")]
    assert found(mirror, 'id = "clear", email = "token"') == [("email", "token default")]


def test_a_hidden_column_has_no_place_in_a_mirror() -> None:
    """Redacted, dropped and unclassified ones."""
    mirror = [ID, has("a"), has("b", "mask 4"), has("c")]
    expected = [("a", "redact"), ("b", "drop"), ("c", "redact")]
    assert found(mirror, 'id = "clear", a = "redact", b = "drop"') == expected


def test_a_looser_class_leaves_its_older_column_too() -> None:
    """Not clear, but not as the policy says either."""
    mirror = [ID, has("email__mask_4", "mask 4"), has("email")]
    assert found(mirror, 'id = "clear", email = "clear"') == [("email__mask_4", "clear")]


def test_the_older_column_and_its_view_are_removed_by_statements() -> None:
    """The view first: it names its columns, and reading it goes on."""
    mirror = [ID, has("email"), has("note"), *META]
    shown = (
        f"SELECT id, email, note, _position, _inserted_at FROM mirror.{NAME} FINAL WHERE (_deleted = 0) AND (_position >= 1)"
    )
    gone = older(mirror, TABLE, policy('id = "clear", email = "redact", note = "clear"'))
    [one] = _with_statements(gone, mirror, ClickHouse(), f"{NAME}__current", shown)
    assert (one.column, one.how, one.now) == ("email", "clear", "redact")
    assert one.statements == (
        f"CREATE OR REPLACE VIEW `mirror`.`{NAME}__current` AS SELECT `id`, `note`, `_position`, `_inserted_at`"
        f" FROM mirror.{NAME} FINAL WHERE (_deleted = 0) AND (_position >= 1)",
        f"ALTER TABLE `mirror`.`{NAME}` DROP COLUMN `email`",
    )


def test_a_generation_with_another_key_goes_whole() -> None:
    """A key's column cannot be dropped."""
    mirror = [ID, has("note"), has("id", "token default", key=True, table=f"{NAME}__2"), has("note", table=f"{NAME}__2")]
    gone = older(mirror, TABLE, policy('id = "token", note = "clear"'))
    [one] = _with_statements(gone, mirror, ClickHouse(), f"{NAME}__current", None)
    assert one.statements == (f"DROP TABLE `mirror`.`{NAME}`",)


def test_a_table_that_is_skipped_now_has_no_mirror_any_more() -> None:
    """The view first: it reads the table."""
    [one, _] = _whole([NAME, f"{NAME}__2"], ClickHouse(), f"{NAME}__current")
    assert (one.column, one.now) == ("*", "skip")
    assert one.statements == (f"DROP VIEW IF EXISTS `mirror`.`{NAME}__current`", f"DROP TABLE `mirror`.`{NAME}`")
