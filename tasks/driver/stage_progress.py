"""Where a stage stands: what its bar, ``palimpsest status --watch`` and Prefect's pages show."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.driver.rates import Clock
from tasks.units.unit import Unit


@dataclass
class StageProgress:
    """What is known of a stage."""

    name: str
    cost: float
    """Of all its units, relative."""
    units: int
    clock: Clock | None = None
    done: int = 0
    """Units."""
    done_cost: float = 0.0
    in_work: float = 0.0
    """Cost that is done of units in work."""
    n_busy: int = 1
    """Workers that have something to do."""
    over: bool = False
    since: float = field(default_factory=time.monotonic)

    @property
    def share(self) -> float:
        """How much of the cost is done, from 0 to 1."""
        return min(1.0, (self.done_cost + self.in_work) / max(self.cost, 1e-9))

    @property
    def left_s(self) -> float | None:
        """How many seconds are left, by the workers that are busy; None if nothing is known of it."""
        left = None if self.clock is None else self.clock.seconds_left(max(1, self.n_busy))
        if left is not None:
            return left
        seconds, share = time.monotonic() - self.since, self.share
        return seconds * (1 - share) / share if share else None

    def finished(self, unit: Unit, seconds: float) -> None:
        """Take note that a unit is done."""
        self.advance(unit.cost)
        if self.clock is not None:
            self.clock.done(unit, seconds)

    def advance(self, cost: float) -> None:
        """Take note that something of this cost is done."""
        self.done += 1
        self.done_cost += cost

    def shares(self, shares: Sequence[tuple[Unit, float]]) -> None:
        """Take note what share of each unit in work is done."""
        self.in_work = sum(unit.cost * share for unit, share in shares)
        self.n_busy = max(1, len(shares))
        if self.clock is not None:
            self.clock.shares(shares)

    def row(self) -> dict[str, Any]:
        """Return what is told of it."""
        return {
            "stage": self.name,
            "units": self.units,
            "done": self.done,
            "share": self.share,
            "left_s": self.left_s,
            "seconds": time.monotonic() - self.since,
        }
