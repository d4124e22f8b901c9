"""EMMET (arXiv:2403.14236): a batch written with equality constraints."""

from dataclasses import dataclass
from typing import ClassVar

from editing.methods.editor import editor, require
from editing.methods.locate import SpreadEditor


@editor("emmet")
@dataclass(frozen=True, kw_only=True)
class Emmet(SpreadEditor):
    """``Δ = R (KᵀC⁻¹K + ridge·I)⁻¹ KᵀC⁻¹``; at ridge 0 every edit is exact.

    With ridge r > 0 this is MEMIT with λ = r, exactly.  Under protocol ``code`` the ridge is
    ``code_lambda · code_moment_weight`` for batches of two or more and 0 for one edit, as the authors' code has it, so
    that a grid over batch sizes changes the algorithm at its first point.
    """

    ridge: float
    code_lambda: float
    code_moment_weight: float

    version: ClassVar[int] = 1
    max_layers: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self,
            ridge=self.ridge >= 0,
            code_lambda=self.code_lambda >= 0,
            code_moment_weight=self.code_moment_weight >= 0,
        )

    def ridge_for(self, n_edits: int) -> float:
        if self.protocol == "code":
            return self.code_lambda * self.code_moment_weight if n_edits > 1 else 0.0
        return 0.0 if self.protocol == "paper" else self.ridge
