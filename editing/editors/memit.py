"""MEMIT (arXiv:2210.07229): a batch written into several layers, with slack in every constraint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from editing.errors import HparamsError
from editing.hparams import TIMES_MEDIAN_Q
from editing.methods.editor import editor, require
from editing.methods.geometry import KeyGeometry
from editing.methods.locate import SpreadEditor


@editor("memit")
@dataclass(frozen=True, kw_only=True)
class Memit(SpreadEditor):
    """``Δ = R Kᵀ (λC + KKᵀ)⁻¹`` at each layer.

    Of one edit's residual the share ``q / (λ + q)`` arrives, ``q = kᵀC⁻¹k``.
    """

    preservation_weight: float | Mapping[str, float]
    """λ; or ``{times_median_q: x}``: x times the median q of the batch's keys, at each layer, so that the share does not depend
    on the scale of a model's activations."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, preservation_weight=self._times > 0 or self._number > 0)
        if self._times and self.remember:
            raise HparamsError(
                "memit: preservation_weight is relative to each batch's keys, and remember: true keeps those of earlier "
                "batches at one weight; give a number, or leave remember out"
            )

    @property
    def _times(self) -> float:
        given = self.preservation_weight
        return given[TIMES_MEDIAN_Q] if isinstance(given, Mapping) else 0.0

    @property
    def _number(self) -> float:
        return 0.0 if isinstance(self.preservation_weight, Mapping) else self.preservation_weight

    def ridge_for(self, n_edits: int) -> float | None:
        return None if self._times else self._number

    def ridge_in(self, geometry: KeyGeometry, keys: Tensor) -> float:
        if not self._times:
            return self._number
        return self._times * float(geometry.sizes(keys).quantile(0.5))
