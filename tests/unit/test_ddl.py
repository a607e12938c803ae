"""The DDL files: equal to the column table of the model, and rendered for one server or a cluster."""

from __future__ import annotations

import re

from chronicle.model.columns import CHANGES, TRANSACTIONS
from chronicle.sinks.clickhouse_errors import CONFIG, DATA, SCHEMA, TRANSIENT
from chronicle.sinks.engines import Engines, literal, quoted
from chronicle.sinks.migrations import Migration, migrations


def _columns(name: str) -> list[tuple[str, str]]:
    (migration,) = [each for each in migrations() if each.name == name]
    return re.findall(r"^    `(\w+)` (.+?),?$", migration.statements[0], re.MULTILINE)


def test_the_table_of_changes_is_the_models_column_table() -> None:
    """Name by name, type by type, in order; the two halves of a position are one column."""
    expected = [
        ("position" if spec.name == "position_lo" else spec.name, spec.clickhouse) for spec in CHANGES if spec.clickhouse
    ]
    found = _columns("0001_changes")
    assert found[: len(expected)] == expected
    assert found[len(expected) :] == [("inserted_at", "DateTime64(6, 'UTC') DEFAULT now64(6)")]


def test_the_table_of_transactions_has_the_models_identifying_columns() -> None:
    """The rest of a transaction's columns are aggregates of its records."""
    expected = [(spec.name, spec.clickhouse) for spec in TRANSACTIONS if spec.clickhouse]
    assert _columns("0003_transactions")[: len(expected)] == expected


def test_the_table_of_dead_letters_has_no_payload() -> None:
    """Original bytes stay in the topic."""
    names = {name for name, _ in _columns("0004_dead_letters")}
    assert {"topic", "partition", "offset", "stage", "reason", "detail", "schema_id"} <= names
    assert not {"key", "value", "headers", "payload"} & names


def test_migrations_are_numbered_without_gap_and_have_statements() -> None:
    """The number is the order; a file that holds nothing would be recorded as applied."""
    found = migrations()
    assert [each.name[:4] for each in found] == [f"{i:04}" for i in range(len(found))]
    assert all(each.statements for each in found)


def test_a_changed_file_has_another_hash() -> None:
    """Even in a comment: what was applied is what is in the file."""
    assert Migration("1", "SELECT 1").hash != Migration("1", "SELECT 1 -- x").hash


def test_a_cluster_gets_replicated_engines_on_all_of_it_and_one_server_plain_ones() -> None:
    """Chosen in one place."""
    for migration in migrations():
        for statement in migration.statements:
            plain = Engines().rendered(statement, database="d", mirror_database="m")
            clustered = Engines("c`1").rendered(statement, database="d", mirror_database="m")
            assert "{" not in plain
            assert "ON CLUSTER" not in plain
            assert "Replicated" not in plain
            assert " ON CLUSTER `c\\`1`" in clustered
            assert clustered.count("ENGINE = Replicated") == statement.count("ENGINE = ")


def test_quoting_cannot_be_left() -> None:
    """Names and texts of captured databases go into statements."""
    assert quoted("a`b\\") == "`a\\`b\\\\`"
    assert literal("a'b\\") == "'a\\'b\\\\'"


def test_an_error_code_has_one_meaning() -> None:
    """Retry, refuse or stop: never two of them."""
    tables = (TRANSIENT, DATA, SCHEMA, CONFIG)
    assert len(set().union(*tables)) == sum(len(table) for table in tables)
