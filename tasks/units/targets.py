"""Targets that several runs share, or the layers of a search: found on the pristine weights, published, then taken by each.

Runs share a target when model, facts in their order, context prefixes, layer and the target's definition are the same:
MEMIT and EMMET do, and batch sizes of one editor.  Only rounds that start from pristine weights can take them: the first
of a sequential run, all of independent ones.  A layer search finds the targets of all its layers together, because what
stands in front of the subjects runs once for all of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from editing.versions import TARGETS_VERSION
from storage.artifacts import find_artifact, has_artifact
from storage.digests import digest_of
from storage.store import Store
from tasks.errors import InputError
from tasks.specs.editor_card import target_definition
from tasks.specs.execution import SharedTargets
from tasks.specs.recipes import Recipe, TargetsRecipe
from tasks.specs.run import TOKENS_PER_FORWARD, RunSpec
from tasks.units.unit import Bench, Done, RunUnit

if TYPE_CHECKING:
    from editing.methods.locate import LocatingEditor
    from editing.methods.targets import Targets

TARGETS = "targets"
PER_UNIT = 64
"""Facts of one unit."""


def with_shared_targets(runs: Sequence[RunSpec]) -> list[RunSpec]:
    """Return the runs, those that share targets with the recipe of these and how many facts have them."""
    groups: dict[str, list[RunSpec]] = {}
    recipes = {run.run_id: _recipe(run) for run in runs}
    for run in runs:
        if (recipe := recipes[run.run_id]) is not None and from_pristine(run):
            groups.setdefault(digest_of(recipe), []).append(run)
    shared = {}
    for group in groups.values():
        if len(group) > 1:
            most = max(from_pristine(run) for run in group)
            for run in group:
                recipe = recipes[run.run_id]
                assert recipe is not None
                shared[run.run_id] = SharedTargets(recipe=recipe, n_facts=most, per_unit=PER_UNIT)
    return [run.changed(shared_targets=shared.get(run.run_id)) for run in runs]


def target_units(runs: Sequence[RunSpec]) -> list["TargetSearch"]:
    """Return the units that find the shared targets of these runs, each once."""
    units = [
        TargetSearch(run=run, first=first, last=last)
        for run in runs
        if run.execution.shared_targets is not None
        for first, last in chunks_of(run.execution.shared_targets)
    ]
    return list({unit.key: unit for unit in units}.values())


@dataclass(frozen=True, kw_only=True)
class TargetSearch(RunUnit):
    """The targets of some facts on pristine weights, for all runs, or all layers of a search, that share them."""

    kind: ClassVar[str] = TARGETS
    cost_per_item: ClassVar[float] = 1.0
    first: int
    last: int
    """Facts [first, last) of those that share targets."""
    positions: tuple[int, ...] | None = None
    """Positions in the data set, where these are not the first facts of the run's order."""

    @property
    def run_id(self) -> str:
        return "prepare"

    @property
    def shared(self) -> SharedTargets:
        """What is shared, and by how many facts."""
        if self.run.execution.shared_targets is None:
            raise ValueError(f"run {self.run.run_id} shares no targets")
        return self.run.execution.shared_targets

    @property
    def targets_recipe(self) -> Recipe:
        """The recipe of the artifact."""
        return _chunk_recipe(self.shared.recipe, (self.first, self.last))

    @property
    def unit_id(self) -> str:
        return f"targets-{digest_of(self.targets_recipe)}"

    @property
    def n_items(self) -> int:
        return (self.last - self.first) * len(self.shared.recipe["layers"])

    @property
    def stands_at(self) -> None:
        return None

    def do(self, bench: Bench) -> Done:
        run, lm = bench.sized(self.run), bench.pristine(self.model)
        lm.tokens_per_forward = run.execution.compute.tokens_per_forward or TOKENS_PER_FORWARD
        if self.positions is None:
            facts = bench.order(run)[self.first : self.last]
        else:
            every = bench.facts(run.facts.run_id)
            facts = [every[i] for i in self.positions]
        from tasks.units.work.target_artifacts import find_targets

        digest = find_targets(
            bench.store,
            lm,
            facts,
            bench.inputs(run).artifacts,
            locating_editor(run),
            recipe=self.targets_recipe,
            layers=self.shared.recipe["layers"],
            unit=self.key,
        )
        return Done({}, digest=digest)

    def is_lost(self, store: Store) -> bool:
        return not has_artifact(store, TARGETS, self.targets_recipe)


def found_targets(store: Store, run: RunSpec) -> "Mapping[str, Targets]":
    """Return the targets that a run shares at its last layer, by request id; none if it shares none.

    Raises:
        InputError: They have not been found yet.
        ArtifactMismatch: They have been damaged.
    """
    from safetensors.torch import load

    from editing.methods.targets import Targets

    if (shared := run.execution.shared_targets) is None:
        return {}
    out = {}
    for chunk in chunks_of(shared):
        found = find_artifact(store, TARGETS, _chunk_recipe(shared.recipe, chunk))
        if found is None:
            raise InputError(
                f"the store {store.location} lacks shared targets of {run.run_id}; run the experiment again"
            )
        tensors = load(found.path("targets.safetensors").read_bytes())
        targets = Targets(**{name: tensors[f"{run.layers[-1]}.{name}"] for name in Targets._fields})
        for number, request_id in enumerate(json.loads(found.path("facts.json").read_text())):
            out[request_id] = targets.select([number])
    return out


def _recipe(run: RunSpec) -> TargetsRecipe | None:
    definition = definition_of(run)
    if definition is None or not run.layers or run.trajectory.targets is not None:
        return None
    return {
        **run.model.identity,
        "facts": run.facts.digest,
        "sample": run.facts.sample,
        "sample_seed": run.facts.sample_seed,
        "contexts": run.trajectory.contexts,
        "layers": [run.layers[-1]],
        "definition": definition,
        "version": TARGETS_VERSION,
    }


def definition_of(run: RunSpec) -> dict[str, Any] | None:
    """Return what determines a run's targets beside its facts, contexts and layers; None if it searches for none."""
    return None if run.is_unedited else target_definition(run.editor, run.hparams, run.model.family)


def locating_editor(run: RunSpec) -> "LocatingEditor":
    """Return the editor of a run that searches for targets."""
    from editing.methods.editor import make_editor
    from editing.methods.locate import LocatingEditor

    method = make_editor(run.editor, run.hparams)
    if not isinstance(method, LocatingEditor):
        raise TypeError(f"{run.editor} searches for no targets; expected a LocatingEditor")
    return method


def from_pristine(run: RunSpec) -> int:
    """Return how many facts of a run are edited from pristine weights."""
    return min(run.n_rounds, 1 if run.mode == "sequential" else run.n_rounds) * run.batch_size


def chunks_of(shared: SharedTargets) -> list[tuple[int, int]]:
    """Return the facts of each unit: the first, and the one behind the last."""
    starts = range(0, shared.n_facts, shared.per_unit)
    return [(start, min(start + shared.per_unit, shared.n_facts)) for start in starts]


def _chunk_recipe(recipe: TargetsRecipe, chunk: tuple[int, int]) -> Recipe:
    return {**recipe, "positions": list(chunk)}
