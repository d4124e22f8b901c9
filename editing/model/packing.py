"""Token sequences packed into rows as prefix trees: what several sequences begin with is computed once, and nothing is padding.

Two answers share their prompt, a thousand prompts a context, a benchmark's questions their examples.  A causal model gives
each token the same state as in a row of its own, because a token sees its own predecessors only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Ids = Sequence[int]

ROW_TOKENS = 128
"""Tokens of a packed row, unless one sequence alone is longer: attention over unrelated tokens is wasted, and grows with it."""


@dataclass(frozen=True)
class Packed:
    """Rows of several sequences, ready for one forward pass.

    Columns are counted from the head's, if there is one: those of one row that stand in front of every row, once.

    Attributes:
        ids: int64 [row, column] of the rows' own tokens.
        positions: int64 [row, column], a token's place in its sequence.
        sees: bool [row, column, head's and own column], whether a query (second) may look at a key (third).
        columns: Of each sequence in these rows: its number, its row, and the column of each of its tokens.
        head: One row of what sequences begin with.
    """

    ids: Tensor
    positions: Tensor
    sees: Tensor
    columns: tuple[tuple[int, int, tuple[int, ...]], ...]
    head: "Packed | None" = None

    @property
    def n_head(self) -> int:
        return 0 if self.head is None else self.head.ids.shape[1]

    def rows(self, chosen: slice) -> "Packed":
        """Return some of the rows, as wide as all of them."""
        index = range(*chosen.indices(len(self.ids)))
        columns = tuple((number, row - index.start, path) for number, row, path in self.columns if row in index)
        return Packed(self.ids[chosen], self.positions[chosen], self.sees[chosen], columns, self.head)


class _Row:
    """One row while it is filled."""

    def __init__(self, n_head: int) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.parents: list[int] = []
        self.columns: list[tuple[int, tuple[int, ...]]] = []
        self._n_head = n_head

    def add(self, number: int, sequence: Ids, begun: Sequence[int]) -> None:
        """Add a sequence whose first tokens stand in the columns ``begun``."""
        path = list(begun)
        for position in range(len(path), len(sequence)):
            self.parents.append(path[-1] if path else -1)
            path.append(self._n_head + len(self.ids))
            self.ids.append(sequence[position])
            self.positions.append(position)
        self.columns.append((number, tuple(path)))


def pack(
    sequences: Sequence[Ids],
    *,
    tokens: int,
    row_tokens: int = ROW_TOKENS,
    head: Packed | None = None,
) -> list[Packed]:
    """Return the sequences in packed rows, a batch of rows for each forward pass of at most ``tokens`` tokens.

    Arguments are those of :func:`arrange`.
    """
    return [batch.packed() for batch in arrange(sequences, tokens=tokens, row_tokens=row_tokens, head=head)]


class Arranged(NamedTuple):
    """A batch of rows whose masks, which take much more memory, are not made yet."""

    members: tuple[int, ...]
    """Numbers of its sequences."""
    packed: Callable[[], Packed]


def arrange(
    sequences: Sequence[Ids],
    *,
    tokens: int,
    row_tokens: int = ROW_TOKENS,
    head: Packed | None = None,
    numbers: Sequence[int] | None = None,
) -> list[Arranged]:
    """Return which sequences stand in which rows, a batch of rows for each forward pass of at most ``tokens`` tokens.

    Sequences are taken in lexicographic order, in which those with a common beginning stand together.

    Args:
        head: One sequence with which all begin.
        numbers: Which of the sequences; all if None.
    """
    n_head = 0 if head is None else head.ids.shape[1]
    order = sorted(range(len(sequences)) if numbers is None else numbers, key=lambda i: tuple(sequences[i]))
    rows: list[_Row] = []
    last: Ids = ()
    for number in order:
        sequence = sequences[number]
        shared = _alike(last, sequence)
        if not rows or len(rows[-1].ids) + len(sequence) - shared > row_tokens:
            rows.append(_Row(n_head))
            rows[-1].add(number, sequence, range(n_head))
        else:
            rows[-1].add(number, sequence, rows[-1].columns[-1][1][:shared])
        last = sequence
    rows.sort(key=lambda row: -len(row.ids))
    batches: list[list[_Row]] = []
    for row in rows:
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0].ids) <= tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return [
        Arranged(tuple(number for row in batch for number, _ in row.columns), partial(_packed, batch, head))
        for batch in batches
    ]


def one_row(sequence: Ids) -> Packed:
    """Return one sequence as a row."""
    row = _Row(0)
    row.add(0, sequence, ())
    return _packed([row])


class Front(NamedTuple):
    """What the i-th sequences of many groups begin with alike."""

    head: Packed | None
    """One row of these beginnings, if there are any."""
    begun: tuple[tuple[int, ...], ...]
    """Of the i-th sequences, the columns of their beginning."""


def common_front(groups: Sequence[Sequence[Ids]], limits: Sequence[int]) -> Front:
    """Return what the i-th sequences of all groups begin with alike, of each at most ``limits[i]`` tokens."""
    row = _Row(0)
    for number, (alike, limit) in enumerate(zip(zip(*groups, strict=True), limits, strict=True)):
        row.add(number, alike[0][: min(shared_prefix(alike), limit)], ())
    return Front(_packed([row]) if row.ids else None, tuple(path for _, path in row.columns))


def side_by_side(groups: Sequence[Sequence[Ids]], front: Front) -> Packed:
    """Return one row per group, its sequences next to each other behind ``front``, and a column of padding at the end.

    Sequences are numbered through all groups.
    """
    n_head = 0 if front.head is None else front.head.ids.shape[1]
    rows, number = [], 0
    for group in groups:
        rows.append(_Row(n_head))
        for sequence, path in zip(group, front.begun, strict=True):
            rows[-1].add(number, sequence, path)
            number += 1
    return _packed(rows, front.head, padding=1)


def _packed(rows: Sequence[_Row], head: Packed | None = None, *, padding: int = 0) -> Packed:
    width = max(len(row.ids) for row in rows) + padding
    n_head = 0 if head is None else head.ids.shape[1]
    ids, positions = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    sees = np.zeros((len(rows), width, n_head + width), bool)
    columns = []
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = row.ids
        positions[index, : len(row.ids)] = row.positions
        for column, parent in enumerate(row.parents):
            if parent >= n_head:
                sees[index, column] = sees[index, parent - n_head]
            elif parent >= 0 and head is not None:
                sees[index, column, :n_head] = head.sees[0, parent]
            sees[index, column, n_head + column] = True
        rest = np.arange(len(row.ids), width)
        sees[index, rest, n_head + rest] = True  # padding looks at itself: a query that may look nowhere gives NaN
        columns += [(number, index, path) for number, path in row.columns]
    return Packed(torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(sees), tuple(columns), head)


def shared_prefix(sequences: Sequence[Ids]) -> int:
    """Return how many tokens all sequences begin with alike, leaving at least one of each."""
    if len(sequences) < 2:
        return 0
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))
    found = _alike(first, last)
    return min(found, min(len(sequence) for sequence in sequences) - 1)


def _alike(one: Ids, other: Ids) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
