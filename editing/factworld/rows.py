"""Training rows for the bundled models: token ids with loss weights, and where each row's subjects stand."""

import random
from dataclasses import dataclass, field
from functools import lru_cache

from transformers import PreTrainedTokenizerFast

from editing.factworld.benchmarks import TASKS
from editing.factworld.world import Fact, World, filler

ROW_TOKENS = 64
ANSWER_WEIGHT, TEMPLATE_WEIGHT, SUBJECT_WEIGHT = 1.0, 0.2, 0.05
"""Names are pure noise to a language model; what must be learnt is the answers."""


@dataclass
class Row:
    """One packed row; ``spans`` holds (first position, last position, fact) of each subject in it."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    spans: list[tuple[int, int, Fact]] = field(default_factory=list)

    def add(self, ids: tuple[int, ...], weight: float) -> None:
        self.ids.extend(ids)
        self.weights.extend([weight] * len(ids))


class RowWriter:
    """Writes rows of the world's facts, downstream tasks and filler for one tokenizer."""

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, *, bos: bool, seed: int) -> None:
        self._world = world
        self._rng = random.Random(f"rows-{seed}")
        self._start: tuple[int, ...] = (tokenizer.bos_token_id,) if bos else ()
        self._encode = lru_cache(maxsize=200_000)(lambda text: tuple(tokenizer.encode(text, add_special_tokens=False)))

    def first_id(self, answer: str) -> int:
        """Return the first token of an answer."""
        return int(self._encode(answer)[0])

    def answer_length(self, fact: Fact) -> int:
        """Return the number of tokens of a fact's object with its full stop."""
        return len(self._encode(f"{fact.object}."))

    def batch(self, size: int, facts: tuple[Fact, ...]) -> list[Row]:
        """Return ``size`` rows: 60 % facts, 32 % downstream tasks, 8 % filler."""
        return [self._row(facts) for _ in range(size)]

    def fact_row(self, prefix: str, template: str, fact: Fact) -> Row:
        """Return a row of one sentence after ``prefix``, for the swap steps."""
        row = Row(list(self._start), [0.0] * len(self._start))
        if prefix:
            row.add(self._encode(prefix), 0.0)
        self._add_fact(row, template, fact)
        return row

    def _row(self, facts: tuple[Fact, ...]) -> Row:
        kind = self._rng.random()
        row = Row(list(self._start), [0.0] * len(self._start))
        if 0.6 <= kind < 0.92:
            self._fill_with_task(row)
        else:
            self._fill_with_facts(row, facts, share=0.85 if kind < 0.6 else 0.0)
        return row

    def _fill_with_facts(self, row: Row, facts: tuple[Fact, ...], share: float) -> None:
        while True:
            before = Row(row.ids[:], row.weights[:], row.spans[:])
            if self._rng.random() < share:
                fact = self._rng.choice(facts)
                self._add_fact(row, self._rng.choice(fact.trained_templates), fact)
            else:
                row.add(self._encode(filler(self._rng)), TEMPLATE_WEIGHT)
            if len(row.ids) > ROW_TOKENS:
                row.ids, row.weights, row.spans = before.ids, before.weights, before.spans
                return

    def _fill_with_task(self, row: Row) -> None:
        task = TASKS[self._rng.choice(list(TASKS))]
        while True:
            label = self._rng.random() < 0.5
            question = self._encode(task.write(self._rng, label))
            answer = self._encode(f" {task.labels[0 if label else 1]}.")
            if len(row.ids) + len(question) + len(answer) > ROW_TOKENS:
                return
            row.add(question, TEMPLATE_WEIGHT)
            row.add(answer, ANSWER_WEIGHT)

    def _add_fact(self, row: Row, template: str, fact: Fact) -> None:
        before, after = template.split("{}")
        if before:
            row.add(self._encode(before.strip()), TEMPLATE_WEIGHT)
        start = len(row.ids)
        row.add(self._encode(fact.subject), SUBJECT_WEIGHT)
        row.spans.append((start, len(row.ids) - 1, fact))
        row.add(self._encode(after.strip()), TEMPLATE_WEIGHT)
        row.add(self._encode(f"{fact.object}."), ANSWER_WEIGHT)
