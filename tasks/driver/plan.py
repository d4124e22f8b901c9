"""An experiment, expanded; and the layers that its searches and traces have found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from storage.digests import digest_of
from storage.sql import query
from storage.store import Store
from tasks.specs.placement import Placement
from tasks.specs.run import ModelRef, RunSpec
from tasks.units.contexts import Contexts
from tasks.units.knowledge import KnowledgeJob
from tasks.units.moments import MomentsJob
from tasks.units.sampled_texts import SampledTexts
from tasks.units.search import SearchPlan
from tasks.units.trace import TraceJob
from tasks.units.training import TrainingJob


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An experiment, expanded: what to prepare, where to look, which runs to make."""

    name: str
    store: str
    runs: tuple[RunSpec, ...]
    """Runs whose ``layers`` are empty take them from their ``layers_recipe`` once the locate stage is done."""
    knowledge: tuple[KnowledgeJob, ...] = ()
    """What models are asked before anything else."""
    unasked: tuple[KnowledgeJob, ...] = ()
    """Those of them on which runs depend: until they are done, the runs are those that there were if models knew everything."""
    completed: "Callable[[], Plan] | None" = None
    """Gives the plan with the runs that there are once nothing is unasked; None if it is this one."""
    contexts: tuple[Contexts, ...]
    texts: tuple[SampledTexts, ...] = ()
    moments: tuple[MomentsJob, ...]
    trainings: tuple[TrainingJob, ...]
    searches: tuple[SearchPlan, ...]
    traces: tuple[TraceJob, ...]
    placement: Placement
    start_timeout_s: float
    chains_in_step: int
    max_attempts: int
    store_timeout_s: float
    target_s: float | None = None
    """Seconds of the search for one fact's target, by an estimate; what is shown as left before anything has been timed."""
    notes: tuple[str, ...] = ()
    """What a reader of the plan should know of its inputs."""
    warnings: tuple[str, ...] = ()
    """What makes its results doubtful."""

    def changed(self, **changes: Any) -> "Plan":
        """Return the plan with other values of its fields."""
        return replace(self, **changes)

    @property
    def sampled(self) -> "tuple[Contexts | SampledTexts, ...]":
        """What unedited models sample before anything is edited."""
        return (*self.contexts, *self.texts)

    @property
    def models(self) -> list[ModelRef]:
        """Its models, each once: the same files read in another dtype or prompt format are another model."""
        found = {id(run.model): run.model for run in self.runs}.values()  # a thousand runs have one
        return list({digest_of(model.identity): model for model in found}.values())


def shown_in_report(plan: Plan, runs: Sequence[RunSpec]) -> list[str]:
    """Return the ids of all that a report of an experiment is about.

    Args:
        runs: The plan's, with the layers that were found.
    """
    found = [run.run_id for run in runs] + [search.run_id for search in plan.searches]
    found += [trace.run_id for trace in plan.traces] + [training.run_id for training in plan.trainings]
    return found + [knowledge.run_id for knowledge in plan.knowledge]


def with_known_layers(plan: Plan, store: Store) -> tuple[RunSpec, ...]:
    """Return the runs with the layers that finished searches and traces have found."""
    finished = {search.run_id for search in plan.searches if not search.next_units(store)}
    finished |= {
        trace.run_id for trace in plan.traces if all(store.is_committed(*unit.key) for unit in trace.units(store))
    }
    sources = {run.layers_from.run_id: run.layers_from.by for run in plan.runs if run.layers_from}
    among = {search.run_id: search.left(store) for search in plan.searches}
    chosen = {
        run_id: _chosen_layers(store, run_id, by, among.get(run_id))
        for run_id, by in sources.items()
        if run_id in finished
    }
    runs = [
        run.changed(layers=chosen[run.layers_from.run_id])
        if run.layers_from and run.layers_from.run_id in chosen
        else run
        for run in plan.runs
    ]
    # A layer that was found may be one that was also given.
    unique = {(run.run_id, run.layers or run.searched_by): run for run in reversed(runs)}
    return tuple(reversed(unique.values()))


def _chosen_layers(store: Store, run_id: str, by: str, among: Sequence[int] | None) -> tuple[int, ...]:
    """Return the layer with the best search score, or the largest effect of its MLP; the lower one of equals.

    Facts without paraphrases or neighbors have no score; then efficacy decides.

    Args:
        among: The candidates of this search; the store may hold others of an earlier one.
    """
    if by == "search":
        candidates = ", ".join(str(layer) for layer in among or ())
        sql = (
            f"SELECT layer FROM layer_summary WHERE run_id = '{run_id}' AND layer IN ({candidates}) "
            "ORDER BY coalesce(score, efficacy) DESC, layer LIMIT 1"
        )
    else:
        sql = (
            f"SELECT layer FROM trace_summary WHERE run_id = '{run_id}' AND kind = 'mlp' AND role = 'last subject token' "
            "ORDER BY effect DESC, layer LIMIT 1"
        )
    (row,) = query(store, sql).to_pylist()
    return (int(row["layer"]),)
