"""What a store lacks of a plan, in the numbers by which its costs are counted."""

from collections.abc import Iterable
from typing import NamedTuple

from storage.store import Store
from tasks.specs.run import RunSpec
from tasks.units.moments import MomentsJob
from tasks.units.ready import missing_scores, units_left
from tasks.units.sampled_texts import is_sampled
from tasks.units.segment import Segment
from tasks.units.trace import TraceJob
from tasks.units.training import TrainingJob
from tasks.units.unit import Unit


def share_of(store: Store | None, units: Iterable[Unit]) -> float:
    """Return the share of units' items that a store lacks; a store that is not there yet lacks all."""
    items = {unit.key: unit.n_items for unit in units}
    left = [n_items for key, n_items in items.items() if store is None or not store.is_committed(*key)]
    return sum(left) / max(1, sum(items.values()))


def share_of_moments(store: Store | None, job: MomentsJob) -> float:
    """Return the share of second moments that is left; what a stop has made needless is not."""
    return share_of(store, job.units()) if store is None or job.next_units(store) else 0.0


def texts_of_moments(store: Store | None, job: MomentsJob) -> int:
    """Return how many texts are still to be sampled by the model; none where they come from elsewhere."""
    source = job.recipe["texts"]
    if source["name"] != "own" or (store is not None and not job.next_units(store)):
        return 0
    shards = [range(*shard) for wave in job.waves for shard in wave]
    return sum(len(shard) for shard in shards if store is None or not is_sampled(store, job.recipe, source, shard))


def steps_of(store: Store | None, training: TrainingJob) -> int:
    """Return the steps of a training that are left."""
    done = training.done(store) if store else []
    return training.steps - (done[-1].last if done else 0)


def facts_of_trace(store: Store | None, trace: TraceJob) -> float:
    """Return the facts that are still to be traced; as many as are wanted, until it is known which are known."""
    if store is None or not store.is_committed(*trace.known_unit().key):
        return trace.wanted
    return share_of(store, trace.traces(store)) * trace.wanted


class Left(NamedTuple):
    """What is left of a run."""

    edits: int
    scores: float
    """The share of its scores, by their items."""


def left_of(store: Store | None, run: RunSpec) -> Left:
    """Return what is left of a run."""
    if store is None:
        return Left(run.n_rounds * run.batch_size, 1.0)
    units = units_left(store, run)
    segments = [unit for unit in units if isinstance(unit, Segment)]
    scores = sum(unit.n_items for unit in units if not isinstance(unit, Segment))
    all_scores = missing_scores(run, [range(run.n_rounds)] if run.n_rounds else [], ())
    return Left(
        run.batch_size * sum(segment.last - segment.first for segment in segments),
        # What the store holds of a longer run may lack scores, too.
        min(1.0, scores / max(1, sum(unit.n_items for unit in all_scores))),
    )
