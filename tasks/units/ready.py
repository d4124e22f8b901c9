"""Which units of a run can be done now: the next segment of its chain, and every score of rounds that are committed."""

from collections.abc import Iterable, Sequence

from storage.commits import NO_RECIPE, Commit, CommitInfo, newest_recipes, recipe_id
from storage.store import Store
from tasks.runs.chain import chain_of, end_of
from tasks.specs.run import RunSpec
from tasks.units.score import Score, score_kinds
from tasks.units.segment import Segment
from tasks.units.unit import RunUnit


def ready_units(store: Store, run: RunSpec, others: Sequence[RunSpec] = ()) -> list[RunUnit]:
    """Return a run's units that are neither committed nor waiting for another, segments first.

    Args:
        others: Runs that go in step with it.  The segments of all are units of the first of them.
    """
    commits = store.commits(run.run_id)
    chain = chain_of(store, run.run_id, commits.values())
    done = end_of(chain)
    units: list[RunUnit] = []
    if done < run.n_rounds and run.run_id == (run.execution.in_step or (run.run_id,))[0]:
        later = [c.first_round for c in commits.values() if c.kind == Segment.kind and (c.first_round or 0) > done]
        before = min((at for at in later if at is not None), default=None)
        units.append(Segment.at(run, done, others, before=before))
    return [*units, *missing_scores(run, _rounds_of(chain), commits.values())]


def units_left(store: Store, run: RunSpec) -> list[RunUnit]:
    """Return every unit that a run still lacks, those that wait for others too: what is committed stays cut as it is."""
    commits = store.commits(run.run_id)
    segments = _rounds_of(chain_of(store, run.run_id, commits.values()))
    units: list[RunUnit] = []
    while (first := segments[-1].stop if segments else 0) < run.n_rounds:
        segment = Segment.at(run, first)
        units.append(segment)
        segments.append(range(segment.first, segment.last))
    return [*units, *missing_scores(run, segments, commits.values())]


def missing_scores(run: RunSpec, segments: Sequence[range], commits: Iterable[Commit]) -> list[Score]:
    """Return what is still to be scored of a run of which these segments are done, or will be, in the order of its rounds."""
    seen: dict[str, list[Commit]] = {}
    for commit in commits:
        seen.setdefault(commit.kind, []).append(commit)
    units: list[Score] = []
    for kind in score_kinds():
        wanted = kind.recipe_of(run)
        units += kind.missing(run, segments, [c for c in seen.get(kind.kind, ()) if c.recipe == wanted])
    return sorted(units, key=lambda unit: unit.last_round)


def choose_recipes(store: Store, run: RunSpec) -> None:
    """Write how a run's scores are wanted now, so that views show those; what was scored otherwise is kept, unseen."""
    newest = newest_recipes(store.commit_rows(run.run_id))
    for kind in score_kinds():
        if (recipe := kind.recipe_of(run)) is None:
            continue
        info = CommitInfo(kind="recipe", recipe=recipe)
        # Nothing is withdrawn: without any recipe, views would show the rows of all for an instant.
        while (last := newest.get(kind.kind, NO_RECIPE)).recipe != recipe:
            if store.commit(run.run_id, recipe_id(kind.kind, last.number + 1), {}, info):
                break
            # Another command was faster, with the same or with its own.
            newest = newest_recipes(store.commit_rows(run.run_id))


def _rounds_of(chain: Iterable[Commit]) -> list[range]:
    return [range(commit.first_round or 0, commit.last_round or 0) for commit in chain]
