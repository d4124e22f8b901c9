"""The contests: what is compared with what, on any model.

Target searches take :data:`RUN_STEPS` of the :data:`STEPS` that their hyper-parameters say, on both sides; each counts as
the share of an item that its FLOPs are of the whole (every step is the same work).
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from editing.hparams import resolve_hparams
from editing.measure.moments import MomentAccumulator
from editing.methods.editor import Artifacts, Editor, EditResult, make_editor
from editing.methods.geometry import KeyGeometry
from editing.methods.locate import read_keys
from editing.methods.targets import TargetHparams, optimise_targets
from editing.model.lm import LanguageModel
from tests.bench import plain
from tests.bench.measure import Contest, Part, flops
from tests.bench.shape import contexts, corpus, random_moment, requests
from tests.editing.tiny import relative

STEPS, RUN_STEPS = 20, 5
PLAIN_FACTS = (0, 3)
"""Facts that the plain version does: 108.5 positions each, as the 110 on average of all that the fast one does."""
RIDGE = 20000.0


def targets(
    lm: LanguageModel,
    n_fast: int,
    *,
    name: str,
    target: float,
    efficiency: float | None = None,
    twice: bool = True,
    layer: int | None = None,
) -> Contest:
    """Targets of MEMIT and EMMET for several facts at once."""
    facts = requests(lm, max(n_fast, max(PLAIN_FACTS) + 1))
    chosen, site = [facts[i] for i in PLAIN_FACTS], site_of(lm)
    layer = middle(lm) if layer is None else layer

    def slow(steps: int) -> Tensor:
        given = hparams(steps)
        found = [plain.plain_target(lm, r, contexts(), layer, given, site=site, logits_twice=twice) for r in chosen]
        return torch.stack([initial + delta for initial, delta, _ in found])

    def fast(steps: int, count: int = n_fast) -> Tensor:
        return optimise_targets(lm, facts[:count], contexts(), layer, hparams(steps), site=site).value

    few = max(PLAIN_FACTS) + 1
    return Contest(
        name=name,
        plain=[Part(lambda: slow(RUN_STEPS), len(chosen) * share_of_steps(slow))],
        fast=[Part(lambda: fast(RUN_STEPS), n_fast * share_of_steps(lambda steps: fast(steps, few)))],
        error=relative(fast(RUN_STEPS, few)[list(PLAIN_FACTS)], slow(RUN_STEPS)),
        target=target,
        efficiency=efficiency,
    )


def single_target(
    lm: LanguageModel, *, target: float, efficiency: float, name: str = "targets_single", layer: int | None = None
) -> Contest:
    """ROME's target of one fact, with its 21 contexts: a sequential chain has no batch."""
    (fact,) = requests(lm, 1)
    layer, texts = middle(lm) if layer is None else layer, contexts(20)

    def slow(steps: int) -> Tensor:
        initial, delta, _ = plain.plain_target(
            lm, fact, texts, layer, hparams(steps, clamp=4.0), site="value", logits_twice=True
        )
        return initial + delta

    def fast(steps: int) -> Tensor:
        return optimise_targets(lm, [fact], texts, layer, hparams(steps, clamp=4.0), site="value").value[0]

    return Contest(
        name=name,
        plain=[Part(lambda: slow(RUN_STEPS), share_of_steps(slow))],
        fast=[Part(lambda: fast(RUN_STEPS), share_of_steps(fast))],
        error=relative(fast(RUN_STEPS), slow(RUN_STEPS)),
        target=target,
        efficiency=efficiency,
    )


