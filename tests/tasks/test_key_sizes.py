"""A ridge is compared with the keys of the facts that are edited: in the plan once these are known, and in a view."""

from pathlib import Path
from typing import Any

import pytest

from flows.forecast import forecast
from storage.sql import query
from storage.store import Store
from tasks.units.key_sizes import key_sizes_of
from tests.tasks.support import all_stages, edited, plan

EDITOR = {"name": "memit", "steps": 4, "contexts": 2}


def changed(weight: object) -> dict[str, Any]:
    return {
        "facts": {"name": "factworld", "size": 6},
        "editors": [EDITOR | {"preservation_weight": weight}],
        "batch_sizes": [1],
        "mode": "independent",
        "score": {"every_edits": 0},
    }


def said(folder: Path, weight: object) -> str:
    (note,) = [note for note in forecast(plan(folder, **changed(weight)))[1] if "preservation_weight" in note]
    return note


def test_a_plan_says_what_arrives_once_keys_are_known(tmp_path: Path) -> None:
    planned = plan(tmp_path, **changed(1e6))
    assert "plan again then" in said(tmp_path, 1e6)
    all_stages(planned)
    store, run = Store(planned.store), edited(planned)
    sizes = key_sizes_of(store, run)
    assert sizes is not None and sizes.layers == (0, 1) and sizes.n_facts == 6
    rows = {row["parameter"]: row for row in query(store, "FROM residual_shares").to_pylist()}
    for layer, q in zip(sizes.layers, sizes.median_q, strict=True):
        (row,) = [row for name, row in rows.items() if f".{layer}." in name]
        # Behind the first layer's update keys are a little others.
        assert row["median_q"] == pytest.approx(q, rel=1e-3 if layer else 1e-5)
        assert row["ridge"] == 1e6 and row["expected_alone"] == pytest.approx(q / (1e6 + q), rel=1e-2)
        assert row["arrived"] == pytest.approx(row["expected_alone"], rel=0.2)
    assert not [note for note in forecast(planned)[1] if "preservation_weight" in note], "nothing is left to edit"
    large, fit = said(tmp_path, 2e6), said(tmp_path, {"times_median_q": 0.25})
    assert "0% arrives" in large and "warning: less than half arrives" in large
    assert fit.count("80% arrives") == 2 and "warning" not in fit
    small = said(tmp_path, float(sizes.median_q[0]))
    assert f"layer 0 {sizes.median_q[0]:.4g} (λ {sizes.median_q[0]:.4g}, 50% arrives)" in small
