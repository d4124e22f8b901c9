"""Experiments from a script or a notebook."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.experiment_file import load_experiment
from storage.opened import OpenStore
from storage.opened import open as open_store

if TYPE_CHECKING:
    from flows.spec import Experiment


@dataclass(frozen=True)
class Finished:
    """A run that has ended: where its results are, and the table that it ends with."""

    store: OpenStore
    report: str
    """Where the HTML report is."""
    summary: list[dict[str, str]]
    """The rows of the table, as ``pandas.DataFrame(finished.summary)`` takes them."""
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        from tasks.reports.tables import table_text

        return "\n".join([table_text(self.summary).rstrip(), *self.warnings, f"report: {self.report}"])


@dataclass(frozen=True)
class Planned:
    """What an experiment would do: its runs, and notes on the whole."""

    runs: list[dict[str, Any]]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        from tasks.reports.tables import table_text

        return "\n".join([table_text(self.runs).rstrip(), *self.notes, *(f"warning: {each}" for each in self.warnings)])


def run(experiment: "str | Path | Mapping[str, Any] | Experiment", **overrides: Any) -> Finished:
    """Run an experiment, or what its store lacks of it; running it again resumes it.  Progress is shown while it runs.

    Args:
        experiment: A file, the name of an experiment of this package (``"demo"``), or what a file would say, as a dict.
        overrides: Values in its place: ``store="results/mine"``; of tables ``**{"facts.size": 50}``.

    Raises:
        SpecError: It cannot be run; lists every error.
        TaskError: It asks for something that is not there, was asked to end, or units were given up.
    """
    from flows.running import completed, finished, planned, run_flow

    plan = planned(load_experiment(experiment, overrides))
    report = finished(plan)
    if report is None:
        state = run_flow(plan)
        if state.is_cancelled():
            from tasks.errors import Stopped

            raise Stopped(state.message or "the run was asked to end")
        found: Any = state
        report = str(found.result(_sync=True))  # a notebook has an event loop, in which it would have to be awaited
        plan = completed(plan)
    from flows.summary import summary_of

    summary = summary_of(plan)
    warnings = (*(f"warning: {each}" for each in plan.warnings), *summary.warnings)
    return Finished(open_store(plan.store), report, summary.rows, warnings)


def plan(experiment: "str | Path | Mapping[str, Any] | Experiment", **overrides: Any) -> Planned:
    """Return what an experiment would do, without doing it; raises as :func:`run` does."""
    from flows.forecast import forecast
    from flows.several_models import plan_each, read_each

    planned = plan_each(read_each(load_experiment(experiment, overrides)))
    rows, notes = forecast(planned)
    return Planned(rows, tuple(notes), tuple(planned.warnings))