def in_step(lm: LanguageModel, n_chains: int, *, target: float) -> Contest:
    """Targets of chains that edit one fact at a time: together, against each alone in the plain version's place."""
    facts, layer = requests(lm, n_chains), middle(lm)
    name, generator = lm.parameter_names(layer)["weight"], torch.Generator().manual_seed(2)
    pristine = lm.parameter(name).detach()
    chains = [
        {name: pristine * (1 + 0.01 * torch.randn(len(pristine), 1, generator=generator))} for _ in range(n_chains)
    ]

    def alone(some: Sequence[int]) -> Tensor:
        found = []
        with lm.preserved([name]):
            for i in some:
                lm.restore(chains[i])
                given = hparams(RUN_STEPS)
                found.append(optimise_targets(lm, [facts[i]], contexts(), layer, given, site=site_of(lm)).value)
        return torch.cat(found)

    def together() -> Tensor:
        given = hparams(RUN_STEPS)
        return optimise_targets(lm, facts, contexts(), layer, given, site=site_of(lm), under=chains).value

    few = range(4)
    return Contest(
        name=f"chains_{n_chains}_in_step",
        plain=[Part(lambda: alone(few), len(few))],
        fast=[Part(together, n_chains)],
        error=relative(together()[: len(few)], alone(few)),
        target=target,
    )


def batch_size(lm: LanguageModel, small: int, large: int) -> Contest:
    """Time per edit must not rise with the batch: here the small one stands in the plain version's place."""
    facts = requests(lm, large)

    def found(count: int) -> Tensor:
        return optimise_targets(lm, facts[:count], contexts(), middle(lm), hparams(RUN_STEPS), site=site_of(lm)).value

    return Contest(
        name=f"targets_{large}_to_{small}",
        plain=[Part(lambda: [found(small) for _ in range(2)], 2 * small)],
        fast=[Part(lambda: found(large), large)],
        error=relative(found(large)[:small], found(small)),
        target=1.0,
    )


def edits(lm: LanguageModel, editor: str, layers: Sequence[int], n_edits: int, *, target: float) -> Contest:
    """A batch of edits, from the requests to the weights; the plain version's solve counts as one of the whole batch."""
    facts = requests(lm, max(n_edits, 2))
    moments = {layer: random_moment(lm.weight(layer).shape[1], device=lm.input_device) for layer in layers}
    artifacts = Artifacts(geometry={i: KeyGeometry.of(moment) for i, moment in moments.items()}, contexts=contexts())
    ridge = {"preservation_weight": RIDGE} if editor == "memit" else {"ridge": RIDGE}

    def made(steps: int) -> Editor:
        return make_editor(editor, resolve_hparams(editor, model="gpt2-xl", overrides={"steps": steps, **ridge}))

    def fast(steps: int, count: int) -> EditResult:
        return made(steps).edit(lm, facts[:count], layers, {}, artifacts)

    def searched(steps: int) -> Any:
        return plain.plain_target(
            lm, facts[0], contexts(), layers[-1], hparams(steps), site=site_of(lm), logits_twice=True
        )

    def read() -> None:
        for layer in layers:
            plain.plain_keys(lm, facts[:1], contexts(), layer)
            plain.plain_states(lm, facts[:1], ("",), lm.block(layers[-1]), inputs=False)

    some = read_keys(lm, facts[:n_edits], contexts(), layers[-1:], "half_bare")[layers[-1]]

    def solved() -> None:
        for layer in layers:
            plain.plain_solve(moments[layer], some.mean, some.mean_value, RIDGE)

    few = facts[: min(2, n_edits)]
    whole = plain.plain_spread(lm, few, contexts(), layers, hparams(RUN_STEPS), moments, RIDGE)
    mine = {i: u.left @ u.right for i, u in zip(layers, fast(RUN_STEPS, len(few)).updates, strict=True)}
    typical = min(16, n_edits)
    return Contest(
        name=f"{editor}_{n_edits}",
        plain=[
            Part(lambda: searched(RUN_STEPS), share_of_steps(searched)),
            Part(read, 1),
            Part(solved, n_edits),
        ],
        fast=[Part(lambda: fast(RUN_STEPS, n_edits), n_edits * share_of_steps(lambda steps: fast(steps, typical)))],
        error=max(relative(mine[layer], whole[layer]) for layer in layers),
        target=target,
        tolerance=1e-3 if lm.dtype == torch.float32 else 0.1,
        gemm_dtype=lm.dtype,
    )


