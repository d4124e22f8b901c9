"""A layer search: independent edits of each candidate layer with some facts, a unit per layer."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from editing.versions import TARGETS_VERSION
from storage.digests import digest_of
from tasks.specs.execution import SharedTargets
from tasks.specs.recipes import TargetsRecipe
from tasks.specs.run import RunSpec
from tasks.units.fact_scores import score_columns
from tasks.units.targets import TargetSearch, chunks_of, definition_of
from tasks.units.unfinished import leave_rows, rows_left
from tasks.units.unit import Bench, Done, Record, RunUnit

PER_UNIT = 8
"""Facts of one unit of shared targets: a search has few, and all workers shall have some."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """A layer search: independent edits of each layer with some facts."""

    template: RunSpec
    """The editing of one layer; its ``layers`` are replaced by each candidate."""
    layers: tuple[int, ...]
    facts_run_id: str
    positions: tuple[int, ...]

    @property
    def recipe(self) -> dict[str, Any]:
        return {
            "search": self.template.trajectory.identity | {"layers": []},
            "facts": list(self.positions),
            "from": list(self.layers),
        }

    @property
    def run_id(self) -> str:
        identity = self.template.trajectory.identity | {"layers": []}
        return f"search-{digest_of({'edit': identity, 'facts': list(self.positions)}, length=10)}"

    def units(self) -> list["LayerSearch"]:
        return [
            LayerSearch(
                run=self.template.changed(layers=(layer,)),
                search_id=self.run_id,
                facts_run_id=self.facts_run_id,
                positions=self.positions,
            )
            for layer in self.layers
        ]

    def with_shared_targets(self) -> "SearchPlan":
        """Return the search, its layers sharing the work in front of the subjects, if its editor searches for targets."""
        definition = definition_of(self.template)
        if definition is None or len(self.layers) < 2:
            return self
        recipe: TargetsRecipe = {
            **self.template.model.identity,
            "facts": self.template.facts.digest,
            "chosen": list(self.positions),
            "contexts": self.template.trajectory.contexts,
            "layers": list(self.layers),
            "definition": definition,
            "version": TARGETS_VERSION,
        }
        shared = SharedTargets(recipe=recipe, n_facts=len(self.positions), per_unit=PER_UNIT)
        return replace(self, template=self.template.changed(shared_targets=shared))

    def target_units(self) -> list[TargetSearch]:
        """Return the units that find the targets which all layers share."""
        shared = self.template.execution.shared_targets
        return [
            TargetSearch(run=self.template, first=first, last=last, positions=self.positions[first:last])
            for first, last in (chunks_of(shared) if shared else ())
        ]


@dataclass(frozen=True, kw_only=True)
class SearchRecord(Record):
    """Which layer was edited, with facts of which data set, and the recipe of the targets that its layers shared."""

    facts_run_id: str
    n_items: int
    shared_targets: str | None
    layer: int


@dataclass(frozen=True, kw_only=True)
class LayerSearch(RunUnit):
    """One candidate of a layer search."""

    kind: ClassVar[str] = "search"
    cost_per_item: ClassVar[float] = 1.0
    search_id: str
    facts_run_id: str
    positions: tuple[int, ...]

    @property
    def run_id(self) -> str:
        return self.search_id

    @property
    def layer(self) -> int:
        (layer,) = self.run.layers
        return layer

    @property
    def unit_id(self) -> str:
        return f"layer-{self.layer:03d}"

    @property
    def n_items(self) -> int:
        return len(self.positions)

    @property
    def stands_at(self) -> None:
        return None

    def do(self, bench: Bench) -> Done:
        from editing.measure.search import search_layer
        from editing.model.progress import Interrupted

        lm = bench.pristine(self.model)
        method, artifacts, _ = bench.inputs(self.run)
        artifacts = replace(artifacts, targets=bench.targets(self.run))
        facts = bench.facts(self.facts_run_id)
        common = {
            "model": self.model.name,
            "editor": self.run.editor,
            "protocol": self.run.protocol,
            "layer": self.layer,
        }
        rows = rows_left(bench.store, self.key)
        edited = {row["fact_id"] for row in rows}
        wanted = [facts[i] for i in self.positions if facts[i].request_id not in edited]
        try:
            with bench.progress.interruptible():
                for edit in search_layer(lm, wanted, self.layer, method, artifacts):
                    rows += [
                        {**common, "fact_id": edit.request_id, "error": edit.error, **score_columns(score)}
                        for score in edit.scores
                    ]
        except Interrupted:
            leave_rows(bench.store, self.key, rows)
            raise
        shared = self.run.execution.shared_targets
        record = SearchRecord(
            facts_run_id=self.facts_run_id,
            n_items=self.n_items,
            shared_targets=digest_of(shared.recipe) if shared else None,
            layer=self.layer,
        )
        return Done({"layer_scores": rows}, record)
