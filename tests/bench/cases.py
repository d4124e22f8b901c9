"""The benchmarks on the fixed shape, and the ratio that each must reach.

Ratios are against the plain version in which the vocabulary logits of a target's loss are computed twice, as in the
official code; the row named ``…_once`` shows what remains without that.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import torch

from tests.bench import contests, score_contests
from tests.bench.measure import Contest
from tests.bench.shape import D_IN, LARGE, SHAPES, D, fixed_shape, random_model

LAYERS = (1, 2, 3, 4)
THIN_LAYER = 5
"""Of thirty narrow blocks, where a real small model's facts are edited."""
_shape = cache(fixed_shape)
"""Several benchmarks share a model."""


def all_cases() -> Iterator[tuple[str, Callable[[], Contest]]]:
    """Yield each benchmark's name and how to set it up."""

    def of(
        contest: Callable[..., Contest], *args: object, family: str = "gpt2", **kwargs: object
    ) -> Callable[[], Contest]:
        return lambda: contest(_shape(family), *args, **kwargs)

    for name, twice, ratio in (("targets_32", True, 8.0), ("targets_32_once", False, 5.0)):
        yield name, of(contests.targets, 32, name=name, target=ratio, efficiency=0.7, twice=twice)
    yield "targets_single", of(contests.single_target, target=4.0, efficiency=0.4)
    yield "targets_64_to_8", of(contests.batch_size, 8, 64)
    yield "chains_16_in_step", of(contests.in_step, 16, target=1.2)
    yield "memit_64", of(contests.edits, "memit", LAYERS, 64, target=8.0)
    yield "emmet_64", of(contests.edits, "emmet", LAYERS[-1:], 64, target=8.0)
    yield "keys_4_layers", of(contests.keys, LAYERS, target=20.0)
    yield "moments_12_layers", of(contests.moments, target=3.5)
    for n_edits, ratio in ((64, 15.0), (256, 5.0), (1024, 1.5)):
        yield f"solve_{n_edits}", partial(contests.solve, n_edits, D_IN, D, target=ratio)
    yield "fact_scores", of(score_contests.scores, target=4.0)
    yield "retention_1000", of(score_contests.retention, LAYERS)
    yield "few_shot", of(score_contests.few_shot, target=12.0)
    yield "generation_20", of(score_contests.generation, 20, target=5.0)
    thin = cache(partial(random_model, *LARGE["smollm2-135m"]))
    early = {"layer": THIN_LAYER}
    yield (
        "targets_16_thin",
        lambda: contests.targets(thin(), 16, name="targets_16_thin", target=9.0, efficiency=0.78, **early),
    )
    yield (
        "targets_single_thin",
        lambda: contests.single_target(thin(), name="targets_single_thin", target=7.0, efficiency=0.55, **early),
    )
    yield "fact_scores_thin", lambda: score_contests.scores(thin(), name="fact_scores_thin", target=6.0)
    for family in SHAPES:
        if family != "gpt2":
            yield f"targets_8_{family}", of(contests.targets, 8, name=f"targets_8_{family}", family=family, target=6.0)


def large_cases(
    name: str, *, dtype: torch.dtype, device: str, batches: Sequence[int]
) -> Iterator[tuple[str, Callable[[], Contest]]]:
    """Yield the benchmarks of an accelerator: edits per second by batch size, second moments; ratios are reported only."""
    lm = cache(lambda: random_model(*LARGE[name], dtype=dtype, device=device))

    def edits(editor: str, n_edits: int) -> Callable[[], Contest]:
        def made() -> Contest:
            last = contests.middle(lm())
            layers = range(last - 3, last + 1) if editor == "memit" else [last]
            return contests.edits(lm(), editor, layers, n_edits, target=0.0)

        return made

    for editor in ("memit", "emmet"):
        for n_edits in batches:
            yield f"{editor}_{n_edits}", edits(editor, n_edits)
    yield "moments", lambda: contests.moments(lm(), target=0.0, layers=range(4))
