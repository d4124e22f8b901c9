"""Benchmarks against lm-evaluation-harness: the same items, the same model, the same log-likelihoods; and its own tasks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.tasks
import pytest
import yaml
from lm_eval.models.huggingface import HFLM

from editing import load
from editing.measure.downstream import score_choices
from editing.model.lm import LanguageModel
from tasks.benchmarks.harness import harness_recipe, harness_rows
from tasks.benchmarks.questions import Wanted, make_questions
from tasks.errors import InputError
from tests.scores import published
from tests.scores.models import grown_lm

N = 12
TASKS = Path(lm_eval.tasks.__file__).parent


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(str(grown_lm(tmp_path_factory.mktemp("lm"))), dtype="float64")


def _rte(i: int) -> dict[str, Any]:
    return {"sentence1": f"{i} dev men sing.", "sentence2": f"{i + i % 2} men sing.", "label": i % 2, "idx": i}


def _mmlu(split: str) -> Callable[[int], dict[str, Any]]:
    def row(i: int) -> dict[str, Any]:
        choices = [str(i), str(i + 1), f"{i + 2}, or so", str(i + 3)]
        return {"question": f'What is {i}, "{split}"? ', "subject": "anatomy", "choices": choices, "answer": i % 4}

    return row


def _csqa(i: int) -> dict[str, Any]:
    choices = {"label": list("ABCDE"), "text": [f"place {letter}{i}" for letter in "ABCDE"]}
    return {"question": f"Where is the dev thing {i}? ", "choices": choices, "answerKey": "ABCDE"[i % 5]}


def _navigate(i: int) -> dict[str, Any]:
    return {"input": f"Turn {i} times.\nOptions:\n- Yes\n- No", "target": "No" if i % 2 else "Yes"}


# Our benchmark, the file of the harness's task, its splits with their rows in the hub's format.
CASES: dict[str, tuple[str, dict[str, Callable[[int], dict[str, Any]]]]] = {
    "rte": ("glue/rte/default.yaml", {"train": _rte, "validation": _rte}),
    "mmlu": ("mmlu/default/mmlu_anatomy.yaml", {"test": _mmlu("test"), "dev": _mmlu("dev")}),
    "commonsense_qa": ("commonsense_qa/default.yaml", {"train": _csqa, "validation": _csqa}),
    "bbh_choices": ("leaderboard/bbh_mc/navigate.yaml", {"test": _navigate}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks of the harness as they are, but for their data: local files in the hub's format."""
    root = tmp_path_factory.mktemp("tasks")
    for name, (file, splits) in CASES.items():
        config, files = _merged(TASKS / file), {}
        for split, row in splits.items():
            files[split] = str(root / f"{name}-{split}.jsonl")
            Path(files[split]).write_text("".join(json.dumps(row(i)) + "\n" for i in range(N)))
        config |= {"task": f"local_{name}", "dataset_path": "json", "dataset_kwargs": {"data_files": files}}
        for key in ("dataset_name", "tag", "group"):
            config.pop(key, None)
        if name == "mmlu":
            config["num_fewshot"] = 5
        (root / f"local_{name}.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    return root


def theirs(name: str, lm: LanguageModel, folder: Path) -> list[dict[str, Any]]:
    """Return the samples of the harness's own Hugging Face model."""
    found: list[dict[str, Any]] = lm_eval.simple_evaluate(
        model=HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=1),
        tasks=[f"local_{name}"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )["samples"][f"local_{name}"]
    return found


def _merged(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    base = found.pop("include", None)
    return (_merged(path.parent / base) if base else {}) | found


@pytest.mark.parametrize("name", CASES)
def test_log_likelihoods_are_the_harnesss(name: str, lm: LanguageModel, folder: Path, tmp_path: Path) -> None:
    samples = theirs(name, lm, folder)
    expected = {sample["doc_id"]: [float(response[0][0]) for response in sample["resps"]] for sample in samples}
    assert len(expected) == N

    published.WRITERS[name](tmp_path / "files", N)
    changes: dict[str, Any] = {"shots": 5 if name == "mmlu" else 0}
    if name == "bbh_choices":
        config = yaml.safe_load((folder / "local_bbh_choices.yaml").read_text())
        shots = "".join(f"Q: {s['input']}\nA: {s['target']}\n\n" for s in config["fewshot_config"]["samples"])
        (tmp_path / "shots.txt").write_text(config["description"] + shots)
        changes = {"shots_file": str(tmp_path / "shots.txt")}
    groups = {"mmlu": ("anatomy",), "bbh_choices": ("navigate",)}.get(name)
    asked = make_questions(Wanted(name=name, path=str(tmp_path / "files"), groups=groups, **changes)).asked
    told = {sample["doc_id"]: sample["arguments"][0][0] for sample in samples}
    for question, answer in zip(asked, score_choices(lm, asked), strict=True):
        number = int(question.example_id.rpartition("-")[2])
        assert question.prompt == told[number], "byte for byte"
        assert answer.fits
        found = [-score.nll_sum for score in answer.choices]
        assert found == pytest.approx(expected[number], abs=1e-5), question.example_id


def test_a_task_of_the_harness_on_our_model(lm: LanguageModel, folder: Path) -> None:
    recipe, count = harness_recipe("local_commonsense_qa", include=str(folder), shots=None)
    assert count == N
    rows = harness_rows(lm, recipe, range(3, 7))
    by_id = {f"{sample['doc_id']:06d}": sample for sample in theirs("commonsense_qa", lm, folder)}
    assert [row["example_id"] for row in rows] == [f"{i:06d}" for i in range(3, 7)]
    for row in rows:
        mine = by_id[row["example_id"]]
        assert row["label_nlls"] == pytest.approx([-float(r[0][0]) for r in mine["resps"]], abs=1e-5)
        assert row["value"] == mine["acc"] and row["correct"] == (mine["acc"] == 1)


def test_a_task_that_there_is_not(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no single task 'mmlu_anatomi'; near it: .*mmlu_anatomy"):
        harness_recipe("mmlu_anatomi", include=str(folder), shots=None)
