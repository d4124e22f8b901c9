"""FT-C: constrained fine-tuning of one projection, the baseline of the ROME paper (arXiv:2012.00363)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from editing.editor import Artifacts, EditResult, FactReport, Need, ParameterUpdate, State, editor, require
from editing.lm import LanguageModel, log_softmax
from editing.requests import EditRequest
from editing.tokens import pad_rows


class _Minibatch(NamedTuple):
    """Token rows with, for each predicted target token, where it is predicted and how much it weighs."""

    edits: list[int]
    ids: list[tuple[int, ...]]
    rows: Tensor
    at: Tensor
    token: Tensor
    weight: Tensor


@editor("ft_c")
@dataclass(frozen=True, kw_only=True)
class FtC:
    """Adam on the edited projection's parameters, each value kept within ±``bound`` of where this edit found it.

    The loss is autoregressive; under protocol ``code`` every target token is scored at the last prompt position, as
    the reference does.  The bound is against the weights before *this* edit, so drift over many edits is not bounded.
    """

    steps: int
    """Passes over the batch; it ends early when a pass's mean loss is below ``stop_loss``."""
    lr: float
    bound: float
    minibatch: int
    stop_loss: float
    protocol: str

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[Need]] = frozenset()
    max_batch: ClassVar[int | None] = None
    max_layers: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        require(
            self,
            steps=self.steps > 0,
            lr=self.lr > 0,
            bound=self.bound > 0,
            minibatch=self.minibatch > 0,
            stop_loss=self.stop_loss >= 0,
        )

    def parameter_names(self, lm: LanguageModel, layers: Sequence[int]) -> tuple[str, ...]:
        return tuple(name for layer in layers for name in lm.parameter_names(layer).values())

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        names = self.parameter_names(lm, layers)
        parameters = [lm.parameter(name) for name in names]
        with lm.preserved(names):
            for parameter in parameters:
                parameter.requires_grad_(True)
            try:
                per_fact, per_step = self._descend(lm, batch, layers, parameters)
                updates = tuple(
                    ParameterUpdate(name, value=parameter.detach().clone())
                    for name, parameter in zip(names, parameters, strict=True)
                )
            finally:
                for parameter in parameters:
                    parameter.requires_grad_(False)
        n_passes = len(per_step) // -(-len(batch) // self.minibatch)
        facts = tuple(
            FactReport(request_id=request.request_id, target_loss=loss, n_steps=n_passes)
            for request, loss in zip(batch, per_fact, strict=True)
        )
        return EditResult(updates, {}, facts, losses=tuple(per_step))

    def edit_each(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], artifacts: Artifacts
    ) -> list[EditResult]:
        return [self.edit(lm, [request], layers, {}, artifacts) for request in batch]

    def _descend(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], parameters: list[Tensor]
    ) -> tuple[list[float], list[float]]:
        """Change ``parameters`` in place; return each fact's last loss and each minibatch step's loss."""
        minibatches = self._minibatches(lm, batch)
        # Blocks below the first edited one never change: they run once per minibatch.
        uppers = [lm.upper_pass(pad_rows(m.ids), min(layers)) for m in minibatches]
        starts = [parameter.detach().clone() for parameter in parameters]
        optimizer = torch.optim.Adam(parameters, lr=self.lr)
        last = [float("nan")] * len(batch)
        losses: list[float] = []
        for _ in range(self.steps):
            seen = 0.0
            for minibatch, upper in zip(minibatches, uppers, strict=True):
                per_fact = self._losses(lm, minibatch, upper(upper.hidden))
                loss = per_fact.mean()
                losses.append(float(loss.detach()))
                for index, value in zip(minibatch.edits, per_fact.tolist(), strict=True):
                    last[index] = value
                seen += losses[-1] * len(minibatch.edits)
                if losses[-1] >= self.stop_loss:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                with torch.no_grad():
                    for parameter, start in zip(parameters, starts, strict=True):
                        parameter.clamp_(start - self.bound, start + self.bound)
            if seen / len(batch) < self.stop_loss:
                break
        return last, losses

    def _minibatches(self, lm: LanguageModel, batch: Sequence[EditRequest]) -> list[_Minibatch]:
        heads = lm.format.prompts([request.prompt for request in batch])
        tails = lm.format.answers([request.prompt for request in batch], [request.target_new for request in batch])
        out = []
        for start in range(0, len(batch), self.minibatch):
            edits = list(range(start, min(start + self.minibatch, len(batch))))
            entries = [
                (row, len(heads[i]) - 1 + (0 if self.protocol == "code" else k), token, 1 / len(tails[i]))
                for row, i in enumerate(edits)
                for k, token in enumerate(tails[i])
            ]
            *indices, weights = zip(*entries, strict=True)
            rows, at, token = (torch.tensor(column) for column in indices)
            weight = torch.tensor(weights, dtype=torch.float64)
            ids = [heads[i] + (() if self.protocol == "code" else tails[i][:-1]) for i in edits]
            out.append(_Minibatch(edits, ids, rows, at, token, weight))
        return out

    @staticmethod
    def _losses(lm: LanguageModel, minibatch: _Minibatch, states: Tensor) -> Tensor:
        """Return each fact's mean token NLL [edit]."""
        logprobs = log_softmax(lm.logits(states[minibatch.rows, minibatch.at]))
        token = minibatch.token.to(logprobs.device)
        nll = -logprobs.gather(1, token[:, None])[:, 0] * minibatch.weight.to(logprobs)
        losses = torch.zeros(len(minibatch.edits), dtype=nll.dtype, device=nll.device)
        return losses.index_add(0, minibatch.rows.to(nll.device), nll)
