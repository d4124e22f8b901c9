"""What FT and FT-C have in common: Adam on a layer's own parameters, on the new answers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from editing.editor import Artifacts, BaseEditor, EditResult, FactReport, ParameterUpdate, State, check_parts, require
from editing.heads import Ids
from editing.lm import LanguageModel, log_softmax
from editing.passes import UpperPass
from editing.requests import EditRequest
from editing.tokens import pad_rows
from editing.weights import PARTS, Part


class _Minibatch(NamedTuple):
    """Some facts of a batch, with how much each predicted answer token weighs."""

    edits: list[int]
    heads: list[Ids]
    tails: list[Ids]
    weight: Tensor
    """float64 [token]"""
    owner: Tensor
    """int64 [token], the fact's place in the minibatch."""


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
        parts = cast(tuple[Part, ...], tuple(self.parts))
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
        minibatches = self._minibatches(lm, batch)
        # In a decoder, blocks below the first edited one never change: they run once per minibatch.
        fixed = [self._upper(lm, m, min(layers)) if lm.family.head == "causal" else None for m in minibatches]
        live = [lm.parameter(name) for name in before]
        values = [value.clone() for value in before.values()]
        starts = [origins[name].to(value.device) for name, value in before.items()]
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        optimizer = kind(values, lr=self.lr, weight_decay=self.decay_for(len(batch)))
        last = [float("nan")] * len(batch)
        losses: list[float] = []
        for _ in range(self.steps):
            seen = 0.0
            for minibatch, upper in zip(minibatches, fixed, strict=True):
                per_fact = self._losses(lm, minibatch, upper)
                loss = per_fact.mean()
                losses.append(float(loss.detach()))
                for index, fact_loss in zip(minibatch.edits, per_fact.tolist(), strict=True):
                    last[index] = fact_loss
                seen += losses[-1] * len(minibatch.edits)
                if losses[-1] >= self.stop_loss:
                    gradients = torch.autograd.grad(loss, live, allow_unused=True)
                    for value, gradient in zip(values, gradients, strict=True):
                        value.grad = torch.zeros_like(value) if gradient is None else gradient.to(value.dtype)
                    optimizer.step()
                with torch.no_grad():
                    for parameter, value, start in zip(live, values, starts, strict=True):
                        value.copy_(self.bounded(value, start))
                        parameter.copy_(value)
            if seen / len(batch) < self.stop_loss:
                break
        return dict(zip(before, values, strict=True)), last, losses

    def _minibatches(self, lm: LanguageModel, batch: Sequence[EditRequest]) -> list[_Minibatch]:
        heads = lm.format.prompts([request.prompt for request in batch])
        tails = lm.format.answers([request.prompt for request in batch], [request.target_new for request in batch])
        out = []
        for start in range(0, len(batch), self.minibatch):
            edits = list(range(start, min(start + self.minibatch, len(batch))))
            mine = [tails[i] for i in edits]
            weight = torch.tensor([1 / len(tail) for tail in mine for _ in tail], dtype=torch.float64)
            owner = torch.tensor([row for row, tail in enumerate(mine) for _ in tail])
            out.append(_Minibatch(edits, [heads[i] for i in edits], mine, weight, owner))
        return out

    @property
    def _at_prompt_end(self) -> bool:
        return self.protocol == "code"

    def _upper(self, lm: LanguageModel, minibatch: _Minibatch, first_block: int) -> UpperPass:
        pairs = zip(minibatch.heads, minibatch.tails, strict=True)
        return lm.upper_pass(pad_rows([h + (() if self._at_prompt_end else t[:-1]) for h, t in pairs]), first_block)

    def _losses(self, lm: LanguageModel, minibatch: _Minibatch, upper: UpperPass | None) -> Tensor:
        """Return each fact's mean token NLL [edit]."""
        if upper is None:
            rows = lm.answer_rows(minibatch.heads, minibatch.tails)
            logprobs, token = log_softmax(lm.answer_logits(rows)), rows.token
        else:
            entries = [
                (len(head) - 1 + (0 if self._at_prompt_end else k), token)
                for head, tail in zip(minibatch.heads, minibatch.tails, strict=True)
                for k, token in enumerate(tail)
            ]
            at, token = (torch.tensor(column) for column in zip(*entries, strict=True))
            logprobs = log_softmax(lm.logits(upper(upper.hidden)[minibatch.owner, at]))
        token = token.to(logprobs.device)
        nll = -logprobs.gather(1, token[:, None])[:, 0] * minibatch.weight.to(logprobs)
        losses = torch.zeros(len(minibatch.edits), dtype=nll.dtype, device=nll.device)
        return losses.index_add(0, minibatch.owner.to(nll.device), nll)
