"""A model that says what it is told to: for engines that ask, in the place of one that thinks."""

from collections.abc import Callable, Sequence
from typing import Any

from editing.measure.downstream import Question
from editing.model.lm import AnswerScore

Says = Callable[[Question], str]


class Stub:
    """What :func:`tasks.benchmarks.answering.ask` needs of a language model.

    Args:
        says: Of a question, the choice that is likeliest (and the argmax), or the text that is written.
        context_tokens: As of a model; a prompt has as many tokens as characters.
    """

    def __init__(self, questions: Sequence[Question], says: Says, context_tokens: int | None = None) -> None:
        self._said = {question.prompt: says(question) for question in questions}
        self.context_tokens = context_tokens
        self._pairs: list[tuple[str, str]] = []

    def prompt_ids(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        return [(0,) * len(prompt) for prompt in prompts]

    def pair_ids(self, prompts: Sequence[str], answers: Sequence[str]) -> tuple[Any, Any]:
        self._pairs = list(zip(prompts, answers, strict=True))
        return self.prompt_ids(prompts), [(number,) for number in range(len(answers))]

    def score_ids(self, heads: Sequence[Any], tails: Sequence[Any]) -> list[AnswerScore]:
        assert len(heads) == len(tails)
        return [self._score(*self._pairs[number]) for (number,) in tails]

    def _score(self, prompt: str, choice: str) -> AnswerScore:
        right = choice == self._said[prompt]
        # Beyond the longest choice, so that no normalisation by length turns the order round.
        return AnswerScore(0.0 if right else 1000.0, len(choice), (), len(choice) if right else 0)

    def continue_greedily(self, prompts: Sequence[str], n_tokens: int, *, until: Sequence[str] = ()) -> list[str]:
        assert n_tokens > 0
        return [self._said[prompt] for prompt in prompts]
