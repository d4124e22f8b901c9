"""AlphaEdit (arXiv:2410.02355): MEMIT inside the directions that ordinary keys hardly use."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from editing.methods.editor import editor, require
from editing.methods.geometry import EuclideanGeometry, KeyGeometry, Solution
from editing.methods.locate import SpreadEditor


@editor("alphaedit")
@dataclass(frozen=True, kw_only=True)
class AlphaEdit(SpreadEditor):
    """``Δ = R Kᵀ P (K_p K_pᵀ P + K Kᵀ P + ridge·I)⁻¹`` with P on the eigenvectors of C below ``null_threshold``.

    With P = UUᵀ this is the common closed form in the coordinates ``Uᵀk``, where C is the identity.  K_p are the keys
    of all earlier batches.  The official code reads them again after a batch, which gives the same: a layer's key depends on
    the layers before it, which are written when it is read.  It solves the asymmetric system in float32; the symmetric one
    here is exact and smaller.
    """

    null_threshold: float
    """Absolute, on the eigenvalues of C: its meaning depends on the scale of a model's activations."""
    ridge: float

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, null_threshold=self.null_threshold > 0, ridge=self.ridge > 0)

    def ridge_for(self, n_edits: int) -> float:
        return self.ridge

    def solve(self, geometry: KeyGeometry, keys: Tensor, residual: Tensor, earlier: Tensor | None) -> Solution:
        basis = geometry.null_space(self.null_threshold)
        plain = EuclideanGeometry.on(basis.device)
        before = None if earlier is None else earlier.to(basis) @ basis
        solution = super().solve(plain, keys.double() @ basis, residual, before)
        # What is reported of each edit alone is in the geometry of ordinary keys, not in that of the null space.
        inside = keys.double() @ basis
        seen = inside @ basis.T  # Pk
        direction = geometry.solve_moment(keys.T).T
        size = residual.double().norm(dim=1) / (inside.square().sum(1) + self.ridge)
        return solution._replace(
            right=solution.right @ basis.T,
            direction=direction,
            q=(keys.double() * direction).sum(1),
            disturbance=size**2 * (geometry.times_moment(seen) * seen).sum(1),
            norm=size * inside.norm(dim=1),
        )
