"""Functions of statistics that SQL over a store may use, where DuckDB has none; scipy is imported when one is called."""

import math
from functools import lru_cache
from typing import Any, get_type_hints

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType

from storage.change_points import ChangePoint, change_point

_PATTERNS = 1 << 14
"""Patterns of signs that are drawn where there are more than so many: a p-value of 0.05 is then right to 0.0017 (one sigma)."""
_RARE = 0.005
_CHANGE_TYPE = pa.struct(
    [(name, pa.int64() if kind is int else pa.float64()) for name, kind in get_type_hints(ChangePoint).items()]
)
_CHANGE = (
    "STRUCT("
    + ", ".join(f"{field.name} {'BIGINT' if field.type == pa.int64() else 'DOUBLE'}" for field in _CHANGE_TYPE)
    + ")"
)
_MANY = 30
_NORMAL = 4096


def add_functions(connection: duckdb.DuckDBPyConnection) -> None:
    """Give a connection ``t_quantile(p, df)``, ``t_tail(t, df)``, ``beta_quantile(p, a, b)`` and ``flip_p(differences)``.

    ``t_tail`` is of both sides. ``change_point(series)`` is :func:`storage.change_points.change_point`.
    """
    for name, function, n_numbers in (
        ("t_quantile", _t_quantile, 2),
        ("t_tail", _t_tail, 2),
        ("beta_quantile", _beta_quantile, 3),
    ):
        connection.create_function(name, function, ["double"] * n_numbers, "double", type=PythonUDFType.ARROW)
    connection.create_function("change_point", _change_point, ["double[]"], _CHANGE, type=PythonUDFType.ARROW)
    connection.create_function("flip_p", _flip_p, ["double[]"], "double", type=PythonUDFType.ARROW)


def flip_p(differences: np.ndarray) -> float:
    """Return the two-sided p-value of a mean difference, by flipping the signs of pairs.

    Under the null hypothesis a pair's difference is as likely its opposite. All patterns of signs are looked at where there
    are at most 2**14, else as many drawn ones, always the same, with the observed one among them. Where 30 pairs or more
    differ, patterns as extreme as the observed one count half (the mid-p-value: rates are discrete, and the test would
    otherwise reject in 3 % of the cases in place of 5 %). What is rarer than so many patterns can tell is the saddlepoint
    approximation of their distribution's tail, so that many comparisons can be made at once.

    Args:
        differences: [n] of pairs; float.
    """
    moved = np.asarray(differences, dtype=np.float64)
    moved = moved[moved != 0]
    if not moved.size:
        return 1.0
    if moved.size > _NORMAL:  # a sum of so many is normal, and so many patterns would fill the memory
        return math.erfc(abs(float(moved.sum())) / math.sqrt(2 * float(moved @ moved)))
    sums, total = np.abs(_signs(moved.size) @ moved), abs(moved.sum())
    near = 1e-9 * total  # sums of the same numbers in another order differ in their last bits
    beyond, equal = np.mean(sums > total + near), np.mean(np.abs(sums - total) <= near)
    p = float(beyond + equal * (0.5 if moved.size >= _MANY else 1.0))
    if p > _RARE or len(sums) < _PATTERNS:
        return p
    return min(p, _tail_of_signs(np.abs(moved), total))


def _tail_of_signs(sizes: np.ndarray, total: float) -> float:
    """Return how likely numbers of these sizes, each with a sign by chance, add up to ``total`` or more, or to -total or less.

    By the formula of Lugannani and Rice; the sum's cumulant generating function is Σ log cosh(t·size).  The sum is discrete, so
    it is taken to be smaller by the least of the sizes, half a step: none is told to be rarer than it is.
    """
    from scipy.optimize import brentq

    sizes, total = sizes / sizes.max(), (total - sizes.min()) / sizes.max()
    end = 1.0
    while np.sum(sizes * np.tanh(end * sizes)) <= total:
        end *= 2
    t = brentq(lambda t: np.sum(sizes * np.tanh(t * sizes)) - total, 0.0, end)
    log_moments = np.sum(np.logaddexp(t * sizes, -t * sizes)) - sizes.size * math.log(2)
    w = math.sqrt(2 * (t * total - log_moments))
    u = t * math.sqrt(np.sum((sizes / np.cosh(t * sizes)) ** 2))
    density = math.exp(-w * w / 2) / math.sqrt(2 * math.pi)
    tail: float = math.erfc(w / math.sqrt(2)) + 2 * density * (1 / u - 1 / w)
    return tail


def _signs(n: int) -> np.ndarray:
    """Return patterns of signs, [patterns, n]; the first one is the observed one, all plus."""
    if 1 << n <= _PATTERNS:
        bits = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1
        return 1.0 - 2.0 * bits
    return _drawn(1 << (n - 1).bit_length())[:, :n]


@lru_cache(maxsize=4)
def _drawn(n: int) -> np.ndarray:
    signs = 1.0 - 2.0 * np.random.default_rng(0).integers(0, 2, size=(_PATTERNS, n), dtype=np.int8)
    signs[0] = 1.0
    return signs


def _change_point(series: pa.ChunkedArray) -> pa.Array:
    found = [change_point(np.asarray(each.as_py(), dtype=np.float64)) for each in series]
    nothing = dict.fromkeys(ChangePoint._fields)  # DuckDB takes no NULL from a function
    return pa.array([nothing if each is None else each._asdict() for each in found], _CHANGE_TYPE)


def _flip_p(differences: pa.ChunkedArray) -> pa.Array:
    return pa.array([flip_p(np.asarray(each.as_py(), dtype=np.float64)) for each in differences], pa.float64())


def _t_quantile(p: Any, df: Any) -> pa.Array:
    from scipy.special import stdtrit

    return pa.array(stdtrit(_numbers(df), _numbers(p)))


def _t_tail(t: Any, df: Any) -> pa.Array:
    from scipy.special import stdtr

    return pa.array(2 * stdtr(_numbers(df), -np.abs(_numbers(t))))


def _beta_quantile(p: Any, a: Any, b: Any) -> pa.Array:
    from scipy.special import betaincinv

    return pa.array(betaincinv(_numbers(a), _numbers(b), _numbers(p)))


def _numbers(values: pa.ChunkedArray) -> np.ndarray:
    found: np.ndarray = np.asarray(values.to_numpy(), dtype=np.float64)
    return found
