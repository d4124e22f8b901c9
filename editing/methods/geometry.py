"""The one closed form behind ROME, MEMIT, EMMET and MALMEN's last step, in the geometry of a layer's keys."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from editing.errors import MomentError, SolveError

MAX_SHORTFALL = 1e-6
"""Largest relative miss of the constraints that is accepted at ridge 0."""
SAME_KEY = 1e-9
"""Two keys count as equal when 1 - cosine (in C⁻¹) is below this."""
PROBES = 2
"""Random vectors on which a solution is checked."""


class Solution(NamedTuple):
    """An update as factors, and what is known of it before it is written.  One row per edit."""

    left: Tensor
    """float64 [d_out, edit]; the update is ``left @ right``."""
    right: Tensor
    """float64 [edit, d_in]"""
    shortfall: float
    """‖ΔK - R‖ / ‖R‖: the share of the wanted change that the update does not deliver."""
    solve_error: float
    """‖Δ(KKᵀ + ridge·C) - RKᵀ‖ / ‖RKᵀ‖: how well the equation itself was solved, estimated on ``PROBES`` random vectors."""
    direction: Tensor
    """float64 [edit, d_in], C⁻¹k."""
    q: Tensor
    """float64 [edit], kᵀC⁻¹k."""
    disturbance: Tensor
    """float64 [edit], tr(ΔCΔᵀ) of each edit written alone: ‖r‖²·q/(q+ridge)²."""
    norm: Tensor
    """float64 [edit], ‖Δ‖ of each edit written alone: ‖r‖·‖C⁻¹k‖/(q+ridge)."""
    contradictions: tuple[tuple[int, int], ...]
    """Pairs of edits with one key and different residuals."""

    def of_edits(self, edits: range) -> "Solution":
        """Return the solution without the rows of other edits, whose residuals are zero."""
        rows = slice(edits.start, edits.stop)
        pairs = tuple((i - edits.start, j - edits.start) for i, j in self.contradictions if i in edits and j in edits)
        return self._replace(
            left=self.left[:, rows],
            right=self.right[rows],
            direction=self.direction[rows],
            q=self.q[rows],
            disturbance=self.disturbance[rows],
            norm=self.norm[rows],
            contradictions=pairs,
        )

    @property
    def update(self) -> Tensor:
        """float64 [d_out, d_in], to be added to a weight stored ``[d_out, d_in]``."""
        return self.left @ self.right


@dataclass(frozen=True)
class KeyGeometry:
    """The second moment ``C`` of a layer's keys, factored once; every batch afterwards costs a small solve.

    Build it with :meth:`of`.
    """

    moment: Tensor
    """float64 [d_in, d_in], C = E[kkᵀ], uncentred."""
    factor: Tensor
    """float64 [d_in, d_in], lower Cholesky factor of C."""

    @classmethod
    def of(cls, moment: Tensor, *, jitter: float = 0.0, name: str = "the second moment") -> "KeyGeometry":
        """Factor ``C + jitter · mean(diag C) · I``.

        Raises:
            MomentError: C is not finite, or singular in float64; usually it was taken from fewer tokens than it has
                dimensions, or some inputs of the layer are always zero.

        Cost: O(d_in³), once.
        """
        c = moment.double()
        if not torch.isfinite(c).all():
            raise MomentError(f"{name} holds NaN or infinite values; expected finite ones; collect it again")
        if jitter:
            c = c + jitter * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype, device=c.device)
        factor, info = torch.linalg.cholesky_ex(c)
        # Rounding lets some singular matrices through, so look at the pivots as well as at the status.
        pivots = factor.diagonal()
        if int(info) != 0 or bool((pivots**2 <= c.diagonal().max() * len(c) * 1e-16).any()):
            raise MomentError(
                f"{name} is singular: {_how_singular(c)}; expected full rank; collect it from more tokens (several "
                f"times {len(c)}), or set second_moment.jitter (1e-6 adds that share of its mean diagonal)"
            )
        return cls(c, factor)

    def solve_moment(self, columns: Tensor) -> Tensor:
        """Return ``C⁻¹ columns`` [d_in, n] in float64."""
        return _solve(self.factor, columns.double())

    def sizes(self, keys: Tensor) -> Tensor:
        """Return kᵀC⁻¹k [n] of keys [n, d_in] in float64."""
        return (keys.double() * self.solve_moment(keys.T).T).sum(1)

    def times_moment(self, rows: Tensor) -> Tensor:
        """Return ``rows C`` [n, d_in] in float64."""
        return rows.double() @ self.moment

    def probes(self, d_in: int) -> tuple[Tensor, Tensor]:
        """Return random rows ``P`` and ``P C``, both float64 [PROBES, d_in]."""
        return self._probes

    @cached_property
    def _probes(self) -> tuple[Tensor, Tensor]:
        drawn = _draw_probes(len(self.moment), self.moment.device)  # once: a product with C reads all of it
        return drawn, self.times_moment(drawn)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [d_in] of C, ascending, and its eigenvectors [d_in, d_in] as columns (cost: O(d_in³), once)."""
        values, vectors = torch.linalg.eigh(self.moment)
        return values, vectors

    def null_space(self, threshold: float) -> Tensor:
        """Return the eigenvectors [d_in, rank] of C whose eigenvalues lie below an absolute threshold.

        Raises:
            MomentError: There are none.
        """
        values, vectors = self.spectrum
        kept = values < threshold
        if not bool(kept.any()):
            raise MomentError(
                f"no eigenvalue of the second moment lies below {threshold:g} (the least is {float(values[0]):.2e}); expected "
                "some: the threshold is absolute, so raise it to this model's scale"
            )
        return vectors[:, kept]

    def remember(self, keys: Tensor, *, ridge: float) -> "KeyGeometry":
        """Return the geometry in which keys [edit, d_in] written at ``ridge`` count as knowledge to preserve.

        ``C ← C + KKᵀ/ridge`` makes sequential batches equal to one joint batch, for one layer, residuals taken on the
        current weights, and ridge > 0.

        Raises:
            SolveError: ``ridge`` is 0; earlier keys are then constraints, which this form cannot hold.
        """
        if ridge <= 0:
            raise SolveError(f"remembering keys needs ridge > 0, found {ridge}; set a ridge or do not remember")
        k = keys.to(self.moment)
        return KeyGeometry.of(self.moment + k.T @ k / ridge)

    def least_disturbing_update(
        self, keys: Tensor, residuals: Tensor, *, ridge: float = 0.0, held: Tensor | None = None
    ) -> Solution:
        """Return the update that gives every key its residual while disturbing ordinary keys least.

        Disturbance is ``tr(Δ C Δᵀ)``.  The minimiser is

            Δ = R (Kᵀ C⁻¹ K + ridge·I)⁻¹ Kᵀ C⁻¹        (EMMET, arXiv:2403.14236)

        At ``ridge = 0`` every edit is exact; with one edit this is ROME with one key throughout (arXiv:2202.05262).
        At ``ridge = λ`` it is MEMIT's ``R Kᵀ (λC + KKᵀ)⁻¹`` (arXiv:2210.07229); MALMEN's solve is the case C = I.

        Args:
            keys: [edit, d_in], what each edited token feeds into the weight.
            residuals: [edit, d_out], wanted output minus present output for each key.
            ridge: Slack in the constraints, on the scale of ``KᵀC⁻¹K``.
            held: [earlier edit, d_in], keys whose values must not change: constraints with zero residual.  At ridge > 0
                this equals :meth:`remember`.

        Raises:
            SolveError: At ridge 0, some constraint is missed by more than ``MAX_SHORTFALL``: two edits have (nearly)
                the same key and different residuals, or there are more edits than dimensions.

        Cost: O(edit · d_in²); the O(d_in³) factorisation was paid in :meth:`of`.
        """
        if held is not None and len(held):
            wanted = torch.cat([torch.zeros(len(held), residuals.shape[1]).to(residuals), residuals])
            joint = self.least_disturbing_update(torch.cat([held.to(keys), keys]), wanted, ridge=ridge)
            return joint.of_edits(range(len(held), len(wanted)))
        k, r = keys.double().T, residuals.double().T  # the papers' layout: a column per edit
        c_inv_k = self.solve_moment(k)
        gram = k.T @ c_inv_k
        gram = (gram + gram.T) / 2
        q = gram.diagonal().clone()
        contradictions = _contradictions(gram, residuals.double())
        system = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        factor, info = torch.linalg.cholesky_ex(system)
        if int(info) != 0:
            raise SolveError(_unsolvable(contradictions, len(gram), len(k), ridge, None))
        right = _solve_rows(factor, c_inv_k).T
        # ΔK - R: by its formula at a ridge; at ridge 0 equal keys slip through Cholesky by rounding, so the answer is checked.
        missed = -ridge * _solve_rows(factor, r) if ridge else r @ (right @ k) - r
        shortfall = _relative(missed, r)
        if ridge == 0 and not shortfall <= MAX_SHORTFALL:
            raise SolveError(_unsolvable(contradictions, len(gram), len(k), ridge, shortfall))
        r_norm = residuals.double().norm(dim=1)
        return Solution(
            left=r,
            right=right,
            shortfall=shortfall,
            solve_error=self._solve_error(k, r, right, ridge),
            direction=c_inv_k.T,
            q=q,
            disturbance=r_norm**2 * q / (q + ridge) ** 2,
            norm=r_norm * c_inv_k.norm(dim=0) / (q + ridge),
            contradictions=contradictions,
        )

    def _solve_error(self, k: Tensor, r: Tensor, right: Tensor, ridge: float) -> float:
        """Estimate how far ``Δ(KKᵀ + ridge·C)`` is from ``RKᵀ``: exactly, it would cost as much as the solve."""
        probes, through_moment = self.probes(len(k))
        wanted = probes @ k  # in rows: products with a few columns are many times slower
        seen = wanted @ k.T
        if ridge:
            seen += ridge * through_moment
        return _relative((seen @ right.T - wanted) @ r.T, wanted @ r.T)


