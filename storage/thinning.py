"""Rows without what no view reads: a store's results for queries and figures, in half the bytes."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]

_BITS = 10
"""Of a likelihood's mantissa, where nothing hangs on the others: three digits."""


def thin(rows: pa.Table) -> pa.Table:
    """Return a table's rows without the tokens of answers that a probe does not expect, and with likelihoods of three digits.

    A probe holds or does not by which of two likelihoods is larger (``storage/macros.sql``); two that are nearer to each other
    than their last kept digit stay as they are, so that no probe's outcome changes.
    """
    if "argmax_new" in rows.column_names:
        keeps = pc.equal(rows["kind"], "neighborhood")
        rows = _with(rows, "argmax_new", _nowhere(rows["argmax_new"], keeps))
        rows = _with(rows, "argmax_true", _nowhere(rows["argmax_true"], pc.invert(keeps)))
    if {"nll_new", "nll_true"} <= set(rows.column_names):
        new, n_new, true, n_true = (_floats(rows[name]) for name in ("nll_new", "n_new", "nll_true", "n_true"))
        n_true = np.where(n_true == 0, np.nan, n_true)  # a fact without a true answer has nothing to compare
        close = _near(new, true) | _near(new / n_new, true / n_true)
        rows = _with(rows, "nll_new", pa.array(np.where(close, new, _rounded(new)), from_pandas=True))
        rows = _with(rows, "nll_true", pa.array(np.where(close, true, _rounded(true)), from_pandas=True))
    return rows


def _with(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), values)


def _nowhere(values: pa.ChunkedArray, unread: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(unread, pa.scalar(None, values.type), values)


def _floats(values: pa.ChunkedArray) -> Floats:
    return np.asarray(pc.cast(values, pa.float64()), dtype=np.float64)


def _near(a: Floats, b: Floats) -> npt.NDArray[np.bool_]:
    near: npt.NDArray[np.bool_] = np.abs(a - b) <= 2.0**-_BITS * np.maximum(np.abs(a), np.abs(b))
    return near


def _rounded(values: Floats) -> Floats:
    """Return numbers with 10 bits of mantissa and the last one rounded, relative error below 2^-11."""
    mantissa, exponent = np.frexp(values)
    rounded: Floats = np.ldexp(np.round(np.ldexp(mantissa, _BITS + 1)), exponent - _BITS - 1)
    return rounded
