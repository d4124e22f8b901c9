"""Plans run in this process: the same worker that Ray runs, without Ray."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from editing.errors import EditingError
from flows.experiment_file import load_experiment
from flows.inputs import publish_inputs, read_inputs
from flows.plan import plan_experiment
from storage.digests import digest_of
from storage.errors import StorageError
from storage.store import Store
from tasks.driver import stages
from tasks.driver.plan import Plan, with_known_layers
from tasks.driver.session import Session, record_failure
from tasks.driver.stages import edit_and_score
from tasks.errors import TaskError
from tasks.specs.run import RunSpec
from tasks.units.ready import choose_recipes, ready_units
from tasks.units.search import SearchPlan
from tasks.units.unit import Unit
from tasks.workers.pool import Failure, Pool
from tasks.workers.worker import Worker

BASE: dict[str, Any] = {
    "name": "t",
    "model": "factworld-tiny",
    "facts": {"name": "factworld", "size": 12},
    "editors": [{"name": "memit", "steps": 6, "contexts": 2}],
    "layers": [[0, 1]],
    "batch_sizes": [2],
    "second_moment": {"n_texts": 150},
    "score": {"every_edits": 4, "benchmarks": ["sentiment"], "examples": 6},
    "commit_every": 4,
}


def plan(tmp_path: Path, **changes: Any) -> Plan:
    path = tmp_path / "experiment.yaml"
    tmp_path.mkdir(exist_ok=True)
    wanted = BASE | {"store": str(tmp_path / "store")} | changes
    # Free texts of the usual length take most of a small run's time; a test that is about them asks for more.
    wanted["score"] = {"text_tokens": 2} | wanted["score"]
    path.write_text(yaml.safe_dump(wanted))
    experiment = load_experiment(path)
    inputs = read_inputs(experiment)
    planned = plan_experiment(inputs)
    publish_inputs(inputs)
    return planned


def asked_plan(tmp_path: Path, worker: Worker | None = None, **changes: Any) -> Plan:
    """Return a plan whose models have been asked what they know."""
    planned = plan(tmp_path, **changes)
    worker = worker or Worker(planned.store)
    for job in planned.knowledge:
        for unit in job.units():
            worker.do(unit)
    return plan(tmp_path, **changes)


def prepare(planned: Plan, worker: Worker) -> None:
    """Do what comes before the runs; what another test of this session has prepared already is copied."""
    units = [*planned.contexts, *(unit for job in planned.moments for unit in job.units())]
    shared = os.environ.get("PALIMPSEST_TESTS") or tempfile.mkdtemp()  # without pytest, nothing is kept
    kept = Path(shared, "prepared", digest_of(sorted(unit.unit_id for unit in units)))
    store = Store(planned.store)
    if kept.exists():
        shutil.copytree(kept, planned.store, dirs_exist_ok=True)
    for contexts in planned.contexts:
        worker.do(contexts)
    for job in (*planned.moments, *planned.trainings):
        while missing := job.next_units(store):
            worker.do(missing[0])
    if units and not kept.exists():
        _keep(Path(planned.store), kept)


def _keep(store: Path, kept: Path) -> None:
    """Keep what has been prepared in a store: its units, their rows, and what they made."""
    made = kept.with_name(f"{kept.name}-{os.getpid()}")
    for folder in (*store.glob("*/run_id=prepare"), *(store / "artifacts").glob("*")):
        if folder.name not in ("networks", "targets"):
            shutil.copytree(folder, made / folder.relative_to(store))
    try:
        made.rename(kept)
    except OSError:  # another test process was faster
        shutil.rmtree(made)


def search_units(search: SearchPlan, *, shared: bool) -> tuple[list[Unit], list[Unit]]:
    """Return the units that find the targets of a search in one wave, if its layers share them, and those that edit."""
    facts = range(len(search.positions))
    run = search._sharing(facts, search.layers) if shared else search.template
    return [*search._targets(run, facts)], [*search._searches(run, facts, search.layers)]


def finish(store: Store, worker: Worker, run: RunSpec) -> None:
    choose_recipes(store, run)
    while units := ready_units(store, run):
        worker.do(units[0])


def run_all(tmp_path: Path, **changes: Any) -> tuple[Store, Plan]:
    planned = plan(tmp_path, **changes)
    store = Store(planned.store)
    worker = Worker(planned.store)
    prepare(planned, worker)
    for run in planned.runs:
        finish(store, worker, run)
    return store, planned


def edited(planned: Plan) -> RunSpec:
    (run,) = (run for run in planned.runs if not run.is_unedited)
    return run


class NoWorkers:
    """For pools that are given nothing to do."""

    def capacity(self) -> int:
        return 0

    def preparing(self) -> bool:
        return False

    def problems(self) -> str:
        return ""

    def start(self) -> Any:
        raise AssertionError("the work is done in this process")

    def started(self, worker: Any) -> None:
        raise AssertionError("the work is done in this process")

    def ended(self, worker: Any, *, unfit: str | None = None) -> bool:
        raise AssertionError("the work is done in this process")


class InProcess(Pool):
    """In the place of a pool of Ray actors: one worker in this process."""

    def __init__(self, store: Store, worker: Worker) -> None:
        super().__init__(workers=NoWorkers())
        self._store, self._worker = store, worker

    def run(
        self,
        units: Iterable[Unit],
        *,
        follow: Callable[[Unit], Iterable[Unit]] = lambda unit: (),
        on_done: Callable[[Unit, float], None] = lambda unit, seconds: None,
        on_shares: Callable[[Sequence[tuple[Unit, float]]], None] = lambda shares: None,
    ) -> dict[tuple[str, str], str]:
        todo, failed = list(units), {}
        seen = {unit.key for unit in todo}
        while todo:
            self.end_if_asked(len(todo))
            unit = todo.pop(0)
            try:
                self._worker.do(unit)
            except (EditingError, StorageError, TaskError) as error:
                failed[unit.key] = str(error)
                record_failure(self._store, unit, Failure(str(error)))
                continue
            on_done(unit, 1.0)
            todo += [new for new in follow(unit) if new.key not in seen]
            seen |= {new.key for new in todo}
        return failed


def command(planned: Plan, runs: Sequence[RunSpec] | None = None, worker: Worker | None = None) -> Session:
    """Edit and score as one command does; return its session, which says what failed."""
    store = Store(planned.store)
    pool = InProcess(store, worker or Worker(planned.store))
    session = Session(planned, store, pool)
    edit_and_score(session, tuple(runs or with_known_layers(planned, store)))
    return session


def all_stages(planned: Plan, session: Session | None = None) -> Session:
    """Prepare, locate, edit and score as one command does, in this process."""
    store = Store(planned.store)
    session = session or Session(planned, store, InProcess(store, Worker(planned.store)))
    stages.prepare(session)
    edit_and_score(session, stages.locate(session))
    return session
