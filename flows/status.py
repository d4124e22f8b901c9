"""What a store says of its runs: how far each is, and what was given up."""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.sql import query
from storage.store import Store
from tasks.driver.totals import read_totals


def progress_rows(store: Store) -> list[dict[str, Any]]:
    """Return a row per run: the units that are done, of how many where a driver has said so, its edits, and what was given up.

    Runs that are planned and not begun stand at the end.
    """
    totals = read_totals(store)
    rows: list[dict[str, Any]] = query(store, "FROM run_progress").to_pylist()
    for row in rows:
        row["units"] = _of(row["units"], totals.pop(row["run_id"], None))
    waiting = {"model": "", "what": "not begun", "batch_size": None}
    rows += [
        {"run_id": run_id, **waiting, "units": _of(0, total), "edits": None, "given_up": 0}
        for run_id, total in sorted(totals.items())
    ]
    return rows


def progress_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return in one line how much of all that was planned is done."""
    counted = [str(row["units"]).partition(" of ") for row in rows]
    done, total = sum(int(done) for done, _, _ in counted), sum(int(total or done) for done, _, total in counted)
    given_up = sum(row["given_up"] for row in rows)
    return f"{done} of {total} units done" + (f", {given_up} given up" if given_up else "")


def failure_rows(store: Store) -> list[dict[str, Any]]:
    """Return the units that were given up and not done since, with their tracebacks."""
    return query(store, "FROM failures").to_pylist()


def _of(done: int, total: int | None) -> str:
    # More are done than were counted where two drivers have shared a run.
    return str(done) if total is None else f"{done} of {max(done, total)}"
