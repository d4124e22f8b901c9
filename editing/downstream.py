"""Downstream questions: few-shot prompts with label words, answered by the argmax over the whole vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from editing.lm import LanguageModel


@dataclass(frozen=True, slots=True)
class Question:
    """One example of a benchmark."""

    example_id: str
    prompt: str
    labels: tuple[str, ...]
    gold: str


class Answer(NamedTuple):
    """What the model says to a question."""

    question: Question
    predicted: str | None
    """The label whose every token is the argmax; None if no label is (an invalid answer, which is wrong)."""
    label_nlls: tuple[float, ...]
    """Summed NLL of each label after the prompt, in the order of ``question.labels``."""


def answer_questions(lm: LanguageModel, questions: Sequence[Question]) -> list[Answer]:
    """Return the model's answers, in order."""
    pairs = [(question.prompt, label) for question in questions for label in question.labels]
    scores = iter(lm.answer_logprobs([prompt for prompt, _ in pairs], [label for _, label in pairs]))
    answers = []
    for question in questions:
        mine = [next(scores) for _ in question.labels]
        said = [label for label, score in zip(question.labels, mine, strict=True) if score.correct]
        answers.append(Answer(question, said[0] if said else None, tuple(score.nll_sum for score in mine)))
    return answers
