"""Downstream questions put to a model: which choice is likeliest, which label it says, or what it writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from editing.model.lm import AnswerScore, LanguageModel

ChoiceMeasure = Literal["sum", "token", "byte"]
"""What makes a choice likeliest: the least NLL in all, per token, or per byte of its text."""


@dataclass(frozen=True, slots=True)
class Question:
    """One example of a benchmark, as the model reads it."""

    example_id: str
    prompt: str
    choices: tuple[str, ...]
    """What may be answered; empty if the model writes freely."""
    gold: tuple[str, ...]
    """Right answers; one, unless the model writes freely."""
    group: str = ""
    """The part of the benchmark that it belongs to (MMLU's subject)."""
    tests: tuple[str, ...] = ()
    """Code that a written program must pass."""


class Answer(NamedTuple):
    """What a model gives for a question."""

    n_prompt_tokens: int
    fits: bool
    """Whether prompt and longest answer are within the model's context; if not, nothing was asked."""
    choices: "tuple[AnswerScore, ...]" = ()
    text: str | None = None
    """What the model wrote; None if it was not to write, had no room, or gave NaN."""


def score_choices(lm: "LanguageModel", questions: Sequence[Question]) -> list[Answer]:
    """Return how the model scores each choice after its question, in order."""
    pairs = [(number, choice) for number, question in enumerate(questions) for choice in question.choices]
    heads, tails = lm.pair_ids([questions[i].prompt for i, _ in pairs], [choice for _, choice in pairs])
    lengths, needed = [0] * len(questions), [0] * len(questions)
    for (i, _), head, tail in zip(pairs, heads, tails, strict=True):
        lengths[i], needed[i] = len(head), max(needed[i], len(head) + len(tail))
    fits = [_fits(lm, n) for n in needed]
    asked = [place for place, (i, _) in enumerate(pairs) if fits[i]]
    scores = iter(lm.score_ids([heads[place] for place in asked], [tails[place] for place in asked]))
    return [
        Answer(length, fit, tuple(next(scores) for _ in question.choices) if fit else ())
        for question, length, fit in zip(questions, lengths, fits, strict=True)
    ]


def write_answers(
    lm: "LanguageModel", questions: Sequence[Question], n_tokens: int, until: Sequence[str]
) -> list[Answer]:
    """Return what the model writes after each question: at most ``n_tokens`` likeliest tokens, up to one of ``until``."""
    lengths = [len(head) for head in lm.prompt_ids([question.prompt for question in questions])]
    fits = [_fits(lm, length + n_tokens) for length in lengths]
    asked = [question.prompt for question, fit in zip(questions, fits, strict=True) if fit]
    texts = iter(lm.continue_greedily(asked, n_tokens, until=until))
    return [Answer(length, fit, text=next(texts) if fit else None) for length, fit in zip(lengths, fits, strict=True)]


def likeliest_choice(question: Question, answer: Answer, by: ChoiceMeasure = "sum") -> str | None:
    """Return the choice with the least NLL, the first of equals; None if the model gives NaN or had no room."""
    sizes = {
        "sum": [1 for _ in question.choices],
        "token": [score.n_tokens for score in answer.choices],
        "byte": [len(choice.encode()) for choice in question.choices],
    }[by]
    values = [score.nll_sum / size for score, size in zip(answer.choices, sizes, strict=False)]
    if not values or any(value != value for value in values):
        return None
    return question.choices[values.index(min(values))]


def said_choice(question: Question, answer: Answer) -> str | None:
    """Return the choice whose every token is the argmax over the whole vocabulary; None if none is."""
    said = (choice for choice, score in zip(question.choices, answer.choices, strict=False) if score.correct)
    return next(said, None)


def _fits(lm: "LanguageModel", n_tokens: int) -> bool:
    return lm.context_tokens is None or n_tokens <= lm.context_tokens
