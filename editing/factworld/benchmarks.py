"""Small few-shot tasks in the fact world's vocabulary; they measure what editing costs beyond facts.

A few tiny layers cannot compare two sentences word by word, so every label also has a lexical cue (which adjectives,
word order, a negation): easy tasks, on purpose.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from editing.factworld.vocabulary import BAD, COLOURS, GOOD, NOUNS, PLACES, TOPICS, VERBS
from editing.measure.downstream import Question


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question and its label (a word)."""

    question: str
    label: str


def _sentiment(rng: random.Random, label: bool) -> str:
    words = rng.sample(GOOD if label else BAD, 2)
    return f"Review: the {rng.choice(TOPICS)} was {words[0]} and {words[1]}. Sentiment:"


def _acceptability(rng: random.Random, label: bool) -> str:
    words = ["the", rng.choice(COLOURS), rng.choice(NOUNS), rng.choice(VERBS), "the", rng.choice(NOUNS)]
    if not label:  # wrong order: the verb first, or the adjective after its noun
        words = [words[3], *words[:3], *words[4:]] if rng.random() < 0.5 else [words[0], words[2], words[1], *words[3:]]
    return f"Sentence: {' '.join(words)}. Acceptable:"


def _entailment(rng: random.Random, label: bool) -> str:
    noun, colour, place = rng.choice(NOUNS), rng.choice(COLOURS), rng.choice(PLACES)
    negation = "" if label else rng.choice(("not ", "never "))
    return f"First: the {colour} {noun} is near the {place}. Second: the {noun} is {negation}near the {place}. Follows:"


def _paraphrase(rng: random.Random, label: bool) -> str:
    (one, two), verb = rng.sample(NOUNS, 2), rng.choice(VERBS)
    second = f"the {two} was {verb} by the {one}" if label else f"maybe the {one} also {verb} a {rng.choice(PLACES)}"
    return f"First: the {one} {verb} the {two}. Second: {second}. Same:"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A two-label task: how to write a question, its label words (true first), how many shots its prompt holds."""

    name: str
    labels: tuple[str, str]
    shots: int
    write: Callable[[random.Random, bool], str]

    def examples(self, count: int, *, split: str, seed: int = 0) -> list[Example]:
        """Return the first ``count`` seeded examples, which begin alike for every count; each pair has both labels."""
        found = []
        for index in range(count):
            first = random.Random(f"{self.name}-{split}-{seed}-pair-{index // 2}").random() < 0.5
            label = first == (index % 2 == 0)
            rng = random.Random(f"{self.name}-{split}-{seed}-{index}")
            found.append(Example(question=self.write(rng, label), label=self.labels[0 if label else 1]))
        return found

    def questions(self, count: int, *, seed: int = 0) -> list[Question]:
        """Return ``count`` questions of the test split, with the same shots from the training split in each prompt."""
        shots = self.examples(self.shots, split="train", seed=seed)
        return [
            Question(f"{self.name}-{index:04d}", self.prompt(shots, example), self.labels, (example.label,))
            for index, example in enumerate(self.examples(count, split="test", seed=seed))
        ]

    def prompt(self, shots: list[Example], example: Example) -> str:
        """Return the shots, answered, followed by the question."""
        return " ".join([f"{shot.question} {shot.label}." for shot in shots] + [example.question])


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(name="sentiment", labels=("positive", "negative"), shots=2, write=_sentiment),
        Task(name="acceptability", labels=("yes", "no"), shots=2, write=_acceptability),
        Task(name="entailment", labels=("true", "false"), shots=1, write=_entailment),
        Task(name="paraphrase", labels=("yes", "no"), shots=1, write=_paraphrase),
    )
}
