"""Token sequences packed into rows as prefix trees: what several sequences begin with is computed once, and nothing is padding.

Two answers share their prompt, a thousand prompts a context, a benchmark's questions their examples.  A causal model gives
each token the same state as in a row of its own, because a token sees its own predecessors only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

ROW_TOKENS = 128
"""Tokens of a packed row, unless one sequence alone is longer: attention over unrelated tokens is wasted, and grows with it."""


@dataclass(frozen=True)
class Packed:
    """Rows of several sequences, ready for one forward pass.

    Attributes:
        ids: int64 [row, column]
        positions: int64 [row, column], a token's place in its sequence.
        sees: bool [row, column, column], whether a query (second) may look at a key (third).
        columns: Of each sequence in these rows: its number, its row, and the column of each of its tokens.
    """

    ids: Tensor
    positions: Tensor
    sees: Tensor
    columns: tuple[tuple[int, int, tuple[int, ...]], ...]


class _Row:
    """One row while it is filled."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.parents: list[int] = []
        self.columns: list[tuple[int, tuple[int, ...]]] = []
        self._last: tuple[Sequence[int], tuple[int, ...]] = ((), ())

    def shared(self, sequence: Sequence[int]) -> int:
        """Return how many of its first tokens the sequence shares with the one added last."""
        return _alike(self._last[0], sequence)

    def add(self, number: int, sequence: Sequence[int], *, alone: bool = False) -> None:
        path = [] if alone else list(self._last[1][: self.shared(sequence)])
        for position in range(len(path), len(sequence)):
            self.parents.append(path[-1] if path else -1)
            path.append(len(self.ids))
            self.ids.append(sequence[position])
            self.positions.append(position)
        self._last = (sequence, tuple(path))
        self.columns.append((number, tuple(path)))


def pack(sequences: Sequence[Sequence[int]], *, tokens: int, row_tokens: int = ROW_TOKENS) -> list[Packed]:
    """Return the sequences in packed rows, a batch of rows for each forward pass of at most ``tokens`` tokens.

    Sequences are taken in lexicographic order, in which those with a common beginning stand together.
    """
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
    rows: list[_Row] = []
    for number in order:
        sequence = sequences[number]
        new = len(sequence) - (rows[-1].shared(sequence) if rows else 0)
        if not rows or len(rows[-1].ids) + new > row_tokens:
            rows.append(_Row())
        rows[-1].add(number, sequence)
    rows.sort(key=lambda row: -len(row.ids))
    batches: list[list[_Row]] = []
    for row in rows:
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0].ids) <= tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return [_packed(batch) for batch in batches]


def side_by_side(groups: Sequence[Sequence[Sequence[int]]]) -> Packed:
    """Return one row per group, its sequences next to each other with nothing shared, and a column of padding at the end.

    Sequences are numbered through all groups.
    """
    rows, number = [], 0
    for group in groups:
        rows.append(_Row())
        for sequence in group:
            rows[-1].add(number, sequence, alone=True)
            number += 1
    return _packed(rows, padding=1)


def _packed(rows: Sequence[_Row], *, padding: int = 0) -> Packed:
    width = max(len(row.ids) for row in rows) + padding
    ids, positions = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    sees = np.zeros((len(rows), width, width), bool)
    columns = []
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = row.ids
        positions[index, : len(row.ids)] = row.positions
        for column, parent in enumerate(row.parents):
            if parent >= 0:
                sees[index, column] = sees[index, parent]
            sees[index, column, column] = True
        rest = np.arange(len(row.ids), width)
        sees[index, rest, rest] = True  # padding looks at itself: a query that may look nowhere gives NaN
        columns += [(number, index, path) for number, path in row.columns]
    return Packed(torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(sees), tuple(columns))


def shared_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all sequences begin with alike, leaving at least one of each."""
    if len(sequences) < 2:
        return 0
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))
    found = _alike(first, last)
    return min(found, min(len(sequence) for sequence in sequences) - 1)


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
