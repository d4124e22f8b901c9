"""UltraEdit (arXiv:2505.14679): one step, no training; gradients normalised by what all edits so far looked like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from editing.methods.editor import (
    Artifacts,
    BaseEditor,
    EditResult,
    FactReport,
    ParameterReport,
    ParameterUpdate,
    State,
    check_parts,
    editor,
    require,
    unsettled_microbatch,
)
from editing.methods.hypernetwork import RunningMoments, normal_equation
from editing.methods.meta import Batches, cache_gradients, edit_batches, edited_modules, shapes_of
from editing.methods.spool import Spool
from editing.model.lm import LanguageModel
from editing.model.weights import PARTS, Part
from editing.requests import EditRequest


@editor("ultraedit")
@dataclass(frozen=True, kw_only=True)
class UltraEdit(BaseEditor):
    """``S = (KᵀK + ridge·I)⁻¹KᵀD`` with ``d_j = -lr ⟨k̂_j, k̂_j⟩ ĝ_j``: MALMEN's last step without its network.

    k̂ and ĝ are a token's key and gradient, normalised by running statistics that all modules of one weight shape
    share; they see each batch before its shift and are the editor's state.  Under protocol ``code`` a gradient is that
    of its micro-batch's mean loss, and a batch's variance is counted with one row too many.
    """

    lr: float
    ridge: float
    parts: Sequence[str]
    microbatch: int
    """Rows per micro-batch; 0 means as many as one forward pass takes."""
    chunk: int
    """Tokens whose shifts are computed at once."""
    protocol: str

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(
            self,
            lr=self.lr > 0,
            ridge=self.ridge > 0,
            microbatch=self.microbatch >= 0,
            chunk=self.chunk > 0,
        )
        check_parts(self, self.parts, PARTS[:2])

    def unsettled(self) -> str | None:
        return unsettled_microbatch(self.protocol, self.microbatch)

    def ridge_for(self, n_edits: int) -> float:
        return self.ridge

    def _parts(self) -> tuple[Part, ...]:
        return cast(tuple[Part, ...], tuple(self.parts))

    def parameter_names(self, lm: LanguageModel, layers: Sequence[int]) -> tuple[str, ...]:
        return tuple(lm.parameter_names(layer, part)["weight"] for layer in layers for part in self._parts())

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        modules = edited_modules(lm, layers, self._parts())
        pairs = edit_batches(lm, batch, self.microbatch or None)
        updates, reports, kept = self.edit_pairs(lm, pairs, modules, state)
        facts = tuple(FactReport(request_id=request.request_id) for request in batch)
        return EditResult(updates, kept, facts, parameters=reports)

    def edit_pairs(
        self, lm: LanguageModel, batches: Batches, modules: Mapping[str, int], state: State
    ) -> tuple[tuple[ParameterUpdate, ...], tuple[ParameterReport, ...], dict[str, Tensor]]:
        """Return updates, reports and the statistics after these micro-batches."""
        code = self.protocol == "code"
        shapes = shapes_of(lm, list(modules))
        normalisers = _Normalisers(state, shapes, code_variance=code, like=lm.precise(f"{next(iter(modules))}.weight"))
        updates, reports = [], []
        with Spool() as spool:
            cache_gradients(lm, normalisers, batches, modules, "answer", spool, per_batch_mean=code)
            for module in modules:
                seen = normalisers.of(module)
                differences = (
                    (keys, self._differences(seen, keys, gradients))
                    for keys, gradients in spool.chunks(module, self.chunk)
                )
                shift = normal_equation(module, differences, self.ridge)
                updates.append(ParameterUpdate.dense(lm, f"{module}.weight", shift.value.T))
                reports.append(ParameterReport(parameter=f"{module}.weight", ridge=self.ridge))
        return tuple(updates), tuple(reports), normalisers.state()

    def _differences(self, seen: RunningMoments, keys: Tensor, gradients: Tensor) -> Tensor:
        rows: Tensor = seen(torch.cat([keys, gradients], dim=1))
        normed_keys, normed_gradients = rows[:, : keys.shape[1]], rows[:, keys.shape[1] :]
        differences: Tensor = -self.lr * normed_keys.square().sum(1, keepdim=True) * normed_gradients
        return differences


class _Normalisers:
    """Running statistics per weight shape, from and to the editor's state."""

    def __init__(
        self, state: State, shapes: Mapping[str, tuple[int, int]], *, code_variance: bool, like: Tensor
    ) -> None:
        dtype = torch.promote_types(like.dtype, torch.float32)
        self._names = {module: f"{d_in}x{d_out}" for module, (d_in, d_out) in shapes.items()}
        self._live: dict[str, RunningMoments] = {}
        for module, name in self._names.items():
            if name not in self._live:
                made = RunningMoments(sum(shapes[module]), code_variance=code_variance, dtype=dtype).to(like.device)
                mine = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
                if mine:
                    made.load_state_dict(mine)
                self._live[name] = made

    def of(self, module: str) -> RunningMoments:
        return self._live[self._names[module]]

    def observe(self, module: str, keys: Tensor, gradients: Tensor) -> None:
        seen = self.of(module)
        seen.update(torch.cat([keys, gradients], dim=1).to(seen.mean.dtype))

    def state(self) -> dict[str, Tensor]:
        return {f"{n}.{key}": v.clone() for n, made in self._live.items() for key, v in made.state_dict().items()}
