"""The target-vector engine: for many facts at once, the hidden state that makes the model say the new answer.

ROME calls it v*, MEMIT and EMMET z.  All editors share this one optimisation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from editing.errors import ModelError
from editing.methods.fact_passes import Chains, FactPass, fact_passes, inverse_order, still_going
from editing.methods.fact_rows import FactRows, fact_rows
from editing.model.lm import LanguageModel, Site, log_softmax
from editing.model.memory import Part, done_in_parts
from editing.requests import EditRequest

ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8
_LOWER = 0.02
"""Of a search's time, that of the blocks below the states, which run once."""


@dataclass(frozen=True, kw_only=True)
class TargetHparams:
    """How target vectors are optimised; the field's defaults for gpt2-xl stand in each editor's YAML."""

    steps: int
    """Loss evaluations; the last one takes no optimiser step."""
    lr: float
    weight_decay: float
    """Factor of ‖δ‖/‖h‖² (the reference squares only the denominator)."""
    clamp: float
    """Largest ‖δ‖, in units of ‖h‖."""
    kl_weight: float
    stop_loss: float = 0.05
    """A fact is done when its total loss falls below this."""


class Targets(NamedTuple):
    """Optimised targets of a batch; one row per fact."""

    initial: Tensor
    """[edit, d], the state at the subject's last token of the bare prompt before any change (h)."""
    delta: Tensor
    """[edit, d]; the target is ``initial + delta``."""
    losses: Tensor
    """float64 [edit, steps, 4]: total, NLL, KL and decay at each step, NaN after the last one run."""

    @property
    def value(self) -> Tensor:
        return self.initial + self.delta

    @property
    def n_steps(self) -> list[int]:
        return [int(n) for n in (~self.losses[:, :, 0].isnan()).sum(1)]

    @property
    def final_loss(self) -> list[float]:
        return [float(row[n - 1, 0]) if n else float("nan") for row, n in zip(self.losses, self.n_steps, strict=True)]

    @classmethod
    def joined(cls, parts: Sequence["Targets"]) -> "Targets":
        return cls(*(torch.cat([getattr(part, field) for part in parts]) for field in cls._fields))

    def on(self, device: torch.device) -> "Targets":
        """Return the same on a device; the losses stay where they are."""
        return Targets(self.initial.to(device), self.delta.to(device), self.losses)

    def select(self, edits: Sequence[int]) -> "Targets":
        index = torch.tensor(list(edits))
        return Targets(self.initial[index], self.delta[index], self.losses[index])


def optimise_targets(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layer: int,
    hparams: TargetHparams,
    *,
    site: Literal["value", "block"],
    under: Sequence[Mapping[str, Tensor]] | None = None,
) -> Targets:
    """Return, for each request, the state at ``layer`` that makes the model give ``target_new``.

    A vector δ is added at the subject's last token of every row and found by Adam on

        mean over contexts of the target's mean token NLL
        + kl_weight · KL(now ‖ before) at the subject's last token of "{subject} is a"
        + weight_decay · ‖δ‖ / ‖h‖²

    with δ clamped to ‖δ‖ ≤ clamp · ‖h‖ after each step.  Facts are independent: batching, order and padding change
    nothing but rounding, and a fact that is done leaves the batch.

    Args:
        contexts: Text put before the prompt, ``""`` for the bare prompt, which comes first.
        layer: The state is added to this block's output; blocks below it run once.
        site: Where h is read: the MLP's output (``value``: ROME) or the block's output (``block``: MEMIT, EMMET).
            In a pre-norm block δ arrives at both alike; where a norm stands between them (Gemma), δ goes to the MLP's
            output itself.
        under: Of each request, the parameters (none above ``layer``) of the chain of edits to which it belongs; requests
            of one chain have one object.  None: all belong to the model as it stands, which it is again at the end.
    """
    return targets_of_layers(lm, requests, contexts, [layer], hparams, site=site, under=under)[layer]


