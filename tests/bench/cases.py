"""The benchmarks: what is compared with what, and the ratio that must be reached.

Ratios are against the plain version in which the vocabulary logits of a target's loss are computed twice, as in the
official code; rows named ``…_once`` show what remains without that.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from editing.geometry import KeyGeometry
from editing.locate import read_keys
from editing.moments import MomentAccumulator
from editing.targets import TargetHparams, optimise_targets
from tests.bench import plain
from tests.bench.measure import Contest, relative
from tests.bench.shape import D_IN, N_LAYERS, D, contexts, corpus, fixed_shape, random_moment, requests

LAYER, LAYERS = 4, (1, 2, 3, 4)
PLAIN_FACTS = (0, 3)
"""Facts that the plain version does: 108.5 positions each, as the 110 on average of all that the fast one does."""
STEPS = 4
MEMIT = TargetHparams(steps=STEPS, lr=0.5, weight_decay=0.5, clamp=0.75, kl_weight=0.0625)
ROME = TargetHparams(steps=STEPS, lr=0.5, weight_decay=0.5, clamp=4.0, kl_weight=0.0625)

model = cache(fixed_shape)


def targets(
    n_fast: int, *, family: str = "gpt2", target: float, efficiency: float | None, twice: bool = True
) -> Contest:
    """Targets of MEMIT and EMMET for several facts at once."""
    lm = model(family)
    facts = requests(lm, max(n_fast, max(PLAIN_FACTS) + 1))
    site: Literal["value", "block"] = "value" if lm.family.normed_value else "block"
    chosen = [facts[i] for i in PLAIN_FACTS]

    def slow() -> Tensor:
        found = [plain.plain_target(lm, r, contexts(), LAYER, MEMIT, site=site, logits_twice=twice) for r in chosen]
        return torch.stack([initial + delta for initial, delta, _ in found])

    def fast() -> Tensor:
        return optimise_targets(lm, facts[:n_fast], contexts(), LAYER, MEMIT, site=site).value

    suffix = ("" if family == "gpt2" else f"_{family}") + ("" if twice else "_once")
    return Contest(
        name=f"targets_{n_fast}{suffix}",
        plain=slow,
        n_plain=len(chosen),
        fast=fast,
        n_fast=n_fast,
        error=relative(fast()[list(PLAIN_FACTS)], slow()),
        target=target,
        efficiency=efficiency,
    )


def target_single() -> Contest:
    """ROME's target of one fact, with its 21 contexts: a sequential chain has no batch."""
    lm = model("gpt2")
    (fact,) = requests(lm, 1)

    def slow() -> Tensor:
        initial, delta, _ = plain.plain_target(lm, fact, contexts(20), LAYER, ROME, site="value", logits_twice=True)
        return initial + delta

    def fast() -> Tensor:
        return optimise_targets(lm, [fact], contexts(20), LAYER, ROME, site="value").value[0]

    return Contest(
        name="targets_single",
        plain=slow,
        n_plain=1,
        fast=fast,
        n_fast=1,
        error=relative(fast(), slow()),
        target=4.0,
        efficiency=0.4,
    )


def keys() -> Contest:
    """Keys of four layers: the plain version runs whole prompts through the whole model once per layer."""
    lm = model("gpt2")
    facts = requests(lm, 32)
    few = facts[:2]

    def slow() -> Tensor:
        return torch.stack([plain.plain_keys(lm, few, contexts(), layer) for layer in LAYERS])

    def fast() -> Tensor:
        found = read_keys(lm, facts, contexts(), LAYERS, "half_bare")
        return torch.stack([found[layer].mean for layer in LAYERS])

    return Contest(
        name="keys_4_layers",
        plain=slow,
        n_plain=len(few),
        fast=fast,
        n_fast=len(facts),
        error=relative(fast()[:, : len(few)], slow()),
        target=20.0,
    )


def moments() -> Contest:
    """Second moments of all layers: the plain version takes one text after another, once per layer."""
    lm = model("gpt2")
    sequences = corpus(lm, 48)
    few = sequences[:4]

    def slow() -> Tensor:
        return torch.stack([plain.plain_moment(lm, few, layer) for layer in range(N_LAYERS)])

    def fast_on(texts: list[tuple[int, ...]]) -> Tensor:
        accumulator = MomentAccumulator(range(N_LAYERS))
        accumulator.update(lm, texts)
        found = accumulator.result()
        return torch.stack([found[layer].matrix for layer in range(N_LAYERS)])

    return Contest(
        name="moments_12_layers",
        plain=slow,
        n_plain=len(few),
        fast=lambda: fast_on(sequences),
        n_fast=len(sequences),
        error=relative(fast_on(few), slow()),
        target=3.5,
    )


def solve(n_edits: int, target: float) -> Contest:
    """MEMIT's equation for a batch: the second moment was factored once, the plain version solves anew."""
    moment = _moment()
    geometry = _geometry()
    generator = torch.Generator().manual_seed(1)
    keys = torch.randn(n_edits, D_IN, generator=generator)
    residual = torch.randn(n_edits, D, generator=generator)

    def slow() -> Tensor:
        return plain.plain_solve(moment, keys, residual, 20000.0)

    def fast() -> Tensor:
        return geometry.least_disturbing_update(keys, residual, ridge=20000.0).right

    update = geometry.least_disturbing_update(keys, residual, ridge=20000.0).update
    return Contest(
        name=f"solve_{n_edits}",
        plain=slow,
        n_plain=1,
        fast=fast,
        n_fast=1,
        error=relative(update, slow()),
        target=target,
        tolerance=1e-9,
        counted=False,
        gemm_dtype=torch.float64,
    )


@cache
def _moment() -> Tensor:
    return random_moment()


@cache
def _geometry() -> KeyGeometry:
    return KeyGeometry.of(_moment())


def scores() -> Contest:
    """Both answers after all prompts of a fact: rewrite, paraphrases, neighborhood."""
    lm = model("gpt2")
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
        name="fact_scores",
        plain=slow,
        n_plain=1,
        fast=lambda: fast_on(range(len(facts))),
        n_fast=len(facts),
        error=relative(fast_on(range(1)), slow()),
        target=4.0,
    )


def few_shot() -> Contest:
    """A benchmark with four examples before each question, both labels."""
    lm = model("gpt2")
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
        plain=slow,
        n_plain=2,
        fast=lambda: fast_on(questions),
        n_fast=len(questions),
        error=relative(fast_on(questions[:2]), slow()),
        target=12.0,
    )


def all_cases() -> Iterator[tuple[str, Callable[[], Contest]]]:
    """Yield each benchmark's name and how to set it up."""
    yield "targets_8", lambda: targets(8, target=8.0, efficiency=0.7)
    yield "targets_8_once", lambda: targets(8, target=5.0, efficiency=0.7, twice=False)
    yield "targets_single", target_single
    yield "keys_4_layers", keys
    yield "moments_12_layers", moments
    yield "solve_64", lambda: solve(64, 15.0)
    yield "solve_256", lambda: solve(256, 5.0)
    yield "solve_1024", lambda: solve(1024, 1.5)
    yield "fact_scores", scores
    yield "few_shot", few_shot
