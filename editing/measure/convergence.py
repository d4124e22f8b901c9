"""When a second moment has seen enough: its change is measured on the updates that it is for."""

import math

import torch
from torch import Tensor

from editing.errors import MomentError, SolveError
from editing.methods.geometry import KeyGeometry

SAME_DIRECTION = 1e-6
"""Keys of equal subjects differ by rounding: 1 - cosine is below this."""


def update_change(before: Tensor, after: Tensor, keys: Tensor, *, jitter: float = 0.0) -> float:
    """Return how much the updates of some edits change when one second moment takes the place of another.

    Compared are, relative to the latter's in the Frobenius norm, the exact updates of all edits together (EMMET) and those
    of each alone (ROME, ``C⁻¹k / kᵀC⁻¹k``); the larger change counts.  From n tokens to 2n it estimates what is still
    missing after 2n: errors fall as ``sqrt(d_in / n)``.

    Args:
        before, after: [d_in, d_in]
        keys: [edit, d_in], of fewer edits than dimensions; of equal ones the first counts.
        jitter: As in :meth:`KeyGeometry.of`.

    Returns:
        Infinity where one of them is singular, or cannot tell the keys apart.
    """
    keys = _distinct(keys)
    draw = torch.Generator().manual_seed(0)
    residuals = torch.randn(len(keys), len(keys), generator=draw, dtype=torch.float64).to(keys.device)
    try:
        old, new = (_updates(KeyGeometry.of(c, jitter=jitter), keys, residuals) for c in (before, after))
    except (MomentError, SolveError):
        return math.inf
    return max(float((a - b).norm() / b.norm()) for a, b in zip(old, new, strict=True))


def _distinct(keys: Tensor) -> Tensor:
    """Return the keys without those that point where an earlier one does: no joint update could tell them apart."""
    directions = torch.nn.functional.normalize(keys.double(), dim=1)
    alike = (directions @ directions.T > 1 - SAME_DIRECTION).tril(-1).any(1)
    return keys[~alike]


def _updates(geometry: KeyGeometry, keys: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Return the joint update [edit, d_in] and the directions [edit, d_in] of single ones."""
    solution = geometry.least_disturbing_update(keys, residuals)
    return solution.left @ solution.right, solution.direction / solution.q[:, None]
