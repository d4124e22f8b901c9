"""Which runs of a store are meant: by name, by its beginning, by pattern, by experiment or by setting."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from storage.errors import StorageError
from storage.sql import query
from storage.store import Store
from tasks.driver.totals import read_totals

_RUNS = """
    SELECT run_id, r.editor, experiment, baseline_run_id, setting FROM runs AS r LEFT JOIN run_setting USING (run_id)
"""


def runs_meant(
    store: Store, given: Sequence[str], *, experiment: str | None = None, setting: str | None = None
) -> list[str]:
    """Return the runs that all of this means, in order.

    Args:
        given: Whole ids, beginnings that no other run shares, or patterns with ``*`` and ``?``; none: all runs of edits of the
            experiment or setting.

    Raises:
        StorageError: Nothing is meant, or a beginning is that of several runs.
    """
    if any(name == "" for name in (*given, experiment, setting)):
        raise StorageError("found an empty name; expected runs, an experiment or a setting by name")
    known = sorted({*store.run_ids(), *read_totals(store)})
    if experiment is None and setting is None:
        return list(dict.fromkeys(run_id for name in given for run_id in _named(name, known, store)))
    rows = query(store, _RUNS).to_pylist()
    found = [row["run_id"] for row in rows if row["editor"] != "none" and _is_of(row, experiment, setting)]
    if given:
        found = [
            run_id for run_id in found if any(fnmatchcase(run_id, name) or run_id.startswith(name) for name in given)
        ]
    if not found:
        asked = f"experiment {experiment!r}" if experiment is not None else f"setting {setting!r}"
        there = sorted({str(row["experiment" if experiment is not None else "setting"]) for row in rows} - {"None"})
        raise StorageError(f"no run of {asked} in {store.location}; expected one of {there}")
    left = [row for row in rows if row["run_id"] not in found and row["editor"] != "none"]
    # A baseline goes with the last run that is compared with it.
    baselines = {row["baseline_run_id"] for row in rows if row["run_id"] in found} - {
        row["baseline_run_id"] for row in left
    }
    return sorted([*found, *(baselines & set(store.run_ids()))])


def preview(store: Store, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row per run, with what it is and how much it holds."""
    rows = {row["run_id"]: row for row in query(store, "FROM run_progress").to_pylist()}
    kept = ("model", "what", "batch_size", "units", "edits")
    return [{"run": each, **{key: rows.get(each, {}).get(key) for key in kept}} for each in run_ids]


def _named(name: str, known: Sequence[str], store: Store) -> list[str]:
    if name in known:
        return [name]
    is_pattern = any(mark in name for mark in "*?[")
    found = [run_id for run_id in known if (fnmatchcase(run_id, name) if is_pattern else run_id.startswith(name))]
    if is_pattern:  # preparations and baselines are what runs stand on: they are removed by name
        kept = {row["run_id"] for row in query(store, _RUNS).to_pylist() if row["editor"] != "none"} | set(
            read_totals(store)
        )
        found = [run_id for run_id in found if run_id in kept]
    if not found:
        raise StorageError(f"no run {name!r} in {store.location}; `palimpsest status` lists all of them")
    if len(found) > 1 and not is_pattern:
        raise StorageError(
            f"{name!r} begins {len(found)} runs in {store.location}: {found[:5]}; give more letters, or {name + '*'!r}"
        )
    return found


def _is_of(row: dict[str, Any], experiment: str | None, setting: str | None) -> bool:
    return experiment in (None, row["experiment"]) and (setting is None or (row["setting"] or "").startswith(setting))
