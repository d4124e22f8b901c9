"""One edit by a hyper-network and one meta-gradient step, in two stages whose memory does not grow with the edits.

The language model and the hyper-network never hold activations at the same time: keys and gradients go through a spool,
and the gradient of the shift is carried back by hand (arXiv:2311.04661, section 4.2).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from editing.methods.hypernetwork import HyperNetworks, Shift
from editing.methods.spool import Spool
from editing.model.heads import Ids, TokenChoice
from editing.model.lm import LanguageModel, log_softmax
from editing.model.tokens import TEXTS_AT_ONCE
from editing.model.weights import Part
from editing.requests import EditRequest


class Pairs(NamedTuple):
    """Prompts and answers as token ids."""

    heads: tuple[Ids, ...]
    tails: tuple[Ids, ...]

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.tails))


Batches = Iterable[Pairs]
"""Micro-batches that can be gone through more than once."""


class MetaTask(NamedTuple):
    """What one meta-gradient step sees, cut into micro-batches, per kind of pair."""

    edit: Batches
    """Prompt → new target: where keys and gradients come from."""
    equivalent: Batches
    """Another prompt for the same fact → new target: where the generalisation loss is taken."""
    unrelated: Batches
    """A prompt on another fact → its answer: where the edited model must say what the unedited one says."""


class Observer(Protocol):
    """What sees every key and gradient: the running statistics of a hyper-network, or of UltraEdit."""

    def observe(self, module: str, keys: Tensor, gradients: Tensor) -> None: ...


class MetaLoss(NamedTuple):
    """Losses of one meta-gradient step."""

    generalisation: float
    locality: float
    gradient_norm: float
    """Before clipping."""


class Accuracy(NamedTuple):
    """Shares of answer tokens whose argmax is right, averaged over pairs (ES, GS, LS)."""

    edit: float
    equivalent: float
    unrelated: float
    mean_residual: float
    """Over modules and tokens."""


def edited_modules(lm: LanguageModel, layers: Sequence[int], parts: Sequence[Part]) -> dict[str, int]:
    """Return the full names of the edited modules, with the stack in which each stands."""
    return {lm.module_name(layer, part): lm.stack_of(layer)[0] for layer in layers for part in parts}


def shapes_of(lm: LanguageModel, modules: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return ``{module: (d_in, d_out)}``."""
    found = {name: lm.weight_view(f"{name}.weight").shape for name in modules}
    return {name: (shape[1], shape[0]) for name, shape in found.items()}


class PairBatches:
    """Prompts and answers in micro-batches, tokenised when one is asked for: what is kept does not grow with the ids.

    Micro-batches hold ``rows`` rows by decreasing length, or as many as one forward pass takes.
    """

    def __init__(
        self, lm: LanguageModel, prompts: Sequence[str], answers: Sequence[str], rows: int | None = None
    ) -> None:
        self._lm, self._prompts, self._answers = lm, list(prompts), list(answers)
        lengths: list[int] = []
        for start in range(0, len(self._prompts), TEXTS_AT_ONCE):
            pairs = self._pairs(range(start, min(start + TEXTS_AT_ONCE, len(self._prompts))))
            lengths += [len(head) + len(tail) - 1 for head, tail in zip(pairs.heads, pairs.tails, strict=True)]
        if rows is None:
            self._groups = lm.groups(lengths)
        else:
            order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
            self._groups = [order[start : start + rows] for start in range(0, len(order), rows)]

    def __iter__(self) -> Iterator[Pairs]:
        return (self._pairs(group) for group in self._groups)

    def _pairs(self, chosen: Sequence[int]) -> Pairs:
        prompts, answers = ([texts[i] for i in chosen] for texts in (self._prompts, self._answers))
        return Pairs(tuple(self._lm.format.prompts(prompts)), tuple(self._lm.format.answers(prompts, answers)))


def edit_batches(lm: LanguageModel, requests: Sequence[EditRequest], rows: int | None = None) -> PairBatches:
    """Return the edits' own prompts with their new targets."""
    return PairBatches(lm, [r.prompt for r in requests], [r.target_new for r in requests], rows)


def cache_gradients(
    lm: LanguageModel,
    networks: Observer | None,
    batches: Batches,
    modules: Mapping[str, int],
    tokens: TokenChoice,
    spool: Spool,
    *,
    per_batch_mean: bool,
) -> None:
    """Fill the spool with the keys and gradients of each pair, and let the normalisers of ``networks`` see them.

    With ``per_batch_mean`` the gradient is that of a micro-batch's mean cross-entropy (the official code), so that
    results depend on how pairs are cut into micro-batches; else that of the sum over tokens.
    """
    for pairs in batches:
        scale = 1 if per_batch_mean else pairs.n_tokens
        found, _ = lm.answer_gradients(lm.answer_rows(*pairs), modules, tokens)
        for name, (keys, gradients) in found.items():
            if networks is not None:
                networks.observe(name, keys, scale * gradients)
            spool.append(name, keys, scale * gradients)


