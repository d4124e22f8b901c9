"""Every stage in this process until one refuses: plan, lint, inputs, preparation, edits, scores, and the store's commands."""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from editing.errors import EditingError
from flows.experiment_file import load_experiment
from flows.forecast import forecast
from flows.inputs import publish_inputs, read_facts, read_inputs, read_model
from flows.plan import plan_experiment
from flows.spec import Experiment
from flows.spec_values import SpecError
from storage.errors import StorageError
from storage.marts import public_marts
from storage.sql import query_many
from storage.store import Store
from tasks.data.lint import summary
from tasks.driver.plan import Plan, with_known_layers
from tasks.errors import TaskError
from tasks.reports.report import write_report
from tasks.units.contexts import export_contexts
from tasks.workers.worker import Worker
from tests.mutations.cases import spoilt
from tests.mutations.inputs import make_inputs
from tests.mutations.spoiling import Case
from tests.tasks.support import finish, prepare

KNOWN = (SpecError, TaskError, EditingError, StorageError)
_TELLS = re.compile(
    r"\b(expected|give|set|use|run|restore|remove|leave|mend|check|make|write|save|resize|merge|take|add|drop|withdraw|see|"
    r"shorten|put|name|should be|lies|change|plan it again|free|download|convert|install|fetch)\b",
    re.IGNORECASE,
)


class Outcome(NamedTuple):
    """What became of a case."""

    case: Case
    stage: str
    """Where it ended: ``plan`` before any work; ``end`` if nothing was wrong with the file."""
    error: Exception | None

    @property
    def is_bare(self) -> bool:
        return self.error is not None and not isinstance(self.error, KNOWN)

    @property
    def faults(self) -> list[str]:
        """What is missing in the message: the file, the place in it, what to do."""
        if self.error is None:
            return []
        if self.is_bare:
            return [f"a bare {type(self.error).__name__}"]
        text, lost = str(self.error), []
        if self.case.file not in text:
            lost.append(f"does not name {self.case.file}")
        if self.case.names and not any(re.search(rf"(?<!\w){re.escape(n)}(?!\w)", text) for n in self.case.names):
            lost.append(f"names none of {self.case.names}")
        if not _TELLS.search(text):
            lost.append("does not say what to do")
        return lost


def drive(case: Case, good: Path, folder: Path) -> Outcome:
    """Spoil one file and go through all stages."""
    file = spoilt(case, good, folder)
    stage = "plan"

    def reached(name: str) -> None:
        nonlocal stage
        stage = name

    try:
        go_through(file, folder, reached)
    except Exception as error:  # noqa: BLE001 - which kind it is is what is asked
        return Outcome(case, stage, error)
    return Outcome(case, "end", None)


def make_good(root: Path) -> None:
    """Write good inputs below ``root`` and run them into ``root/store``."""
    root.mkdir(parents=True)
    make_inputs(root)
    go_through(root / "experiment.yaml", root, lambda _stage: None)


def go_through(file: Path, folder: Path, reached: Callable[[str], None]) -> None:
    """Go through all stages of an experiment, with a store below ``folder``; tell of each that begins."""
    experiment = load_experiment(file, {"store": str(folder / "store")})
    inputs = read_inputs(experiment)
    planned = plan_experiment(inputs)
    forecast(planned)
    reached("lint")
    _lint(experiment)
    reached("inputs")
    publish_inputs(inputs)
    store = Store(planned.store)
    reached("check")
    store.check(store.run_ids())
    worker = Worker(planned.store)
    reached("prepare")
    prepare(planned, worker)
    reached("locate")
    _locate(planned, store, worker)
    reached("edit and score")
    for run in with_known_layers(planned, store):
        if run.knows_its_layers:
            finish(store, worker, replace(run))
    reached("report")
    query_many(store, [f"FROM {view}" for view in public_marts()])
    write_report(store)
    if planned.contexts:
        reached("export")
        export_contexts(store, folder / "out")


def _lint(experiment: Experiment) -> None:
    facts = read_facts(experiment, read_model(experiment))
    summary(facts.n_records, facts.findings)


def _locate(planned: Plan, store: Store, worker: Worker) -> None:
    for job in planned.traces:
        for _ in range(2):
            for unit in job.units(store):
                if not store.is_committed(*unit.key):
                    worker.do(unit)


def quiet() -> None:
    """Keep libraries from telling what is told anyway."""
    logging.disable(logging.CRITICAL)


def table(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return a row per sort of file: how many were refused where, and what is wrong with messages."""
    rows: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        row = rows.setdefault(
            outcome.case.kind,
            {
                "file": outcome.case.kind,
                "cases": 0,
                "refused by plan": 0,
                "later": 0,
                "harmless": 0,
                "bare": 0,
                "unclear": 0,
            },
        )
        row["cases"] += 1
        if outcome.is_bare:
            row["bare"] += 1
        elif outcome.error is None:
            row["harmless"] += 1
        else:
            row["refused by plan" if outcome.stage == "plan" else "later"] += 1
            row["unclear"] += bool(outcome.faults)
    total = {key: sum(row[key] for row in rows.values()) for key in list(next(iter(rows.values())))[1:]}
    return [*rows.values(), {"file": "all", **total}]
