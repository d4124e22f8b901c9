"""Which units of a run can be done now: the next segment of its chain, and every score of rounds that are committed."""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from editing.scores import SCORING_VERSION
from storage.identity import digest_of
from storage.store import Commit, Store
from tasks.identity import RunSpec, Unit, UnitKind
from tasks.ledger import chain_of


class Scored(NamedTuple):
    """What a run's commits say has been scored; with other settings only the rest is."""

    facts: frozenset[int]
    """Positions of facts, of a run without edits."""
    rounds: frozenset[int]
    """Rounds whose own facts are scored."""
    retained: Mapping[int, frozenset[int]]
    """By number of rounds, positions of earlier edits."""
    examples: Mapping[tuple[str, int], int]
    """By benchmark and number of rounds, how many of its examples."""

    @classmethod
    def of(cls, commits: Iterable[Commit]) -> "Scored":
        facts: set[int] = set()
        rounds: set[int] = set()
        retained: dict[int, frozenset[int]] = {}
        examples: dict[tuple[str, int], int] = {}
        for commit in commits:
            spec = commit.spec or {}
            if commit.kind == "baseline":
                facts.update(range(spec["first"], spec["last"]))
            elif commit.kind == "own":
                rounds.update(range(commit.first_round or 0, commit.last_round or 0))
            elif commit.kind == "retention":
                at = spec["rounds"]
                retained[at] = retained.get(at, frozenset()) | frozenset(spec["positions"])
            elif commit.kind == "benchmark":
                key = (spec["benchmark"], spec["rounds"])
                examples[key] = max(examples.get(key, 0), spec["n_examples"])
        return cls(frozenset(facts), frozenset(rounds), retained, examples)


def ready_units(store: Store, run: RunSpec, others: Sequence[RunSpec] = ()) -> list[Unit]:
    """Return a run's units that are neither committed nor waiting for another, segments first.

    Args:
        others: Runs that go in step with it.  The segments of all are units of the first of them.
    """
    commits = store.commits(run.run_id)
    scored = Scored.of(commits.values())
    if run.editor == "none":
        return baseline_units(run, scored)
    chain = chain_of(commits.values())
    done = (chain[-1].last_round or 0) if chain else 0
    units: list[Unit] = []
    if done < run.n_rounds and run.run_id == (run.in_step or (run.run_id,))[0]:
        later = [c.first_round for c in commits.values() if c.kind == "segment" and (c.first_round or 0) > done]
        units.append(segment_unit(run, done, others, before=min((at for at in later if at is not None), default=None)))
    for commit in chain:
        units += score_units(run, commit.first_round or 0, commit.last_round or 0, scored)
    return units


def all_units(run: RunSpec) -> list[Unit]:
    """Return every unit of an unfinished run, as if it were cut into segments of the planned length."""
    nothing = Scored.of(())
    if run.editor == "none":
        return baseline_units(run, nothing)
    units, first = [], 0
    while first < run.n_rounds:
        unit = segment_unit(run, first)
        units += [unit, *score_units(run, first, unit.payload["last_round"], nothing)]
        first = unit.payload["last_round"]
    return units


def segment_unit(run: RunSpec, first: int, others: Sequence[RunSpec] = (), *, before: int | None = None) -> Unit:
    """Return the segment that starts at round ``first``; segments end on multiples of the planned length.

    Args:
        before: Where the next committed segment begins, if one behind a gap does.
    """
    length = run.rounds_per_segment
    last = min((first // length + 1) * length, run.n_rounds)
    last = last if before is None else min(last, before)
    n_items = (last - first) * run.batch_size * (1 + len(others))
    return Unit(
        run_id=run.run_id,
        unit_id=f"segment-{first:06d}",
        kind="segment",
        model=run.model,
        payload={"first_round": first, "last_round": last, "n_items": n_items},
        run=run,
        others=tuple(others),
    )


def training_unit_id(first: int) -> str:
    return f"steps-{first:06d}"


def score_units(run: RunSpec, first: int, last: int, scored: Scored) -> list[Unit]:
    """Return what is to be scored of rounds [first, last): the rounds' own facts, and the checkpoints among them."""
    units = []
    for start, stop in _stretches(set(range(first, last)) - scored.rounds):
        own = {"first_round": start, "last_round": stop, "n_items": (stop - start) * run.batch_size}
        units.append(_unit(run, "own", f"own-{start:06d}-{stop:06d}", own, {}))
    for rounds in run.checkpoints:
        if not first < rounds <= last:
            continue
        positions = sorted(set(retained_positions(run, rounds)) - scored.retained.get(rounds, frozenset()))
        if positions:
            payload = {"rounds": rounds, "positions": positions, "n_items": len(positions)}
            units.append(_unit(run, "retention", f"retention-{rounds:06d}", payload, {"p": positions}))
        units += benchmark_units(run, rounds, scored)
    return units


def benchmark_units(run: RunSpec, rounds: int, scored: Scored) -> list[Unit]:
    """Return one unit per benchmark for the model after ``rounds`` rounds."""
    units = []
    for name in run.benchmarks:
        first, last = scored.examples.get((name, rounds), 0), run.n_examples
        if first < last:
            payload = {"rounds": rounds, "benchmark": name, "first": first, "n_examples": last, "n_items": last - first}
            units.append(
                _unit(run, "benchmark", f"benchmark-{name}-{rounds:06d}", payload, {"first": first, "last": last})
            )
    return units


def baseline_units(run: RunSpec, scored: Scored) -> list[Unit]:
    """Return the units of the unedited model: its facts in chunks, and each benchmark once."""
    units = []
    for start, stop in _stretches(set(range(run.facts.size)) - scored.facts):
        for first in range(start, stop, run.commit_every):
            last = min(first + run.commit_every, stop)
            payload = {"first": first, "last": last, "n_items": last - first}
            units.append(_unit(run, "baseline", f"baseline-{first:06d}-{last:06d}", payload, {}))
    return units + benchmark_units(run, 0, scored)


def retained_positions(run: RunSpec, rounds: int) -> list[int]:
    """Return the positions of the earlier edits that a checkpoint scores again: all, none, or a seeded sample.

    A smaller sample is a part of a larger one.
    """
    n_edits = rounds * run.batch_size
    if run.retention == "none":
        return []
    if run.retention == "all" or int(run.retention) >= n_edits:
        return list(range(n_edits))
    order = random.Random(f"retention-{run.seed}-{rounds}").sample(range(n_edits), n_edits)
    return sorted(order[: int(run.retention)])


def _stretches(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the numbers as ranges: the first of each, and the one behind its last."""
    groups = (list(group) for _, group in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]))
    return [(group[0][1], group[-1][1] + 1) for group in groups]


def _unit(
    run: RunSpec, kind: UnitKind, name: str, payload: Mapping[str, object], identity: Mapping[str, object]
) -> Unit:
    return Unit(
        run_id=run.run_id,
        unit_id=f"{name}-{digest_of({**identity, 'scoring': SCORING_VERSION}, length=8)}",
        kind=kind,
        model=run.model,
        payload=payload,
        run=run,
    )