class EuclideanGeometry(KeyGeometry):
    """C = I, which is not stored: ordinary keys are taken to use all directions alike."""

    @classmethod
    def on(cls, device: torch.device) -> "EuclideanGeometry":
        empty = torch.empty(0, dtype=torch.float64, device=device)
        return cls(empty, empty)

    def solve_moment(self, columns: Tensor) -> Tensor:
        return columns.double()

    def times_moment(self, rows: Tensor) -> Tensor:
        return rows.double()

    def probes(self, d_in: int) -> tuple[Tensor, Tensor]:
        drawn = _draw_probes(d_in, self.moment.device)
        return drawn, drawn

    def remember(self, keys: Tensor, *, ridge: float) -> KeyGeometry:
        one = torch.eye(keys.shape[1], dtype=torch.float64, device=self.moment.device)
        return KeyGeometry(one, one).remember(keys, ridge=ridge)


def _draw_probes(d_in: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(PROBES, d_in, generator=generator, dtype=torch.float64).to(device)


def _solve(factor: Tensor, columns: Tensor) -> Tensor:
    """Return ``(L Lᵀ)⁻¹ columns`` by two triangular solves: on a CPU twice as fast as torch.cholesky_solve."""
    half = torch.linalg.solve_triangular(factor, columns, upper=False)
    whole: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return whole


def _solve_rows(factor: Tensor, rows: Tensor) -> Tensor:
    """Return ``rows (L Lᵀ)⁻¹`` by two triangular solves, without copies of rows whose columns are contiguous."""
    half = torch.linalg.solve_triangular(factor.mT, rows, upper=True, left=False)
    whole: Tensor = torch.linalg.solve_triangular(factor, half, upper=False, left=False)
    return whole


def _relative(difference: Tensor, reference: Tensor) -> float:
    size = float(reference.norm())
    return float(difference.norm()) / size if size else float(difference.norm())


def _contradictions(gram: Tensor, residuals: Tensor) -> tuple[tuple[int, int], ...]:
    size = gram.diagonal().clamp_min(0).sqrt()
    cosine = gram / (size[:, None] * size).clamp_min(torch.finfo(gram.dtype).tiny)
    same = torch.triu(cosine > 1 - SAME_KEY, diagonal=1)
    pairs = same.nonzero().tolist()
    scale = float(residuals.norm(dim=1).max()) if len(residuals) else 0.0
    return tuple((i, j) for i, j in pairs if float((residuals[i] - residuals[j]).norm()) > 1e-6 * scale)


def _unsolvable(
    contradictions: tuple[tuple[int, int], ...], n_edits: int, d_in: int, ridge: float, shortfall: float | None
) -> str:
    found = "the keys are linearly dependent" if shortfall is None else f"the constraints are missed by {shortfall:.1e}"
    if contradictions:
        i, j = contradictions[0]
        found += f"; edits {i} and {j} have the same key and different targets"
    return (
        f"a batch of {n_edits} edits cannot be solved at ridge {ridge:g}: {found} (keys have {d_in} dimensions); expected "
        "independent keys; use a smaller batch, drop one of the edits, or give a ridge > 0"
    )


def _how_singular(c: Tensor) -> str:
    """Return a matrix's rank, to what the keys' own float32 can tell from zero, and the span of its eigenvalues."""
    values = torch.linalg.eigvalsh(c)
    rank = int((values > values[-1] * len(c) * torch.finfo(torch.float32).eps).sum())
    return f"rank {rank} of {len(c)}, eigenvalues from {float(values[0]):.1e} to {float(values[-1]):.1e}"