def keys(lm: LanguageModel, layers: Sequence[int], *, target: float) -> Contest:
    """Keys of some layers: the plain version runs whole prompts through the whole model once per layer."""
    facts = requests(lm, 32)
    few = facts[:2]

    def slow() -> Tensor:
        return torch.stack([plain.plain_keys(lm, few, contexts(), layer) for layer in layers])

    def fast() -> Tensor:
        found = read_keys(lm, facts, contexts(), layers, "half_bare")
        return torch.stack([found[layer].mean for layer in layers])

    return Contest(
        name=f"keys_{len(layers)}_layers",
        plain=[Part(slow, len(few))],
        fast=[Part(fast, len(facts))],
        error=relative(fast()[:, : len(few)], slow()),
        target=target,
    )


def moments(lm: LanguageModel, *, target: float, layers: Sequence[int] | None = None) -> Contest:
    """Second moments of all layers: the plain version takes one text after another, once per layer."""
    sequences, layers = corpus(lm, 16, length=256), layers or range(lm.n_layers)
    few = sequences[:2]

    def slow() -> Tensor:
        return torch.stack([plain.plain_moment(lm, few, layer) for layer in layers])

    def fast(texts: list[tuple[int, ...]]) -> Tensor:
        accumulator = MomentAccumulator(layers)
        accumulator.update(lm, texts)
        found = accumulator.result()
        return torch.stack([found[layer].matrix for layer in layers])

    return Contest(
        name=f"moments_{len(layers)}_layers",
        plain=[Part(slow, sum(map(len, few)))],
        fast=[Part(lambda: fast(sequences), sum(map(len, sequences)))],
        error=relative(fast(few), slow()),
        target=target,
        tolerance=1e-4 if lm.dtype == torch.float32 else 0.02,
        gemm_dtype=lm.dtype,
    )


def solve(n_edits: int, d_in: int, d_out: int, *, target: float) -> Contest:
    """MEMIT's equation for a batch, up to the factor that residuals are multiplied with: C was factored once before, the
    plain version solves anew."""
    moment, geometry = _factored(d_in)
    generator = torch.Generator().manual_seed(1)
    keys = torch.randn(n_edits, d_in, generator=generator)
    residual = torch.randn(n_edits, d_out, generator=generator)

    def slow() -> Tensor:
        return plain.plain_right_factor(moment, keys, RIDGE)

    def fast() -> Tensor:
        return geometry.least_disturbing_update(keys, residual, ridge=RIDGE).right

    return Contest(
        name=f"solve_{n_edits}",
        plain=[Part(slow, 1)],
        fast=[Part(lambda: [fast() for _ in range(4)], 4)],
        error=relative(fast(), slow()),
        target=target,
        tolerance=1e-9,
        counted=False,
        gemm_dtype=torch.float64,
    )


@cache
def _factored(d_in: int) -> tuple[Tensor, KeyGeometry]:
    moment = random_moment(d_in)
    return moment, KeyGeometry.of(moment)


def share_of_steps(run: Callable[[int], Any]) -> float:
    """Return which share of the FLOPs of :data:`STEPS` steps :data:`RUN_STEPS` take; each after the first costs the same."""
    two, three = (flops(lambda steps=steps: run(steps)) for steps in (2, 3))  # type: ignore[misc]
    return (two + (RUN_STEPS - 2) * (three - two)) / (two + (STEPS - 2) * (three - two))


def hparams(steps: int, *, clamp: float = 0.75) -> TargetHparams:
    """Return gpt2-xl's hyper-parameters of MEMIT and EMMET; ROME's clamp is 4."""
    return TargetHparams(steps=steps, lr=0.5, weight_decay=0.5, clamp=clamp, kl_weight=0.0625)


def middle(lm: LanguageModel) -> int:
    """Return the edited layer: at the depth of layer 17 of gpt2-xl's 48."""
    return lm.n_layers // 3


def site_of(lm: LanguageModel) -> Literal["value", "block"]:
    return "value" if lm.family.normed_value else "block"
