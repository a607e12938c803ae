"""Declarations as the policy's `[[tables]]` blocks, and what a policy lacks of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomlkit

from chronicle.declared import Declarations
from chronicle.policy.file import Policy, parse


@dataclass(frozen=True, slots=True)
class Rule:
    """What models say of one table."""

    source: str
    schema: str
    table: str
    labels: Mapping[str, tuple[str, ...]]
    ignored: tuple[str, ...] = ()
    audited: bool = False

    @property
    def match(self) -> str:
        """The pattern of the table alone."""
        return ".".join(f'"{part}"' if "." in part else part for part in (self.source, self.schema, self.table))

    def as_json(self) -> dict[str, Any]:
        labels = [{"as": name, "columns": list(columns)} for name, columns in self.labels.items()]
        return {"match": self.match, "ignore": list(self.ignored), "labels": labels}


def rules(declared: Declarations, *, source: str, schema: str) -> tuple[Rule, ...]:
    """The rules, by table; `schema` for those whose model names none."""
    found = [
        Rule(
            source,
            table[0] or schema,
            table[1],
            declared.labels(table),
            declared.ignored(table),
            declared.audited(table),
        )
        for table in declared.tables
    ]
    return tuple(sorted(found, key=lambda rule: (rule.schema, rule.table)))


def written(found: Sequence[Rule], *, about: str) -> str:
    """The rules as a piece of a policy file.

    Args:
        about: the command that makes it, for its first line.

    Raises:
        ConfigError: a name cannot be written into a policy.
    """
    document = tomlkit.document()
    for line in (
        f"Made by `{about}` from what models declare: change the models, and make it again.",
        "It adds to what a policy says of these tables. Classes of columns are not in it: they are for people to decide.",
    ):
        document.add(tomlkit.comment(line))
    blocks = tomlkit.aot()
    for rule in found:
        block = tomlkit.table()
        block.add("match", rule.match)
        if rule.audited:
            block.add("skip", False)
        if rule.ignored:
            ignore = tomlkit.inline_table()
            ignore.update({"add": list(rule.ignored)})
            block.add("ignore", ignore)
        labels = tomlkit.aot()
        for name, columns in rule.labels.items():
            label = tomlkit.table()
            label.add("columns", list(columns))
            label.add("as", name)
            labels.append(label)
        if rule.labels:
            block.add("label", labels)
        blocks.append(block)
    if found:
        document.add("tables", blocks)
    text = tomlkit.dumps(document)
    parse(text, name="what the models declare")
    return text


def lacking(policy: Policy, found: Sequence[Rule]) -> Iterator[str]:
    """What the policy does not say, or says otherwise; one line each."""
    for rule in found:
        columns = sorted({*rule.ignored, *(column for names in rule.labels.values() for column in names)})
        effective = policy.table(rule.source, rule.schema, rule.table, columns, ())
        if rule.audited and effective.skip:
            yield f"{rule.match}: is skipped, and its model says audit_log"
        for name, wanted in rule.labels.items():
            has = {column for label in effective.labels if label.name == name for column in label.columns}
            if missing := [column for column in wanted if column not in has]:
                yield f"{rule.match}: changes of {', '.join(missing)} have no label {name}"
        if missing := [column for column in rule.ignored if column not in effective.ignore]:
            yield f"{rule.match}: {', '.join(missing)} are not ignored"
