"""What is scored of a run, and when; no part of what determines its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BenchmarkRef:
    """A benchmark's questions, as they stand in the store, and how many of them are asked."""

    name: str
    run_id: str
    """Where ``benchmark_questions`` holds them: ``questions-<digest>``, of their texts and the rule for answers."""
    n_examples: int


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is scored of a run, and when.  With other settings what is still missing is scored, never anything twice."""

    every_edits: int | tuple[int, ...]
    """Scores of the whole at every so many edits, or at these numbers of edits."""
    retention: str | int
    text_tokens: int
    """Tokens of the free-running texts of fact scores; 0: none."""
    texts: str
    """``own``: of each edit right after its round, and of the baseline; ``all``: of retention too."""
    benchmarks: tuple[BenchmarkRef, ...]
    benchmark_edits: int | tuple[int, ...] | None = None
    """As ``every_edits``, of benchmarks alone; None: at every checkpoint."""
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of the scores of whole checkpoints, by kind; those that are not named are not wanted."""
