"""Names of runs as people read them: as short as tells them apart."""

from collections.abc import Collection, Mapping

FEWEST = 4
"""Letters of a digest that are kept."""


def shortened(run_ids: Collection[str], among: Collection[str] = ()) -> Mapping[str, str]:
    """Return each run's shortest name that no other one begins with; commands take it, as they take any such beginning.

    Args:
        among: Further runs that it must be told apart from.
    """
    every = sorted({*run_ids, *among})
    return {run_id: _short(run_id, every) for run_id in run_ids}


def _short(run_id: str, every: Collection[str]) -> str:
    head, dash, digest = run_id.rpartition("-")
    if not dash or len(digest) <= FEWEST or any(letter not in "0123456789abcdef" for letter in digest):
        return run_id
    for length in range(FEWEST, len(digest)):
        name = f"{head}-{digest[:length]}"
        if not any(other.startswith(name) for other in every if other != run_id):
            return name
    return run_id
