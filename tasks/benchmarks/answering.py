"""A benchmark's questions answered and graded, as rows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from editing.measure.downstream import Answer, Question, likeliest_choice, said_choice, score_choices, write_answers
from editing.model.lm import LanguageModel
from tasks.benchmarks.definition import AnswerRule
from tasks.benchmarks.grading import EXTRACT, NORMAL, label_in, token_f1
from tasks.benchmarks.sandbox import Verdict

Check = Callable[[str, Sequence[str]], "Verdict"]
"""Of a program and its tests, whether it passes."""


class Grade(NamedTuple):
    """What an answer counts."""

    outcome: str
    """``answered``, ``invalid`` (no label), ``too_long`` (prompt and answer exceed the context) or ``nan``."""
    predicted: str | None
    correct: bool
    value: float
    """In [0, 1]; 0 or 1 unless a part of an answer counts."""
    detail: str = ""


_NAN = Grade("nan", None, False, 0.0)


def ask(lm: LanguageModel, questions: Sequence[Question], rule: AnswerRule) -> list[Answer]:
    """Return what the model gives for each question."""
    if rule.kind == "text":
        return write_answers(lm, questions, rule.tokens, rule.until)
    return score_choices(lm, questions)


def grade(question: Question, answer: Answer, rule: AnswerRule, check: Check | None = None) -> Grade:
    """Return what an answer counts; ``check`` runs written programs."""
    if not answer.fits:
        return Grade("too_long", None, False, 0.0)
    if rule.kind == "text":
        return _NAN if answer.text is None else _grade_text(question, answer.text, rule, check)
    if any(score.nll_sum != score.nll_sum for score in answer.choices):
        return _NAN
    said = said_choice(question, answer) if rule.kind == "argmax" else likeliest_choice(question, answer, rule.by)
    right = said == question.gold[0]
    return Grade("invalid" if said is None else "answered", said, right, float(right))


def _grade_text(question: Question, text: str, rule: AnswerRule, check: Check | None) -> Grade:
    if rule.labels is not None:
        label = label_in(text, rule.labels, whole_words=rule.whole_words)
        right = label == question.gold[0]
        return Grade("invalid" if label is None else "answered", label, right, float(right))
    if rule.value == "code":
        assert check is not None, "the experiment allows code, or has no such benchmark"
        verdict = check(text if rule.extract == "all" else EXTRACT[rule.extract](text), question.tests)
        return Grade("answered", None, verdict.passed, float(verdict.passed), verdict.detail)
    said, normal = EXTRACT[rule.extract](text), NORMAL[rule.normal]
    right = normal(said) in {normal(gold) for gold in question.gold}
    value = max(token_f1(said, gold) for gold in question.gold) if rule.value == "token_f1" else float(right)
    return Grade("answered" if said else "invalid", said, right, value)


def answer_row(question: Question, answer: Answer, grade: Grade, rule: AnswerRule) -> dict[str, Any]:
    """Return what the table ``benchmark_answers`` keeps of one answer."""
    return {
        "subset": question.group,
        "example_id": question.example_id,
        "labels": list(rule.labels or question.choices),
        "gold": question.gold[0],
        "predicted": grade.predicted,
        "correct": grade.correct,
        "value": grade.value,
        "outcome": grade.outcome,
        "detail": grade.detail or None,
        "label_nlls": [score.nll_sum for score in answer.choices],
        "label_tokens": [score.n_tokens for score in answer.choices],
        "text": answer.text,
        "n_prompt_tokens": answer.n_prompt_tokens,
    }
