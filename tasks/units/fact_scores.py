"""Scores of facts: of the unedited model, of each edit right after its round, and of earlier edits at checkpoints."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from editing.versions import SCORING_VERSION
from storage.commits import Commit
from tasks.specs.run import TOKENS_PER_FORWARD, RunSpec
from tasks.units.score import Score, checkpoints, stretches
from tasks.units.unit import Bench, Done, Record

if TYPE_CHECKING:
    from editing.measure.scores import ProbeScore
    from editing.model.lm import LanguageModel
    from editing.requests import EditRequest


@dataclass(frozen=True, kw_only=True)
class Own(Score):
    """The facts of some rounds, each scored right after its round."""

    kind: ClassVar[str] = "own"
    cost_per_item: ClassVar[float] = 0.5
    first: int
    last: int
    """Rounds [first, last)."""

    @classmethod
    def recipe_of(cls, run: RunSpec) -> str:
        return _recipe(run, with_texts=True)

    @classmethod
    def missing(cls, run: RunSpec, segments: Sequence[range], seen: Sequence[Commit]) -> list["Own"]:
        scored = {at for commit in seen for at in range(commit.first_round or 0, commit.last_round or 0)}
        return [
            cls(run=run, first=first, last=last)
            for segment in segments
            for first, last in stretches(set(segment) - scored)
        ]

    @property
    def unit_id(self) -> str:
        return self.named(f"own-{self.first:06d}-{self.last:06d}")

    @property
    def n_items(self) -> int:
        return (self.last - self.first) * self.run.batch_size

    @property
    def last_round(self) -> int:
        return self.last

    @property
    def rounds_held(self) -> tuple[int, int]:
        return self.first, self.last

    def do(self, bench: Bench) -> Done:
        order, size, rows = bench.order(self.run), self.run.batch_size, []
        for at in range(self.first, self.last):
            batch = order[at * size : (at + 1) * size]
            rows += probe_rows(bench.at(self.run, at + 1), batch, self.run, at + 1, purpose=self.kind, edited_at=at)
        return Done({"fact_scores": rows})


@dataclass(frozen=True, kw_only=True)
class RetentionRecord(Record):
    """Which earlier edits were scored again, and after how many rounds."""

    rounds: int
    positions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Retention(Score):
    """Earlier edits, scored again at a checkpoint."""

    kind: ClassVar[str] = "retention"
    cost_per_item: ClassVar[float] = 0.05
    rounds: int
    positions: tuple[int, ...]
    """Of the edits in the run's order."""

    @classmethod
    def recipe_of(cls, run: RunSpec) -> str:
        return _recipe(run, with_texts=run.scoring.texts == "all")

    @classmethod
    def missing(cls, run: RunSpec, segments: Sequence[range], seen: Sequence[Commit]) -> list["Retention"]:
        scored: dict[int, set[int]] = {}
        for record in (RetentionRecord.of_json(commit.spec) for commit in seen):
            scored.setdefault(record.rounds, set()).update(record.positions)
        left = {at: set(retained_positions(run, at)) - scored.get(at, set()) for at in checkpoints(run, segments)}
        return [cls(run=run, rounds=at, positions=tuple(sorted(wanted))) for at, wanted in left.items() if wanted]

    @property
    def unit_id(self) -> str:
        return self.named(f"retention-{self.rounds:06d}", {"p": list(self.positions)})

    @property
    def n_items(self) -> int:
        return len(self.positions)

    @property
    def last_round(self) -> int:
        return self.rounds

    @property
    def rounds_held(self) -> tuple[int, int]:
        return self.rounds - 1, self.rounds

    def do(self, bench: Bench) -> Done:
        order, size, lm = bench.order(self.run), self.run.batch_size, bench.at(self.run, self.rounds)
        again = [order[i] for i in self.positions]
        edited_at = [i // size for i in self.positions]
        rows = probe_rows(lm, again, self.run, self.rounds, purpose=self.kind, edited_at=edited_at)
        return Done({"fact_scores": rows}, RetentionRecord(rounds=self.rounds, positions=self.positions))


@dataclass(frozen=True, kw_only=True)
class BaselineRecord(Record):
    """Which facts of the sample were scored: [first, last)."""

    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Baseline(Score):
    """Some of a sample's facts, scored on the unedited model; the first unit writes the row of the run."""

    kind: ClassVar[str] = "baseline"
    cost_per_item: ClassVar[float] = 0.2
    first: int
    last: int

    @classmethod
    def recipe_of(cls, run: RunSpec) -> str:
        return _recipe(run, with_texts=True)

    @classmethod
    def missing(cls, run: RunSpec, segments: Sequence[range], seen: Sequence[Commit]) -> list["Baseline"]:
        if not run.is_unedited:
            return []
        records = [BaselineRecord.of_json(commit.spec) for commit in seen]
        scored = {i for record in records for i in range(record.first, record.last)}
        return [
            cls(run=run, first=first, last=min(first + run.execution.commit_every, end))
            for begin, end in stretches(set(range(run.facts.size)) - scored)
            for first in range(begin, end, run.execution.commit_every)
        ]

    @property
    def unit_id(self) -> str:
        return self.named(f"baseline-{self.first:06d}-{self.last:06d}")

    @property
    def n_items(self) -> int:
        return self.last - self.first

    @property
    def last_round(self) -> int:
        return 0

    def do(self, bench: Bench) -> Done:
        facts = bench.order(self.run)[self.first : self.last]
        rows = probe_rows(bench.pristine(self.model), facts, self.run, 0, purpose=self.kind, edited_at=None)
        tables = {"fact_scores": rows}
        if self.first == 0:
            from tasks.runs.rows import run_row

            compute = replace(self.run.execution.compute, tokens_per_forward=TOKENS_PER_FORWARD)
            tables["runs"] = [run_row(self.run.changed(compute=compute), {}, bench.device)]
        return Done(tables, BaselineRecord(first=self.first, last=self.last))


def retained_positions(run: RunSpec, rounds: int) -> list[int]:
    """Return the positions of the earlier edits that a checkpoint scores again: all, none, or a seeded sample.

    A smaller sample is a part of a larger one.
    """
    n_edits = rounds * run.batch_size
    if run.scoring.retention == "none":
        return []
    if run.scoring.retention == "all" or int(run.scoring.retention) >= n_edits:
        return list(range(n_edits))
    order = random.Random(f"retention-{run.trajectory.seed}-{rounds}").sample(range(n_edits), n_edits)
    return sorted(order[: int(run.scoring.retention)])


def probe_rows(
    lm: "LanguageModel",
    requests: "Sequence[EditRequest]",
    run: RunSpec,
    rounds: int,
    *,
    purpose: str,
    edited_at: int | Sequence[int] | None,
) -> list[dict[str, Any]]:
    """Score all probes of ``requests`` on the model as it is after ``rounds`` rounds; one row of ``fact_scores`` each.

    Args:
        edited_at: The round in which they were edited, or that of each; None on the unedited model.
    """
    from editing.measure.scores import probes_of, score_probes

    at = edited_at if isinstance(edited_at, Sequence) else [edited_at] * len(requests)
    probes = [(when, probe) for when, request in zip(at, requests, strict=True) for probe in probes_of(request)]
    free = purpose != Retention.kind or run.scoring.texts == "all"
    scores = score_probes(lm, [probe for _, probe in probes], text_tokens=run.scoring.text_tokens if free else 0)
    return [
        {
            "purpose": purpose,
            "fact_id": score.probe.request_id,
            "edited_at": when,
            "scored_at": rounds - 1,
            "edits_so_far": rounds * run.batch_size,
            "argmax_new": list(score.new.argmax_ids),
            "argmax_true": list(score.true.argmax_ids) if score.true else None,
            "text": score.text,
            **score_columns(score),
        }
        for (when, _), score in zip(probes, scores, strict=True)
    ]


def score_columns(score: "ProbeScore") -> dict[str, Any]:
    """Return the columns of a probe's score that facts and layer searches share.

    Where there is no true target its columns are NULL, and ``n_true`` is 0.
    """
    true = score.true
    return {
        "probe_id": score.probe.probe_id,
        "kind": score.probe.kind,
        "nll_new": finite(score.new.nll_sum),
        "n_new": score.new.n_tokens,
        "nll_true": finite(true.nll_sum) if true else None,
        "n_true": true.n_tokens if true else 0,
        "n_correct_new": score.new.n_correct,
        "n_correct_true": true.n_correct if true else None,
        "is_nan": score.is_nan,
    }


def finite(value: float) -> float | None:
    """Return a number as tables have it: NULL where it is NaN or infinite."""
    return value if math.isfinite(value) else None


def _recipe(run: RunSpec, *, with_texts: bool) -> str:
    return f"v{SCORING_VERSION}-t{run.scoring.text_tokens if with_texts else 0}"
