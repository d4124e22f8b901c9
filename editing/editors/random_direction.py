"""A control: for each batch a random update with the norm of MEMIT's, so that norm and direction can be told apart."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from editing.editors.memit import Memit
from editing.methods.editor import Artifacts, EditResult, ParameterUpdate, State, editor
from editing.methods.targets import Targets
from editing.model.lm import LanguageModel
from editing.requests import EditRequest


@editor("random_direction")
@dataclass(frozen=True, kw_only=True)
class RandomDirection(Memit):
    """At each layer ``Δ = ‖Δ_MEMIT‖ · ABᵀ/‖ABᵀ‖`` with Gaussian A and B of MEMIT's rank.

    The draw depends on the batch, the parameter and ``direction_seed`` alone, so a resumed run draws the same.
    """

    direction_seed: int

    version: ClassVar[int] = 1

    def seeds(self) -> Sequence[str]:
        return ("direction_seed",)

    def _write(
        self,
        lm: LanguageModel,
        batch: Sequence[EditRequest],
        layers: Sequence[int],
        state: State,
        artifacts: Artifacts,
        targets: Targets,
    ) -> EditResult:
        memit = super()._write(lm, batch, layers, state, artifacts, targets)
        updates = tuple(self._turned(lm, update, batch) for update in memit.updates)
        unknown = tuple(replace(report, shortfall=None, solve_error=None) for report in memit.parameters)
        return memit._replace(updates=updates, parameters=unknown)

    def _turned(self, lm: LanguageModel, update: ParameterUpdate, batch: Sequence[EditRequest]) -> ParameterUpdate:
        with lm.preserved([update.name]):
            before = lm.precise(update.name).double().clone()
            update.apply(lm)
            norm = float((lm.precise(update.name).double() - before).norm())
        text = "/".join([str(self.direction_seed), update.name, *(request.request_id for request in batch)])
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        draw = torch.Generator().manual_seed(seed)
        d_out, d_in = lm.weight_view(update.name).shape
        left = torch.randn(d_out, len(batch), generator=draw, dtype=torch.float64)
        right = torch.randn(len(batch), d_in, generator=draw, dtype=torch.float64)
        return ParameterUpdate.low_rank(lm, update.name, left * (norm / (left @ right).norm()), right)
