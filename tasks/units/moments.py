"""Second moments of a corpus as units: shards that any worker may collect, and merges that stop where updates settle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from storage.artifacts import has_artifact
from storage.digests import digest_of
from storage.store import Store
from tasks.specs.recipes import MomentsRecipe, Recipe
from tasks.specs.run import ModelRef
from tasks.units.unit import Bench, Done, Preparation, Record, Unit

MOMENTS, SUMS = "second_moments", "second_moment_sums"
BLOCK = 64
"""Texts that are put into rows together (:mod:`editing.measure.moments`): sums do not depend on where shards are cut."""
_PARTS = 8
MOST_SHARDS = 24
"""Into about so many a thousand texts are divided."""
FEW_TEXTS = 8 * BLOCK
"""Not worth to be divided."""
Shard = tuple[int, int]
"""The first text, and the one after the last."""


@dataclass(frozen=True, kw_only=True)
class MomentsJob:
    """The second moments of some layers: shards of the corpus, which any worker may collect, and merges.

    Without a stop there is one wave of shards.  With one, waves double the corpus, and the merge after each looks whether
    the updates still change.
    """

    model: ModelRef
    recipe: MomentsRecipe
    layers: tuple[int, ...]
    files: Mapping[str, str]
    """Where the files stand that the recipe names by their digests; where they stand changes nothing."""
    shard_texts: int
    """At most so many texts in one shard."""
    threads: int
    divided: bool = False
    """Whether shards become smaller towards the end, so that workers end together."""

    @property
    def waves(self) -> list[list[Shard]]:
        """The shards of each wave."""
        stop, texts = self.recipe.get("stop"), self.recipe["texts"]
        n_texts = 0 if texts["name"] == "npz" else texts["n_texts"]
        ends = [n_texts]
        if stop:
            ends = [min(stop["first_texts"] * 2**wave, n_texts) for wave in range(64)]
            ends = [end for wave, end in enumerate(ends) if wave == 0 or ends[wave - 1] < n_texts]
        return [cut(begin, end, self.shard_texts, divided=self.divided) for begin, end in pairwise([0, *ends])]

    @property
    def name(self) -> str:
        """What the units of this job are called by."""
        job = digest_of({"recipe": self.recipe, "layers": list(self.layers), "shard_texts": self.shard_texts})
        return f"moments-{job}"

    def shard(self, shard: Shard) -> "MomentShard":
        return MomentShard(model=self.model, threads=self.threads, job=self, shard=shard)

    def merge(self, wave: int) -> "MomentMerge":
        return MomentMerge(model=self.model, threads=self.threads, job=self, wave=wave)

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
                if MomentsRecord.of_json(commit.spec).digests:
                    return []
                continue
            todo = [self.shard(shard) for shard in wave] if self._in_shards else []
            return [unit for unit in todo if not store.is_committed(*unit.key)] or [merge]
        return []

    @property
    def _in_shards(self) -> bool:
        return sum(map(len, self.waves)) > 1


def cut(begin: int, end: int, most: int, *, divided: bool) -> list[Shard]:
    """Return texts in shards of whole ``BLOCK`` texts.

    The same on every machine: second moments must not depend on how many workers there are.

    Args:
        divided: Each shard has an eighth of what is left, so that up to about eight workers end together; few texts are one
            shard, which needs no merge.
    """
    shards, at = [], begin
    alone = not divided or end - begin <= FEW_TEXTS
    while at < end:
        blocks = -(-(end - at) // BLOCK)
        share = blocks if alone else -(-blocks // _PARTS)
        stop = min(at + min(most, share * BLOCK), end)
        shards.append((at, stop))
        at = stop
    return shards


@dataclass(frozen=True, kw_only=True)
class ShardRecord(Record):
    """Which texts were read, and how many tokens they have."""

    shard: Shard
    n_tokens: int


@dataclass(frozen=True, kw_only=True)
class MomentShard(Preparation):
    """The sums of some texts' keys, an artifact per layer."""

    kind: ClassVar[str] = "moment_shard"
    cost_per_item: ClassVar[float] = 0.01
    job: MomentsJob
    shard: Shard

    @property
    def unit_id(self) -> str:
        return f"{self.job.name}-texts-{self.shard[0]}-{self.shard[1]}"

    @property
    def n_items(self) -> int:
        return self.shard[1] - self.shard[0]

    def do(self, bench: Bench) -> Done:
        from tasks.units.work.moment_artifacts import collect_shard

        job = self.job
        lm = bench.pristine(self.model)
        n_tokens = collect_shard(bench.store, lm, job.recipe, job.layers, self.shard, job.files, unit=self.key)
        return Done({}, ShardRecord(shard=self.shard, n_tokens=n_tokens))


@dataclass(frozen=True, kw_only=True)
class MomentsRecord(Record):
    """What a merge has made."""

    recipe: MomentsRecipe
    digests: Mapping[str, str]
    """Of each layer's artifact; empty where more texts are wanted."""
    files: Mapping[str, str] | None = None
    """Which file each layer's published moment was read from."""


@dataclass(frozen=True, kw_only=True)
class MomentMerge(Preparation):
    """The shards of a wave, and of those before it, added up; or published moments, read."""

    kind: ClassVar[str] = "moments"
    cost_per_item: ClassVar[float] = 0.1
    job: MomentsJob
    wave: int

    @property
    def unit_id(self) -> str:
        return f"{self.job.name}-wave-{self.wave}"

    @property
    def n_items(self) -> int:
        return len(self.job.layers)

    def do(self, bench: Bench) -> Done:
        from tasks.units.work.moment_artifacts import merge_shards, read_published

        job, lm = self.job, bench.pristine(self.model)
        files: dict[str, str] | None = None
        texts = job.recipe["texts"]
        if texts["name"] == "npz":
            named = texts["files"]
            found = read_published(bench.store, lm, job.recipe, job.layers, job.files)
            read = {str(layer): job.files.get(named.get(str(layer), "")) for layer in found.digests}
            files = {layer: path for layer, path in read.items() if path is not None}
        else:
            waves = job.waves
            is_last = self.wave == len(waves) - 1
            found = merge_shards(
                bench.store, lm, job.recipe, job.layers, waves[: self.wave + 1], last=is_last, files=job.files
            )
        digests = {str(layer): digest for layer, digest in found.digests.items()}
        model = {"model": self.model.name, "model_digest": self.model.digest}
        record = MomentsRecord(recipe=job.recipe, digests=digests, files=files)
        return Done({"second_moments": [model | row for row in found.rows]}, record, digest_of(digests))

    def is_lost(self, store: Store) -> bool:
        commit = store.read_commit(*self.key)
        made = {int(row["layer"]) for row in (store.rows(commit, "second_moments") if commit else ()) if row["digest"]}
        made |= {int(layer) for layer in (MomentsRecord.of_json(commit.spec).digests if commit else ())}
        return not all(has_artifact(store, MOMENTS, layer_recipe(self.job.recipe, layer)) for layer in made)


def layer_recipe(recipe: MomentsRecipe, layer: int) -> Recipe:
    """Return the recipe of one layer's second moment; moments are shared between jitters, unless a stop depends on it."""
    shared = ("jitter",) if recipe.get("stop") is None else ()
    return {**{key: value for key, value in recipe.items() if key not in shared}, "layer": layer}


def shard_recipe(recipe: MomentsRecipe, layer: int, shard: Sequence[int]) -> Recipe:
    """Return the recipe of the sums of one layer's keys over one shard."""
    kept = {key: value for key, value in recipe.items() if key not in ("jitter", "stop")}
    return {**kept, "layer": layer, "shard": list(shard)}
