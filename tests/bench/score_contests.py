"""What is measured of scoring and generation: a plain version beside the product's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from editing.measure.scores import probes_of, score_probes
from editing.model.generation import generate
from editing.model.lm import LanguageModel
from tests.bench import plain
from tests.bench.contests import edits
from tests.bench.measure import Contest, Part
from tests.bench.shape import corpus, requests
from tests.editing.tiny import relative


def scores(lm: LanguageModel, *, target: float, name: str = "fact_scores") -> Contest:
    """Both answers after all prompts of a fact: rewrite, paraphrases, neighborhood."""
    facts = requests(lm, 8)

    def prompts_of(number: int) -> list[str]:
        fact = facts[number]
        return [fact.prompt, *fact.paraphrase_prompts, *fact.neighborhood_prompts]

    def slow() -> Tensor:
        prompts = prompts_of(0)
        return plain.plain_scores(lm, prompts, [(facts[0].target_new, facts[0].target_true)] * len(prompts))

    def fast_on(numbers: range) -> Tensor:
        prompts = [(prompt, facts[i]) for i in numbers for prompt in prompts_of(i)]
        both = lm.answer_logprobs(
            [p for p, _ in prompts for _ in range(2)], [a for _, f in prompts for a in (f.target_new, f.target_true)]
        )
        return torch.tensor([score.nll_sum for score in both]).reshape(-1, 2)

    return Contest(
        name=name,
        plain=[Part(slow, 1)],
        fast=[Part(lambda: fast_on(range(len(facts))), len(facts))],
        error=relative(fast_on(range(1)), slow()),
        target=target,
    )


def retention(lm: LanguageModel, layers: Sequence[int], *, n_scored: int = 128, n_edited: int = 16) -> Contest:
    """Scoring 1,000 earlier edits must cost less than applying 100: these stand in the plain version's place."""
    facts = requests(lm, n_scored)
    apply = edits(lm, "memit", layers, n_edited, target=1.0).fast[0]
    probes = [probe for fact in facts for probe in probes_of(fact)]

    def score(count: int) -> Tensor:
        return torch.tensor([found.new.nll_sum for found in score_probes(lm, probes[:count])])

    return Contest(
        name="retention_1000",
        plain=[Part(apply.work, apply.n_items / 100)],
        fast=[Part(lambda: score(len(probes)), n_scored / 1000)],
        error=relative(score(len(probes))[:4], score(4)),
        target=1.0,
    )


def few_shot(lm: LanguageModel, *, target: float) -> Contest:
    """A benchmark with four examples before each question, both labels."""
    texts = [" ".join(lm.format.decode(ids).split()) for ids in corpus(lm, 40, 32)]
    shots = " ".join(f"{text} yes." for text in texts[:4])
    questions = [f"{shots} {text}" for text in texts[4:36]]
    labels = ("Dublin", "Oslo")

    def slow() -> Tensor:
        return torch.cat([plain.plain_scores(lm, [question], [labels]) for question in questions[:2]])

    def fast_on(chosen: list[str]) -> Tensor:
        both = lm.answer_logprobs([q for q in chosen for _ in labels], [label for _ in chosen for label in labels])
        return torch.tensor([score.nll_sum for score in both]).reshape(-1, 2)

    return Contest(
        name="few_shot",
        plain=[Part(slow, 2)],
        fast=[Part(lambda: fast_on(questions), len(questions))],
        error=relative(fast_on(questions[:2]), slow()),
        target=target,
    )


def generation(lm: LanguageModel, n_tokens: int, *, target: float) -> Contest:
    """The likeliest continuation of prompts: the plain version reads the whole text again for each token."""
    prompts = [request.prompt for request in requests(lm, 16)]

    def slow() -> list[tuple[int, ...]]:
        return plain.plain_continuations(lm, prompts[:8], n_tokens)

    def fast() -> list[tuple[int, ...]]:
        return generate(lm, lm.format.prompts(prompts), n_tokens)

    expected = slow()
    different = sum(mine != theirs for mine, theirs in zip(fast(), expected, strict=False))
    return Contest(
        name=f"generation_{n_tokens}",
        plain=[Part(slow, len(expected))],
        fast=[Part(fast, len(prompts))],
        error=different / len(expected),
        target=target,
    )