def targets_of_layers(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layers: Sequence[int],
    hparams: TargetHparams,
    *,
    site: Literal["value", "block"],
    under: Sequence[Mapping[str, Tensor]] | None = None,
    on_found: Callable[[int, Sequence[int], Targets], None] = lambda layer, numbers, found: None,
) -> dict[int, Targets]:
    """Return what :func:`optimise_targets` finds at each layer; what lies in front of the subjects is computed once for all.

    Args:
        on_found: Told of each layer, as soon as they are found, the targets of some requests, by their places.
    """
    facts, chains = fact_rows(lm, requests, contexts), Chains.of(lm, under or [{}] * len(requests))
    if len(chains.weights) > 1 and _through_norm(lm, site):
        raise ModelError(
            f"chains of edits of model {lm.name!r} cannot be searched for together: a norm stands behind the edited weight; "
            "expected one chain"
        )
    layers = sorted(set(layers))

    def split(numbers: Sequence[int]) -> list[Part[Sequence[int]]]:
        batches: list[list[int]] = [[]]
        for number in numbers:
            if batches[-1] and sum(facts[i].n_live for i in [*batches[-1], number]) > lm.tokens_per_forward:
                batches.append([])
            batches[-1].append(number)
        return [Part(batch, batch) for batch in batches]

    def work(batch: Sequence[int]) -> list[Targets]:
        mine, theirs = [facts[i] for i in batch], chains.of_facts(batch)
        found = []
        for layer, targets in zip(layers, _optimise_batch(lm, mine, theirs, layers, hparams, site), strict=True):
            on_found(layer, batch, targets)
            found.append(targets)
        return found

    with lm.preserved(chains.names):
        batches = [found for _, found in done_in_parts(lm, range(len(facts)), split, work)]
    return {layer: Targets.joined(parts) for layer, *parts in zip(layers, *batches, strict=True)}


def _through_norm(lm: LanguageModel, site: Literal["value", "block"]) -> bool:
    return site == "value" and lm.family.normed_value


def _optimise_batch(
    lm: LanguageModel,
    facts: list[FactRows],
    chains: Chains,
    layers: Sequence[int],
    hparams: TargetHparams,
    site: Literal["value", "block"],
) -> Iterator[Targets]:
    """Give the targets at each of the layers, which ascend."""
    through_norm = _through_norm(lm, site)
    with lm.progress.part(0.0, _LOWER):
        values = _bare_values(lm, facts, chains, layers) if site == "value" else {}
        parts, at = fact_passes(lm, facts, chains, layers[0] if through_norm else layers[0] + 1), layers[0]
    with lm.progress.part(_LOWER, 1.0):
        for layer in lm.progress.over(layers):
            parts, at = [part.above(layer - at) for part in parts], layer
            block = torch.cat([part.initial for part in parts])[inverse_order(parts)]
            yield _optimise(
                lm, facts, parts, values.get(layer, block), lm.mlp_out(layer) if through_norm else None, hparams
            )


def _optimise(
    lm: LanguageModel,
    facts: Sequence[FactRows],
    parts: Sequence[FactPass],
    initial: Tensor,
    module: nn.Module | None,
    hparams: TargetHparams,
) -> Targets:
    # In 16 bits Adam's squares and its epsilon would vanish; only what is added to the states is cast.
    initial = initial.to(torch.promote_types(initial.dtype, torch.float32))
    size = initial.norm(dim=1)
    losses = torch.full((len(facts), hparams.steps, 4), torch.nan, dtype=torch.float64)
    delta, adam = torch.zeros_like(initial), _Adam(initial, hparams.lr)
    before: Tensor | None = None  # log-probabilities at the KL prompts before any change, of all facts
    for step in range(hparams.steps):
        active = torch.cat([part.facts for part in parts])
        free = delta[active].requires_grad_(True)
        nll, now = _losses(lm, parts, facts, free, module)
        before = now.detach()[inverse_order(parts)] if before is None else before
        kl = (now.exp() * (now - before[active])).sum(1)
        decay = hparams.weight_decay * free.norm(dim=1) / size[active] ** 2
        lm.progress.at((step + 1) / hparams.steps)
        total = nll + hparams.kl_weight * kl + decay
        pieces = torch.stack([total, nll, hparams.kl_weight * kl, decay], dim=1)
        losses[active.cpu(), step] = pieces.detach().double().cpu()
        going = (total.detach() >= hparams.stop_loss) | total.detach().isnan()
        if step == hparams.steps - 1 or not bool(going.any()):
            break
        (gradient,) = torch.autograd.grad(total.sum(), free)
        moved = active[going]
        found = adam.step(moved, delta[moved], gradient[going])
        delta[moved] = _clamped(found, hparams.clamp * size[moved])
        if not bool(going.all()):
            parts = still_going(parts, going)
    return Targets(initial, delta, losses)


