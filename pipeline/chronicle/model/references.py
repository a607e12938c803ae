"""What changes say about reference data: ids, between the pure path, which sees clear values, and the join."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True, slots=True)
class References:
    """Ids of entities that the changes of one table name. Clear values, whatever the policy hides: they end at the join
    (`stages.enrich`) and never reach a sink or a processor.

    `frame` has one row a change that names one, in any order: `_row` UInt32, the row's index in `Batch.changes`, and one
    String column for each `into` of the table's policy: the id, null where the row's column is NULL or not known.
    """

    table: str
    """source.schema.table, for counts."""
    frame: pl.DataFrame = field(repr=False)
    hidden: frozenset[str] = frozenset()
    """Those `into` whose column is not clear: the id is left out of what is joined."""

    @property
    def names(self) -> list[str]:
        """Every `into`."""
        return [name for name in self.frame.columns if name != "_row"]
