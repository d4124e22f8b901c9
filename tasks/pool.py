"""The pool: units of work over Ray actors, with a start time-out, a cap on attempts, and quarantine."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from editing.errors import EditingError
from storage.errors import StorageError
from tasks.errors import ClusterError, TaskError
from tasks.identity import Unit

_log = logging.getLogger(__name__)
_PERMANENT = (EditingError, StorageError, TaskError)
"""Errors that another attempt would meet again."""


@dataclass
class Pool:
    """Runs units on at most ``n_workers`` actors.

    The store alone decides what is done: an attempt that was lost with its actor is asked again, and answers
    ``skipped`` if it had committed.
    """

    start: Callable[[], Any]
    """Starts a worker actor."""
    n_workers: int
    start_timeout_s: float = 300.0
    max_attempts: int = 3
    quarantine: Callable[[Unit, str], None] = lambda unit, message: None
    _idle: list[tuple[Any, str | None]] = field(default_factory=list)
    _starting: dict[Any, tuple[Any, float]] = field(default_factory=dict)
    _busy: dict[Any, tuple[Any, Unit, int]] = field(default_factory=dict)

    def run(
        self,
        units: Iterable[Unit],
        *,
        follow: Callable[[Unit], Iterable[Unit]] = lambda unit: (),
        on_done: Callable[[Unit], None] = lambda unit: None,
    ) -> dict[tuple[str, str], str]:
        """Do all units and those that ``follow`` names when one is done; return the quarantined ones with their reasons.

        Segments go first, and a worker prefers the run whose model state it holds.

        Raises:
            ClusterError: No worker starts in time, or no node is left to start one on.
        """
        todo = [(unit, 1) for unit in units]
        seen = {unit.key for unit, _ in todo}
        failed: dict[tuple[str, str], str] = {}
        while todo or self._busy:
            self._staff(len(todo))
            while self._idle and todo:
                worker, run_id = self._idle.pop()
                unit, attempt = todo.pop(_choose([unit for unit, _ in todo], run_id))
                self._busy[worker.do.remote(unit)] = (worker, unit, attempt)
            ready, _ = ray.wait([*self._busy, *self._starting], timeout=1.0)
            self._check_starts(bool(self._busy or self._idle))
            for reference in ready:
                if reference in self._starting:
                    self._started(reference)
                    continue
                worker, unit, attempt = self._busy.pop(reference)
                message = self._outcome(reference, worker, unit)
                if message is None:
                    on_done(unit)
                    fresh = [new for new in follow(unit) if new.key not in seen]
                    seen |= {new.key for new in fresh}
                    todo += [(new, 1) for new in fresh]
                elif attempt < self.max_attempts and not message.startswith("permanent: "):
                    _log.warning("unit %s of %s failed, attempt %d: %s", unit.unit_id, unit.run_id, attempt, message)
                    todo.append((unit, attempt + 1))
                else:
                    failed[unit.key] = message.removeprefix("permanent: ")
                    self.quarantine(unit, failed[unit.key])
        return failed

    def close(self) -> None:
        """End all workers."""
        for worker, _ in self._idle:
            ray.kill(worker)
        for worker, _ in self._starting.values():
            ray.kill(worker)
        self._idle.clear()
        self._starting.clear()

    def _staff(self, n_todo: int) -> None:
        missing = self.n_workers - len(self._idle) - len(self._busy) - len(self._starting)
        for _ in range(min(missing, n_todo)):
            worker = self.start()
            self._starting[worker.ping.remote()] = (worker, time.monotonic())

    def _started(self, reference: Any) -> None:
        worker, _ = self._starting.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except RayActorError as error:
            _refuse_without_nodes()
            raise ClusterError(
                f"a worker died while starting: {error}; `palimpsest doctor` checks this machine"
            ) from error
        self._idle.append((worker, None))

    def _check_starts(self, others: bool) -> None:
        if self._starting and not others:
            _refuse_without_nodes()
        for reference, (worker, since) in list(self._starting.items()):
            if time.monotonic() - since < self.start_timeout_s:
                continue
            del self._starting[reference]
            ray.kill(worker)
            if not others and not self._starting:
                raise ClusterError(
                    f"no worker started within {self.start_timeout_s:g} s; the cluster has {ray.available_resources()} free; "
                    "expected room for one worker; free some, or raise compute.start_timeout_s"
                )

    def _outcome(self, reference: Any, worker: Any, unit: Unit) -> str | None:
        """Return None if the unit is done, else what went wrong; keeps the worker if it is still alive."""
        try:
            ray.get(reference)
        except RayTaskError as error:
            self._idle.append((worker, None))
            cause = error.cause
            kind = "permanent: " if isinstance(cause, _PERMANENT) else ""
            return f"{kind}{type(cause).__name__}: {cause}"
        except (RayActorError, GetTimeoutError) as error:
            ray.kill(worker)
            return f"worker lost: {str(error).splitlines()[0]}"
        self._idle.append((worker, unit.run_id if unit.run is not None else None))
        return None


def _refuse_without_nodes() -> None:
    # An actor that waits for a node looks like one that starts slowly.
    if not any(node["Alive"] for node in ray.nodes()):
        raise ClusterError(
            "the last Ray node of this run is gone; what was committed is kept: run the same command again"
        )


def _choose(units: list[Unit], run_id: str | None) -> int:
    """Return the index of the unit to do next: segments before scores, the worker's own run before others."""

    def rank(index: int) -> tuple[bool, bool, int]:
        unit = units[index]
        return unit.kind != "segment", unit.run_id != run_id, index

    return min(range(len(units)), key=rank)
