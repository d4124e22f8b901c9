"""How many units runs are to have, as the drivers that plan them say: what `palimpsest status` measures progress by."""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from storage.errors import StorageError
from storage.store import Store
from tasks.units.unit import Unit

_FOLDER = "control"
_PREFIX = f"{_FOLDER}/totals-"


def remember_totals(
    store: Store, experiment: str, planned: Iterable[Unit], *, whole: bool, runs: Iterable[str] = ()
) -> None:
    """Write how many units each of the planned units' runs will have: those that are done, and those that are not.

    Args:
        whole: Whether these are all of their runs' units; where more are to follow, no total becomes smaller.
        runs: Further runs, of which nothing is left to do.
    """
    wanted: dict[str, set[str]] = {run_id: set() for run_id in runs}
    for unit in planned:
        for run_id in unit.run_ids:
            wanted.setdefault(run_id, set()).add(unit.unit_id)
    if not wanted:
        return
    name = f"{_PREFIX}{experiment}.json"
    found = _read(store, name)
    for run_id, units in wanted.items():
        total = len(units | _done(store, run_id))
        found[run_id] = total if whole else max(total, found.get(run_id, 0))
    with suppress(StorageError, OSError):  # what matters is committed elsewhere
        store.files.write(name, json.dumps(found).encode())


def read_totals(store: Store) -> dict[str, int]:
    """Return the number of units by run, of all experiments; the greatest where several have planned one run."""
    totals: Counter[str] = Counter()
    for name in _names(store):
        totals |= Counter(_read(store, name))
    return dict(totals)


def forget_totals(store: Store, run_id: str) -> bool:
    """Forget a run that is removed; return whether it was known."""
    known = False
    for name in _names(store):
        found = _read(store, name)
        if found.pop(run_id, None) is not None:
            known = True
            store.files.write(name, json.dumps(found).encode())
    return known


def _done(store: Store, run_id: str) -> set[str]:
    return {
        unit_id
        for unit_id, commit in store.commits(run_id).items()
        if commit.status == "done" and commit.kind != "recipe"
    }


def _names(store: Store) -> list[str]:
    return sorted(name for name in store.files.listing(_FOLDER) if name.startswith(_PREFIX))


def _read(store: Store, name: str) -> dict[str, int]:
    with suppress(FileNotFoundError, ValueError, TypeError, AttributeError):  # may be deleted, so may be spoilt
        return {str(run_id): int(count) for run_id, count in json.loads(store.files.read(name)).items()}
    return {}
