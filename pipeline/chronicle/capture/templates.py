"""Reads connector templates: what is fixed, what is a default, and what no source may set."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chronicle.errors import ConfigError

SECTIONS = {"extends", "kind", "fixed", "default", "format", "refused", "attribution_comments"}
KINDS = ("postgres", "mysql", "mariadb")


@dataclass(frozen=True, slots=True)
class Template:
    """A template with everything it extends merged in; later ones win."""

    name: str
    kind: str
    """postgres, mysql or mariadb: which database this is about."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    default: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Option (or the beginning of a dotted one) → why no source may set it."""
    attribution_comments: Mapping[str, str] = field(default_factory=dict)
    """Options that change when a source opts into attribution by SQL comments; empty where the database has none."""

    def why_refused(self, option: str) -> str | None:
        """Why a source file may not set this option, or None when it may."""
        if option in self.fixed or option in self.attribution_comments:
            return f"the audit trail rests on it: the template `{self.name}` fixes it"
        if option in ("key.converter", "value.converter"):
            return 'converters follow from `format = "…"`'
        parts = option.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((self.refused[prefix] for prefix in prefixes if prefix in self.refused), None)


def load_template(directory: Path, name: str) -> Template:
    """Read `<directory>/<name>.toml` and what it extends.

    Raises:
        ConfigError: there is no such template, it is not readable, or it is only a part of others (it has no `kind`).
    """
    layers = _chain(directory, name)
    kind = next((str(layer["kind"]) for layer in reversed(layers) if "kind" in layer), None)
    if kind not in KINDS:
        usable = ", ".join(templates(directory)) or "none"
        raise ConfigError(f'set `template` to one of: {usable} ("{name}" is a part of other templates, it has no `kind`)')
    fixed: dict[str, str] = {}
    default: dict[str, str] = {}
    for layer in layers:
        new_fixed, new_default = _options(layer.get("fixed", {})), _options(layer.get("default", {}))
        for option in new_fixed:
            default.pop(option, None)
        for option in new_default:
            fixed.pop(option, None)
        fixed.update(new_fixed)
        default.update(new_default)
    return Template(
        name=name,
        kind=kind,
        fixed=fixed,
        default=default,
        formats=_formats(layers),
        refused=_merged(layers, "refused"),
        attribution_comments=_merged(layers, "attribution_comments"),
    )


def templates(directory: Path) -> list[str]:
    """The names a source file can use: templates that say which kind of database they are for."""
    return sorted(path.stem for path in directory.glob("*.toml") if "kind" in _read(path))


def text(value: Any) -> str:
    """A TOML value as Connect wants it: everything is a string, truth is `true` or `false`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _chain(directory: Path, name: str) -> list[dict[str, Any]]:
    """The template's layers, the most general one first."""
    layers: list[dict[str, Any]] = []
    seen: list[str] = []
    current: str | None = name
    while current is not None:
        if current in seen:
            raise ConfigError(f"break the circle of `extends` in {directory}: {' → '.join([*seen, current])}")
        seen.append(current)
        path = directory / f"{current}.toml"
        if not path.is_file():
            usable = ", ".join(templates(directory)) if directory.is_dir() else "none"
            raise ConfigError(f'no template "{current}" in {directory}: use one of {usable or "none"}, or add {path.name}')
        layer = _read(path)
        layers.append(layer)
        current = layer.get("extends")
    return layers[::-1]


def _read(path: Path) -> dict[str, Any]:
    try:
        layer = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"correct {path}: not readable as TOML ({error})") from None
    unknown = set(layer) - SECTIONS
    if unknown:
        raise ConfigError(f"correct {path}: unknown section {', '.join(sorted(unknown))}; known: {', '.join(sorted(SECTIONS))}")
    return layer


def _options(section: Mapping[str, Any]) -> dict[str, str]:
    return {option: text(value) for option, value in section.items()}


def _merged(layers: list[dict[str, Any]], section: str) -> dict[str, str]:
    return {option: value for layer in layers for option, value in _options(layer.get(section, {})).items()}


def _formats(layers: list[dict[str, Any]]) -> dict[str, Mapping[str, str]]:
    formats: dict[str, dict[str, str]] = {}
    for layer in layers:
        for name, options in layer.get("format", {}).items():
            formats.setdefault(name, {}).update(_options(options))
    return dict(formats)
