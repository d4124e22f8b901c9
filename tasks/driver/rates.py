"""How long units take: by what units of their kind have taken in this run, else in the store, else by the plan's estimate."""

from collections.abc import Iterable, Mapping

from storage.sql import query
from storage.store import Store
from tasks.units.unit import Unit

Rates = Mapping[str, float]
"""By kind of unit, seconds of an item."""


def rates_of(store: Store) -> dict[str, float]:
    """Return what the units in a store have taken."""
    sql = "SELECT stage, sum(seconds) / sum(n_items) AS seconds FROM timings WHERE n_items > 0 GROUP BY stage"
    return {row["stage"]: row["seconds"] for row in query(store, sql).to_pylist()}


class Clock:
    """What is left of a stage, in seconds of one worker.

    Args:
        known: Seconds of an item by kind, as earlier runs have taken them.
        target_s: Seconds of the search for one fact's target, by an estimate; None if there is none.
    """

    def __init__(self, units: Iterable[Unit], known: Rates, target_s: float | None) -> None:
        self._left = {unit.key: unit for unit in units}
        self._known, self._target_s = known, target_s
        self._seen: dict[str, tuple[float, float]] = {}
        """By kind, seconds and items of this run."""
        self._shares: dict[tuple[str, str], float] = {}
        self._costs = self._seconds = 0.0

    def done(self, unit: Unit, seconds: float) -> None:
        """Take note that a unit is done."""
        self._left.pop(unit.key, None)
        self._shares.pop(unit.key, None)
        before = self._seen.get(unit.kind, (0.0, 0.0))
        self._seen[unit.kind] = (before[0] + seconds, before[1] + unit.n_items)
        self._costs, self._seconds = self._costs + unit.cost, self._seconds + seconds

    def shares(self, shares: Iterable[tuple[Unit, float]]) -> None:
        """Take note how far the units in work are."""
        self._shares = {unit.key: share for unit, share in shares}

    def seconds_left(self) -> float | None:
        """Return how long one worker would take for the rest; None if nothing is known of it."""
        each = [self._of(unit) for unit in self._left.values()]
        known = [seconds for seconds in each if seconds is not None]
        if len(known) < len(each):
            return None
        return sum(seconds * (1.0 - self._shares.get(key, 0.0)) for key, seconds in zip(self._left, known, strict=True))

    def _of(self, unit: Unit) -> float | None:
        seconds, items = self._seen.get(unit.kind, (0.0, 0.0))
        if items:
            return unit.n_items * seconds / items
        if (rate := self._known.get(unit.kind)) is not None:
            return unit.n_items * rate
        per_cost = self._seconds / self._costs if self._costs else self._target_s
        return None if per_cost is None else unit.cost * per_cost
