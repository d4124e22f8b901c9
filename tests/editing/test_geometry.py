"""The closed form: its constraint, its special cases, its optimality, and its refusals."""

import pytest
import torch
from torch import Tensor

from editing.errors import MomentError, SolveError
from editing.methods.geometry import KeyGeometry
from tests.editing.tiny import relative

D_IN, D_OUT = 24, 10


def make(n_edits: int, *, cond: float = 100.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return (C, keys, residuals) in float64 with the given condition number of C."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=generator, dtype=torch.float64))
    c = q @ torch.diag(torch.logspace(0, -torch.log10(torch.tensor(cond)), D_IN, dtype=torch.float64)) @ q.T
    keys = torch.randn(n_edits, D_IN, generator=generator, dtype=torch.float64)
    residuals = torch.randn(n_edits, D_OUT, generator=generator, dtype=torch.float64)
    return (c + c.T) / 2, keys, residuals


def memit_normal_equation(c: Tensor, keys: Tensor, residuals: Tensor, weight: float) -> Tensor:
    """The slow obvious version: R Kᵀ (λC + KKᵀ)⁻¹ by a dense solve."""
    k, r = keys.T, residuals.T
    return torch.linalg.solve(weight * c + k @ k.T, k @ r.T).T


@pytest.mark.parametrize("n_edits", [1, 2, 7, 20])
def test_every_edit_is_exact_without_ridge(n_edits: int) -> None:
    c, keys, residuals = make(n_edits)
    solution = KeyGeometry.of(c).least_disturbing_update(keys, residuals)
    assert residuals.norm() > 1, "before the update the keys give nothing of it"
    assert relative((solution.update @ keys.T).T, residuals) < 1e-12
    assert solution.shortfall < 1e-12 and solution.solve_error < 1e-12


@pytest.mark.parametrize("weight", [100.0, 15000.0])
def test_memit_is_emmet_with_its_weight_as_ridge(weight: float) -> None:
    c, keys, residuals = make(7)
    found = KeyGeometry.of(c).least_disturbing_update(keys, residuals, ridge=weight).update
    assert relative(found, memit_normal_equation(c, keys, residuals, weight)) < 1e-12
    other = memit_normal_equation(c, keys, residuals, 2 * weight)
    assert relative(found, other) > 1e-3, "another weight is another method"


def test_one_edit_with_one_key_is_rome() -> None:
    c, keys, residuals = make(1)
    u = torch.linalg.solve(c, keys[0])
    rome = torch.outer(residuals[0], u) / (u @ keys[0])
    assert relative(KeyGeometry.of(c).least_disturbing_update(keys, residuals).update, rome) < 1e-12
    bare = keys[0] + 0.3 * torch.randn(D_IN, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mixed = torch.outer(residuals[0], u) / (u @ bare)  # the original ROME's two keys
    assert relative(mixed, rome) > 1e-3


def test_sequential_batches_that_remember_are_one_shot() -> None:
    c, keys, residuals = make(12)
    ridge = 150.0
    geometry = KeyGeometry.of(c)
    joint = geometry.least_disturbing_update(keys, residuals, ridge=ridge).update
    first = geometry.least_disturbing_update(keys[:6], residuals[:6], ridge=ridge).update
    # The second batch's residual is taken on the weights that the first has left.
    left = residuals[6:] - (first @ keys[6:].T).T
    second = geometry.remember(keys[:6], ridge=ridge).least_disturbing_update(keys[6:], left, ridge=ridge).update
    assert relative(first + second, joint) < 1e-12
    forgetful = geometry.least_disturbing_update(keys[6:], left, ridge=ridge).update
    assert relative(first + forgetful, joint) > 1e-3, "without remembering it is not"


def test_the_update_disturbs_least() -> None:
    c, keys, residuals = make(5)
    update = KeyGeometry.of(c).least_disturbing_update(keys, residuals).update
    cost = torch.trace(update @ c @ update.T)
    projector = torch.eye(D_IN, dtype=torch.float64) - keys.T @ torch.linalg.pinv(keys.T)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        feasible = update + 0.1 * torch.randn(D_OUT, D_IN, generator=generator, dtype=torch.float64) @ projector
        assert relative((feasible @ keys.T).T, residuals) < 1e-10
        assert torch.trace(feasible @ c @ feasible.T) > cost


def test_order_changes_nothing_and_the_scale_of_c_nothing_without_ridge() -> None:
    c, keys, residuals = make(6)
    geometry = KeyGeometry.of(c)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    update = geometry.least_disturbing_update(keys, residuals).update
    assert relative(geometry.least_disturbing_update(keys[order], residuals[order]).update, update) < 1e-12
    assert relative(KeyGeometry.of(7 * c).least_disturbing_update(keys, residuals).update, update) < 1e-12
    wrong = geometry.least_disturbing_update(keys[order], residuals).update
    assert relative(wrong, update) > 1e-3, "keys and residuals belong together"


def test_predictions_hold_for_single_edits() -> None:
    c, keys, residuals = make(4)
    geometry = KeyGeometry.of(c)
    for ridge in (0.0, 200.0):
        for i in range(4):
            alone = geometry.least_disturbing_update(keys[i : i + 1], residuals[i : i + 1], ridge=ridge)
            update = alone.update
            assert float(alone.disturbance) == pytest.approx(float(torch.trace(update @ c @ update.T)), rel=1e-10)
            assert float(alone.norm) == pytest.approx(float(update.norm()), rel=1e-10)
            assert float(alone.q) == pytest.approx(float(keys[i] @ torch.linalg.solve(c, keys[i])), rel=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_equal_keys_with_different_targets_are_refused_never_wrong(seed: int) -> None:
    c, keys, residuals = make(4, seed=seed)
    keys[2] = keys[0]
    with pytest.raises(SolveError, match=r"edits 0 and 2 have the same key and different targets.*ridge > 0"):
        KeyGeometry.of(c).least_disturbing_update(keys, residuals)


def test_equal_keys_are_reported_at_a_ridge() -> None:
    c, keys, residuals = make(4)
    keys[2] = keys[0]
    solution = KeyGeometry.of(c).least_disturbing_update(keys, residuals, ridge=100.0)
    assert solution.contradictions == ((0, 2),)
    assert solution.shortfall > 0.1
    residuals[2] = residuals[0]
    agreeing = KeyGeometry.of(c).least_disturbing_update(keys, residuals, ridge=100.0)
    assert agreeing.contradictions == ()


def test_a_matrix_of_full_rank_is_not_said_to_lack_it() -> None:
    """ "rank 96 of 96; expected full rank" would say nothing: an eigenvalue is negative, as in a file that is no moment."""
    values = torch.ones(D_IN, dtype=torch.float64)
    values[-1] = -1e-3
    with pytest.raises(
        MomentError, match=rf"singular: rank {D_IN - 1} of {D_IN}, eigenvalues from -1\.0e-03 to 1\.0e\+00.*jitter"
    ):
        KeyGeometry.of(torch.diag(values))


def test_a_singular_second_moment_is_refused() -> None:
    few = torch.randn(5, D_IN, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(MomentError, match=rf"singular: rank 5 of {D_IN}.*more tokens.*jitter"):
        KeyGeometry.of(few.T @ few / 5)
    assert KeyGeometry.of(few.T @ few / 5, jitter=1e-3).factor.isfinite().all()


def test_a_second_moment_with_nan_is_refused() -> None:
    c, _, _ = make(1)
    c[0, 0] = torch.nan
    with pytest.raises(MomentError, match="NaN"):
        KeyGeometry.of(c)


def test_an_ill_conditioned_moment_stays_within_its_bound() -> None:
    cond = 1e8
    c, keys, residuals = make(5, cond=cond)
    solution = KeyGeometry.of(c).least_disturbing_update(keys, residuals)
    assert relative((solution.update @ keys.T).T, residuals) < 100 * torch.finfo(torch.float64).eps * cond
