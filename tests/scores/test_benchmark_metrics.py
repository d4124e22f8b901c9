"""The metrics of benchmarks by hand, against scikit-learn, the official few-shot code, and the bootstrap."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tests.storage.test_views import RUN, run_row

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "glue" / "score_vectors.json"


def write(
    root: Path, golds: list[str], said: list[str | None], labels: list[str], changes: dict[str, Any] | None = None
) -> Store:
    store = Store(root / "store", create=True)
    rows = [
        {
            "benchmark": "b",
            "questions_run_id": "questions-b",
            "subset": "",
            "example_id": str(i),
            "scored_at": -1,
            "edits_so_far": 0,
            "labels": labels,
            "gold": gold,
            "predicted": answer,
            "correct": gold == answer,
            "value": float(gold == answer),
            "outcome": "answered" if answer is not None else "invalid",
            "n_shots": 0,
            "shots_from": "none",
        }
        | {key: value[i] for key, value in (changes or {}).items()}
        for i, (gold, answer) in enumerate(zip(golds, said, strict=True))
    ]
    store.commit(RUN, "b", {"runs": [run_row()], "benchmark_answers": rows}, CommitInfo(kind="benchmark"))
    return store


def curve(store: Store) -> dict[str, Any]:
    (row,) = query(store.location, "SELECT * FROM benchmark_curve").to_pylist()
    return row


def test_by_hand(tmp_path: Path) -> None:
    row = curve(write(tmp_path, ["yes", "yes", "no", "no"], ["yes", None, "no", "yes"], ["yes", "no"]))
    assert row["accuracy"] == 0.5 and row["invalid"] == 0.25 and row["n_examples"] == 4
    assert row["accuracy_stderr"] == pytest.approx(0.25)
    # yes: hit 1, right 2, said 2; no: hit 1, right 2, said 1.
    assert row["f1"] == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert row["f1_weighted"] == pytest.approx((2 / 4 + 2 / 3) / 2)
    # c s - sum p t = 2*4 - (2*2 + 1*2); s² - sum p² = 16 - (4 + 1 + 1); s² - sum t² = 16 - 8
    assert row["mcc"] == pytest.approx((8 - 6) / (10 * 8) ** 0.5)


def test_answers_that_are_all_wrong_or_of_one_kind(tmp_path: Path) -> None:
    none = curve(write(tmp_path / "a", ["yes", "no"], [None, None], ["yes", "no"]))
    assert (none["f1"], none["f1_weighted"], none["mcc"], none["invalid"]) == (0, 0, 0, 1)
    same = curve(write(tmp_path / "b", ["yes", "yes"], ["yes", "yes"], ["yes", "no"]))
    # A label that is never right nor said counts 0, as scikit-learn's zero_division=0; correlation needs both classes.
    assert (same["f1"], same["f1_weighted"], same["mcc"], same["accuracy"]) == (0.5, 1, 0, 1)


def test_one_label_set_per_question_has_no_f1(tmp_path: Path) -> None:
    row = curve(write(tmp_path, ["a", "c"], ["a", "d"], [], {"labels": [["a", "b"], ["c", "d"]]}))
    assert row["accuracy"] == 0.5 and row["f1"] is None and row["mcc"] is None


def random_answers(seed: int, n: int, n_labels: int) -> tuple[list[str], list[str | None], list[str]]:
    rng = np.random.default_rng(seed)
    labels = [f"l{i}" for i in range(n_labels)]
    golds = [labels[i] for i in rng.choice(n_labels, n, p=rng.dirichlet([2.0] * n_labels))]
    said = [None if rng.random() < 0.1 else g if rng.random() < 0.5 else labels[rng.integers(n_labels)] for g in golds]
    return golds, said, labels


@pytest.mark.parametrize(("seed", "n", "n_labels"), [(0, 30, 2), (1, 7, 2), (2, 200, 3), (3, 50, 5), (4, 1, 2)])
def test_as_scikit_learn(seed: int, n: int, n_labels: int, tmp_path: Path) -> None:
    golds, said, labels = random_answers(seed, n, n_labels)
    row, plain = curve(write(tmp_path, golds, said, labels)), [word or "(none)" for word in said]
    assert row["f1"] == pytest.approx(f1_score(golds, plain, labels=labels, average="macro", zero_division=0))
    assert row["f1_weighted"] == pytest.approx(
        f1_score(golds, plain, labels=labels, average="weighted", zero_division=0)
    )
    assert row["mcc"] == pytest.approx(matthews_corrcoef(golds, plain))
    assert row["accuracy"] == pytest.approx(np.mean([g == s for g, s in zip(golds, said, strict=True)]))


@pytest.mark.parametrize("n_labels", [2, 4])
def test_standard_errors_are_those_of_the_bootstrap(n_labels: int, tmp_path: Path) -> None:
    golds, said, labels = random_answers(11, 200, n_labels)
    row, plain = curve(write(tmp_path, golds, said, labels)), np.array([word or "(none)" for word in said])
    right, rng = np.array(golds), np.random.default_rng(0)
    drawn: dict[str, list[float]] = {"f1": [], "f1_weighted": [], "mcc": [], "accuracy": []}
    for _ in range(300):
        at = rng.integers(len(golds), size=len(golds))
        given: Any = {"labels": labels, "zero_division": 0}
        drawn["f1"].append(f1_score(right[at], plain[at], average="macro", **given))
        drawn["f1_weighted"].append(f1_score(right[at], plain[at], average="weighted", **given))
        drawn["mcc"].append(matthews_corrcoef(right[at], plain[at]))
        drawn["accuracy"].append(np.mean(right[at] == plain[at]))
    for metric, values in drawn.items():
        assert row[f"{metric}_stderr"] == pytest.approx(np.std(values), rel=0.15), metric


@pytest.mark.parametrize("seed", [0, 5])
def test_standard_errors_are_those_of_numerical_derivatives(seed: int, tmp_path: Path) -> None:
    """An example's influence is the metric's derivative by its weight; sqrt(sum influence²) to six digits."""
    golds, said, labels = random_answers(seed, 60, 3)
    row, plain = curve(write(tmp_path, golds, said, labels)), [word or "(none)" for word in said]
    given: Any = {"labels": labels, "zero_division": 0}
    metrics = {
        "f1": lambda weights: f1_score(golds, plain, average="macro", sample_weight=weights, **given),
        "f1_weighted": lambda weights: f1_score(golds, plain, average="weighted", sample_weight=weights, **given),
        "mcc": lambda weights: matthews_corrcoef(golds, plain, sample_weight=weights),
        "accuracy": lambda weights: np.average(np.equal(golds, plain), weights=weights),
    }
    step = 1e-4
    for metric, of in metrics.items():
        moves = np.eye(len(golds)) * step
        influences = [(of(1 + move) - of(1 - move)) / (2 * step) for move in moves]
        assert row[f"{metric}_stderr"] == pytest.approx(np.sqrt(np.sum(np.square(influences))), rel=1e-6), metric


def test_the_official_few_shot_code(tmp_path: Path) -> None:
    """Weighted F1 and correlation of golden vectors, in which -1 is an invalid answer and a class of its own."""
    for number, vector in enumerate(json.loads(GOLDEN.read_text())["vectors"]):
        golds = [str(label) for label in vector["labels"]]
        said = [None if label == -1 else str(label) for label in vector["predictions"]]
        row = curve(write(tmp_path / str(number), golds, said, ["0", "1"]))
        assert row["f1_weighted"] == pytest.approx(vector["f1_weighted"], abs=1e-12), number
        assert row["mcc"] == pytest.approx(vector["mcc"], abs=1e-12), number


def test_groups_and_answers_that_count_in_part(tmp_path: Path) -> None:
    values = [1.0, 0.5, 0.0, 0.25]
    store = write(tmp_path, list("aabb"), list("axxx"), [], {"value": values, "subset": ["one", "one", "two", "two"]})
    rows = query(
        store.location, "SELECT subset, n_examples, mean_value, accuracy, f1 FROM benchmark_groups"
    ).to_pylist()
    assert rows == [
        {"subset": "one", "n_examples": 2, "mean_value": 0.75, "accuracy": 0.5, "f1": None},
        {"subset": "two", "n_examples": 2, "mean_value": 0.125, "accuracy": 0.0, "f1": None},
    ]
    whole = curve(store)
    assert whole["mean_value"] == pytest.approx(np.mean(values))
    assert whole["mean_value_stderr"] == pytest.approx(np.std(values) / 2)
