"""What FT and FT-C have in common: Adam on a layer's own parameters, on the new answers alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from editing.methods.editor import (
    Artifacts,
    BaseEditor,
    EditResult,
    FactReport,
    ParameterUpdate,
    State,
    check_parts,
    require,
)
from editing.model.heads import Ids
from editing.model.lm import LanguageModel, log_softmax
from editing.model.memory import Part, done_in_parts
from editing.model.tokens import pad_rows
from editing.model.upper_pass import UpperPass
from editing.model.weights import PARTS
from editing.model.weights import Part as ModelPart
from editing.requests import EditRequest


class _Rows(NamedTuple):
    """Some facts of a batch in one forward pass, with how much each predicted answer token weighs."""

    edits: Sequence[int]
    heads: list[Ids]
    tails: list[Ids]
    weight: Tensor
    """float64 [token]"""
    owner: Tensor
    """int64 [token], the fact's row."""
    upper: UpperPass | None
    """The blocks from the first trained one on; None if all of them run."""


@dataclass(frozen=True, kw_only=True)
class FineTuning(BaseEditor):
    """Adam on the parameters of some layers' parts until the answers are learnt.

    The loss is autoregressive; under protocol ``code`` every target token of a decoder is scored at the last prompt
    position, as the reference does.  16-bit weights are trained through float32 masters.
    """

    steps: int
    """Passes over the batch; it ends early when a pass's mean loss is below ``stop_loss``."""
    lr: float
    weight_decay: float
    """Added to the gradient as ``weight_decay · W``, or, ``decoupled``, to the step (AdamW)."""
    decoupled: bool
    minibatch: int
    stop_loss: float
    parts: Sequence[str]
    """Which of each layer's parameters are trained: ``mlp_out``, ``mlp_in`` or the whole ``block``."""
    protocol: str

    def __post_init__(self) -> None:
        require(
            self,
            steps=self.steps > 0,
            lr=self.lr > 0,
            weight_decay=self.weight_decay >= 0,
            minibatch=self.minibatch > 0,
            stop_loss=self.stop_loss >= 0,
        )
        check_parts(self, self.parts, PARTS)

    def decay_for(self, n_edits: int) -> float:
        """Return the weight decay for a batch of this size."""
        return self.weight_decay

    def bounded(self, value: Tensor, start: Tensor) -> Tensor:
        """Return a parameter after a step, held where the method allows it to be."""
        return value

    def origins(self, values: Mapping[str, Tensor], state: State) -> State:
        """Return the run's first weights, if the method holds its parameters near them: its state from then on."""
        return {}

    def parameter_names(self, lm: LanguageModel, layers: Sequence[int]) -> tuple[str, ...]:
        """Return the names of all trained parameters, once each."""
        parts = cast(tuple[ModelPart, ...], tuple(self.parts))
        names = [name for layer in layers for part in parts for name in lm.parameter_names(layer, part).values()]
        return tuple(dict.fromkeys(names))

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        names = self.parameter_names(lm, layers)
        before = {name: lm.precise(name).detach().to(lm.stored_dtype(name), copy=True) for name in names}
        kept = self.origins(before, state)
        with lm.preserved(names):
            for name in names:
                lm.parameter(name).requires_grad_(True)
            try:
                values, per_fact, per_step = self._descend(lm, batch, layers, before, kept or before)
            finally:
                for name in names:
                    lm.parameter(name).requires_grad_(False)
                    lm.parameter(name).grad = None
        n_passes = len(per_step) // -(-len(batch) // self.minibatch)
        facts = tuple(
            FactReport(request_id=request.request_id, target_loss=loss, n_steps=n_passes)
            for request, loss in zip(batch, per_fact, strict=True)
        )
        updates = tuple(ParameterUpdate(name, value=value) for name, value in values.items())
        return EditResult(updates, kept, facts, losses=tuple(per_step))

    def _descend(
        self,
        lm: LanguageModel,
        batch: Sequence[EditRequest],
        layers: Sequence[int],
        before: Mapping[str, Tensor],
        origins: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], list[float], list[float]]:
        """Return the trained values, each fact's last loss and each minibatch step's loss."""
        rows = _BatchRows(lm, batch, min(layers), at_prompt_end=self._at_prompt_end)
        minibatches = [range(i, min(i + self.minibatch, len(batch))) for i in range(0, len(batch), self.minibatch)]
        live = [lm.parameter(name) for name in before]
        values = [value.clone() for value in before.values()]
        starts = [origins[name].to(value.device) for name, value in before.items()]
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        optimizer = kind(values, lr=self.lr, weight_decay=self.decay_for(len(batch)))
        last = [float("nan")] * len(batch)
        losses: list[float] = []
        for _ in range(self.steps):
            seen = 0.0
            for minibatch in minibatches:
                per_fact, gradients = self._gradients(lm, rows, minibatch, live)
                losses.append(sum(per_fact.values()) / len(minibatch))
                for index, fact_loss in per_fact.items():
                    last[index] = fact_loss
                seen += losses[-1] * len(minibatch)
                if losses[-1] >= self.stop_loss:
                    for value, gradient in zip(values, gradients, strict=True):
                        value.grad = gradient.to(value.dtype)
                    optimizer.step()
                with torch.no_grad():
                    for parameter, value, start in zip(live, values, starts, strict=True):
                        value.copy_(self.bounded(value, start))
                        parameter.copy_(value)
            if seen / len(batch) < self.stop_loss:
                break
        return dict(zip(before, values, strict=True)), last, losses

    @property
    def _at_prompt_end(self) -> bool:
        return self.protocol == "code"

    def _gradients(
        self, lm: LanguageModel, rows: "_BatchRows", minibatch: Sequence[int], live: Sequence[Tensor]
    ) -> tuple[dict[int, float], list[Tensor]]:
        """Return each fact's mean token NLL and the gradients of their mean, in as many passes as memory asks for."""
        total = [torch.zeros_like(parameter) for parameter in live]

        def work(made: Callable[[], _Rows]) -> list[float]:
            per_fact = self._losses(lm, made())
            found: list[float] = per_fact.tolist()
            done = len(found) == len(minibatch) and sum(found) / len(found) < self.stop_loss  # no step will be taken
            gradients = (
                torch.autograd.grad(per_fact.sum() / len(minibatch), live, allow_unused=True) if not done else ()
            )
            for sum_of_all, gradient in zip(total, gradients, strict=False):
                if gradient is not None:
                    sum_of_all += gradient
            return found

        parts = done_in_parts(lm, minibatch, rows.split, work)
        return {i: loss for members, found in parts for i, loss in zip(members, found, strict=True)}, total

    def _losses(self, lm: LanguageModel, rows: _Rows) -> Tensor:
        """Return each fact's mean token NLL [edit]."""
        if rows.upper is None:
            answers = lm.answer_rows(rows.heads, rows.tails)
            logprobs, token = log_softmax(lm.answer_logits(answers)), answers.token
        else:
            entries = [
                (len(head) - 1 + (0 if self._at_prompt_end else k), token)
                for head, tail in zip(rows.heads, rows.tails, strict=True)
                for k, token in enumerate(tail)
            ]
            at, token = (torch.tensor(column) for column in zip(*entries, strict=True))
            logprobs = log_softmax(lm.logits(rows.upper(rows.upper.hidden)[rows.owner, at]))
        token = token.to(logprobs.device)
        nll = -logprobs.gather(1, token[:, None])[:, 0] * rows.weight.to(logprobs)
        losses = torch.zeros(len(rows.edits), dtype=nll.dtype, device=nll.device)
        return losses.index_add(0, rows.owner.to(nll.device), nll)


