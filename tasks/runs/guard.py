"""What keeps an edit out that is predicted to break the model: by what is known of it before it is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import median
from typing import Any

from editing.methods.editor import EditResult
from storage.store import Store
from tasks.runs.chain import segments
from tasks.specs.run import RunSpec

GUARDED = "guarded"
"""The outcome of a round in which a guard left something out."""
_PREDICTED = {"disturbance": "predicted_disturbance", "norm": "predicted_norm"}


@dataclass
class Guard:
    """A rule, and what earlier rounds of its run were predicted to do, which is all that it goes by.

    A fact is suspected if what is predicted of it is more than ``times`` the median of all earlier facts that were written,
    once there are ``after`` of these; of several layers the largest counts.
    """

    rule: Mapping[str, Any]
    history: list[float] = field(default_factory=list)
    has_stopped: bool = False

    @classmethod
    def of(cls, store: Store, run: RunSpec, first: int) -> "Guard | None":
        """Return a run's guard as it stands before round ``first``; None if it has none."""
        if run.trajectory.guard is None:
            return None
        found = cls(run.trajectory.guard)
        for commit in segments(store, run.run_id):
            if (commit.last_round or 0) <= first:
                found.history += _largest(store.rows(commit, "edit_updates"), found._column).values()
                stops = any(row["outcome"] == GUARDED for row in store.rows(commit, "rounds"))
                found.has_stopped |= stops and found.rule["on_spike"] == "stop"
        return found

    def suspects(self, result: EditResult) -> dict[str, float]:
        """Return the facts of an edit, not yet written, that are suspected: each with how many times the median it is."""
        if len(self.history) < self.rule["after"]:
            return {}
        usual = median(self.history)
        return {
            fact: value / usual if usual else inf
            for fact, value in self._of(result).items()
            if value > self.rule["times"] * usual
        }

    def remember(self, result: EditResult) -> None:
        """Add what was predicted of an edit that is written."""
        self.history += self._of(result).values()

    @property
    def _column(self) -> str:
        return _PREDICTED[self.rule["by"]]

    def _of(self, result: EditResult) -> dict[str, float]:
        rows = [{"fact_id": each.request_id, self._column: getattr(each, self._column)} for each in result.edit_updates]
        return _largest(rows, self._column)


def guarded_row(run: RunSpec, round_: int, fact: str, times: float) -> dict[str, Any]:
    """Return a row of ``measurements`` for a fact that was kept out."""
    return {
        "score": GUARDED,
        "scored_at": round_,
        "edits_so_far": (round_ + 1) * run.batch_size,
        "item": fact,
        "name": f"{run.trajectory.guard['by'] if run.trajectory.guard else ''}, times the median",
        "value": times,
        "text": None,
    }


def _largest(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows:
        found[row["fact_id"]] = max(found.get(row["fact_id"], 0.0), row[column])
    return found
