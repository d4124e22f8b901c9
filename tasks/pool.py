"""The pool: units of work over Ray actors, with a start time-out, a cap on attempts, and quarantine."""

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from editing.errors import EditingError
from storage.errors import StorageError, StoreUnavailableError
from tasks.backlog import Backlog, Waiting
from tasks.errors import ClusterError, Stopped, TaskError
from tasks.identity import Unit

_log = logging.getLogger(__name__)
_LOOK_S = 5.0
_PERMANENT = (EditingError, StorageError, TaskError)
"""Errors that another attempt would meet again."""


class Failure(NamedTuple):
    """Why an attempt at a unit failed."""

    message: str
    traceback: str = ""
    permanent: bool = False
    """Whether another attempt would meet it again."""


class Workers(Protocol):
    """Where workers come from."""

    def capacity(self) -> int:
        """Return how many there may be now."""
        ...

    def start(self) -> Any:
        """Start a worker actor."""
        ...

    def ended(self, worker: Any) -> bool:
        """Take note that one is gone; return whether its node is still there."""
        ...


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
    stop: Callable[[], str | None] = lambda: None
    """Why nothing more is to be begun, None to go on."""
    _idle: list[tuple[Any, str | None]] = field(default_factory=list)
    _starting: dict[Any, tuple[Any, float]] = field(default_factory=dict)
    _busy: dict[Any, tuple[Any, Waiting]] = field(default_factory=dict)
    _n_workers: int = 0
    _failed_starts: int = 0
    _looked_at: float = -math.inf

    def run(
        self,
        units: Iterable[Unit],
        *,
        follow: Callable[[Unit], Iterable[Unit]] = lambda unit: (),
        on_done: Callable[[Unit], None] = lambda unit: None,
    ) -> dict[tuple[str, str], str]:
        """Do all units and those that ``follow`` names when one is done; return the quarantined ones with their reasons.

        Raises:
            ClusterError: No worker starts in time, or no node is left to start one on.
            Stopped: The run was asked to end; what was in work is done.
            StoreUnavailableError: The store cannot be used for longer than workers wait for it.
        """
        backlog, seen = Backlog(), set[tuple[str, str]]()
        failed: dict[tuple[str, str], str] = {}

        def add(fresh: Iterable[Unit]) -> None:
            new = {unit.key: unit for unit in fresh if unit.key not in seen}
            seen.update(new)
            backlog.add(Waiting(unit) for unit in new.values())

        add(units)
        while backlog or self._busy:
            reason = self.stop()
            if reason is None:
                self._staff(len(backlog))
                self._hand_out(backlog)
            elif not self._busy:
                raise Stopped(f"{reason}: {len(backlog)} units were not begun; run the same command again to go on")
            ready, _ = ray.wait([*self._busy, *self._starting], num_returns=1, timeout=1.0)
            self._check_starts(bool(self._busy or self._idle))
            for reference in ready:
                if reference in self._starting:
                    self._started(reference)
                    continue
                worker, waiting = self._busy.pop(reference)
                unit, failure = waiting.unit, self._outcome(reference, worker, waiting.unit)
                if failure is None:
                    on_done(unit)
                    add(follow(unit))
                elif waiting.attempt < self.max_attempts and not failure.permanent:
                    _log.warning(
                        "unit %s of %s failed, attempt %d: %s",
                        unit.unit_id,
                        unit.run_id,
                        waiting.attempt,
                        failure.message,
                    )
                    backlog.add([Waiting(unit, waiting.attempt + 1)])
                else:
                    failed[unit.key] = failure.message
                    self.quarantine(unit, failure)
        return failed

    def _hand_out(self, backlog: Backlog) -> None:
        # A worker gets its next unit when it has ended one: what waits stays with the driver, and may go elsewhere.
        while self._idle and backlog:
            worker, run_id = self._idle.pop()
            waiting = backlog.take(run_id)
            self._busy[worker.do.remote(waiting.unit)] = (worker, waiting)

    def counts(self) -> dict[str, int]:
        """Return how many workers do what now."""
        return {"busy": len(self._busy), "idle": len(self._idle), "starting": len(self._starting)}

    def close(self) -> None:
        """End all workers."""
        for worker, _ in self._idle:
            self._end(worker)
        for worker, _ in self._starting.values():
            self._end(worker)
        self._idle.clear()
        self._starting.clear()

    def _end(self, worker: Any) -> None:
        ray.kill(worker)
        self.workers.ended(worker)

    def _capacity(self) -> int:
        # The cluster is looked at now and then: nodes come and go.
        if time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at, self._n_workers = time.monotonic(), self.workers.capacity()
        return self._n_workers

    def _staff(self, n_todo: int) -> None:
        if len(self._idle) + len(self._starting) >= n_todo:
            return
        missing = self._capacity() - len(self._idle) - len(self._busy) - len(self._starting)
        for _ in range(min(missing, n_todo)):
            worker = self.workers.start()
            self._starting[worker.ping.remote()] = (worker, time.monotonic())

    def _started(self, reference: Any) -> None:
        worker, _ = self._starting.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except RayError as error:
            # A node that has died takes all with it that were placed there before anybody noticed.
            self._failed_starts += self.workers.ended(worker)
            _refuse_without_nodes()
            if self._failed_starts < self.max_attempts:
                _log.warning("a worker died while starting: %s", str(error).splitlines()[0])
                return
            raise ClusterError(
                f"{self._failed_starts} workers in a row died while starting: {error}; `palimpsest doctor` checks this machine"
            ) from error
        self._failed_starts = 0
        self._idle.append((worker, None))

    def _check_starts(self, others: bool) -> None:
        if self._starting and not others:
            _refuse_without_nodes()
        for reference, (worker, since) in list(self._starting.items()):
            if time.monotonic() - since < self.start_timeout_s:
                continue
            del self._starting[reference]
            self._end(worker)
            if not others and not self._starting:
                raise ClusterError(
                    f"no worker started within {self.start_timeout_s:g} s; the cluster has {ray.available_resources()} free; "
                    "expected room for one worker; free some, or raise compute.start_timeout_s"
                )

    def _outcome(self, reference: Any, worker: Any, unit: Unit) -> Failure | None:
        """Return None if the unit is done, else what went wrong; keeps the worker if it is still alive."""
        try:
            ray.get(reference)
        except RayTaskError as error:
            self._idle.append((worker, None))
            cause = error.cause
            if isinstance(cause, StoreUnavailableError):
                raise cause from None
            return Failure(f"{type(cause).__name__}: {cause}", str(error), isinstance(cause, _PERMANENT))
        except RayError as error:  # its process or node is gone, or Ray has ended it for want of memory
            self._end(worker)
            return Failure(f"worker lost: {str(error).splitlines()[0]}", str(error))
        self._idle.append((worker, unit.run_id if unit.run is not None else None))
        return None


def _refuse_without_nodes() -> None:
    # An actor that waits for a node looks like one that starts slowly.
    if not any(node["Alive"] for node in ray.nodes()):
        raise ClusterError(
            "the last Ray node of this run is gone; what was committed is kept: run the same command again"
        )
