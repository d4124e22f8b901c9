"""What stages share: the plan, the store, a pool of workers, and where a run stands; and what makes a function a stage."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from itertools import takewhile
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled

from storage.commits import CommitInfo
from storage.compaction import withdraw
from storage.locations import answers
from storage.store import Store, failure_id
from tasks.driver.heartbeat import Heartbeat
from tasks.driver.plan import Plan
from tasks.driver.progress_bar import progress_bar
from tasks.driver.stopping import stops
from tasks.driver.totals import remember_totals
from tasks.errors import Stopped
from tasks.units.ready import units_left
from tasks.units.unit import Unit
from tasks.workers.placer import Placer, cluster
from tasks.workers.pool import Failure, Pool

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Session:
    """A store and a pool of workers that stages share; a plain class, so that Prefect passes it on untouched."""

    def __init__(self, plan: Plan, store: Store, pool: Pool, heartbeat: Heartbeat | None = None) -> None:
        self.plan, self.store, self.pool, self._heartbeat = plan, store, pool, heartbeat
        self.failed: dict[tuple[str, str], str] = {}
        self.stopped: str | None = None
        """Why the run was asked to end, if it was."""

    def run(
        self,
        title: str,
        units: Iterable[Unit],
        *,
        follow: Callable[[Unit], Iterable[Unit]] = lambda unit: (),
        expected: Sequence[Unit] = (),
    ) -> None:
        """Do the units that the store does not hold, with a progress bar; failures are kept for the end."""
        units = list(units)
        todo = self._missing(units)
        remember_totals(self.store, self.plan.name, expected or units, whole=bool(expected))
        if not todo:
            return
        planned = self._missing(expected) or todo
        total = sum(unit.cost for unit in planned)
        with ExitStack() as shown:
            tell = [shown.enter_context(progress_bar(title, total, len(planned)))]
            if self._heartbeat is not None:
                tell.append(shown.enter_context(self._heartbeat.stage(title, total, len(planned))))

            def done(unit: Unit) -> None:
                for advance in tell:
                    advance(unit.cost)

            self.failed |= self.pool.run(todo, follow=follow, on_done=done)

    def _missing(self, units: Iterable[Unit]) -> list[Unit]:
        found = list(units)
        done = {run_id: self.store.committed(run_id) for run_id in {unit.run_id for unit in found}}
        return [unit for unit in found if unit.unit_id not in done[unit.run_id]]

    def reopen(self, units: Iterable[Unit]) -> None:
        """Forget the commits of units whose artifacts are gone, so that these are made again."""
        for unit in units:
            if self.store.is_committed(*unit.key) and unit.is_lost(self.store):
                _log.warning("what %s made is gone from the store; it is made again", unit.unit_id)
                withdraw(self.store, *unit.key)

    def reopen_trainings(self) -> None:
        """Do the same for trainings, which go on from their last state, so that earlier ones may be gone."""
        for job in self.plan.trainings:
            self.reopen(takewhile(lambda unit: unit.is_lost(self.store), reversed(job.done(self.store))))


def stage(name: str) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """Return a decorator that makes a stage a Prefect task, which is Cancelled where the run is asked to end.

    Its call raises Stopped then.
    """

    def decorate(body: Callable[..., _T]) -> Callable[..., _T]:
        @wraps(body)
        def run(session: Session, *args: Any) -> Any:
            try:
                return body(session, *args)
            except Stopped as stopped:
                session.stopped = str(stopped)
                return Cancelled(message=session.stopped)

        as_task: Callable[..., Any] = task(name=name, cache_policy=NO_CACHE)(run)

        @wraps(body)
        def call(session: Session, *args: Any) -> _T:
            found: _T = as_task(session, *args)
            if session.stopped is not None:
                raise Stopped(session.stopped)
            return found

        return call

    return decorate


@contextmanager
def session(plan: Plan) -> Iterator[Session]:
    """Inside, the store is open and workers can be had.

    Raises:
        InputError: The cluster cannot hold even one worker.
        StorageError: The store is of another version, or a committed file is damaged: the report would fail at the end.
    """
    store = Store(plan.store, create=True, patience_s=plan.store_timeout_s)
    store.check(store.run_ids())
    with cluster(plan.placement):
        placer = Placer(plan.store, plan.placement, plan.models, patience_s=plan.store_timeout_s)
        pool = Pool(
            workers=placer,
            start_timeout_s=plan.start_timeout_s,
            max_attempts=plan.max_attempts,
            store_is_there=partial(answers, plan.store),
            quarantine=lambda unit, failure: record_failure(store, unit, failure),
        )

        def look() -> dict[str, float]:
            used, there = placer.gpus()
            return {**pool.counts(), "gpus": used, "all_gpus": there}

        heartbeat, ended = Heartbeat(plan.store, plan.name, look), "failed"
        try:
            with stops(store, plan.name) as stop:
                pool.stop = stop.reason
                known = [run for run in plan.runs if run.layers or not run.layers_recipe]
                left = [unit for run in known for unit in units_left(store, run)]
                remember_totals(store, plan.name, left, whole=True, runs=[run.run_id for run in known])
                yield Session(plan, store, pool, heartbeat)
            ended = "completed"
        except Stopped:
            ended = "cancelled"
            raise
        finally:
            pool.close()
            heartbeat.close(ended)


def record_failure(store: Store, unit: Unit, failure: Failure) -> None:
    """Write why a unit was given up; the unit itself stays undone, so the next run tries it again."""
    spec = {"unit": unit.unit_id, "traceback": failure.traceback}
    info = CommitInfo(kind="failure", status="quarantined", message=failure.message, spec=spec)
    for run_id in unit.run_ids:
        number = store.failures(run_id, unit.unit_id)
        store.commit(run_id, failure_id(unit.unit_id, number), {}, info)
    _log.error("unit %s of %s is given up: %s", unit.unit_id, unit.run_id, failure.message)
