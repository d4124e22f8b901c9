"""Units that wait for a worker, in the order in which they should go."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from tasks.identity import Unit


@dataclass(frozen=True)
class Waiting:
    """A unit, and which attempt at it comes next."""

    unit: Unit
    attempt: int = 1


@dataclass
class Backlog:
    """Segments before everything else, those of the longest chain first; the rest as it came.

    A chain can only be walked by one worker at a time, so that the longest one bounds the whole.  A worker prefers the run
    whose model state it holds.  Adding and taking cost the logarithm of the number of units.
    """

    _heap: list[tuple[bool, int, int]] = field(default_factory=list)
    _by_run: dict[tuple[bool, str], list[tuple[int, int]]] = field(default_factory=dict)
    _waiting: dict[int, Waiting] = field(default_factory=dict)
    _n_added: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, units: Iterable[Waiting]) -> None:
        for waiting in units:
            number, unit = self._n_added, waiting.unit
            self._n_added += 1
            self._waiting[number] = waiting
            other, left = unit.kind != "segment", -_rounds_left(unit)
            heappush(self._heap, (other, left, number))
            heappush(self._by_run.setdefault((other, unit.run_id), []), (left, number))

    def take(self, run_id: str | None = None) -> Waiting:
        """Return what goes next, and forget it.

        Args:
            run_id: The run whose state the worker holds.

        Raises:
            IndexError: Nothing waits.
        """
        while self._heap and self._heap[0][2] not in self._waiting:
            heappop(self._heap)
        if not self._heap:
            raise IndexError("nothing waits")
        other, _, number = self._heap[0]
        own = self._by_run.get((other, run_id or ""), [])
        while own and own[0][1] not in self._waiting:
            heappop(own)
        return self._waiting.pop(own[0][1] if own else number)


def _rounds_left(unit: Unit) -> int:
    if unit.kind != "segment" or unit.run is None:
        return 0
    return unit.run.n_rounds - int(unit.payload["first_round"])
