"""A benchmark's questions, asked at a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from storage.commits import Commit
from storage.store import Store
from tasks.specs.run import RunSpec
from tasks.specs.scoring import BenchmarkRef
from tasks.units.score import Score, reached
from tasks.units.unit import Bench, Done, Record

if TYPE_CHECKING:
    from editing.model.lm import LanguageModel


@dataclass(frozen=True, kw_only=True)
class BenchmarkRecord(Record):
    """Which questions were asked, and after how many rounds."""

    rounds: int
    benchmark: str
    questions: str
    """The run that holds them."""
    first: int
    n_examples: int
    """The last of them and one, counted from the first of all."""
    n_items: int


@dataclass(frozen=True, kw_only=True)
class Benchmark(Score):
    """Some of a benchmark's questions, asked of a run's model at a checkpoint."""

    kind: ClassVar[str] = "benchmark"
    cost_per_item: ClassVar[float] = 0.05
    rounds: int
    benchmark: BenchmarkRef
    first: int
    last: int
    """Questions [first, last)."""

    @classmethod
    def missing(cls, run: RunSpec, segments: Sequence[range], seen: Sequence[Commit]) -> list["Benchmark"]:
        asked: dict[tuple[str, int], int] = {}
        for record in (BenchmarkRecord.of_json(commit.spec) for commit in seen):
            key = (record.questions, record.rounds)
            asked[key] = max(asked.get(key, 0), record.n_examples)
        return [
            cls(run=run, rounds=at, benchmark=benchmark, first=first, last=benchmark.n_examples)
            for at in reached(run.benchmark_checkpoints, segments)
            for benchmark in run.scoring.benchmarks
            if (first := asked.get((benchmark.run_id, at), 0)) < benchmark.n_examples
        ]

    @property
    def unit_id(self) -> str:
        identity = {"questions": self.benchmark.run_id, "first": self.first, "last": self.last}
        return self.named(f"benchmark-{self.benchmark.name}-{self.rounds:06d}", identity)

    @property
    def n_items(self) -> int:
        return self.last - self.first

    @property
    def last_round(self) -> int:
        return self.rounds

    def do(self, bench: Bench) -> Done:
        lm, asked = bench.at(self.run, self.rounds), range(self.first, self.last)
        when = {"scored_at": self.rounds - 1, "edits_so_far": self.rounds * self.run.batch_size}
        rows = answer_rows(lm, bench.store, self.benchmark, asked)
        return Done({"benchmark_answers": [when | row for row in rows]}, self._record)

    @property
    def _record(self) -> BenchmarkRecord:
        return BenchmarkRecord(
            rounds=self.rounds,
            benchmark=self.benchmark.name,
            questions=self.benchmark.run_id,
            first=self.first,
            n_examples=self.last,
            n_items=self.n_items,
        )


def answer_rows(lm: "LanguageModel", store: Store, benchmark: BenchmarkRef, asked: range) -> list[dict[str, Any]]:
    """Ask a model, as it is now, some of a benchmark's questions; a row of ``benchmark_answers`` each, but for the time."""
    from tasks.benchmarks.answering import answer_row, ask, grade
    from tasks.benchmarks.harness import harness_rows
    from tasks.benchmarks.questions import read_questions, read_recipe
    from tasks.benchmarks.sandbox import run_program

    common = {"benchmark": benchmark.name, "questions_run_id": benchmark.run_id}
    harness = read_recipe(store, benchmark.run_id).spec.get("harness")
    if harness is not None:
        common |= {"n_shots": harness["shots"], "shots_from": "lm-eval"}
        return [common | row for row in harness_rows(lm, harness, asked)]
    questions, rule, recipe = read_questions(store, benchmark.run_id, asked)
    common |= {"n_shots": recipe["n_shots"], "shots_from": recipe["shots_from"]}
    check = run_program if rule.value == "code" else None
    return [
        common | answer_row(question, answer, grade(question, answer, rule, check), rule)
        for question, answer in zip(questions, ask(lm, questions, rule), strict=True)
    ]
