"""Units that wait for a worker, in the order in which they should go."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from tasks.units.unit import Unit


@dataclass(frozen=True)
class Waiting:
    """A unit, and which attempt at it comes next."""

    unit: Unit
    attempt: int = 1
    lost_nodes: int = 0
    """Attempts that ended with their node, which count for less."""

    @property
    def edits(self) -> bool:
        """Whether it is a step of a chain, and no score."""
        return self.unit.edits


_FEW = 100
"""Places that are not worth clearing away."""


@dataclass
class _Line:
    """Units of one sort: the whole of it, and by run."""

    heap: list[tuple[int, int]] = field(default_factory=list)
    by_run: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


@dataclass
class Backlog:
    """Segments before everything else, those of the longest chain first; the rest as it came.

    A chain can only be walked by one worker at a time, so that the longest one bounds the whole.  A worker prefers the run
    whose model state it holds.  Adding and taking cost the logarithm of the number of units.
    """

    _edits: _Line = field(default_factory=_Line)
    _others: _Line = field(default_factory=_Line)
    _waiting: dict[int, Waiting] = field(default_factory=dict)
    _n_added: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, units: Iterable[Waiting]) -> None:
        for waiting in units:
            number, line = self._n_added, self._edits if waiting.edits else self._others
            self._n_added += 1
            self._waiting[number] = waiting
            place = (-waiting.unit.rounds_left, number)
            heappush(line.heap, place)
            heappush(line.by_run.setdefault(waiting.unit.run_id, []), place)

    def take(self, run_id: str | None = None, *, others_first: bool = False) -> Waiting:
        """Return what goes next, and forget it.

        Args:
            run_id: The run whose state the worker holds.
            others_first: Whether what is no segment goes first.

        Raises:
            IndexError: Nothing waits.
        """
        lines = (self._others, self._edits) if others_first else (self._edits, self._others)
        for line in lines:
            if self._first(line.heap) is not None:
                own = self._first(line.by_run.get(run_id or "", []))
                number = own if own is not None else line.heap[0][1]
                return self._waiting.pop(number)
        raise IndexError("nothing waits")

    def _first(self, heap: list[tuple[int, int]]) -> int | None:
        if len(heap) > 2 * len(self) + _FEW:
            # Of units that were taken by their run, behind ones that wait for long.
            heap[:] = [place for place in heap if place[1] in self._waiting]
            heapify(heap)
        while heap and heap[0][1] not in self._waiting:
            heappop(heap)
        return heap[0][1] if heap else None
