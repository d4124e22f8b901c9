"""What a unit asks of the worker that does it: the store, models, facts, and what runs edit with."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache

from editing.methods.targets import Targets
from editing.model.lm import LanguageModel
from editing.model.progress import Progress
from editing.requests import EditRequest
from storage.digests import digest_of
from storage.store import Store
from tasks.data.facts import read_facts
from tasks.data.orders import read_order
from tasks.specs.run import ModelRef, RunSpec
from tasks.units.targets import found_targets
from tasks.units.unit import Inputs
from tasks.units.work.editing_inputs import Factored, inputs_of
from tasks.workers.loaded_models import Models


class WorkerBench:
    """The :class:`tasks.units.unit.Bench` of a worker; it keeps what units are likely to ask for again.

    Args:
        device: Where models are loaded to.
        spread: Over all devices of that kind.
    """

    def __init__(self, store: Store, device: str, *, spread: bool) -> None:
        self.store, self.device = store, device
        self.progress = Progress()
        self.models = Models(store, device, spread=spread, progress=self.progress)
        self._facts: dict[str, list[EditRequest]] = {}
        self._factored = Factored()
        self._runs: dict[str, RunSpec] = {}
        self._inputs = lru_cache(maxsize=8)(self._read_inputs)
        self._targets: dict[str, Mapping[str, Targets]] = {}

    def pristine(self, model: ModelRef) -> LanguageModel:
        """Return a model as it was loaded."""
        return self.models.pristine(model).lm

    def at(self, run: RunSpec, rounds: int) -> LanguageModel:
        """Return a run's model as it is after ``rounds`` rounds; a baseline's has none."""
        return self.models.at(run, rounds)[0].lm

    def sized(self, run: RunSpec) -> RunSpec:
        """Return a run with the micro-batches with which it began, or that fit into memory now."""
        return self.models.sized(run)

    def facts(self, facts_run_id: str) -> Sequence[EditRequest]:
        """Return all facts of a data set."""
        if facts_run_id not in self._facts:
            self._facts[facts_run_id] = read_facts(self.store, facts_run_id)
        return self._facts[facts_run_id]

    def order(self, run: RunSpec) -> Sequence[EditRequest]:
        """Return all facts as a run's sample takes them; its size may be less than what others, or an earlier one, took."""
        facts = self.facts(run.facts.run_id)
        return [facts[i] for i in read_order(self.store, run.facts.run_id, run.facts.order)]

    def inputs(self, run: RunSpec) -> Inputs:
        """Return what a run edits with; the last few are kept."""
        self._runs[run.run_id] = run
        return self._inputs(run.run_id)

    def targets(self, run: RunSpec) -> Mapping[str, Targets]:
        """Return the targets that a run shares at its last layer, by request id; none if it shares none."""
        if run.execution.shared_targets is None:
            return {}
        key = digest_of({**asdict(run.execution.shared_targets), "layer": run.layers[-1]})
        if key not in self._targets:
            self._targets = {key: found_targets(self.store, run)}  # of one recipe at a time
        return self._targets[key]

    def _read_inputs(self, run_id: str) -> Inputs:
        run = self._runs[run_id]
        return inputs_of(self.store, self.models.loaded(run.model).lm, run, self._factored)
