"""The stages of an experiment; each lists its units, subtracts what the store holds, and runs the rest."""

import time
from collections.abc import Callable, Iterable, Sequence

from storage.compaction import compact
from storage.store import Store
from tasks.driver.plan import shown_in_report, with_known_layers
from tasks.driver.session import Session
from tasks.errors import InputError
from tasks.reports.report import Report, write_report
from tasks.runs.chain import beginning_of, end_of, segments
from tasks.specs.run import RunSpec
from tasks.units.groups import companions, with_companions
from tasks.units.key_sizes import key_size_units
from tasks.units.moments import MomentsJob
from tasks.units.ready import choose_recipes, ready_units, units_left
from tasks.units.targets import TargetSearch, target_units, with_shared_targets
from tasks.units.training import TrainingJob
from tasks.units.unit import Unit

_SETTLE_S = 90.0
"""Linux keeps the listing of an NFS directory for a minute at the most, unless told otherwise."""
COMPACT_FROM = 100
"""Commit files of a run from which on it is compacted at its end; a query opens each."""


def know(session: Session) -> None:
    """Ask models what they know, and complete the plan where its runs depend on that."""
    session.run("know", [unit for job in session.plan.knowledge for unit in job.units()])
    if session.plan.completed is None:
        return
    if session.failed:
        raise InputError(f"the model could not be asked what it knows, so that no run can begin:\n{_lines(session)}")
    session.complete(session.plan.completed())


def prepare(session: Session) -> None:
    """Sample context prefixes, collect second moments, train hyper-networks: only what the chosen editors need."""
    plan, store = session.plan, session.store
    jobs: tuple[MomentsJob | TrainingJob, ...] = (*plan.moments, *plan.trainings)

    def follow(unit: Unit) -> list[Unit]:
        """Return what can be done now; the pool leaves out what it has been given already."""
        return [] if unit in plan.sampled else [new for job in jobs for new in job.next_units(store)]

    session.reopen([*plan.sampled, *(unit for job in plan.moments for unit in job.units())])
    session.reopen_trainings()
    units = [*plan.sampled, *(unit for job in jobs for unit in job.next_units(store))]
    expected = [*plan.sampled, *(unit for job in jobs for unit in job.units())]
    session.run("prepare", units, follow=follow, expected=expected)


def locate(session: Session) -> tuple[RunSpec, ...]:
    """Trace and search; return the runs whose layers are known."""
    plan, store = session.plan, session.store
    session.run("find known facts", [job.known_unit() for job in plan.traces])

    def ready() -> list[Unit]:
        """Return what searches can do now; one whose unit was given up ends there, the others go on."""
        for search in plan.searches:
            session.reopen(search.shared_now(store))
        found = [unit for search in plan.searches for unit in search.next_units(store)]
        return [unit for unit in found if unit.key not in session.failed]

    traces: list[Unit] = [unit for job in plan.traces for unit in job.traces(store)]
    while units := ready():
        # Targets first; traces fill the workers that have none.
        shared = [unit for unit in units if unit.kind == TargetSearch.kind]
        session.run("locate", [*(shared or units), *traces])
    session.run("locate", traces)
    return tuple(run for run in with_known_layers(plan, session.store) if run.knows_its_layers)


def edit_and_score(session: Session, runs: tuple[RunSpec, ...]) -> None:
    """Drive all chains: the next segment of each as soon as one ends, and every score as soon as its rounds are there."""
    store = session.store
    planned = with_companions(store, with_shared_targets(runs), session.plan.chains_in_step)
    by_id = {run.run_id: as_begun(store, run) for run in planned}
    for run in by_id.values():
        choose_recipes(store, run)
    shared = target_units([run for run in by_id.values() if _starts_pristine(store, run)])
    session.reopen(shared)
    session.run("share targets", [*shared, *key_size_units(by_id.values())])
    order = sorted(by_id.values(), key=lambda run: -run.n_rounds)  # longest chains first

    def ready(run: RunSpec) -> Sequence[Unit]:
        return ready_units(store, run, companions(run, by_id))

    def follow(unit: Unit) -> list[Unit]:
        return [new for run_id in unit.run_ids for new in ready(by_id[run_id])] if unit.edits else []

    units = [unit for run in order for unit in ready(run)]
    session.run(
        "edit and score", units, follow=follow, expected=[unit for run in order for unit in units_left(store, run)]
    )
    _settle(session, lambda: [unit for run in order for unit in ready(run)], follow)
    _compact_finished(store, [run for run in by_id.values() if not ready(run)])


def _settle(session: Session, ready: Callable[[], Sequence[Unit]], follow: Callable[[Unit], list[Unit]]) -> None:
    """Do what is left while it becomes less: a unit that was withdrawn or removed meanwhile, or a commit seen late on NFS.

    Raises:
        InputError: It stays the same for longer than any machine keeps an old listing.
        Stopped: The run is asked to end meanwhile.
    """
    before, since = set[tuple[str, str]](), time.monotonic()
    while not session.failed and (left := ready()):
        session.pool.end_if_asked(len(left))
        if (now := {unit.key for unit in left}) != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > _SETTLE_S:
            raise InputError(
                f"{len(left)} units are neither done nor given up (the first is {left[0].unit_id} of {left[0].run_id}); run "
                "the same command again"
            )
        else:
            time.sleep(1.0)
        session.run("edit and score", left, follow=follow)


def _compact_finished(store: Store, runs: Iterable[RunSpec]) -> None:
    """Put the files of runs together that have many, where their chains have come to an end.

    Args:
        runs: Of which nothing can be done now.
    """
    for run in runs:
        n_files = len(store.files.listing(f"commits/run_id={run.run_id}"))
        if n_files >= COMPACT_FROM and (end_of(segments(store, run.run_id)) == run.n_rounds):
            compact(store, run.run_id)


def _starts_pristine(store: Store, run: RunSpec) -> bool:
    """Return whether a round that is still to be done starts from pristine weights: the first of a chain, or of its group."""
    least = min(end_of(segments(store, each)) for each in run.execution.in_step or (run.run_id,))
    return least < run.n_rounds and (least == 0 or run.mode == "independent")


def analyse(session: Session, runs: tuple[RunSpec, ...]) -> Report:
    """Write the report with all figures, and return it."""
    return write_report(session.store, shown_in_report(session.plan, runs), title=session.plan.name)


def refuse_failed(session: Session, report: Report) -> None:
    """Raise if units were given up, once all that was done can be looked at.

    Raises:
        InputError: Says which, and why.
    """
    if session.failed:
        raise InputError(
            f"{len(session.failed)} units were given up; everything else is in the store and in {report.location}, and running "
            f"the same command again tries them once more:\n{_lines(session)}"
        )


def _lines(session: Session) -> str:
    return "\n".join(f"  {run_id} {unit_id}: {reason}" for (run_id, unit_id), reason in session.failed.items())


def as_begun(store: Store, run: RunSpec) -> RunSpec:
    """Return the run with the threads, micro-batches and shared targets with which it began: they change bits."""
    if (begun := beginning_of(store, run.run_id)) is None:
        return run
    execution = begun.run.execution
    return run.changed(compute=execution.compute, shared_targets=execution.shared_targets)
