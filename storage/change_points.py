"""An abrupt change in a series that also drifts and whose values hang together.

The series is ``a + b·t + c·t² + step·[t >= place] + AR(1) noise``.  What ``ruptures`` 1.1 offers finds the place, too, but
neither beside a drift nor with a p-value, and takes a drift or correlated noise for changes.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

_PERMUTATIONS = 999
_LEAST = 100
"""Of a shorter series nothing can be told."""
_WITHIN = -2 * np.log(1 - np.sqrt(0.95))
"""By how much twice the log-likelihood of a place in an interval of 95 % may fall short of the best one's (Siegmund 1988)."""


class ChangePoint(NamedTuple):
    """The most likely place of a step, counted from 0: the first value after it."""

    place: int
    low: int
    high: int
    p: float
    """How often a series without a step, of the same values in another order, has one that looks as clear."""
    step: float
    size: float
    """Of the step, in standard deviations of what drift and step leave."""
    slope: float
    """Of the drift before it, per value."""
    before: float
    after: float
    """Means on either side."""


def change_point(series: np.ndarray) -> ChangePoint | None:
    """Return the most likely step of a series; None of fewer than 100 values, or equal ones.

    Args:
        series: [n], float, finite.
    """
    y = np.asarray(series, dtype=np.float64)
    if len(y) < _LEAST or float(np.ptp(y)) == 0:
        return None
    share = _autocorrelation(y)
    white, drift, steps = _whitened(y, share)
    errors = _errors_of(white[None], drift, steps)[0]
    best, edge = int(errors.argmin()), _edge(len(y))
    inside = np.flatnonzero(len(white) * np.log(errors / errors[best]) <= _WITHIN) + edge
    residual = white - drift @ (drift.T @ white)
    drawn = _permuted(residual, _PERMUTATIONS)
    clearness = _clearness(_errors_of(drawn, drift, steps).min(1), drawn, drift)
    own = _clearness(errors[best : best + 1], white[None], drift)
    p = (1 + int(np.sum(clearness >= own * (1 - 1e-9)))) / (_PERMUTATIONS + 1)
    place = best + edge
    slope = float(np.polyfit(np.arange(place), y[:place], 1)[0])
    step, deviation = _fit(y, place)
    size = abs(step) / max(deviation, 1e-12)
    means = float(y[:place].mean()), float(y[place:].mean())
    return ChangePoint(place, int(inside[0]), int(inside[-1]), p, step, size, slope, *means)


def _edge(n: int) -> int:
    """Return how many values there must be on either side of a step."""
    return max(5, n // 20)


@lru_cache(maxsize=4)
def _shapes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the drift's regressors [n, 3] and a step at each place [places, n]."""
    t = np.arange(n) / n
    places = np.arange(_edge(n), n - _edge(n) + 1)
    return np.stack([np.ones(n), t, t * t], axis=1), (np.arange(n)[None] >= places[:, None]).astype(np.float64)


def _autocorrelation(y: np.ndarray) -> float:
    """Return the correlation of neighbouring residuals beside drift and the clearest step, which would pass for one."""
    drift, steps = _shapes(len(y))
    basis = np.linalg.qr(drift)[0]
    flat = steps - (steps @ basis) @ basis.T
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    residual = y - basis @ (basis.T @ y)
    along = flat @ residual
    best = int(np.abs(along).argmax())
    residual = residual - along[best] * flat[best]
    found = float(residual[1:] @ residual[:-1] / max(float(residual @ residual), 1e-300))
    return min(max(found + (2 + 4 * found) / len(y), 0.0), 0.9)  # it is estimated too small where so much is fitted


def _whitened(y: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the series less what each value takes over from the one before, a basis of its drift, and steps beside that."""
    drift, steps = _shapes(len(y))
    drift, steps = drift[1:] - share * drift[:-1], steps[:, 1:] - share * steps[:, :-1]
    basis = np.linalg.qr(drift)[0]
    flat = steps - (steps @ basis) @ basis.T
    return y[1:] - share * y[:-1], basis, flat / np.linalg.norm(flat, axis=1, keepdims=True)


def _errors_of(series: np.ndarray, drift: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the squared errors [series, places] that drift and a step at each place leave."""
    left = series - (series @ drift) @ drift.T
    errors: np.ndarray = np.maximum((left * left).sum(1, keepdims=True) - (left @ steps.T) ** 2, 1e-300)
    return errors


def _clearness(errors: np.ndarray, series: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Return by what factor a step makes the squared errors smaller."""
    left = series - (series @ drift) @ drift.T
    return np.asarray((left * left).sum(1) / errors)


def _permuted(residual: np.ndarray, count: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    return np.stack([draw.permutation(residual) for _ in range(count)])


def _fit(y: np.ndarray, place: int) -> tuple[float, float]:
    """Return the height of a step at a place beside the drift, and the standard deviation of what both leave."""
    drift, _ = _shapes(len(y))
    design = np.column_stack([drift, np.arange(len(y)) >= place])
    found = np.linalg.lstsq(design, y, rcond=None)[0]
    return float(found[-1]), float(np.std(y - design @ found, ddof=4))
