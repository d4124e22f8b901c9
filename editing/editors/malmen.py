"""MALMEN (arXiv:2311.04661): a hyper-network's shifts of many facts, joined by a normal equation with a learnt ridge."""

from dataclasses import dataclass
from typing import ClassVar

from editing.methods.editor import editor
from editing.methods.trained import TrainedEditor


@editor("malmen")
@dataclass(frozen=True, kw_only=True)
class Malmen(TrainedEditor):
    """``S* = D Kᵀ (K Kᵀ + λI)⁻¹`` with ``d_j = -η ⟨k_j, k'_j⟩ v'_j``, keys of the answer's tokens only.

    The ablations of its paper are hyper-parameters: ``aggregate: sum``, ``learn_ridge: false``, ``parts: [mlp_in]``,
    ``tokens: all``.
    """

    version: ClassVar[int] = 1