class _BatchRows:
    """A batch's rows.  In a decoder, blocks below the first trained one never change: they run once, as long as memory
    suffices for what they give."""

    def __init__(
        self, lm: LanguageModel, batch: Sequence[EditRequest], first_block: int, *, at_prompt_end: bool
    ) -> None:
        prompts = [request.prompt for request in batch]
        self._lm, self._first_block = lm, first_block
        self._heads, self._tails = lm.format.prompts(prompts), lm.format.answers(prompts, [r.target_new for r in batch])
        pairs = zip(self._heads, self._tails, strict=True)
        self._inputs = [head + (() if at_prompt_end else tail[:-1]) for head, tail in pairs]
        self._tokens = lm.tokens_per_forward
        self._kept: dict[tuple[int, ...], _Rows] = {}

    def split(self, numbers: Sequence[int]) -> list[Part[Callable[[], _Rows]]]:
        """Return some of the facts in groups of similar length, as parts for :func:`done_in_parts`."""
        if self._lm.tokens_per_forward != self._tokens:
            self._kept.clear()
        return [
            Part(group, partial(self._rows, tuple(group))) for group, _ in self._lm.groups_of(self._inputs, numbers)
        ]

    def _rows(self, edits: tuple[int, ...]) -> _Rows:
        if edits in self._kept:
            return self._kept[edits]
        tails = [self._tails[i] for i in edits]
        weight = torch.tensor([1 / len(tail) for tail in tails for _ in tail], dtype=torch.float64)
        owner = torch.tensor([row for row, tail in enumerate(tails) for _ in tail])
        upper = None
        if self._lm.family.head == "causal":
            upper = self._lm.upper_pass(pad_rows([self._inputs[i] for i in edits]), self._first_block)
        rows = _Rows(edits, [self._heads[i] for i in edits], tails, weight, owner, upper)
        if self._lm.tokens_per_forward == self._tokens:
            self._kept[edits] = rows
        return rows