def _bare_values(
    lm: LanguageModel, facts: Sequence[FactRows], chains: Chains, layers: Sequence[int]
) -> dict[int, Tensor]:
    """Return each layer's MLP output [edit, d] at each fact's bare prompt's lookup token."""
    sites = [Site("value", layer) for layer in layers]
    found: dict[int, list[Tensor]] = {}
    for _, mine in chains.each(range(len(facts))):
        states = lm.states_at([facts[i].ids[0] for i in mine], [facts[i].lookups[0] for i in mine], sites)
        found |= {i: [states[site][row] for site in sites] for row, i in enumerate(mine)}
    rows = [found[i] for i in range(len(facts))]
    return {layer: torch.stack(states) for layer, *states in zip(layers, *rows, strict=True)}


def _losses(
    lm: LanguageModel, parts: Sequence[FactPass], facts: Sequence[FactRows], delta: Tensor, module: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """Return each fact's NLL [edit] and its log-probabilities [edit, vocab] at the KL prompt's lookup token.

    ``delta`` [edit, d] is added to the upper pass's states at the lookup tokens, or to those of ``module``'s output.
    Facts are in the parts' order.
    """
    order = [int(i) for part in parts for i in part.facts.tolist()]
    rewriting, kl, start = [], [], 0
    for part in parts:
        stop = start + len(part.facts)
        states = part.states(delta[start:stop], module)
        rewriting.append(states[: -len(part.facts)])
        kl.append(states[-len(part.facts) :])
        start = stop
    # One product for all parts: the vocabulary's weights are read once.
    logprobs = log_softmax(lm.logits(torch.cat([*rewriting, *kl])))
    contexts = [
        (place, facts[i], token) for place, i in enumerate(order) for _ in facts[i].heads for token in facts[i].target
    ]
    token = torch.tensor([token for _, _, token in contexts], device=logprobs.device)
    weight = [1.0 / (len(fact.target) * len(fact.heads)) for _, fact, _ in contexts]
    nll = -logprobs[: len(token)].gather(1, token[:, None])[:, 0]
    weighted = nll * torch.tensor(weight, dtype=nll.dtype, device=nll.device)
    place = torch.tensor([place for place, _, _ in contexts], device=nll.device)
    return torch.zeros(len(delta), dtype=nll.dtype, device=nll.device).index_add(0, place, weighted), logprobs[
        len(token) :
    ]


def _clamped(delta: Tensor, largest: Tensor) -> Tensor:
    norm = delta.norm(dim=1)
    shrink = torch.where(norm > largest, largest / norm.clamp_min(torch.finfo(norm.dtype).tiny), torch.ones_like(norm))
    return delta * shrink[:, None]


class _Adam:
    """Adam on rows that may leave: torch's optimiser would move finished ones by their momentum."""

    def __init__(self, like: Tensor, lr: float) -> None:
        self._lr = lr
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)
        self._steps = 0

    def step(self, rows: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return the moved values [n, d] of the ``rows``, int64 [n]; all rows given have been given at each step before."""
        self._steps += 1
        one, two = ADAM_BETAS
        self._mean[rows] = mean = self._mean[rows] * one + gradient * (1 - one)
        self._square[rows] = square = self._square[rows] * two + gradient * gradient * (1 - two)
        root = (square / (1 - two**self._steps)).sqrt() + ADAM_EPS
        return value - self._lr / (1 - one**self._steps) * mean / root
