"""What a summary leaves out of its rows decides nothing."""

import numpy as np
import pyarrow as pa

from storage.schemas import SCHEMAS
from storage.thinning import thin
from tests.storage.test_publication import THINNED


def probes(n: int, seed: int = 0) -> pa.Table:
    """Return n scored probes, a third of them with likelihoods that hardly differ in sum or in mean."""
    draw = np.random.default_rng(seed)
    n_new, n_true = draw.integers(1, 4, n), draw.integers(0, 4, n)
    new = draw.exponential(3.0, n)
    near = new * np.where(np.arange(n) % 2, 1.0, n_true / n_new) * (1 + draw.normal(0, 1e-5, n))
    true = np.where(np.arange(n) % 3 == 0, near, draw.exponential(3.0, n))
    columns = {
        "kind": draw.choice(["rewrite", "neighborhood"], n),
        "nll_new": new,
        "n_new": n_new,
        "nll_true": true,
        "n_true": n_true,
        "argmax_new": [[1, int(i)] for i in range(n)],
        "argmax_true": [[2, int(i)] for i in range(n)],
    }
    schema = SCHEMAS["fact_scores"]
    return pa.table([pa.array(values, schema.field(name).type) for name, values in columns.items()], list(columns))


def outcomes(rows: pa.Table) -> np.ndarray:  # (3, n)
    new, true, n_new, n_true = (np.asarray(rows[name]) for name in ("nll_new", "nll_true", "n_new", "n_true"))
    by_mean = [a * m < b * n for a, b, n, m in zip(new, true, n_new, n_true, strict=True)]
    return np.stack([new < true, true < new, by_mean])


def test_no_outcome_changes_and_near_ones_stay_as_they_are() -> None:
    before = probes(30000)
    after = thin(before)
    assert after.schema == before.schema
    assert np.array_equal(outcomes(before), outcomes(after))
    rounded = np.asarray(after["nll_new"]) != np.asarray(before["nll_new"])
    assert 0.66 < rounded.mean() < 0.75
    error = np.abs(np.asarray(after["nll_new"]) / np.asarray(before["nll_new"]) - 1)
    assert 2**-12 < error.max() <= 2**-11


def test_only_the_expected_answer_keeps_its_tokens() -> None:
    for row in thin(probes(100)).to_pylist():
        keeps = row["kind"] == "neighborhood"
        assert (row["argmax_new"] is None) == keeps and (row["argmax_true"] is None) != keeps


def test_missing_likelihoods_stay_missing() -> None:
    rows = probes(4).set_column(1, "nll_new", pa.array([None, 1.0, None, 2.0], pa.float64()))
    assert thin(rows)["nll_new"].is_null().to_pylist() == [True, False, True, False]


def test_other_tables_are_left_alone() -> None:
    rows = pa.table({"probability": [0.123456789]})
    assert thin(rows) is rows
    assert {name for name, schema in SCHEMAS.items() if "nll_new" in schema.names} == THINNED