class TwoWeights:
    """A model between its own weights and shifted ones; switching costs nothing, because both are kept."""

    def __init__(self, lm: LanguageModel, shifts: Mapping[str, Shift]) -> None:
        self._parameters = {name: lm.parameter(f"{name}.weight") for name in shifts}
        self._own = {name: parameter.data for name, parameter in self._parameters.items()}
        self._shifted: dict[str, Tensor] = {}
        for name, shift in shifts.items():
            own = lm.precise(f"{name}.weight").detach()
            change = shift.value if lm.is_transposed(f"{name}.weight") else shift.value.T
            self._shifted[name] = (own.double() + change).to(self._own[name].dtype)

    def own(self) -> None:
        self._use(self._own)

    def shifted(self) -> None:
        self._use(self._shifted)

    def _use(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.data = values[name]

    @contextmanager
    def collecting(self) -> Iterator[Callable[[Tensor], None]]:
        """Inside, the shifted weights are live; the function given adds a loss's gradients to :attr:`gradients`.

        They add up in float32 at least, whatever the weights' own dtype.  On leaving, the model is as it was.
        """
        self.shifted()
        self.gradients = {
            name: torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32))
            for name, parameter in self._parameters.items()
        }
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)

        def collect(loss: Tensor) -> None:
            found = torch.autograd.grad(loss, list(self._parameters.values()))
            for total, gradient in zip(self.gradients.values(), found, strict=True):
                total += gradient

        try:
            yield collect
        finally:
            for parameter in self._parameters.values():
                parameter.requires_grad_(False)
            self.own()


def meta_gradient(
    lm: LanguageModel,
    networks: HyperNetworks,
    task: MetaTask,
    modules: Mapping[str, int],
    tokens: TokenChoice,
    *,
    locality_weight: float,
    per_batch_mean: bool,
) -> tuple[float, float]:
    """Add the meta-loss's gradient to the networks' parameters; return its (generalisation, weighted locality) parts.

    The meta-loss is the cross-entropy of the equivalent pairs on the edited model, plus ``locality_weight`` times
    KL(unedited ‖ edited) at the unrelated pairs' answer tokens; each is a mean over all answer tokens, or, with
    ``per_batch_mean``, a sum over micro-batches of their means (the official code).
    """
    with Spool() as spool:
        cache_gradients(lm, networks, task.edit, modules, tokens, spool, per_batch_mean=per_batch_mean)
        shifts = {name: networks.shift(name, spool) for name in modules}
        weights = TwoWeights(lm, shifts)
        generalisation = locality = 0.0
        with weights.collecting() as collect:
            total = sum(pairs.n_tokens for pairs in task.equivalent)
            for pairs in task.equivalent:
                share = 1.0 if per_batch_mean else pairs.n_tokens / total
                loss = share * lm.answer_loss(lm.answer_rows(*pairs))
                collect(loss)
                generalisation += float(loss.detach())
            total = sum(pairs.n_tokens for pairs in task.unrelated)
            for pairs in task.unrelated:
                rows = lm.answer_rows(*pairs)
                with torch.no_grad():
                    weights.own()
                    before = log_softmax(lm.answer_logits(rows))
                    weights.shifted()
                share = 1.0 if per_batch_mean else pairs.n_tokens / total
                now = log_softmax(lm.answer_logits(rows))
                loss = share * locality_weight * (before.exp() * (before - now)).sum(1).mean()
                collect(loss)
                locality += float(loss.detach())
            for name, shift in shifts.items():
                gradient = weights.gradients[name]
                view = gradient if lm.is_transposed(f"{name}.weight") else gradient.T
                networks.backpropagate(name, spool, shift, view)
    return generalisation, locality


def accuracy(
    lm: LanguageModel,
    networks: HyperNetworks,
    task: MetaTask,
    modules: Mapping[str, int],
    tokens: TokenChoice,
    *,
    per_batch_mean: bool,
    observe: bool = False,
) -> Accuracy:
    """Return what one joint edit of ``task.edit`` does, measured on the edited model; the model is left as it was."""
    with Spool() as spool:
        seen = networks if observe else None
        cache_gradients(lm, seen, task.edit, modules, tokens, spool, per_batch_mean=per_batch_mean)
        shifts = {name: networks.shift(name, spool) for name in modules}
        residuals = [networks.mean_residual(name, spool, shift) for name, shift in shifts.items()]
    weights = TwoWeights(lm, shifts)
    weights.shifted()
    try:
        rates = [_token_accuracy(lm, batches) for batches in task]
    finally:
        weights.own()
    edit, equivalent, unrelated = rates
    return Accuracy(edit, equivalent, unrelated, sum(residuals) / len(residuals))


def _token_accuracy(lm: LanguageModel, batches: Batches) -> float:
    shares = [score.n_correct / score.n_tokens for pairs in batches for score in lm.score_ids(*pairs)]
    return sum(shares) / len(shares) if shares else float("nan")
