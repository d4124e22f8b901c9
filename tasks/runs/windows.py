"""Between which checkpoints of a run most of what held is lost."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from storage.sql import query
from storage.store import Store
from tasks.errors import InputError
from tasks.specs.run import RunSpec

_ENOUGH = 30
"""Probes from which on a share says something, where some window has as many: the first edits have few neighbors."""


class Window(NamedTuple):
    """Two checkpoints of a run, in edits, and the probes that held at the first one."""

    first: int
    last: int
    held: Mapping[str, bool]
    """Whether each, by its id, holds at the last one too.  Of the unedited model: neighbors."""
    n_small: int = 0
    """Other windows that were not looked at, because too few probes were scored at both of their ends."""

    @property
    def kept(self) -> float:
        """The share of them that does."""
        return sum(self.held.values()) / len(self.held) if self.held else 1.0


def worst_window(store: Store, run: RunSpec, start: int | None = None, stop: int | None = None) -> Window:
    """Return the neighbouring checkpoints between which most is lost, or those that are asked for, in edits.

    Raises:
        InputError: No checkpoint scored earlier edits, or none there.
    """
    sql = f"SELECT DISTINCT edits_so_far AS edits FROM fact_scores WHERE run_id = '{run.run_id}' AND purpose = 'retention'"
    points = sorted({0, *(row["edits"] for row in _asked(store, sql))})
    if len(points) < 2:
        raise InputError(
            f"run {run.run_id}: no checkpoint scored earlier edits; expected score.retention: all (or a number) and "
            "score.every_edits; set them and run the experiment again, which scores what is missing"
        )
    for name, value in (("--from", start), ("--to", stop)):
        if value is not None and value not in points:
            raise InputError(f"{name} {value}: no checkpoint was scored there; expected one of {points}")
    if start is None and stop is None:
        windows = [_window(store, run, *pair) for pair in pairwise(points)]
        enough = [window for window in windows if len(window.held) >= _ENOUGH]
        worst = min(enough or windows, key=lambda window: (window.kept, -len(window.held)))
        return worst._replace(n_small=len(windows) - len(enough or windows))
    first = start if start is not None else max((point for point in points if point < (stop or 0)), default=0)
    last = stop if stop is not None else min((point for point in points if point > first), default=points[-1])
    if first >= last:
        raise InputError(f"--from {first} --to {last}: expected a checkpoint before another one")
    return _window(store, run, first, last)


def _window(store: Store, run: RunSpec, first: int, last: int) -> Window:
    holds = "CASE kind WHEN 'neighborhood' THEN n_correct_true = n_true ELSE n_correct_new = n_new END"
    before = (
        f"run_id = '{run.run_id}' AND purpose = 'retention' AND edits_so_far = {first}"
        if first
        else f"run_id = '{run.baseline_run_id}' AND purpose = 'baseline' AND kind = 'neighborhood'"
    )
    sql = f"""
        WITH earlier AS (
            SELECT probe_id FROM scores_once WHERE {before} AND kind IN ('rewrite', 'neighborhood') AND {holds}
        ),
        later AS (
            SELECT probe_id, {holds} AS holds FROM scores_once
            WHERE run_id = '{run.run_id}' AND purpose = 'retention' AND edits_so_far = {last}
        )
        SELECT probe_id, coalesce(holds, false) AS holds FROM earlier JOIN later USING (probe_id) ORDER BY probe_id
    """
    return Window(first, last, {row["probe_id"]: row["holds"] for row in _asked(store, sql)})


def _asked(store: Store, sql: str) -> list[dict[str, Any]]:
    return query(store, sql).to_pylist()
