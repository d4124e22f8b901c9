"""The SQL that docs/scores.md prints makes from raw rows what the views say; what it names is there."""

import re
from pathlib import Path

import pytest

from storage.sql import query
from storage.store import Store
from tasks.benchmarks.definition import definition_names, read_definition
from tasks.data.layouts import layout_names
from tests.tasks.support import run_all

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scores.md").read_text()
PROTOCOLS = {"nll_mean", "nll_sum", "argmax", "token", "exact", "contained", "easyedit"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    editors = [{"name": "ft", "steps": 3, "layers": [0]}, {"name": "random_direction", "layers": [0]}]
    root = tmp_path_factory.mktemp("docs")
    found, _ = run_all(root, editors=editors, score={"every_edits": 6, "text_tokens": 4}, batch_sizes=[2, 4])
    return found


def test_every_protocol_from_raw_rows(store: Store) -> None:
    statements = re.findall(r"```sql\n(.*?)```", PAGE, flags=re.S)
    seen = set()
    for sql in statements:
        for row in query(store.location, sql).to_pylist():
            seen.add(row["scoring_protocol"])
            only = f"scored = 'own' AND run_id = '{row['run_id']}' AND scoring_protocol = '{row['scoring_protocol']}'"
            (expected,) = query(store.location, f"SELECT * FROM protocol_scores WHERE {only}").to_pylist()
            for short, name in {"es": "efficacy", "ps": "paraphrase", "ns": "neighborhood", "s": "score"}.items():
                assert row[short] == pytest.approx(expected[name], abs=1e-12), (row, name)
    assert seen == PROTOCOLS


def test_scores_differ_between_protocols(store: Store) -> None:
    """Else the test above would see no difference."""
    rows = query(
        store.location, "SELECT scoring_protocol, neighborhood, efficacy FROM protocol_scores WHERE editor = 'ft'"
    ).to_pylist()
    assert len({(row["neighborhood"], row["efficacy"]) for row in rows}) >= 5


def test_every_benchmark_stands_there_with_its_commit() -> None:
    for name in definition_names():
        source = read_definition(name).source
        if source.generator is None:
            (line,) = re.findall(rf"^\| `{name}` \|.*$", PAGE, flags=re.M)
            assert (source.revision or "no commit") in line and str(source.hub) in line


def test_data_sets_are_named() -> None:
    assert {"columns", "counterfact", "counterfact_easyedit", "zsre", "zsre_answers", "fever", "known_facts"} == set(
        layout_names()
    )
