"""Names of runs as people read them: as short as tells them apart."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

FEWEST = 4
"""Letters of a digest that are kept."""


COLUMNS = ("run", "run_id")
"""Where tables name runs."""


def with_short_names(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in which each run has the shortest name that no other of them begins with.

    Commands take it, as they take any such beginning.  What follows a run's name after a blank stays.
    """
    columns = [column for column in COLUMNS if rows and column in rows[0]]
    named = [(row, column) for row in rows for column in columns if isinstance(row[column], str)]
    every = sorted({row[column].partition(" ")[0] for row, column in named})
    return [
        {**row, **{column: _renamed(row[column], every) for column in columns if isinstance(row[column], str)}}
        for row in rows
    ]


def _renamed(text: str, every: Collection[str]) -> str:
    name, blank, rest = text.partition(" ")
    return f"{_short(name, every)}{blank}{rest}"


def _short(run_id: str, every: Collection[str]) -> str:
    head, dash, digest = run_id.rpartition("-")
    if not dash or len(digest) <= FEWEST or any(letter not in "0123456789abcdef" for letter in digest):
        return run_id
    for length in range(FEWEST, len(digest)):
        name = f"{head}-{digest[:length]}"
        if not any(other.startswith(name) for other in every if other != run_id):
            return name
    return run_id
