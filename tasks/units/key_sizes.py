"""How large the keys of an experiment's facts are beside its second moments: what a ridge has to be compared with."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from editing.hparams import TIMES_MEDIAN_Q
from storage.digests import digest_of
from storage.store import Store
from tasks.specs.run import RunSpec
from tasks.units.unit import Bench, Done, Record, RunUnit

RIDGE = "preservation_weight"
"""The hyper-parameter of editors whose ridge holds every residual back."""
MOST_FACTS = 32


@dataclass(frozen=True, kw_only=True)
class KeySizesRecord(Record):
    """Medians over some facts."""

    layers: tuple[int, ...]
    median_q: tuple[float, ...]
    """kᵀC⁻¹k, at each of them, on the unedited model."""
    n_facts: int


@dataclass(frozen=True, kw_only=True)
class KeySizes(RunUnit):
    """The median kᵀC⁻¹k of a run's first facts at its layers, for all runs of the same facts, contexts and layers."""

    kind: ClassVar[str] = "key sizes"
    cost_per_item: ClassVar[float] = 0.05

    @property
    def run_id(self) -> str:
        return "prepare"

    @property
    def unit_id(self) -> str:
        run = self.run
        made_of = {
            **run.model.identity,
            **run.facts.identity,
            "contexts": run.trajectory.contexts,
            "moments": run.trajectory.moments,
            "layers": list(run.layers),
            "protocol": run.hparams.get("protocol"),
            "n_facts": self.n_items,
        }
        return f"key-sizes-{digest_of(made_of)}"

    @property
    def n_items(self) -> int:
        return min(MOST_FACTS, self.run.facts.size)

    @property
    def stands_at(self) -> None:
        return None

    def do(self, bench: Bench) -> Done:
        from editing.methods.locate import SpreadEditor

        lm, inputs = bench.pristine(self.model), bench.inputs(self.run)
        editor = inputs.editor
        assert isinstance(editor, SpreadEditor), f"{self.run.editor} has a {RIDGE} and spreads no residual"
        facts = bench.order(self.run)[: self.n_items]
        found = editor.key_sizes(lm, facts, inputs.artifacts, self.run.layers)
        medians = tuple(median(found[layer].tolist()) for layer in self.run.layers)
        return Done({}, KeySizesRecord(layers=self.run.layers, median_q=medians, n_facts=len(facts)))


def key_size_units(runs: Iterable[RunSpec]) -> list[KeySizes]:
    """Return the units that measure keys for runs whose editor has such a ridge, each once."""
    units = [KeySizes(run=run) for run in runs if RIDGE in run.hparams and run.layers]
    return list({unit.key: unit for unit in units}.values())


def ridge_of(run: RunSpec, q: float) -> float:
    """Return the ridge of a run where the median kᵀC⁻¹k is ``q``."""
    given = run.hparams[RIDGE]
    return float(given[TIMES_MEDIAN_Q] * q if isinstance(given, dict) else given)


def key_sizes_of(store: Store, run: RunSpec) -> KeySizesRecord | None:
    """Return what has been measured of a run's keys; None if nothing has, or its editor has no such ridge."""
    units = key_size_units([run])
    commit = store.read_commit(*units[0].key) if units else None
    return None if commit is None else KeySizesRecord.of_json(commit.spec or {})
