"""The demo's figures, by the queries that the README shows."""

from pathlib import Path

import pytest

from storage.sql import query
from tests.end_to_end.support import ROOT, palimpsest


@pytest.mark.minutes
def test_demo_shows_what_the_readme_says(tmp_path: Path) -> None:
    store = tmp_path / "store"
    palimpsest("run", str(ROOT / "flows/experiments/demo.yaml"), "--set", f"store={store}", timeout=900)
    early = query(
        store, "SELECT editor, efficacy, paraphrase FROM editing_curve WHERE window_edits = 50 AND edits = 50"
    )
    for row in early.to_pylist():
        assert row["efficacy"] >= 0.9, row
        assert row["paraphrase"] >= 0.8 or row["editor"] == "ft_c", row
    forgotten = query(store, "SELECT editor, forgotten FROM forgetting_curve WHERE edits = 50 AND batch_size <= 10")
    for row in forgotten.to_pylist():
        assert row["forgotten"] >= 0.30 if row["editor"] == "ft_c" else row["forgotten"] <= 0.12, row
    best = query(
        store,
        "SELECT editor, avg(neighborhood) AS n FROM editing_curve WHERE window_edits = 50 AND edits = 200 "
        "GROUP BY editor ORDER BY n DESC",
    ).to_pylist()
    assert best[0]["editor"] == "memit", best
    layers = {row["layer"]: row for row in query(store, "SELECT * FROM layer_summary").to_pylist()}
    top = max(row["score"] for row in layers.values())
    assert min(row["n_edits"] for row in layers.values()) >= 100
    assert layers[0]["score"] >= top - 0.02 and layers[max(layers)]["score"] <= top - 0.2
    collapsed = query(store, "SELECT editor, batch_size FROM run_summary WHERE collapsed_at IS NOT NULL").to_pylist()
    assert collapsed == [{"editor": "ft_c", "batch_size": 5}]
