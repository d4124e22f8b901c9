"""First experiment files, and what can be told before anything heavy is read."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.draft import QUESTIONS, Asked, draft
from flows.experiment_file import load_experiment
from flows.spec_values import SpecError
from tests.flows.support import plan_of, write

FACTS = "prompt,subject,target_new\n" + "".join(f"Person {i} is a,Person {i},baker\n" for i in range(30))


def asked(folder: Path, **changes: Any) -> Asked:
    (folder / "facts.csv").write_text(FACTS)
    given = {
        "model": "factworld-tiny",
        "facts": str(folder / "facts.csv"),
        "editors": ("memit", "rome"),
        "question": "edit",
    }
    return Asked(**{**given, "store": str(folder / "store"), **changes})


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_draft_of_every_question_can_be_planned(tmp_path: Path, question: str) -> None:
    text = draft(asked(tmp_path, question=question))
    (tmp_path / "e.yaml").write_text(text)
    planned = plan_of(load_experiment(tmp_path / "e.yaml"))
    runs = [run for run in planned.runs if run.editor == "memit"]
    expected = {"edit": 1, "batch-size": 2, "layer": 6, "editors": 1, "collapse": 1}
    assert len(runs) == expected[question] and all(run.facts.size == 30 for run in runs)
    assert "steps: 20" in text and "sampled by the model" in text, "this model's numbers, and where texts come from"


def test_rows_of_a_model_that_is_not_here(tmp_path: Path) -> None:
    text = draft(asked(tmp_path, model="meta-llama/Meta-Llama-3-8B", revision="abc", question="batch-size"))
    found = yaml.safe_load(text)
    assert found["model"] == {"name": "meta-llama/Meta-Llama-3-8B", "revision": "abc"}
    assert found["editors"][0] == {"name": "memit", "layers": [[4, 5, 6, 7, 8]]} and found["batch_sizes"] == [1, 10]
    assert found["editors"][1] == {"name": "rome", "layers": [5], "batch_sizes": [1]}
    with pytest.raises(SpecError, match="no source names layers of it"):
        draft(asked(tmp_path, model="someone/unknown"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"editors": ("memmit",)}, "did you mean 'memit'"), ({"question": "batchsize"}, "did you mean 'batch-size'")],
)
def test_what_cannot_be_drafted(tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        draft(asked(tmp_path, **changes))


def test_new_writes_checks_and_says_the_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "facts.csv").write_text(FACTS)
    monkeypatch.chdir(tmp_path)
    command = [
        "new",
        "sub/e.yaml",
        "--model",
        "factworld-tiny",
        "--facts",
        "facts.csv",
        "--editors",
        "ft",
        "--question",
        "edit",
    ]
    Path("sub").mkdir()
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "wrote sub/e.yaml" in done.output and "one worker" in done.output, done.output
    assert "facts: ../facts.csv" in Path("sub/e.yaml").read_text() and not Path("results").exists()
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, SpecError) and "is there already" in str(again.exception)


def test_an_experiment_of_the_package_is_known_by_its_name() -> None:
    assert load_experiment("demo").name == "demo"
    with pytest.raises(SpecError, match=r"did you mean 'demo'\?\); expected a YAML file, or one of \['demo'"):
        load_experiment("demos")


def test_what_a_file_would_say_may_be_a_dict(tmp_path: Path) -> None:
    given = yaml.safe_load(write(tmp_path).read_text())
    found = load_experiment(given, {"facts.size": 6})
    assert (found.facts.size, found.file) == (6, "(given)") and load_experiment(found).facts.size == 6
    with pytest.raises(SpecError, match="batch_sise: unknown key"):
        load_experiment(given | {"batch_sise": [1]})


def test_editors_without_layers_are_told_of_their_sources(tmp_path: Path) -> None:
    given = yaml.safe_load(write(tmp_path).read_text())
    del given["layers"]
    with pytest.raises(
        SpecError, match=r"editors.0: no layers; .*as layers: \[\[0, 1, 2\]\] \(those of factworld-tiny"
    ):
        load_experiment(given)


def test_the_size_is_all_that_there_is(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text(FACTS + "Person 3 likes,Person 3,tea\n")
    given = yaml.safe_load(write(tmp_path, facts="facts.csv").read_text())
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(given))
    plan = plan_of(load_experiment(tmp_path / "e.yaml"))
    assert {run.facts.size for run in plan.runs} == {30}, "no subject twice"
    assert "facts: all 30 that there are (facts.size takes fewer)" in plan.notes
    plan = plan_of(load_experiment(tmp_path / "e.yaml", {"facts.samples": 3, "facts.disjoint": True}))
    assert {run.facts.size for run in plan.runs} == {10}


def test_a_part_of_the_facts_has_no_true_answer(tmp_path: Path) -> None:
    rows = (
        FACTS.replace("target_new\n", "target_new,target_true\n")
        .replace(",baker\n", ",baker,\n", 29)
        .replace(",baker\n", ",baker,nurse\n")
    )
    (tmp_path / "facts.csv").write_text(rows)
    plan = plan_of(load_experiment(write(tmp_path, facts="facts.csv")))
    assert any("29 of 30 have no target_true" in warning for warning in plan.warnings)
    (tmp_path / "facts.csv").write_text(FACTS)
    plan = plan_of(load_experiment(write(tmp_path, facts="facts.csv")))
    assert not any("target_true" in warning for warning in plan.warnings)
    assert any("none has target_true" in note for note in plan.notes)


def test_sizes_that_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text(FACTS)
    few = write(tmp_path, facts={"path": "facts.csv", "samples": 31, "disjoint": True})
    with pytest.raises(SpecError, match="there are 30 facts for 31 disjoint samples, so that none is left for one"):
        plan_of(load_experiment(few))
    trained = write(tmp_path, facts="facts.csv", editors=["malmen"], batch_sizes=[2])
    with pytest.raises(SpecError, match=r"there are 30 facts .* and 1000 are kept for training"):
        plan_of(load_experiment(trained))


def test_a_perplexity_without_texts(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text(FACTS)
    with pytest.raises(SpecError, match=r"score.perplexity: the facts have no neighborhood_prompts"):
        plan_of(load_experiment(write(tmp_path, facts="facts.csv", score={"perplexity": {}})))
