"""MEMIT (arXiv:2210.07229): a batch written into several layers, with slack in every constraint."""

from dataclasses import dataclass
from typing import ClassVar

from editing.methods.editor import editor, require
from editing.methods.locate import SpreadEditor


@editor("memit")
@dataclass(frozen=True, kw_only=True)
class Memit(SpreadEditor):
    """``Δ = R Kᵀ (λC + KKᵀ)⁻¹`` at each layer."""

    preservation_weight: float
    """λ; compare it with the median of ``kᵀC⁻¹k``, which ``edit_updates.q`` records."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, preservation_weight=self.preservation_weight > 0)

    def ridge_for(self, n_edits: int) -> float:
        return self.preservation_weight
