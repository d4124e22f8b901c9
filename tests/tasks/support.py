"""Plans run in this process: the same worker that Ray runs, without Ray."""

from pathlib import Path
from typing import Any

import yaml

from flows.inputs import publish_inputs
from flows.plan import plan_experiment
from flows.spec import load_experiment
from storage.identity import digest_of
from storage.store import Store
from tasks.chain import ready_units
from tasks.identity import RunSpec, Unit
from tasks.stages import Plan
from tasks.worker import Worker

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
    path.write_text(yaml.safe_dump(BASE | {"store": str(tmp_path / "store")} | changes))
    experiment = load_experiment(path)
    planned = plan_experiment(experiment)
    publish_inputs(experiment)
    return planned


def prepare(planned: Plan, worker: Worker) -> None:
    for model, recipe in planned.contexts:
        name = f"contexts-{digest_of(recipe)}"
        worker.do(Unit(run_id="prepare", unit_id=name, kind="contexts", model=model, payload={"recipe": recipe}))
    store = Store(planned.store)
    for job in (*planned.moments, *planned.trainings):
        while units := job.next_units(store):
            worker.do(units[0])


def finish(store: Store, worker: Worker, run: RunSpec) -> None:
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
    (run,) = (run for run in planned.runs if run.editor != "none")
    return run
