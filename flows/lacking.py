"""What a store lacks of a plan, in the numbers by which its costs are counted."""

from collections.abc import Iterable

from storage.store import Store
from tasks.specs.run import RunSpec
from tasks.units.moments import MomentsJob
from tasks.units.ready import missing_scores, units_left
from tasks.units.search import LayerSearch, SearchPlan, SearchRecord
from tasks.units.segment import Segment
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


def steps_of(store: Store | None, training: TrainingJob) -> int:
    """Return the steps of a training that are left."""
    done = training.done(store) if store else []
    return training.steps - (done[-1].last if done else 0)


def edits_of_search(store: Store | None, search: SearchPlan) -> int:
    """Return the edits of a layer search that are left; layers that it has dropped count until it ends."""
    whole = len(search.layers) * len(search.positions)
    if store is None:
        return whole
    if not search.next_units(store):
        return 0
    done = [commit for commit in store.commits(search.run_id).values() if commit.kind == LayerSearch.kind]
    return max(0, whole - sum(SearchRecord.of_json(commit.spec).n_items for commit in done if commit.spec))


def edits_of(store: Store | None, run: RunSpec) -> int:
    """Return the edits of a run that are left."""
    if store is None:
        return run.n_rounds * run.batch_size
    return run.batch_size * sum(len(rounds) for rounds in _segments(units_left(store, run)))


def share_of_scores(store: Store | None, run: RunSpec) -> float:
    """Return the share of a run's scores that is left, by their items."""
    if store is None:
        return 1.0
    left = sum(unit.n_items for unit in units_left(store, run) if not isinstance(unit, Segment))
    rounds = [range(run.n_rounds)] if run.n_rounds else []
    return left / max(1, sum(unit.n_items for unit in missing_scores(run, rounds, ())))


def _segments(units: Iterable[Unit]) -> list[range]:
    return [range(unit.first, unit.last) for unit in units if isinstance(unit, Segment)]
