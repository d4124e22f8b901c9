"""The forgetting paper's benchmarks against its official few-shot code: prompts, texts, classes and F1 of golden cases."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from editing.measure.downstream import Question, score_choices
from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tasks.benchmarks.answering import answer_row, ask, grade
from tasks.benchmarks.definition import Definition, read_definition
from tasks.benchmarks.questions import Wanted, make_questions
from tasks.data.expressions import render
from tests.parity.conftest import Golden, golden_folder
from tests.storage.test_views import RUN, run_row

DEFINITIONS = {"sst": "sst2_paper", "mrpc": "mrpc_paper", "cola": "cola_paper", "rte": "rte_paper", "nli": "nli_paper"}


def published(task: str, examples: list[Mapping[str, Any]], folder: Path) -> None:
    """Write examples as the benchmark's files are published."""
    lines: list[str] = []
    for row in examples:
        if task == "sst":
            lines.append(f"{row['sentence']}\t{row['label']}")
        elif task == "cola":
            lines.append(f"gj04\t{row['label']}\t\t{row['sentence']}")
        elif task == "mrpc":
            lines.append(f"{row['label']}\t1\t2\t{row['sentence1']}\t{row['sentence2']}")
        else:
            label = row["label"] if task == "nli" else ["entailment", "not_entailment"][row["label"]]
            lines.append(json.dumps({"premise": row["sentence1"], "hypothesis": row["sentence2"], "label": label}))
    header = {"sst": ["sentence\tlabel"], "mrpc": ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]}.get(task, [])
    name = {"sst": "dev.tsv", "mrpc": "msr_paraphrase_test.txt", "cola": "in_domain_dev.tsv"}.get(task, "dev.jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    if task == "cola":  # published as two files
        (folder / "out_of_domain_dev.tsv").write_text("".join(f"{line}\n" for line in lines[-1:]))
        lines = lines[:-1]
    (folder / name).write_text("".join(f"{line}\n" for line in [*header, *lines]))


def as_published(definition: Definition) -> Definition:
    """The golden cases take examples as they stand."""
    return definition.model_copy(
        update={"order": definition.order.model_copy(update={"seed": None, "balanced": False})}
    )


@pytest.mark.parametrize("case", ["glue_eval", "glue_eval_0shot"])
@pytest.mark.parametrize("task", DEFINITIONS)
def test_few_shot_code(
    task: str, case: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = Golden(golden_folder(request.config) / "glue")
    found, arrays = golden.settings(case)["tasks"][task], golden.arrays(case)
    definition = as_published(read_definition(DEFINITIONS[task]))
    monkeypatch.setattr("tasks.benchmarks.questions.read_definition", lambda _name: definition)
    published(task, found["examples"], tmp_path / "data")
    # The official code takes as many shots as fit; the same ones here as a paper's fixed shots.
    (count,) = set(found["few_shots_used"])
    published(task, found["few_shot_pool"][:count], tmp_path / "shots")
    wanted = Wanted(name=task, path=str(tmp_path / "shots"), shots=0, shots_from="train")
    given = make_questions(wanted).asked if count else ()
    shots = "".join(_shot(definition, shot) for shot in given)
    (tmp_path / "shots.txt").write_text(shots)
    questions = make_questions(Wanted(name=task, path=str(tmp_path / "data"), shots_file=str(tmp_path / "shots.txt")))
    assert [question.prompt for question in questions.asked[:2]] == found["prompt_text"]

    lm, rule = golden.load(), definition.answer.model_copy(update={"tokens": golden.settings(case)["gen_len"]})
    answers = ask(lm, questions.asked, rule)
    assert [answer.text for answer in answers] == found["generated_text"]
    rows = [
        answer_row(question, answer, grade(question, answer, rule), rule)
        for question, answer in zip(questions.asked, answers, strict=True)
    ]
    first, second = found["label_words"]
    classes = [{first: 1, second: 0}.get(row["predicted"], -1) for row in rows]
    assert classes == arrays[f"{task}.answer_generated"].tolist()

    common = {"benchmark": task, "questions_run_id": "q", "scored_at": -1, "edits_so_far": 0, "n_shots": 0}
    store = Store(tmp_path / "store", create=True)
    tables = {"runs": [run_row()], "benchmark_answers": [row | common for row in rows]}
    store.commit(RUN, "b", tables, CommitInfo(kind="benchmark"))
    (metrics,) = query(store.location, "SELECT * FROM benchmark_curve").to_pylist()
    assert metrics["f1_weighted"] == pytest.approx(found["result"]["f1"], abs=1e-12)
    assert metrics["mcc"] == pytest.approx(found["result"]["mcc"], abs=1e-12)
    assert metrics["invalid"] * len(rows) == pytest.approx(found["result"]["invalid"])

    choices = [Question(q.example_id, q.prompt, (first, second), q.gold) for q in questions.asked]
    scored = [[-score.nll_mean for score in answer.choices] for answer in score_choices(lm, choices)]
    assert torch.allclose(
        torch.tensor(scored, dtype=torch.float64), arrays[f"{task}.label_logprob"].double(), atol=1e-10, rtol=0
    )


def _shot(definition: Definition, shot: Question) -> str:
    """Return one answered example, as the definition writes it in front of a question."""
    # The definition's own template needs the example's fields; its prompt and answer are what a shot is made of.
    if definition.name == "sst2_paper":  # one space more than in the question
        return f"{shot.prompt.replace('Review :', 'Review : ', 1)} {shot.gold[0]}{definition.shots.separator}"
    values = {"prompt": shot.prompt, "gold": shot.gold[0]}
    return render(definition.shot, values) + definition.shots.separator
