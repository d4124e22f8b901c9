"""Which units of a run can be done now: the next segment of its chain, and every score of rounds that are committed."""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from editing.measure.scores import SCORING_VERSION
from storage.commits import NO_RECIPE, Commit, CommitInfo, newest_recipes, recipe_id
from storage.digests import digest_of
from storage.store import Store
from tasks.runs.ledger import chain_of, segment_id
from tasks.specs.run import RunSpec, Unit, UnitKind

SCORED: tuple[UnitKind, ...] = ("own", "baseline", "retention", "generation", "perplexity")
"""Kinds of units that can score in several ways."""


class Scored(NamedTuple):
    """What a run's commits say has been scored, in the way that is wanted now; with other settings only the rest is."""

    facts: frozenset[int]
    """Positions of facts, of a run without edits."""
    rounds: frozenset[int]
    """Rounds whose own facts are scored."""
    retained: Mapping[int, frozenset[int]]
    """By number of rounds, positions of earlier edits."""
    examples: Mapping[tuple[str, int], int]
    """By questions and number of rounds, how many of the examples."""
    texts: frozenset[tuple[str, int]]
    """Generations and perplexities: the kind of unit and the number of rounds."""

    @classmethod
    def of(cls, commits: Iterable[Commit], run: RunSpec) -> "Scored":
        facts: set[int] = set()
        rounds: set[int] = set()
        retained: dict[int, frozenset[int]] = {}
        examples: dict[tuple[str, int], int] = {}
        texts: set[tuple[str, int]] = set()
        for commit in commits:
            spec = commit.spec or {}
            if commit.recipe != scoring_recipe(run, commit.kind):
                continue
            if commit.kind == "baseline":
                facts.update(range(spec["first"], spec["last"]))
            elif commit.kind == "own":
                rounds.update(range(commit.first_round or 0, commit.last_round or 0))
            elif commit.kind == "retention":
                at = spec["rounds"]
                retained[at] = retained.get(at, frozenset()) | frozenset(spec["positions"])
            elif commit.kind == "benchmark":
                key = (spec["questions"], spec["rounds"])
                examples[key] = max(examples.get(key, 0), spec["n_examples"])
            elif commit.kind in ("generation", "perplexity"):
                texts.add((commit.kind, spec["rounds"]))
        return cls(frozenset(facts), frozenset(rounds), retained, examples, frozenset(texts))


def ready_units(store: Store, run: RunSpec, others: Sequence[RunSpec] = ()) -> list[Unit]:
    """Return a run's units that are neither committed nor waiting for another, segments first.

    Args:
        others: Runs that go in step with it.  The segments of all are units of the first of them.
    """
    commits = store.commits(run.run_id)
    scored = Scored.of(commits.values(), run)
    if run.editor == "none":
        return baseline_units(run, scored)
    chain = chain_of(store, run.run_id, commits.values())
    done = (chain[-1].last_round or 0) if chain else 0
    units: list[Unit] = []
    if done < run.n_rounds and run.run_id == (run.in_step or (run.run_id,))[0]:
        later = [c.first_round for c in commits.values() if c.kind == "segment" and (c.first_round or 0) > done]
        units.append(segment_unit(run, done, others, before=min((at for at in later if at is not None), default=None)))
    for commit in chain:
        units += score_units(run, commit.first_round or 0, commit.last_round or 0, scored)
    return units


def units_left(store: Store, run: RunSpec) -> list[Unit]:
    """Return every unit that a run still lacks, those that wait for others too: what is committed stays cut as it is."""
    commits = store.commits(run.run_id)
    scored = Scored.of(commits.values(), run)
    if run.editor == "none":
        return baseline_units(run, scored)
    chain = chain_of(store, run.run_id, commits.values())
    stretches = [(commit.first_round or 0, commit.last_round or 0) for commit in chain]
    units, first = [], stretches[-1][1] if stretches else 0
    while first < run.n_rounds:
        units.append(segment_unit(run, first))
        stretches.append((first, units[-1].payload["last_round"]))
        first = stretches[-1][1]
    return [*units, *(unit for start, stop in stretches for unit in score_units(run, start, stop, scored))]


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
        unit_id=segment_id(first),
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
        units += checkpoint_units(run, rounds, scored)
    return units


