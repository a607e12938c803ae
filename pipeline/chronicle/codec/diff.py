"""Which columns of each row are marked, from one Boolean column per table column: names by their few distinct patterns.

Lists of names built row by row cost ten times more than joining them on distinct bit patterns (fact 26). Any number of
columns: a pattern is as many bytes as it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

Flags = npt.NDArray[np.bool_]
Indexes = npt.NDArray[np.int64]


@lru_cache(maxsize=32)
def _empties(rows: int) -> pl.Series:
    return pl.Series([[]], dtype=pl.List(pl.String)).new_from_index(0, rows)


def no_names(rows: int) -> pl.Series:
    """Empty lists of names: a slice of one long column, because most groups need nothing else."""
    return _empties(1 << max(10, (rows - 1).bit_length())).slice(0, rows)


@dataclass(frozen=True, slots=True)
class NameLists:
    """Distinct lists of names, and for each row the index of its own."""

    lists: tuple[tuple[str, ...], ...]
    of_row: Indexes

    def series(self, name: str) -> pl.Series:
        """One list a row."""
        return gather(name, self.lists, self.of_row)

    def at(self, keep: Flags) -> NameLists:
        """Of the rows that are marked."""
        return NameLists(self.lists, self.of_row[keep])


def none_marked(rows: int) -> NameLists:
    """No name in any of `rows` rows."""
    return NameLists(((),), np.zeros(rows, np.int64))


def matrix(columns: Sequence[pl.Series], rows: int) -> Flags:
    """Boolean columns as rows × columns; a null is no mark."""
    marks = np.empty((rows, len(columns)), np.bool_)
    for index, column in enumerate(columns):
        marks[:, index] = column.fill_null(False).to_numpy() if column.null_count() else column.to_numpy()
    return marks


def name_lists(names: Sequence[str], marks: Flags) -> NameLists:
    """The names whose column is marked, row by row. `marks` is rows × names."""
    rows = len(marks)
    if not rows or not marks.any():
        return none_marked(rows)
    packed = np.packbits(marks, axis=1, bitorder="little")
    width = -(-packed.shape[1] // 8) * 8
    words = np.zeros((rows, width), np.uint8)
    words[:, : packed.shape[1]] = packed
    if width == 8:
        _, first, of_row = np.unique(words.view(np.uint64)[:, 0], return_index=True, return_inverse=True)
    else:
        patterns = np.ascontiguousarray(words).view(np.dtype((np.void, width)))[:, 0]
        _, first, of_row = np.unique(patterns, return_index=True, return_inverse=True)
    lists = tuple(tuple(names[column] for column in np.flatnonzero(marks[row]).tolist()) for row in first)
    return NameLists(lists, of_row.astype(np.int64, copy=False))


def gather(name: str, lists: Sequence[tuple[str, ...]], of_row: Indexes) -> pl.Series:
    """`lists[of_row]` as a column of lists."""
    distinct = pl.Series(name, [list(one) for one in lists], dtype=pl.List(pl.String))
    if len(lists) == 1:
        return no_names(len(of_row)).alias(name) if not lists[0] else distinct.new_from_index(0, len(of_row))
    return distinct.gather(pl.Series(of_row))


def concat(parts: Sequence[NameLists]) -> NameLists:
    """The rows of all parts, one after the other."""
    lists: list[tuple[str, ...]] = []
    known: dict[tuple[str, ...], int] = {}
    rows: list[Indexes] = []
    for part in parts:
        indexes = []
        for one in part.lists:
            if one not in known:
                known[one] = len(lists)
                lists.append(one)
            indexes.append(known[one])
        rows.append(np.asarray(indexes, np.int64)[part.of_row])
    if not rows:
        return none_marked(0)
    return NameLists(tuple(lists) or ((),), np.concatenate(rows))
