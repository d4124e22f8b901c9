"""What a store says of its runs: how far each is, and what was given up."""

from typing import Any

from storage.sql import query
from storage.store import Store
from tasks.driver.totals import read_totals

_FAILURES = """
    WITH failures AS (
        SELECT run_id, spec->>'unit' AS unit, message, spec->>'traceback' AS traceback FROM commits AS failed
        WHERE status <> 'done' AND NOT EXISTS (
            FROM commits AS done
            WHERE done.status = 'done' AND done.run_id = failed.run_id AND done.unit_id = failed.spec->>'unit'
        )
    )
"""
"""Units that were given up, and have not been done since."""
_PROGRESS = """
    SELECT run_id, coalesce(model, '') AS model, coalesce(editor, kind) AS what, batch_size, units, edits,
           coalesce(given_up, 0) AS given_up
    FROM (
        SELECT run_id, any_value(kind) AS kind, count(*) FILTER (WHERE status = 'done') AS units
        FROM commits WHERE kind <> 'recipe' GROUP BY run_id
    )
    LEFT JOIN (SELECT run_id, count(DISTINCT unit) AS given_up FROM failures GROUP BY run_id) USING (run_id)
    LEFT JOIN run_latest USING (run_id) ORDER BY editor IS NULL, editor, batch_size, run_id
"""


def progress_rows(store: Store) -> list[dict[str, Any]]:
    """Return a row per run: the units that are done, of how many where a driver has said so, its edits, and what was given up.

    Runs that are planned and not begun stand at the end.
    """
    totals = read_totals(store)
    rows: list[dict[str, Any]] = query(store, _FAILURES + _PROGRESS).to_pylist()
    for row in rows:
        row["units"] = _of(row["units"], totals.pop(row["run_id"], None))
    waiting = {"model": "", "what": "not begun", "batch_size": None}
    rows += [
        {"run_id": run_id, **waiting, "units": _of(0, total), "edits": None, "given_up": 0}
        for run_id, total in sorted(totals.items())
    ]
    return rows


def failure_rows(store: Store) -> list[dict[str, Any]]:
    """Return the units that were given up and not done since, with their tracebacks."""
    return query(store, _FAILURES + "SELECT * FROM failures ORDER BY ALL").to_pylist()


def _of(done: int, total: int | None) -> str:
    # More are done than were counted where two drivers have shared a run.
    return str(done) if total is None else f"{done} of {max(done, total)}"
