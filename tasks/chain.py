"""Which units of a run can be done now: the next segment of its chain, and every score of rounds that are committed."""

import random
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from editing.scores import SCORING_VERSION
from storage.identity import digest_of
from storage.store import Store
from tasks.identity import RunSpec, Unit, UnitKind
from tasks.ledger import segments


def ready_units(store: Store, run: RunSpec, others: Sequence[RunSpec] = ()) -> list[Unit]:
    """Return a run's units that are neither committed nor waiting for another, segments first.

    Args:
        others: Runs that go in step with it.  The segments of all are units of the first of them.
    """
    committed = set(store.commits(run.run_id))
    if run.editor == "none":
        return _missing(baseline_units(run), committed)
    chain = segments(store, run.run_id)
    done = (chain[-1].last_round or 0) if chain else 0
    units: list[Unit] = []
    if done < run.n_rounds and run.run_id == (run.in_step or (run.run_id,))[0]:
        units.append(segment_unit(run, done, others))
    for commit in chain:
        units += score_units(run, commit.first_round or 0, commit.last_round or 0)
    return _missing(units, committed)


def all_units(run: RunSpec) -> list[Unit]:
    """Return every unit of an unfinished run, as if it were cut into segments of the planned length."""
    if run.editor == "none":
        return baseline_units(run)
    units, first = [], 0
    while first < run.n_rounds:
        unit = segment_unit(run, first)
        units += [unit, *score_units(run, first, unit.payload["last_round"])]
        first = unit.payload["last_round"]
    return units


def segment_unit(run: RunSpec, first: int, others: Sequence[RunSpec] = ()) -> Unit:
    """Return the segment that starts at round ``first``; segments end on multiples of the planned length."""
    length = run.rounds_per_segment
    last = min((first // length + 1) * length, run.n_rounds)
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


def score_units(run: RunSpec, first: int, last: int) -> list[Unit]:
    """Return what is to be scored of rounds [first, last): the rounds' own facts, and the checkpoints among them."""
    own = {"first_round": first, "last_round": last, "n_items": (last - first) * run.batch_size}
    units = [_unit(run, "own", f"own-{first:06d}-{last:06d}", own, {"scoring": SCORING_VERSION})]
    for rounds in run.checkpoints:
        if not first < rounds <= last:
            continue
        positions = retained_positions(run, rounds)
        if positions:
            payload = {"rounds": rounds, "positions": positions, "n_items": len(positions)}
            units.append(
                _unit(
                    run, "retention", f"retention-{rounds:06d}", payload, {"p": positions, "scoring": SCORING_VERSION}
                )
            )
        units += benchmark_units(run, rounds)
    return units


def benchmark_units(run: RunSpec, rounds: int) -> list[Unit]:
    """Return one unit per benchmark for the model after ``rounds`` rounds."""
    return [
        _unit(
            run,
            "benchmark",
            f"benchmark-{name}-{rounds:06d}",
            {"rounds": rounds, "benchmark": name, "n_examples": run.n_examples, "n_items": run.n_examples},
            {"name": name, "n_examples": run.n_examples, "scoring": SCORING_VERSION},
        )
        for name in run.benchmarks
    ]


def baseline_units(run: RunSpec) -> list[Unit]:
    """Return the units of the unedited model: its facts in chunks, and each benchmark once."""
    units = []
    for first in range(0, run.facts.size, run.commit_every):
        last = min(first + run.commit_every, run.facts.size)
        payload = {"first": first, "last": last, "n_items": last - first}
        units.append(_unit(run, "baseline", f"baseline-{first:06d}-{last:06d}", payload, {"scoring": SCORING_VERSION}))
    return units + benchmark_units(run, 0)


def retained_positions(run: RunSpec, rounds: int) -> list[int]:
    """Return the positions of the earlier edits that a checkpoint scores again: all, none, or a seeded sample."""
    n_edits = rounds * run.batch_size
    if run.retention == "none":
        return []
    if run.retention == "all" or int(run.retention) >= n_edits:
        return list(range(n_edits))
    return sorted(random.Random(f"retention-{run.seed}-{rounds}").sample(range(n_edits), int(run.retention)))


def _unit(
    run: RunSpec, kind: UnitKind, name: str, payload: Mapping[str, object], identity: Mapping[str, object]
) -> Unit:
    return Unit(
        run_id=run.run_id,
        unit_id=f"{name}-{digest_of(identity, length=8)}",
        kind=kind,
        model=run.model,
        payload=payload,
        run=run,
    )


def _missing(units: list[Unit], committed: AbstractSet[str]) -> list[Unit]:
    return [unit for unit in units if unit.unit_id not in committed]
