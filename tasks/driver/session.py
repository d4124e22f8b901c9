"""What stages share: the plan, the store, a pool of workers, and where a run stands."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from storage.cleaning import withdraw
from storage.commits import CommitInfo
from storage.errors import StorageError
from storage.locations import answers
from storage.store import Store, failure_id
from tasks.driver.heartbeat import Heartbeat
from tasks.driver.plan import Plan, with_known_layers
from tasks.driver.progress_bar import progress_bar
from tasks.driver.rates import Clock, Rates, rates_of
from tasks.driver.stage_progress import StageProgress
from tasks.driver.stopping import listening, stops
from tasks.driver.totals import remember_totals
from tasks.errors import InputError, Stopped
from tasks.units.ready import units_left
from tasks.units.unit import Unit

if TYPE_CHECKING:
    from tasks.workers.pool import Failure

_log = logging.getLogger(__name__)


class Runner(Protocol):
    """What does units: a :class:`tasks.workers.pool.Pool`."""

    def run(
        self,
        units: Iterable[Unit],
        *,
        follow: Callable[[Unit], Iterable[Unit]],
        on_done: Callable[[Unit, float], None],
        on_shares: Callable[[Sequence[tuple[Unit, float]]], None],
    ) -> dict[tuple[str, str], str]:
        """Do all units and those that ``follow`` names when one is done; return those that were given up, with reasons.

        Args:
            on_done: Told of each unit that is done, and how many seconds it took.
            on_shares: Told now and then what share of each unit in work is done.
        """
        ...

    def end_if_asked(self, n_left: int) -> None:
        """Raise Stopped where the run is asked to end before so many units are done."""
        ...

    def warm(self) -> None:
        """Have workers start before there is anything for them to do."""
        ...


class Idle:
    """A runner for a plan of which nothing is left to do: there is neither a cluster nor a worker."""

    def run(
        self,
        units: Iterable[Unit],
        *,
        follow: Callable[[Unit], Iterable[Unit]],
        on_done: Callable[[Unit, float], None],
        on_shares: Callable[[Sequence[tuple[Unit, float]]], None],
    ) -> dict[tuple[str, str], str]:
        raise InputError(
            f"{len(list(units))} units have been lost or withdrawn since the command looked; run it again, which does them"
        )

    def end_if_asked(self, n_left: int) -> None:
        return None

    def warm(self) -> None:
        return None


class Session:
    """A store and a pool of workers that stages share; a plain class, so that Prefect passes it on untouched."""

    def __init__(self, plan: Plan, store: Store, pool: Runner, heartbeat: Heartbeat | None = None) -> None:
        self.plan, self.store, self.pool, self._heartbeat = plan, store, pool, heartbeat
        self.failed: dict[tuple[str, str], str] = {}
        self.stopped: str | None = None
        """Why the run was asked to end, if it was."""
        self.ended = "failed"
        """How the run has ended, if nothing else is said: ``completed``, ``cancelled`` or ``failed``."""

    def complete(self, plan: Plan) -> None:
        """Go on with a plan that knows more."""
        self.plan = plan.changed(target_s=self.plan.target_s)
        remember_left(plan, self.store)

    def warm(self) -> None:
        """Have the workers start that there will be, before there is anything for them to do."""
        self.pool.warm()

    def end_if_asked(self) -> None:
        """Raise Stopped if the run is asked to end before it has begun."""
        self.pool.end_if_asked(sum(1 for run in self.plan.runs for _ in units_left(self.store, run)))

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
        clock = Clock(planned, self._rates(), self.plan.target_s)
        stage = StageProgress(title, sum(unit.cost for unit in planned), len(planned), clock)
        with ExitStack() as shown:
            show = shown.enter_context(progress_bar(stage))
            if self._heartbeat is not None:
                shown.enter_context(self._heartbeat.stage(stage))

            def done(unit: Unit, seconds: float) -> None:
                stage.finished(unit, seconds)
                show()

            def in_work(shares: Sequence[tuple[Unit, float]]) -> None:
                stage.shares(shares)
                show()

            try:
                self.failed |= self.pool.run(todo, follow=follow, on_done=done, on_shares=in_work)
            except Stopped:
                # The pool knows of those that follow only when what they follow is done.
                self.pool.end_if_asked(len(self._missing(planned)))
                raise

    def _rates(self) -> Rates:
        """Return how long units of each kind take, as the store's have; an ETA is worth no error."""
        with suppress(StorageError, OSError):
            return rates_of(self.store)
        return {}

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


