"""The conditions of routes, tried on clear rows: what the path says of each row, and routes read later.

A route may be about many tables. Of one whose columns do not fit its condition it takes nothing, and a warning says so:
the trail does not wait for a route.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from chronicle.codec import diff
from chronicle.codec.columns import Column
from chronicle.errors import ConfigError
from chronicle.policy.routing import about_table
from chronicle.policy.rules import Route
from chronicle.stages.deliveries import MISFIT
from chronicle.stages.expressions import compile_condition


class Conditions:
    """Of all routes that may take a change of one table, and have a `where`. Compiled once for a table's plan."""

    def __init__(
        self,
        routes: Sequence[Route],
        place: tuple[str, str, str],
        columns: Sequence[Column],
        unavailable: str | None,
        warnings: list[str],
    ) -> None:
        """`place`: source, schema, table. `unavailable`: as for `compile_condition`. `warnings` gets what does not fit."""
        self.exprs: list[pl.Expr] = []
        self._names: list[str] = []
        self._misfits: list[str] = []
        for route in routes:
            if route.where is None or not about_table(route, *place):
                continue
            about = f"where of route {route.name}"
            try:
                expr = compile_condition(route.where, columns, rule=about, place=place, unavailable=unavailable)
            except ConfigError as error:
                self._misfits.append(MISFIT + route.name)
                warnings.append(f"{'.'.join(place)}: {error} (the route takes nothing of this table until then)")
            else:
                self.exprs.append(expr.alias(f"?route:{route.name}"))
                self._names.append(route.name)

    def lists(self, made: Sequence[pl.Series], ops: pl.Series, *, deletes_known: bool) -> diff.NameLists:
        """Row by row the column `CONDITIONS`; `made`: of `exprs`. Without a known old row a delete is taken."""
        names = [*self._names, *self._misfits]
        if not names:
            return diff.none_marked(len(ops))
        marks = np.ones((len(ops), len(names)), np.bool_)
        marks[:, : len(made)] = diff.matrix(made, len(ops))
        if not deletes_known:
            marks[(ops == "d").fill_null(False).to_numpy()] = True
        return diff.name_lists(names, marks)
