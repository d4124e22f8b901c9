"""A store that earlier code wrote is read, continued and checked out as that code did."""

import hashlib
import math
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from flows.experiment_file import load_experiment
from flows.inputs import publish_inputs, read_inputs
from flows.plan import plan_experiment
from tasks.workers.checkout import checkout
from tests.earlier_store.dump import HERE, read, rows_of
from tests.tasks.support import all_stages

CLOCK = {"host", "seconds", "finished_at", "log"}
"""Columns of ``commits`` that say when, where and how fast."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("experiment.yaml", "own-facts.yaml", "held-out.txt", "facts.json"):
        shutil.copy(HERE / name, tmp_path)
    with tarfile.open(HERE / "store.tar.gz") as packed:
        packed.extractall(tmp_path / "store", filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


REPLACED = {"batch_size_summary", "answers_by_part", "class_means", "class_scores"}
"""Views that are no more, as `setting_summary` says more than the first did, or steps whose cells are numbered otherwise:
what is made of them is compared."""
MENDED = {("score", None, 0.0), ("n_judged", 0, 2)}
"""Until then, a run on facts without paraphrases had the score 0 where its efficacy was 0, and none elsewhere; and checkpoints
counted as judges of a model that had known nothing before."""


def is_new(row: dict[str, Any]) -> bool:
    """Whether a view has gained a row: at other times than right after an edit's own round, and of the unedited model's
    answers, with which the benchmarks of each run begin."""
    return row.get("scored", "own") != "own" or (row.get("scored_at") == -1 and not row["run_id"].startswith("none"))


def same(found: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, float) and isinstance(found, int | float):
        return math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected, [tolerance] * len(found)))
    return bool(found == expected)


def differences(found: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float) -> list[Any]:
    """Return the columns in which rows differ; those that views have gained since are no difference."""
    if len(found) != len(expected):
        return [f"{len(found)} rows, expected {len(expected)}"]
    return [
        (name, row[name], value)
        for row, wanted in zip(found, expected, strict=True)
        for name, value in wanted.items()
        if name not in CLOCK and not same(row[name], value, tolerance)
    ]


def test_every_table_and_view_reads_as_it_did(store: Path) -> None:
    for name, expected in read(HERE / "stored.json.gz").items():
        if name in REPLACED:
            continue
        rows = [row for row in rows_of(store, name) if not is_new(row)]
        found = differences(rows, expected, 1e-12)
        assert set(found) <= (MENDED if name == "run_summary" else set()), name


def test_it_is_continued_as_the_code_that_made_it_did(store: Path) -> None:
    experiment = load_experiment(store.parent / "experiment.yaml", {"store": str(store), "facts.size": 8})
    inputs = read_inputs(experiment)
    planned = plan_experiment(inputs)
    publish_inputs(inputs)
    assert not all_stages(planned).failed
    for name, expected in read(HERE / "continued.json.gz").items():
        assert differences(rows_of(store, name), expected, 1e-5) == [], name


def test_a_model_is_checked_out_of_it(store: Path, tmp_path: Path) -> None:
    found = checkout(str(store), "rome-b1-46ad8b0f6c", after=4, out=tmp_path / "model")
    assert "its logits agree with those recorded then" in found
    weights = hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert weights == "fa32a847d551e9e918dbf753f33ec0079f0613c04b1c8f896ac1b10290a2912a"


def test_a_difference_is_seen() -> None:
    rows = [{"run_id": "a", "nll": 1.0, "texts": ["x"], "seconds": 1.0}]
    assert differences(rows, [rows[0] | {"seconds": 2.0}], 1e-5) == []
    assert differences(rows, [rows[0] | {"nll": 1.001}], 1e-5) == [("nll", 1.0, 1.001)]
    assert differences(rows, [rows[0] | {"texts": ["y"]}], 1e-5) and differences(rows, [], 1e-5)
