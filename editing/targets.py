"""The target-vector engine: for many facts at once, the hidden state that makes the model say the new answer.

ROME calls it v*, MEMIT and EMMET z.  All editors share this one optimisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from editing.lm import LanguageModel, Site, log_softmax
from editing.packing import Packed, side_by_side
from editing.passes import UpperPass
from editing.requests import EditRequest

KL_PROMPT = "{} is a"
ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8


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

    def select(self, edits: Sequence[int]) -> "Targets":
        index = torch.tensor(list(edits))
        return Targets(self.initial[index], self.delta[index], self.losses[index])


class _FactRows(NamedTuple):
    """The token rows of one fact: every context with the prompt and the target in it, then the KL prompt."""

    ids: list[tuple[int, ...]]
    lookups: list[int]
    target: tuple[int, ...]
    heads: list[int]
    """Length of the prompt part of each rewriting row; the target's tokens are predicted from ``head - 1`` on."""


def optimise_targets(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layer: int,
    hparams: TargetHparams,
    *,
    site: Literal["value", "block"],
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
    """
    facts = _tokenise(lm, requests, contexts)
    # What lies before a subject's last token never changes: only the columns from there on are computed again.
    lengths = [sum(len(ids) - at for ids, at in zip(f.ids, f.lookups, strict=True)) for f in facts]
    parts = []
    for group in lm.groups(lengths):
        parts.append((group, _optimise_group(lm, [facts[i] for i in group], layer, hparams, site)))
    order = torch.tensor([i for group, _ in parts for i in group]).argsort()
    return Targets(*(torch.cat([getattr(part, field) for _, part in parts])[order] for field in Targets._fields))


def _tokenise(lm: LanguageModel, requests: Sequence[EditRequest], contexts: Sequence[str]) -> list[_FactRows]:
    texts, ends = [], []
    for request in requests:
        for context in contexts:
            texts.append(context + request.prompt)
            ends.append(len(context) + request.subject_end)
        texts.append(KL_PROMPT.replace("{}", request.subject))
        ends.append(len(request.subject))
    prompts = lm.format.lookups(texts, ends)
    targets = lm.format.answers([r.prompt for r in requests], [r.target_new for r in requests])
    facts = []
    width = len(contexts) + 1
    for index, target in enumerate(targets):
        mine = prompts[index * width : (index + 1) * width]
        facts.append(
            _FactRows(
                ids=[prompt.ids + target[:-1] for prompt in mine[:-1]] + [mine[-1].ids],
                lookups=[prompt.lookup for prompt in mine],
                target=target,
                heads=[len(prompt.ids) for prompt in mine[:-1]],
            )
        )
    return facts


class _Columns(NamedTuple):
    """Where a fact's sequences stand among the columns that run again: each from its lookup token to its end."""

    lookups: list[int]
    """Of each sequence, the KL prompt's last."""
    live: list[int]
    """The same columns, as they stand in the packed row."""


class _LossIndex(NamedTuple):
    """Where the loss reads, for the facts still in the batch; rows are facts, columns those that run again."""

    shifted: tuple[Tensor, Tensor]  # [sequence] rows and columns of the lookup tokens
    predicted: tuple[
        Tensor, Tensor
    ]  # [position] of each target token's prediction, then [edit] of the KL prompts' lookups
    token: Tensor  # [position] the target's token
    weight: Tensor  # [position] 1 / (target tokens · contexts)
    fact: Tensor  # [position]


def _optimise_group(
    lm: LanguageModel, facts: list[_FactRows], layer: int, hparams: TargetHparams, site: Literal["value", "block"]
) -> Targets:
    through_norm = site == "value" and lm.family.normed_value
    packed = side_by_side([fact.ids for fact in facts])
    columns = _columns(facts, packed)
    upper = lm.upper_pass_at(packed, [mine.live for mine in columns], layer if through_norm else layer + 1)
    module = lm.mlp_out(layer) if through_norm else None
    if site == "block":
        initial = upper.hidden[:, 0].clone()  # the bare prompt comes first, and begins at its lookup token
    else:
        bare = Site("value", layer)
        initial = lm.states_at([fact.ids[0] for fact in facts], [fact.lookups[0] for fact in facts], [bare])[bare]
    # In 16 bits Adam's squares and its epsilon would vanish; only what is added to the states is cast.
    initial = initial.to(torch.promote_types(initial.dtype, torch.float32))
    size = initial.norm(dim=1)
    losses = torch.full((len(facts), hparams.steps, 4), torch.nan, dtype=torch.float64)
    final = torch.zeros_like(initial)
    active = list(range(len(facts)))
    delta, adam = torch.zeros_like(initial), _Adam(initial, hparams.lr)
    before: Tensor | None = None  # log-probabilities at the KL row before any change
    index = _loss_index(facts, columns)
    for step in range(hparams.steps):
        free = delta.clone().requires_grad_(True)
        nll, now = _losses(lm, upper, free, index, module)
        before = now.detach() if before is None else before
        kl = (now.exp() * (now - before)).sum(1)
        decay = hparams.weight_decay * free.norm(dim=1) / size[active] ** 2
        total = nll + hparams.kl_weight * kl + decay
        parts = torch.stack([total, nll, hparams.kl_weight * kl, decay], dim=1)
        losses[active, step] = parts.detach().double().cpu()
        done = total.detach() < hparams.stop_loss
        if step == hparams.steps - 1 or bool(done.all()):
            final[active] = delta
            break
        (gradient,) = torch.autograd.grad(total.sum(), free)
        if bool(done.any()):
            for local in done.nonzero()[:, 0].tolist():
                final[active[local]] = delta[local]
            keep = (~done).nonzero()[:, 0]
            active = [active[local] for local in keep.tolist()]
            upper = upper.select(keep)
            index = _loss_index([facts[i] for i in active], [columns[i] for i in active])
            delta, gradient, before = delta[keep], gradient[keep], before[keep]
            adam.select(keep)
        delta = _clamped(adam.step(delta, gradient), hparams.clamp * size[active])
    return Targets(initial, final, losses)


def _columns(facts: Sequence[_FactRows], packed: Packed) -> list[_Columns]:
    paths: list[list[tuple[int, ...]]] = [[] for _ in facts]
    for _, row, path in packed.columns:
        paths[row].append(path)
    out = []
    for fact, mine in zip(facts, paths, strict=True):
        found = _Columns([], [])
        for path, lookup in zip(mine, fact.lookups, strict=True):
            found.lookups.append(len(found.live))
            found.live.extend(path[lookup:])
        out.append(found)
    return out


def _loss_index(facts: Sequence[_FactRows], columns: Sequence[_Columns]) -> _LossIndex:
    entries = [
        (
            row,
            columns[row].lookups[number] + head - 1 + k - fact.lookups[number],
            token,
            1.0 / (len(fact.target) * len(fact.heads)),
        )
        for row, fact in enumerate(facts)
        for number, head in enumerate(fact.heads)
        for k, token in enumerate(fact.target)
    ]
    rows, at, token, weight = (list(column) for column in zip(*entries, strict=True))
    shifted = [(row, column) for row, mine in enumerate(columns) for column in mine.lookups]
    kl = [mine.lookups[-1] for mine in columns]
    return _LossIndex(
        (torch.tensor([row for row, _ in shifted]), torch.tensor([column for _, column in shifted])),
        (torch.tensor([*rows, *range(len(facts))]), torch.tensor([*at, *kl])),
        torch.tensor(token),
        torch.tensor(weight, dtype=torch.float64),
        torch.tensor(rows),
    )


def _losses(
    lm: LanguageModel, upper: UpperPass, delta: Tensor, index: _LossIndex, module: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """Return each fact's NLL [edit] and its log-probabilities [edit, vocab] at the KL prompt's lookup token.

    ``delta`` is added to the upper pass's states at the lookup tokens, or to those of ``module``'s output.
    """
    hidden, device = upper.hidden, upper.hidden.device
    shifted = tuple(part.to(device) for part in index.shifted)

    def moved(state: Tensor) -> Tensor:
        return state.index_put(shifted, delta[shifted[0]].to(state.dtype), accumulate=True)

    if module is None:
        states = upper(moved(hidden))
    else:
        handle = module.register_forward_hook(lambda _module, _args, output: moved(output))
        try:
            states = upper(hidden)
        finally:
            handle.remove()
    rows, at = (part.to(device) for part in index.predicted)
    logprobs = log_softmax(lm.logits(states[rows, at]))
    n_targets = len(index.token)
    token_nll = -logprobs[:n_targets].gather(1, index.token[:, None].to(device))[:, 0]
    weighted = token_nll * index.weight.to(device=device, dtype=token_nll.dtype)
    nll = torch.zeros(len(delta), dtype=token_nll.dtype, device=device)
    return nll.index_add(0, index.fact.to(device), weighted), logprobs[n_targets:]


def _clamped(delta: Tensor, largest: Tensor) -> Tensor:
    norm = delta.norm(dim=1)
    shrink = torch.where(norm > largest, largest / norm.clamp_min(torch.finfo(norm.dtype).tiny), torch.ones_like(norm))
    return delta * shrink[:, None]


class _Adam:
    """Adam on rows that may leave: torch's optimiser cannot drop rows, and its momentum would move finished ones."""

    def __init__(self, like: Tensor, lr: float) -> None:
        self._lr = lr
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)
        self._steps = 0

    def select(self, rows: Tensor) -> None:
        self._mean, self._square = self._mean[rows], self._square[rows]

    def step(self, value: Tensor, gradient: Tensor) -> Tensor:
        self._steps += 1
        one, two = ADAM_BETAS
        self._mean = self._mean * one + gradient * (1 - one)
        self._square = self._square * two + gradient * gradient * (1 - two)
        root = (self._square / (1 - two**self._steps)).sqrt() + ADAM_EPS
        return value - self._lr / (1 - one**self._steps) * self._mean / root
