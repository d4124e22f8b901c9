"""Runs on a model with a real vocabulary: benchmarks, free texts and perplexity land in the tables."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.experiment_file import load_experiment
from flows.inputs import publish_inputs, read_inputs
from flows.plan import plan_experiment
from storage.sql import query
from tasks.benchmarks.definition import read_definition
from tests.scores.models import grown_lm
from tests.scores.published import GROUPS, WRITERS
from tests.storage.test_views import check_columns
from tests.tasks.support import all_stages, run_all

ASKED = (
    "sst2",
    "rte_paper",
    "mmlu",
    "commonsense_qa",
    "bbh",
    "bbh_choices",
    "math",
    "tydiqa",
    "c3",
    "ax_b",
    "cola",
    "mbpp",
)


@pytest.mark.slow
def test_benchmarks_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmarks: list[dict[str, Any]] = []
    for name in ASKED:
        WRITERS[name](tmp_path / name, 16)
        wanted: dict[str, Any] = {
            "name": name,
            "path": name,
            "examples": 4,
            "shots": 1 if name != "rte_paper" else None,
        }
        wanted |= {"groups": list(GROUPS[name])} if name in GROUPS else {}
        wanted |= {"shots_from": "dev"} if name == "c3" else {}
        wanted |= {"run_code": True} if name == "mbpp" else {}
        benchmarks.append({key: value for key, value in wanted.items() if value is not None})
    (tmp_path / "held-out.txt").write_text("".join(f"The king of country {i} lives in town {i}.\n" for i in range(20)))
    experiment = {
        "name": "benchmarks",
        "model": str(grown_lm(tmp_path / "lm")),
        "facts": {"name": "factworld", "size": 4},
        "editors": [{"name": "ft", "steps": 2}],
        "layers": [1],
        "batch_sizes": [2],
        "score": {
            "every_edits": [4],
            "text_tokens": 5,
            "texts": "all",
            "benchmarks": benchmarks,
            "generation": {"prompts": 3, "tokens": 12},
            "perplexity": {"path": "held-out.txt", "n_texts": 10, "max_tokens": 32},
        },
        "store": "results",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(experiment))
    monkeypatch.chdir(tmp_path)
    inputs = read_inputs(load_experiment(tmp_path / "run.yaml"))
    planned = plan_experiment(inputs)
    assert any(note.startswith("benchmark mmlu: 4 questions (questions-") for note in planned.notes)
    publish_inputs(inputs)
    assert not all_stages(planned).failed
    store = tmp_path / "results"

    rows = query(store, "SELECT * FROM benchmark_curve").to_pylist()
    assert {(row["benchmark"], row["edits"]) for row in rows} == {(name, at) for name in ASKED for at in (0, 4)}
    assert all(row["n_examples"] == 4 and row["too_long"] == 0 for row in rows)
    shots = {row["benchmark"]: (row["n_shots"], row["shots_from"]) for row in rows}
    assert shots["mmlu"] == (1, "dev") and shots["sst2"] == (1, "train") and shots["rte_paper"] == (0, "file")
    groups = query(store, "SELECT DISTINCT benchmark, subset FROM benchmark_groups").to_pylist()
    assert {row["subset"] for row in groups if row["benchmark"] == "bbh"} == set(GROUPS["bbh"])
    traced = "SELECT count(*) AS n FROM benchmark_answers AS a JOIN benchmark_questions AS q ON q.run_id = a.questions_run_id "
    traced += "AND q.example_id = a.example_id AND q.prompt <> ''"
    assert query(store, traced).to_pylist() == [{"n": 4 * 2 * len(ASKED)}], "every answer's question is there"
    answers = query(store, "SELECT * FROM benchmark_answers WHERE benchmark = 'mmlu'").to_pylist()
    assert all(
        len(row["label_nlls"]) == 4 and row["predicted"] in "ABCD" and row["n_prompt_tokens"] > 40 for row in answers
    )
    programs = query(store, "SELECT correct, detail, text FROM benchmark_answers WHERE benchmark = 'mbpp'").to_pylist()
    assert all(row["detail"] and not row["correct"] for row in programs)

    texts = query(store, "SELECT purpose, count(*) AS n, count(text) AS texts FROM fact_scores GROUP BY 1").to_pylist()
    assert {row["purpose"] for row in texts} == {"own", "retention", "baseline"}
    assert all(row["n"] == row["texts"] for row in texts)
    written = query(store, "SELECT edits, n_texts, entropy FROM generation_curve ORDER BY edits").to_pylist()
    assert [(row["edits"], row["n_texts"]) for row in written] == [(0, 3), (4, 3)]
    read = query(store, "SELECT edits, n_texts, n_lost, perplexity FROM perplexity_curve ORDER BY edits").to_pylist()
    assert [(row["edits"], row["n_texts"], row["n_lost"]) for row in read] == [(0, 10, 0), (4, 10, 0)]
    assert read[0]["perplexity"] != read[1]["perplexity"] and all(row["perplexity"] > 1 for row in read)
    assert check_columns(store) == []


def test_scores_of_two_recipes_never_stand_side_by_side(tmp_path: Path) -> None:
    """More free text, and every score of the run is made again; the older rows are no longer seen."""
    score = {"every_edits": 6, "retention": "none", "text_tokens": 0}
    store, _ = run_all(tmp_path, score=score)
    before = query(
        store.location, "SELECT probe_id, nll_new, text FROM fact_scores WHERE purpose = 'own' ORDER BY 1"
    ).to_pylist()
    assert before and all(row["text"] is None for row in before)
    run_all(tmp_path, score=score | {"text_tokens": 3})
    after = query(
        store.location, "SELECT probe_id, nll_new, text FROM fact_scores WHERE purpose = 'own' ORDER BY 1"
    ).to_pylist()
    assert [row["nll_new"] for row in after] == [row["nll_new"] for row in before] and all(row["text"] for row in after)
    run_all(tmp_path, score=score)
    again = query(
        store.location, "SELECT probe_id, nll_new, text FROM fact_scores WHERE purpose = 'own' ORDER BY 1"
    ).to_pylist()
    assert again == before, "and back: what the last command wanted is shown, and not made a third time"
    assert len(query(store.location, "SELECT * FROM run_summary").to_pylist()) == 2, (
        "the unedited model's row too stands once"
    )


def test_a_benchmark_with_other_shots_stands_beside(tmp_path: Path) -> None:
    store, _ = run_all(tmp_path, score={"every_edits": 12, "benchmarks": ["sentiment"], "examples": 6})
    other = {"name": "sentiment", "shots": 0}
    run_all(tmp_path, score={"every_edits": 12, "benchmarks": ["sentiment", other], "examples": 6})
    rows = query(store.location, "SELECT n_shots, edits, n_examples FROM benchmark_curve ORDER BY ALL").to_pylist()
    assert [(row["n_shots"], row["edits"], row["n_examples"]) for row in rows] == [
        (0, 0, 6),
        (0, 12, 6),
        (2, 0, 6),
        (2, 12, 6),
    ]
    assert read_definition("sentiment").shots.count == 2
