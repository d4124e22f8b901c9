"""How long units take: by how far each in work has come, else by others of its run, of its kind, by the store, by the plan."""

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from storage.sql import query
from storage.store import Store
from tasks.units.unit import Unit

Rates = Mapping[str, float]
"""By kind of unit, seconds of an item."""
_Group = tuple[str, str]
"""A kind, and a run: an editor's edits take longer than another's."""
_ENOUGH_S, _ENOUGH = 5.0, 0.02
"""From so long on, and so much of a unit, its own pace is known."""


def rates_of(store: Store) -> dict[str, float]:
    """Return what the units in a store have taken."""
    sql = "SELECT stage, sum(seconds) / sum(n_items) AS seconds FROM timings WHERE n_items > 0 GROUP BY stage"
    return {row["stage"]: row["seconds"] for row in query(store, sql).to_pylist()}


class _InWork(NamedTuple):
    """A unit that a worker is at."""

    unit: Unit
    share: float
    since: float
    first: float
    """Its share when it was first seen, at the time ``since``."""

    @property
    def group(self) -> _Group:
        return self.unit.kind, self.unit.run_id

    def pace(self) -> float | None:
        """Return the seconds of an item, where enough of it is done to tell."""
        seconds, share = time.monotonic() - self.since, self.share - self.first
        if seconds < _ENOUGH_S or share < _ENOUGH:
            return None
        return seconds / share / max(1, self.unit.n_items)

    @property
    def rounds_behind(self) -> float:
        """How many times as much as this unit the rounds are that go on where it ends."""
        first, last = self.unit.rounds_held
        if first is None or last is None or last <= first:
            return 0.0
        return max(0, self.unit.rounds_left - (last - first)) / (last - first)


class Clock:
    """What is left of a stage.

    Args:
        known: Seconds of an item by kind, as earlier runs have taken them.
        target_s: Seconds of the search for one fact's target, by an estimate; None if there is none.
    """

    def __init__(self, units: Iterable[Unit], known: Rates, target_s: float | None) -> None:
        self._waiting = set[tuple[str, str]]()
        self._left: dict[_Group, tuple[float, float]] = {}
        """Items and cost that are left: another thread reads them, and there may be a million units."""
        self._known, self._target_s = known, target_s
        self._seen: dict[_Group | str, tuple[float, float]] = {}
        """By group, and by kind, seconds and items of this run."""
        self._in_work: tuple[_InWork, ...] = ()
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
        self._in_work = tuple(each for each in self._in_work if each.unit.key != unit.key)
        groups: tuple[_Group | str, ...] = ((unit.kind, unit.run_id), unit.kind)
        for group in groups:
            before = self._seen.get(group, (0.0, 0.0))
            self._seen[group] = (before[0] + seconds, before[1] + unit.n_items)
        self._costs, self._seconds = self._costs + unit.cost, self._seconds + seconds

    def shares(self, shares: Iterable[tuple[Unit, float]]) -> None:
        """Take note how far the units in work are."""
        now, before = time.monotonic(), {each.unit.key: each for each in self._in_work}
        self._in_work = tuple(
            before[unit.key]._replace(share=share) if unit.key in before else _InWork(unit, share, now, share)
            for unit, share in shares
            if unit.key in self._waiting
        )

    def seconds_left(self, workers: int = 1) -> float | None:
        """Return how long so many workers would take for the rest; None if nothing is known of it.

        No less than the longest chain of edits that is in work, which one worker takes to its end.
        """
        in_work, left = self._in_work, self._left.copy()
        paces = {each.group: pace for each in in_work if (pace := each.pace()) is not None}
        total = longest = 0.0
        for each in in_work:
            items, cost = left[each.group]
            left[each.group] = (items - each.unit.n_items, cost - each.unit.cost)
            whole = self._of(each.group, each.unit.n_items, each.unit.cost, paces)
            if whole is None:
                return None
            own = whole * (1 - each.share)
            total, longest = total + own, max(longest, own + whole * each.rounds_behind)
        for group, (items, cost) in left.items():
            if (seconds := self._of(group, items, cost, paces)) is None:
                return None
            total += seconds
        return max(0.0, total / workers, longest)

    def _add(self, unit: Unit, times: float) -> None:
        group = (unit.kind, unit.run_id)
        items, cost = self._left.get(group, (0.0, 0.0))
        self._left[group] = (items + times * unit.n_items, cost + times * unit.cost)

    def _of(self, group: _Group, items: float, cost: float, paces: Mapping[_Group, float]) -> float | None:
        """Return the seconds of so many items of a kind and run."""
        kind, _ = group
        if (pace := paces.get(group)) is not None:
            return items * pace
        for known in (group, kind):
            seconds, seen = self._seen.get(known, (0.0, 0.0))
            if seen:
                return items * seconds / seen
        if (rate := self._known.get(kind)) is not None:
            return items * rate
        per_cost = self._seconds / self._costs if self._costs else self._target_s
        return None if per_cost is None else cost * per_cost