@contextmanager
def session(plan: Plan) -> Iterator[Session]:
    """Inside, the store is open and workers can be had.

    Raises:
        InputError: The cluster cannot hold even one worker.
        StorageError: The store is of another version, or a committed file is damaged: the report would fail at the end.
    """
    store = Store(plan.store, create=True, patience_s=plan.store_timeout_s)
    store.check(store.run_ids())
    if not anything_left(plan, store):
        yield Session(plan, store, Idle())
        return
    from tasks.workers.placer import Placer, cluster
    from tasks.workers.pool import Pool

    with stops(store, plan.name) as stop, cluster(plan.placement):
        placer = Placer(plan.store, plan.placement, plan.models, patience_s=plan.store_timeout_s)
        pool = Pool(
            workers=placer,
            start_timeout_s=plan.start_timeout_s,
            max_attempts=plan.max_attempts,
            store_is_there=partial(answers, plan.store),
            quarantine=lambda unit, failure: record_failure(store, unit, failure),
            stop=stop.reason,
        )

        def look() -> dict[str, float]:
            used, there = placer.gpus()
            return {**pool.counts(), "gpus": used, "all_gpus": there}

        heartbeat, ended = Heartbeat(plan.store, plan.name, look), "failed"
        try:
            with listening(stop):  # Ray has put a handler of its own there
                remember_left(plan, store)
                shared = Session(plan, store, pool, heartbeat)
                yield shared
            ended = "cancelled" if shared.stopped is not None else shared.ended
        except Stopped:
            ended = "cancelled"
            raise
        finally:
            pool.close()
            heartbeat.close(ended)


def remember_left(plan: Plan, store: Store) -> None:
    """Write how many units the plan's runs are to have, for ``palimpsest status``; runs that have no name yet have none."""
    if plan.completed is not None:
        return
    known = [run for run in plan.runs if run.knows_its_layers]
    left = [unit for run in known for unit in units_left(store, run)]
    remember_totals(store, plan.name, left, whole=True, runs=[run.run_id for run in known])


def anything_left(plan: Plan, store: Store) -> bool:
    """Return whether a plan has a unit that the store does not hold, or one whose artifact is gone."""
    if plan.completed is not None or not all(job.is_done(store) for job in plan.knowledge):
        return True
    if any(job.next_units(store) for job in plan.moments) or any(job.next_units(store) for job in plan.trainings):
        return True
    made: list[Unit] = [*plan.sampled, *(unit for job in plan.moments for unit in job.units())]
    made += [unit for job in plan.trainings for unit in job.done(store)[-1:]]
    if any(unit.is_lost(store) for unit in made if store.is_committed(*unit.key)):
        return True
    if any(search.next_units(store) for search in plan.searches):
        return True
    found: list[Unit] = list(plan.sampled)
    found += [unit for trace in plan.traces for unit in trace.units(store)]
    if any(not store.is_committed(*unit.key) for unit in found):
        return True
    return any(units_left(store, run) for run in with_known_layers(plan, store))


def record_failure(store: Store, unit: Unit, failure: "Failure") -> None:
    """Write why a unit was given up; the unit itself stays undone, so the next run tries it again."""
    spec = {"unit": unit.unit_id, "traceback": failure.traceback}
    info = CommitInfo(kind="failure", status="quarantined", message=failure.message, spec=spec)
    for run_id in unit.run_ids:
        number = store.failures(run_id, unit.unit_id)
        store.commit(run_id, failure_id(unit.unit_id, number), {}, info)
    _log.error("unit %s of %s is given up: %s", unit.unit_id, unit.run_id, failure.message)
