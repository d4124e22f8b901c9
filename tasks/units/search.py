"""A layer search: independent edits of each candidate layer with some facts, a unit per layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

from editing.versions import TARGETS_VERSION
from storage.digests import digest_of
from storage.sql import query
from storage.store import Store
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
    """A layer search: independent edits of each layer with some facts.

    With ``keep`` it comes in waves: the facts of each are edited at the layers that the one before has left.
    """

    template: RunSpec
    """The editing of one layer; its ``layers`` are replaced by each candidate."""
    layers: tuple[int, ...]
    facts_run_id: str
    positions: tuple[int, ...]
    keep: int | None = None
    """Layers that go on from each wave at least; None if there is one wave."""

    @property
    def recipe(self) -> dict[str, Any]:
        return {
            "search": self.template.trajectory.identity | {"layers": []},
            "facts": list(self.positions),
            "from": list(self.layers),
            **({"keep": self.keep} if self.keep else {}),
        }

    @property
    def run_id(self) -> str:
        identity = self.template.trajectory.identity | {"layers": []}
        waves = {"keep": self.keep} if self.keep else {}
        return f"search-{digest_of({'edit': identity, 'facts': list(self.positions), **waves}, length=10)}"

    @property
    def waves(self) -> list[range]:
        """The facts of each wave, by their places among all."""
        n_facts = len(self.positions)
        if self.keep is None:
            return [range(n_facts)]
        ends = sorted({0, *(-(-n_facts // part) for part in (4, 2)), n_facts})
        return [range(begin, end) for begin, end in pairwise(ends)]

    def next_units(self, store: Store) -> list[RunUnit]:
        """Return what can be done now; nothing when all is done.

        What layers share of the work in front of the subjects is found first.
        """
        facts, layers = self._wave(store)
        run = self._sharing(facts, layers)
        missing = [unit for unit in self._searches(run, facts, layers) if not store.is_committed(*unit.key)]
        if missing:
            shared = self._targets(run, facts)
            return [unit for unit in shared if not store.is_committed(*unit.key)] or list(missing)
        return [] if facts.stop == len(self.positions) else [self._choice(facts, layers)]

    def shared_now(self, store: Store) -> list[TargetSearch]:
        """Return the units that find what the layers share which are searched now; none if the search is done."""
        facts, layers = self._wave(store)
        return self._targets(self._sharing(facts, layers), facts) if self.next_units(store) else []

    def units_left(self, store: Store | None) -> list[RunUnit]:
        """Return all that a store lacks, of later waves too, in which every layer may go on that has not been dropped."""
        facts, layers = self._wave(store) if store else (self.waves[0], self.layers)
        units: list[RunUnit] = []
        for wave in self.waves[self.waves.index(facts) :]:
            run = self._sharing(wave, layers)
            wanted = [*self._searches(run, wave, layers)]
            missing = [unit for unit in wanted if store is None or not store.is_committed(*unit.key)]
            targets = self._targets(run, wave) if missing else []
            units += [unit for unit in targets if store is None or not store.is_committed(*unit.key)]
            units += missing
        return units

    def left(self, store: Store) -> list[int]:
        """Return the layers that have edited all facts, once the search is done."""
        return list(self._wave(store)[1])

    def _wave(self, store: Store) -> tuple[range, Sequence[int]]:
        """Return the facts and the layers of the first wave after which nothing has been chosen, or of the last one."""
        waves, layers = self.waves, self.layers
        for facts in waves[:-1]:
            commit = store.read_commit(*self._choice(facts, layers).key)
            if commit is None:
                return facts, layers
            layers = ChoiceRecord.of_json(commit.spec).layers
        return waves[-1], layers

    def _sharing(self, facts: range, layers: Sequence[int]) -> RunSpec:
        definition = definition_of(self.template)
        if definition is None or len(layers) < 2:
            return self.template
        recipe: TargetsRecipe = {
            **self.template.model.identity,
            "facts": self.template.facts.digest,
            "chosen": list(self.positions[facts.start : facts.stop]),
            "contexts": self.template.trajectory.contexts,
            "layers": list(layers),
            "definition": definition,
            "version": TARGETS_VERSION,
        }
        shared = SharedTargets(recipe=recipe, n_facts=len(facts), per_unit=PER_UNIT)
        return self.template.changed(shared_targets=shared)

    def _targets(self, run: RunSpec, facts: range) -> list[TargetSearch]:
        shared, chosen = run.execution.shared_targets, self.positions[facts.start : facts.stop]
        return [
            TargetSearch(run=run, first=first, last=last, positions=chosen[first:last])
            for first, last in (chunks_of(shared) if shared else ())
        ]

    def _searches(self, run: RunSpec, facts: range, layers: Sequence[int]) -> list["LayerSearch"]:
        return [
            LayerSearch(
                run=run.changed(layers=(layer,)),
                search_id=self.run_id,
                facts_run_id=self.facts_run_id,
                positions=self.positions[facts.start : facts.stop],
                first=facts.start,
            )
            for layer in layers
        ]

    def _choice(self, facts: range, layers: Sequence[int]) -> "LayerChoice":
        assert self.keep is not None, "a search in one wave drops no layer"
        return LayerChoice(
            run=self.template, search_id=self.run_id, n_facts=facts.stop, candidates=tuple(layers), keep=self.keep
        )


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
    first: int = 0
    """The place of the first of them among all facts of the search."""

    @property
    def run_id(self) -> str:
        return self.search_id

    @property
    def layer(self) -> int:
        (layer,) = self.run.layers
        return layer

    @property
    def unit_id(self) -> str:
        return f"layer-{self.layer:03d}" + (f"-from-{self.first:04d}" if self.first else "")

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


@dataclass(frozen=True, kw_only=True)
class ChoiceRecord(Record):
    """Which layers go on, after how many facts."""

    n_facts: int
    layers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LayerChoice(RunUnit):
    """The layers of a search that go on: those whose interval reaches the best one's, and the best few in any case."""

    kind: ClassVar[str] = "search_choice"
    cost_per_item: ClassVar[float] = 0.001
    search_id: str
    n_facts: int
    candidates: tuple[int, ...]
    keep: int

    @property
    def run_id(self) -> str:
        return self.search_id

    @property
    def unit_id(self) -> str:
        # Of other layers others would be left.
        return f"choice-{self.n_facts:04d}-{digest_of(list(self.candidates), length=8)}"

    @property
    def n_items(self) -> int:
        return len(self.candidates)

    @property
    def stands_at(self) -> None:
        return None

    def do(self, bench: Bench) -> Done:
        candidates = ", ".join(map(str, self.candidates))
        sql = f"""
            SELECT layer, coalesce(score, efficacy) AS mean, coalesce(score_low, efficacy_low) AS low,
                coalesce(score_high, efficacy_high) AS high
            FROM layer_summary WHERE run_id = '{self.search_id}' AND layer IN ({candidates})
            ORDER BY mean DESC, layer
        """
        rows = query(bench.store, sql).to_pylist()
        best = rows[0]["low"]
        chosen = [row["layer"] for place, row in enumerate(rows) if place < self.keep or row["high"] >= best]
        return Done({}, ChoiceRecord(n_facts=self.n_facts, layers=tuple(sorted(chosen))))
