"""The pool: units of work over Ray actors, with a start time-out, a cap on attempts, and quarantine."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from editing.errors import EditingError
from storage.errors import StorageError, StoreUnavailableError
from tasks.errors import ClusterError, Stopped, TaskError
from tasks.units.unit import LEFT, Unit
from tasks.workers.backlog import Backlog, Waiting

_log = logging.getLogger(__name__)
_LOOK_S = 5.0
WATCH_S = 1.0
"""Between two questions to workers how far they are."""
_SCORERS = 4
"""Of so many workers one takes scores first, so that checkpoints are seen while the chains go on."""
_LOST_NODES = 10
"""Nodes that may die under one unit before it is taken to be the reason."""
_PERMANENT = (EditingError, StorageError, TaskError)
"""Errors that another attempt would meet again."""


class Failure(NamedTuple):
    """Why an attempt at a unit failed."""

    message: str
    traceback: str = ""
    permanent: bool = False
    """Whether another attempt would meet it again."""
    node_is_lost: bool = False
    """Whether it was the node that failed."""


class Workers(Protocol):
    """Where workers come from."""

    def capacity(self) -> int:
        """Return how many there may be now."""
        ...

    def preparing(self) -> bool:
        """Return whether there may soon be more."""
        ...

    def problems(self) -> str:
        """Return why some places were left out; an empty text if none was."""
        ...

    def start(self) -> Any | None:
        """Start a worker actor; None if there is no place for one any more."""
        ...

    def started(self, worker: Any) -> None:
        """Take note that one has started."""
        ...

    def ended(self, worker: Any, *, unfit: str | None = None) -> bool:
        """Take note that one is gone; return whether its node is still there.

        Args:
            unfit: Why it did not start, if it did not.
        """
        ...


class _Asked(NamedTuple):
    """A worker that is asked whether it is there."""

    worker: Any
    since: float
    is_new: bool
    run_id: str | None = None
    """The run whose state it holds."""


@dataclass
class _Work:
    """What one call of :meth:`Pool.run` has to do, and what has come of it."""

    follow: Callable[[Unit], Iterable[Unit]]
    on_done: Callable[[Unit, float], None]
    backlog: Backlog = field(default_factory=Backlog)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    n_left: int = 0
    """Units that were asked to end before they were done."""
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def add(self, fresh: Iterable[Unit]) -> None:
        """Add units, each once."""
        new = {unit.key: unit for unit in fresh if unit.key not in self._seen}
        self._seen.update(new)
        self.backlog.add(Waiting(unit) for unit in new.values())


@dataclass
class Pool:
    """Runs units on worker actors.

    The store alone decides what is done: an attempt that was lost with its actor is asked again, and answers
    ``skipped`` if it had committed.
    """

    workers: Workers
    start_timeout_s: float = 300.0
    max_attempts: int = 3
    quarantine: Callable[[Unit, Failure], None] = lambda unit, failure: None
    store_is_there: Callable[[], bool] = lambda: True
    """Whether the store can be read from here, whatever a worker says of it."""
    stop: Callable[[], str | None] = lambda: None
    """Why nothing more is to be begun, None to go on."""
    _idle: list[tuple[Any, str | None]] = field(default_factory=list)
    _starting: dict[Any, _Asked] = field(default_factory=dict)
    _busy: dict[Any, tuple[Any, Waiting, float]] = field(default_factory=dict)
    """By what they will answer, workers with their units, and since when."""
    _looks: dict[Any, Any] = field(default_factory=dict)
    """By worker, the answer that is awaited to how far it is."""
    _shares: dict[Any, float] = field(default_factory=dict)
    _watched_at: float = -math.inf
    _n_workers: int = 0
    _failed_starts: int = 0
    _looked_at: float = -math.inf
    _alone_since: float | None = None
    """Since when there has been no worker at all."""

    def run(
        self,
        units: Iterable[Unit],
        *,
        follow: Callable[[Unit], Iterable[Unit]] = lambda unit: (),
        on_done: Callable[[Unit, float], None] = lambda unit, seconds: None,
        on_shares: Callable[[Sequence[tuple[Unit, float]]], None] = lambda shares: None,
    ) -> dict[tuple[str, str], str]:
        """Do all units and those that ``follow`` names when one is done; return the quarantined ones with their reasons.

        Args:
            on_done: Told of each unit that is done, and how many seconds it took.
            on_shares: Told now and then what share of each unit in work is done.

        Raises:
            ClusterError: No worker starts in time, or no node is left to start one on.
            Stopped: The run was asked to end; what was in work is done.
            StoreUnavailableError: The store cannot be used for longer than workers wait for it.
        """
        work = _Work(follow, on_done)
        work.add(units)
        while work.backlog or self._busy:
            if self.stop() is None:
                self._staff(len(work.backlog))
                self._hand_out(work.backlog)
            elif not self._busy:
                self.end_if_asked(len(work.backlog) + work.n_left)
            self._look(on_shares)
            for reference in self._next():
                if reference in self._starting:
                    self._started(reference)
                else:
                    self._settle(reference, work)
        if work.n_left:
            self.end_if_asked(work.n_left)
        return work.failed

    def warm(self) -> None:
        """Have as many workers start as there may be now, before there is anything for them to do."""
        self._staff(self._capacity())

    def end_if_asked(self, n_left: int) -> None:
        """Raise Stopped where the run is asked to end before so many units are done."""
        if (reason := self.stop()) is not None:
            raise Stopped(f"{reason}: {n_left} units are not done; run the same command again to go on")

    def counts(self) -> dict[str, int]:
        """Return how many workers do what now."""
        return {"busy": len(self._busy), "idle": len(self._idle), "starting": len(self._starting)}

    def close(self) -> None:
        """End all workers."""
        for worker, _ in self._idle:
            self._end(worker)
        for asked in self._starting.values():
            self._end(asked.worker)
        self._idle.clear()
        self._starting.clear()

    # --- units

    def _next(self) -> list[Any]:
        """Return what has ended or started since, having waited for it a little."""
        waiting = [*self._busy, *self._starting]
        self._check_starts()
        if not waiting:
            time.sleep(0.1)
            return []
        ready, _ = ray.wait(waiting, num_returns=1, timeout=1.0)
        return [reference for reference in ready if reference in self._busy or reference in self._starting]

    def _hand_out(self, backlog: Backlog) -> None:
        # A worker gets its next unit when it has ended one: what waits stays with the driver, and may go elsewhere.
        while self._idle and backlog:
            worker, run_id = self._idle.pop()
            scoring = sum(not waiting.edits for _, waiting, _ in self._busy.values())
            waiting = backlog.take(run_id, others_first=scoring < self._n_workers // _SCORERS)
            self._shares.pop(worker, None)
            self._busy[worker.do.remote(waiting.unit)] = (worker, waiting, time.monotonic())

    def _look(self, on_shares: Callable[[Sequence[tuple[Unit, float]]], None]) -> None:
        """Ask workers now and then how far they are; where the run is to end, have them end where they can go on later."""
        if time.monotonic() - self._watched_at < WATCH_S:
            return
        self._watched_at = time.monotonic()
        ready, _ = (
            ray.wait(list(self._looks.values()), num_returns=len(self._looks), timeout=0) if self._looks else ([], [])
        )
        for worker in [worker for worker, reference in self._looks.items() if reference in ready]:
            with suppress(RayError):  # what has become of it is told by its unit
                self._shares[worker] = ray.get(self._looks.pop(worker))
        stop = self.stop() is not None
        for worker, _, since in self._busy.values():
            if worker not in self._looks and time.monotonic() - since > WATCH_S:
                self._looks[worker] = worker.look.remote(stop=stop)
        on_shares([(waiting.unit, self._shares.get(worker, 0.0)) for worker, waiting, _ in self._busy.values()])

    def _outcome(self, reference: Any, worker: Any, unit: Unit) -> Failure | str | None:
        """Return None if the unit is done, ``LEFT``, or what went wrong; keeps the worker if it is as it was."""
        try:
            said = ray.get(reference)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, StoreUnavailableError):
                if not self.store_is_there():
                    raise cause from None
                self._end(worker, unfit=f"the store does not answer there: {cause}")
                return Failure(f"{type(cause).__name__}: {cause}", str(error), node_is_lost=True)
            permanent = isinstance(cause, _PERMANENT)
            if permanent:
                self._idle.append((worker, None))
            else:  # nobody foresaw it, so nobody knows what it has left in that process
                self._end(worker)
            return Failure(f"{type(cause).__name__}: {cause}", str(error), permanent)
        except RayError as error:  # its process or node is gone, or Ray has ended it for want of memory
            node_stays = self._end(worker)
            self._doubt()
            return Failure(f"worker lost: {str(error).splitlines()[0]}", str(error), node_is_lost=not node_stays)
        self._idle.append((worker, None if said == LEFT else unit.stands_at))
        return LEFT if said == LEFT else None

    def _settle(self, reference: Any, work: "_Work") -> None:
        """Do what follows from a unit whose attempt has ended."""
        worker, waiting, since = self._busy.pop(reference)
        self._looks.pop(worker, None)
        unit, failure = waiting.unit, self._outcome(reference, worker, waiting.unit)
        if isinstance(failure, str):  # it is left, to go on later
            work.n_left += 1
        elif failure is None:
            work.on_done(unit, time.monotonic() - since)
            work.add(work.follow(unit))
        elif (again := self._again(waiting, failure)) is not None:
            _log.warning("unit %s of %s failed: %s; it is tried again", unit.unit_id, unit.run_id, failure.message)
            work.backlog.add([again])
        else:
            work.failed[unit.key] = failure.message
            self.quarantine(unit, failure)

    def _again(self, waiting: Waiting, failure: Failure) -> Waiting | None:
        """Return what is to be tried once more; None if the unit is to be given up."""
        if failure.permanent:
            return None
        if failure.node_is_lost and waiting.lost_nodes < _LOST_NODES:
            return replace(waiting, lost_nodes=waiting.lost_nodes + 1)
        return replace(waiting, attempt=waiting.attempt + 1) if waiting.attempt < self.max_attempts else None

    # --- workers

    def _end(self, worker: Any, *, unfit: str | None = None) -> bool:
        ray.kill(worker)
        return self.workers.ended(worker, unfit=unfit)

    def _capacity(self) -> int:
        # The cluster is looked at now and then: nodes come and go.
        if time.monotonic() - self._looked_at > (1.0 if self.workers.preparing() else _LOOK_S):
            self._looked_at, self._n_workers = time.monotonic(), self.workers.capacity()
        return self._n_workers

    def _staff(self, n_todo: int) -> None:
        if len(self._idle) + len(self._starting) >= n_todo:
            return
        missing = self._capacity() - len(self._idle) - len(self._busy) - len(self._starting)
        for _ in range(min(missing, n_todo)):
            if (worker := self.workers.start()) is not None:
                self._ask(worker, is_new=True)

    def _ask(self, worker: Any, *, is_new: bool, run_id: str | None = None) -> None:
        self._starting[worker.ping.remote()] = _Asked(worker, time.monotonic(), is_new, run_id)

    def _doubt(self) -> None:
        # What has taken one worker may have taken its node: a unit that is handed to the dead loses an attempt with each.
        for worker, run_id in self._idle:
            self._ask(worker, is_new=False, run_id=run_id)
        self._idle.clear()

    def _started(self, reference: Any) -> None:
        worker, _, is_new, run_id = self._starting.pop(reference)
        try:
            ray.get(reference)
        except RayError as error:
            if is_new:
                self._did_not_start(worker, str(error))
            else:
                self.workers.ended(worker)
            return
        self._failed_starts = 0
        self.workers.started(worker)
        self._idle.append((worker, run_id))

    def _did_not_start(self, worker: Any, why: str) -> None:
        # A node that has died takes all with it that were placed there before anybody noticed.
        self._failed_starts += self.workers.ended(worker, unfit=why)
        _refuse_without_nodes()
        if self._failed_starts >= self.max_attempts and not (self._idle or self._busy or self._starting):
            raise ClusterError(
                f"{self._failed_starts} workers in a row died while starting: {why}; `palimpsest doctor` checks this machine"
            )
        lines = why.strip().splitlines()
        # The first line of an error that it raised itself says only that it did.
        _log.warning("a worker died while starting: %s", lines[-1 if "creation task" in lines[0] else 0])

    def _check_starts(self) -> None:
        """Raise if no worker is there and none will be; end those that have not started in time."""
        if self._idle or self._busy:
            self._alone_since = None
        else:
            _refuse_without_nodes()
        late = [
            (reference, asked.worker)
            for reference, asked in self._starting.items()
            if time.monotonic() - asked.since >= self.start_timeout_s
        ]
        if late and self.store_is_there():  # where it is away for all, workers wait for it, too
            for reference, worker in late:
                del self._starting[reference]
                # No fault of its node, on which others may have taken the room.
                self._end(worker)
                _log.warning("a worker was given up that did not start within %g s: no room?", self.start_timeout_s)
            if not (self._idle or self._busy or self._starting):
                raise self._no_worker()
        if self._idle or self._busy or self._starting or self.workers.preparing():
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
            _log.warning("no node can be used now; waiting for one")
        elif time.monotonic() - self._alone_since > self.start_timeout_s:
            raise self._no_worker()

    def _no_worker(self) -> ClusterError:
        problems = self.workers.problems()
        return ClusterError(
            f"no worker started within {self.start_timeout_s:g} s; the cluster has {ray.available_resources()} free"
            f"{'; left out: ' + problems if problems else ''}; expected room for one worker; free some, or raise "
            "compute.start_timeout_s"
        )


def _refuse_without_nodes() -> None:
    # An actor that waits for a node looks like one that starts slowly.
    if not any(node["Alive"] for node in ray.nodes()):
        raise ClusterError(
            "the last Ray node of this run is gone; what was committed is kept: run the same command again"
        )
