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
        self._waiting = set[tuple[str, str]]()
        self._left: dict[str, tuple[float, float]] = {}
        """By kind, items and cost that are left: another thread reads them, and there may be a million units."""
        self._known, self._target_s = known, target_s
        self._seen: dict[str, tuple[float, float]] = {}
        """By kind, seconds and items of this run."""
        self._in_work: tuple[tuple[Unit, float], ...] = ()
        self._costs = self._seconds = 0.0
        for unit in units:
            if unit.key not in self._waiting:
                self._waiting.add(unit.key)
                self._add(unit, 1.0)

    def done(self, unit: Unit, seconds: float) -> None:
        """Take note that a unit is done."""
        if unit.key in self._waiting:
            self._waiting.remove(unit.key)
            self._add(unit, -1.0)
        self._in_work = tuple(each for each in self._in_work if each[0].key != unit.key)
        before = self._seen.get(unit.kind, (0.0, 0.0))
        self._seen[unit.kind] = (before[0] + seconds, before[1] + unit.n_items)
        self._costs, self._seconds = self._costs + unit.cost, self._seconds + seconds

    def shares(self, shares: Iterable[tuple[Unit, float]]) -> None:
        """Take note how far the units in work are."""
        self._in_work = tuple(each for each in shares if each[0].key in self._waiting)

    def seconds_left(self) -> float | None:
        """Return how long one worker would take for the rest; None if nothing is known of it."""
        total = 0.0
        left = [*self._left.copy().items(), *((u.kind, (-s * u.n_items, -s * u.cost)) for u, s in self._in_work)]
        for kind, (items, cost) in left:
            if (seconds := self._of(kind, items, cost)) is None:
                return None
            total += seconds
        return max(0.0, total)

    def _add(self, unit: Unit, times: float) -> None:
        items, cost = self._left.get(unit.kind, (0.0, 0.0))
        self._left[unit.kind] = (items + times * unit.n_items, cost + times * unit.cost)

    def _of(self, kind: str, items: float, cost: float) -> float | None:
        seconds, seen = self._seen.get(kind, (0.0, 0.0))
        if seen:
            return items * seconds / seen
        if (rate := self._known.get(kind)) is not None:
            return items * rate
        per_cost = self._seconds / self._costs if self._costs else self._target_s
        return None if per_cost is None else cost * per_cost
