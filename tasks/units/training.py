"""The training of hyper-networks as a chain of units, each of which goes on where the one before ended."""

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from storage.artifacts import has_artifact
from storage.digests import digest_of
from storage.store import Store
from tasks.specs.execution import Compute
from tasks.specs.recipes import NetworkRecipe
from tasks.specs.run import ModelRef
from tasks.units.unit import Bench, Done, Record, Unit

NETWORK = "networks"


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The training of one hyper-network, in segments of steps, each of which goes on where the one before ended."""

    model: ModelRef
    recipe: NetworkRecipe
    steps: int
    steps_per_segment: int
    compute: Compute

    @property
    def run_id(self) -> str:
        return f"train-{digest_of(self.recipe, length=10)}"

    def unit(self, first: int, last: int | None = None) -> "TrainingSteps":
        last = last or min((first // self.steps_per_segment + 1) * self.steps_per_segment, self.steps)
        return TrainingSteps(
            run_id=self.run_id, model=self.model, network=self.recipe, compute=self.compute, first=first, last=last
        )

    def next_units(self, store: Store) -> list["TrainingSteps"]:
        """Return the first segment that is not committed, nothing when the training is done."""
        chain = self.done(store)
        at = chain[-1].last if chain else 0
        return [self.unit(at)] if at < self.steps else []

    def done(self, store: Store) -> list["TrainingSteps"]:
        """Return the segments that are committed, as they were cut then: each starts where the one before ended."""
        found, at = list["TrainingSteps"](), 0
        while (commit := store.read_commit(*self.unit(at).key)) is not None and commit.status == "done":
            found.append(self.unit(at, last=commit.last_round))
            at = commit.last_round or self.steps
        return found

    def units(self) -> list["TrainingSteps"]:
        return [self.unit(first) for first in range(0, self.steps, self.steps_per_segment)]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord(Record):
    """What was trained, and with which threads and micro-batches: they can change bits."""

    recipe: NetworkRecipe
    compute: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainingSteps(Unit):
    """Some steps of a training."""

    kind: ClassVar[str] = "train"
    cost_per_item: ClassVar[float] = 0.2
    run_id: str
    model: ModelRef
    network: NetworkRecipe
    compute: Compute
    first: int
    last: int
    """Steps [first, last)."""

    @property
    def threads(self) -> int:
        return self.compute.threads

    @property
    def unit_id(self) -> str:
        return f"steps-{self.first:06d}"

    @property
    def n_items(self) -> int:
        return (self.last - self.first) * self.network["edits"]

    @property
    def rounds_held(self) -> tuple[int, int]:
        return self.first, self.last

    def do(self, bench: Bench) -> Done:
        import torch

        from editing.model.memory import tokens_that_fit
        from tasks.units.work.networks import network_state, put_network, train_rows, trainer_of

        store, lm = bench.store, bench.pristine(self.model)
        compute = self._as_begun(store)
        tokens = compute.tokens_per_forward or tokens_that_fit(lm)
        torch.set_num_threads(compute.threads)
        lm.tokens_per_forward = tokens
        trainer, validation = trainer_of(store, lm, self.network)
        if self.first:
            trainer.resume(network_state(store, self.network, self.first)[0])
        rows = train_rows(trainer, validation, self.last, self.network, self.model.name)
        artifact = put_network(store, self.network, self.last, trainer.state())
        record = TrainingRecord(recipe=self.network, compute=asdict(replace(compute, tokens_per_forward=tokens)))
        return Done({"training": rows}, record, artifact.digest)

    def is_lost(self, store: Store) -> bool:
        return not has_artifact(store, NETWORK, {**self.network, "step": self.last})

    def _as_begun(self, store: Store) -> Compute:
        """Return the threads and micro-batches with which this training began."""
        begun = store.read_commit(*replace(self, first=0).key)
        return Compute(**TrainingRecord.of_json(begun.spec).compute) if begun else self.compute