def scoring_recipe(run: RunSpec, kind: str) -> str | None:
    """Return how a run's units of one kind score; None if there is but one way."""
    if kind in ("own", "baseline"):
        return f"v{SCORING_VERSION}-t{run.text_tokens}"
    if kind == "retention":
        return f"v{SCORING_VERSION}-t{run.text_tokens if run.texts == 'all' else 0}"
    if kind in ("generation", "perplexity"):
        recipe = {name: value for name, value in (getattr(run, kind) or {}).items() if name != "files"}
        return f"v{SCORING_VERSION}-{digest_of(recipe, length=8)}"
    return None


def choose_recipes(store: Store, run: RunSpec) -> None:
    """Write how a run's scores are wanted now, so that views show those; what was scored otherwise is kept, unseen."""
    newest = newest_recipes(store.commit_rows(run.run_id))
    for kind in SCORED:
        recipe = scoring_recipe(run, kind)
        info = CommitInfo(kind="recipe", recipe=recipe)
        # Nothing is withdrawn: without any recipe, views would show the rows of all for an instant.
        while (last := newest.get(kind, NO_RECIPE)).recipe != recipe:
            if store.commit(run.run_id, recipe_id(kind, last.number + 1), {}, info):
                break
            # Another command was faster, with the same or with its own.
            newest = newest_recipes(store.commit_rows(run.run_id))


def checkpoint_units(run: RunSpec, rounds: int, scored: Scored) -> list[Unit]:
    """Return what looks at the whole model after ``rounds`` rounds: benchmarks, free texts, perplexity."""
    units = benchmark_units(run, rounds, scored)
    wanted: list[tuple[UnitKind, Mapping[str, Any] | None]] = [
        ("generation", run.generation),
        ("perplexity", run.perplexity),
    ]
    for kind, recipe in wanted:
        if recipe is not None and (kind, rounds) not in scored.texts:
            n_items = recipe["prompts" if kind == "generation" else "n_texts"]
            units.append(_unit(run, kind, f"{kind}-{rounds:06d}", {"rounds": rounds, "n_items": n_items}, {}))
    return units


def benchmark_units(run: RunSpec, rounds: int, scored: Scored) -> list[Unit]:
    """Return one unit per benchmark for the model after ``rounds`` rounds."""
    units = []
    for benchmark in run.benchmarks:
        first, last = scored.examples.get((benchmark.run_id, rounds), 0), benchmark.n_examples
        if first < last:
            payload = {
                "rounds": rounds,
                "benchmark": benchmark.name,
                "questions": benchmark.run_id,
                "first": first,
                "n_examples": last,
                "n_items": last - first,
            }
            identity = {"questions": benchmark.run_id, "first": first, "last": last}
            units.append(_unit(run, "benchmark", f"benchmark-{benchmark.name}-{rounds:06d}", payload, identity))
    return units


def baseline_units(run: RunSpec, scored: Scored) -> list[Unit]:
    """Return the units of the unedited model: its facts in chunks, and each benchmark once."""
    units = []
    for start, stop in _stretches(set(range(run.facts.size)) - scored.facts):
        for first in range(start, stop, run.commit_every):
            last = min(first + run.commit_every, stop)
            payload = {"first": first, "last": last, "n_items": last - first}
            units.append(_unit(run, "baseline", f"baseline-{first:06d}-{last:06d}", payload, {}))
    return units + checkpoint_units(run, 0, scored)


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
        unit_id=f"{name}-{digest_of({**identity, 'recipe': scoring_recipe(run, kind)}, length=8)}",
        kind=kind,
        model=run.model,
        payload=payload,
        run=run,
    )
