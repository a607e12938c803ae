"""`chronicle policy from-models`: what an application's models declare, as rules for the policy file."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from chronicle import config
from chronicle.cli.terminal import command, err, print_json
from chronicle.errors import ConfigError

EPILOG = "Example: chronicle policy from-models my_app.models --source shop >> policy.toml"


def register(app: typer.Typer) -> None:
    """Make it a command of the group."""
    app.command("from-models", epilog=EPILOG)(from_models)


@command
def from_models(
    modules: Annotated[list[str], typer.Argument(help="Python modules with the models: my_app.models.")],
    *,
    source: Annotated[str, typer.Option(help="The source that captures their database.")],
    schema: Annotated[
        str | None,
        typer.Option(help="Schema of tables whose model names none. Default: by the source's file, public or the database."),
    ] = None,
    django_settings: Annotated[
        str | None, typer.Option("--django-settings", metavar="MODULE", help="Default: DJANGO_SETTINGS_MODULE.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Print nothing; exit 1 and say what this policy file lacks.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Print what models declare with `journal_changes` and `audit_log` as blocks of a policy.

    The modules are imported from the working directory, so this runs the application's own code.
    """
    from chronicle.declared import declared
    from chronicle.declared.rules import lacking, rules, written
    from chronicle.policy_files import read_policy

    _load(modules, django_settings)
    found = rules(declared, source=source, schema=schema or _schema(source))
    if not found:
        raise ConfigError("declare something first: no model of these modules says journal_changes or audit_log")
    about = f"chronicle policy from-models {' '.join(modules)} --source {source}" + (f" --schema {schema}" if schema else "")
    text = written(found, about=about)
    if check is None:
        if as_json:
            print_json({"tables": [rule.as_json() for rule in found]})
        else:
            typer.echo(text, nl=False)
        return
    missing = list(lacking(read_policy(check), found))
    if as_json:
        print_json({"tables": len(found), "lacking": missing})
    for line in missing:
        err.print(line, markup=False, soft_wrap=True)
    if missing:
        raise typer.Exit(1)
    err.print(f"{check} says all that {len(found)} tables' models declare", markup=False)


def _load(modules: list[str], django_settings: str | None) -> None:
    if "" not in sys.path:
        sys.path.insert(0, "")
    if django_settings is not None:
        os.environ["DJANGO_SETTINGS_MODULE"] = django_settings
    if "DJANGO_SETTINGS_MODULE" in os.environ:
        import django  # type: ignore[import-untyped]

        django.setup()
    for name in modules:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ConfigError(f"name a module that can be imported from here: there is no {error.name}") from None


def _schema(source: str) -> str:
    """As the source's file has it; public without one."""
    from chronicle.capture.sources import load_source

    path = config.load().connect.directory / f"{source}.toml"
    if not path.is_file():
        return "public"
    found = load_source(path)
    return "public" if found.kind == "postgres" else found.database.name
