"""The README says what the code does: its configuration table is made from the settings themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from chronicle.config import Settings
from chronicle.journal import settings as journal_settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def shown(value: Any) -> str:
    """A default as a reader would write it."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return "" if value in (None, "", (), {}) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def rows(model: type[BaseModel], prefix: str = "") -> list[str]:
    """One line a setting, sections spelled out."""
    found = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            found += rows(type(default), f"{name}.")
        else:
            found.append(f"| `{prefix}{name}` | {shown(default)} | {' '.join((field.description or '').split())} |")
    return found


def test_the_configuration_table_is_what_the_settings_are() -> None:
    """A setting that is added, changed or removed changes the README in the same commit."""
    table = "\n".join(["| setting | default | what it is for |", "|---|---|---|", *rows(Settings)])
    assert table in README.read_text(encoding="utf-8"), f"put this table into README.md:\n{table}"


def test_every_setting_says_what_it_is_for() -> None:
    """A setting nobody can explain is a setting nobody dares to change."""
    assert [row for row in rows(Settings) if row.endswith("|  |")] == []


def test_the_journals_table_is_what_its_module_says() -> None:
    """Applications read it in docs/applications.md or by pydoc: one text."""
    table = "\n".join(line for line in (journal_settings.__doc__ or "").splitlines() if line.startswith("|"))
    assert table.count("\n") > 20
    assert table in (ROOT / "docs/applications.md").read_text(encoding="utf-8"), f"put this into docs/applications.md:\n{table}"
