"""What comes before the runs, as units of work: layer searches, traces, second moments, the training of networks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from storage.digests import digest_of
from storage.store import Store
from tasks.specs.run import Compute, ModelRef, Recipe, RunSpec, Unit, UnitKind
from tasks.units.ready import training_unit_id


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
            "search": self.template.identity | {"layers": []},
            "facts": list(self.positions),
            "from": list(self.layers),
        }

    @property
    def run_id(self) -> str:
        identity = self.template.identity | {"layers": []}
        return f"search-{digest_of({'edit': identity, 'facts': list(self.positions)}, length=10)}"

    def units(self) -> list[Unit]:
        shared = self.template.shared_targets
        payload = {
            "facts_run_id": self.facts_run_id,
            "positions": self.positions,
            "n_items": len(self.positions),
            "shared_targets": digest_of(shared.recipe) if shared else None,
        }
        return [
            Unit(
                run_id=self.run_id,
                unit_id=f"layer-{layer:03d}",
                kind="search",
                model=self.template.model,
                payload={**payload, "layer": layer},
                run=replace(self.template, layers=(layer,)),
            )
            for layer in self.layers
        ]


@dataclass(frozen=True, kw_only=True)
class TraceJob:
    """Causal tracing of facts that the model knows: first they are found, then traced."""

    model: ModelRef
    facts_run_id: str
    facts_digest: str
    order: Mapping[str, Any]
    """What determines the candidates, beside the facts."""
    candidates: tuple[int, ...]
    """Positions of facts in the order in which they are looked at."""
    wanted: int
    """Known facts that are to be traced; fewer where the candidates hold fewer."""
    rule: str
    """When a fact is known: ``editing.measure.tracing.Rule``."""
    samples: int
    window: int
    noise: float | None
    threads: int
    per_unit: int = 5

    @property
    def recipe(self) -> dict[str, Any]:
        return {
            **self.model.identity,
            "facts": self.facts_digest,
            "order": dict(self.order),
            "known": self.rule,
            "wanted": self.wanted,
            "samples": self.samples,
            "window": self.window,
            "noise": self.noise,
        }

    @property
    def run_id(self) -> str:
        return f"trace-{digest_of(self.recipe, length=10)}"

    def known_unit(self) -> Unit:
        payload = {"positions": self.candidates, "wanted": self.wanted, "rule": self.rule, "noise": self.noise}
        return self._unit("known", "known", n_items=self.wanted, **payload)

    def next_units(self, store: Store) -> list[Unit]:
        """Return all units that can be named: the search for known facts, and once it is done the traces of these."""
        first = self.known_unit()
        commit = store.read_commit(*first.key)
        if commit is None or commit.spec is None:
            return [first]
        known, noise = commit.spec["known"], commit.spec["noise"]
        settings = {"samples": self.samples, "window": self.window, "noise": noise}
        shares = {start: known[start : start + self.per_unit] for start in range(0, len(known), self.per_unit)}
        return [
            first,
            *(
                self._unit(f"facts-{start:04d}", "trace", positions=tuple(share), n_items=len(share), **settings)
                for start, share in shares.items()
            ),
        ]

    def _unit(self, name: str, kind: UnitKind, **payload: Any) -> Unit:
        given = {"facts_run_id": self.facts_run_id, "threads": self.threads, **payload}
        return Unit(run_id=self.run_id, unit_id=name, kind=kind, model=self.model, payload=given)


@dataclass(frozen=True, kw_only=True)
class MomentsJob:
    """The second moments of some layers: shards of the corpus, which any worker may collect, and merges.

    Without a stop there is one wave of shards.  With one, waves double the corpus, and the merge after each looks whether
    the updates still change.
    """

    model: ModelRef
    recipe: Recipe
    layers: tuple[int, ...]
    files: Mapping[str, str]
    """Where the files stand that the recipe names by their digests; where they stand changes nothing."""
    shard_texts: int
    threads: int

    @property
    def waves(self) -> list[list[tuple[int, int]]]:
        """Shards of each wave: the first text and the one after the last."""
        stop = self.recipe.get("stop")
        n_texts = self.recipe["texts"].get("n_texts", 0)
        ends = [n_texts]
        if stop:
            ends = [min(stop["first_texts"] * 2**wave, n_texts) for wave in range(64)]
            ends = [end for wave, end in enumerate(ends) if wave == 0 or ends[wave - 1] < n_texts]
        return [
            [(start, min(start + self.shard_texts, end)) for start in range(begin, end, self.shard_texts)]
            for begin, end in pairwise([0, *ends])
        ]

    def shard(self, shard: tuple[int, int]) -> Unit:
        return self._unit(
            f"texts-{shard[0]}-{shard[1]}", "moment_shard", shard=list(shard), n_items=shard[1] - shard[0]
        )

    def merge(self, wave: int) -> Unit:
        waves = self.waves
        return self._unit(f"wave-{wave}", "moments", waves=waves[: wave + 1], last=wave == len(waves) - 1)

    def units(self) -> list[Unit]:
        """Return all units that there can be; a stop may leave some undone."""
        waves = self.waves
        shards = [self.shard(shard) for wave in waves for shard in wave] if self._in_shards else []
        return [*shards, *(self.merge(number) for number in range(len(waves)))]

    def next_units(self, store: Store) -> list[Unit]:
        """Return what can be done now: the shards of a wave, or the merge after them; nothing when all is done."""
        for number, wave in enumerate(self.waves):
            merge = self.merge(number)
            commit = store.read_commit(*merge.key)
            if commit is not None and commit.status == "done":
                if (commit.spec or {})["digests"]:
                    return []
                continue
            todo = [self.shard(shard) for shard in wave] if self._in_shards else []
            return [unit for unit in todo if not store.is_committed(*unit.key)] or [merge]
        return []

    @property
    def _in_shards(self) -> bool:
        return sum(map(len, self.waves)) > 1

    def _unit(self, name: str, kind: UnitKind, **payload: Any) -> Unit:
        job = digest_of({"recipe": self.recipe, "layers": list(self.layers), "shard_texts": self.shard_texts})
        given = {"recipe": self.recipe, "layers": self.layers, "files": dict(self.files), "threads": self.threads}
        return Unit(
            run_id="prepare",
            unit_id=f"moments-{job}-{name}",
            kind=kind,
            model=self.model,
            payload={**given, **payload},
        )


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The training of one hyper-network, in segments of steps, each of which goes on where the one before ended."""

    model: ModelRef
    recipe: Recipe
    steps: int
    steps_per_segment: int
    compute: Compute

    @property
    def run_id(self) -> str:
        return f"train-{digest_of(self.recipe, length=10)}"

    def unit(self, first: int, last: int | None = None) -> Unit:
        last = last or min((first // self.steps_per_segment + 1) * self.steps_per_segment, self.steps)
        payload = {
            "recipe": self.recipe,
            "compute": asdict(self.compute),
            "first_round": first,
            "last_round": last,
            "n_items": (last - first) * self.recipe["edits"],
        }
        return Unit(
            run_id=self.run_id, unit_id=training_unit_id(first), kind="train", model=self.model, payload=payload
        )

    def next_units(self, store: Store) -> list[Unit]:
        """Return the first segment that is not committed, nothing when the training is done."""
        chain = self.done(store)
        at = chain[-1].payload["last_round"] if chain else 0
        return [self.unit(at)] if at < self.steps else []

    def done(self, store: Store) -> list[Unit]:
        """Return the segments that are committed, as they were cut then: each starts where the one before ended."""
        found, at = [], 0
        while (commit := store.read_commit(self.run_id, training_unit_id(at))) is not None and commit.status == "done":
            found.append(self.unit(at, last=commit.last_round))
            at = commit.last_round or self.steps
        return found

    def units(self) -> list[Unit]:
        return [self.unit(first) for first in range(0, self.steps, self.steps_per_segment)]
