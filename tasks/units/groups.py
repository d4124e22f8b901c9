"""Runs that go in step: their targets of a round are searched for in one batch, on one worker.

The blocks above the edited layers are pristine in every sequential run, so that runs with other seeds, samples, ridges or
editors differ only below the states that a search moves.  What goes together is fixed when the runs begin and written to
their first commits, because it changes rounding.
"""

from collections.abc import Mapping, Sequence

from editing.model.families import FAMILIES
from storage.commits import Commit
from storage.digests import digest_of
from storage.store import Store
from tasks.runs.chain import beginning_of, end_of, segments
from tasks.specs.run import RunSpec
from tasks.units.segment import Segment
from tasks.units.targets import definition_of


def with_companions(store: Store | None, runs: Sequence[RunSpec], size: int) -> list[RunSpec]:
    """Return the runs, each with the ids of those (at most ``size``) with which it goes in step.

    Runs that have begun go on with those of their first commits if all of these are here and stand at the same round;
    else alone.  So does whatever was given up in its next segment: what one of a group cannot do must not stop the others.
    """
    by_id = {run.run_id: run for run in runs}
    edited = [run for run in runs if not run.is_unedited]
    begun = {run.run_id: segments(store, run.run_id) if store else [] for run in edited}
    groups: list[tuple[str, ...]] = []
    for group in {_begun_with(store, run): None for run in edited if store and begun[run.run_id]}:
        taken = any(set(group) & set(other) for other in groups)
        if (
            group
            and store
            and not taken
            and set(group) <= by_id.keys()
            and _can_go_on(store, [by_id[run_id] for run_id in group], begun)
        ):
            groups.append(group)
    settled = {run_id for group in groups for run_id in group}
    free: dict[str, list[str]] = {}
    for run in runs:
        alike = _what_is_alike(run)
        failed = store is not None and _given_up(store, run, begun)
        if alike is not None and run.run_id not in settled and not begun[run.run_id] and not failed:
            free.setdefault(alike, []).append(run.run_id)
    for ids in free.values():
        groups += [tuple(ids[start : start + size]) for start in range(0, len(ids), size)]
    of_run = {run_id: group for group in groups for run_id in group if len(group) > 1}
    return [run.changed(in_step=of_run.get(run.run_id, ())) for run in runs]


def _can_go_on(store: Store, group: Sequence[RunSpec], begun: Mapping[str, list[Commit]]) -> bool:
    """Return whether runs that began together can go on together.

    All stand at one round.  Or the first one, which commits last, lacks a segment that others have: it is done again, with
    the same batches, if it would end where theirs does.
    """
    if any(begun[run.run_id] and set(_begun_with(store, run)) != {run.run_id for run in group} for run in group):
        return False  # one of them has begun in another group
    if len({_what_is_alike(run) for run in group}) > 1 or any(_given_up(store, run, begun) for run in group):
        return False
    first = group[0]
    rounds = [end_of(begun[run.run_id]) for run in group]
    if rounds[0] >= first.n_rounds:
        return len(set(rounds)) == 1
    again = Segment.at(first, rounds[0]).last
    return all(
        end == rounds[0] or (end == again and rounds[0] in {0, *(commit.last_round for commit in begun[run.run_id])})
        for run, end in zip(group, rounds, strict=True)
    )


def _given_up(store: Store, run: RunSpec, begun: Mapping[str, list[Commit]]) -> bool:
    return store.gave_up(run.run_id, Segment.at(run, end_of(begun.get(run.run_id, []))).unit_id)


def companions(run: RunSpec, by_id: Mapping[str, RunSpec]) -> list[RunSpec]:
    """Return the other runs of a run's group."""
    return [by_id[run_id] for run_id in run.execution.in_step if run_id != run.run_id]


def _begun_with(store: Store, run: RunSpec) -> tuple[str, ...]:
    begun = beginning_of(store, run.run_id)
    return begun.run.execution.in_step if begun else ()


def _what_is_alike(run: RunSpec) -> str | None:
    """Return a digest of what runs must have in common to go in step; None for runs that go alone."""
    family = FAMILIES[run.model.family]
    if run.mode != "sequential" or run.is_unedited or not run.layers or run.trajectory.targets is not None:
        return None
    definition = definition_of(run)
    if definition is None:
        return None
    if definition["site"] == "value" and family.normed_value:
        return None  # the search runs the edited weight itself
    return digest_of(
        {
            **run.model.identity,
            "definition": definition,
            "contexts": run.trajectory.contexts,
            "layer": run.layers[-1],
            "batch_size": run.batch_size,
            "rounds": [run.n_rounds, run.rounds_per_segment],
            "compute": [run.execution.compute.threads, run.execution.compute.tokens_per_forward],
        }
    )
